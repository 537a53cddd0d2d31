//! What real clusters need of this machine: looked at, never changed.

use std::process::Command;
use std::time::Duration;

use relapse_kernel::host::is_root;

use super::docker::{docker, kind_program, node_image, noted, on_path, within};

/// What a question to a program that is installed may take.
const SOON: Duration = Duration::from_secs(10);

/// Each part by name, and what was seen of it, or why it is missing and, in a second line, what to do about that.
#[must_use]
pub fn parts() -> Vec<(&'static str, Result<String, String>)> {
    let engine = engine();
    let answers = engine.is_ok();
    let mut parts = vec![("Docker engine", engine), ("kind", kind())];
    if answers {
        parts.push(("node image", image(None)));
        parts.push(("nginx image", nginx()));
    }
    parts.push(("root", root()));
    parts
}

/// The first part that is missing without which nothing can run.
#[must_use]
pub fn unable(image_asked: Option<&str>) -> Option<String> {
    let asked = image_asked.map(str::to_owned);
    let checks: [&dyn Fn() -> Result<String, String>; 4] = [&engine, &kind, &|| image(asked.as_deref()), &root];
    checks.iter().find_map(|check| check().err()).map(|why| why.replace('\n', ": "))
}

fn engine() -> Result<String, String> {
    if on_path("docker").is_none() {
        let where_from = "https://docs.docker.com/engine/install, or docker.io on Debian and Ubuntu";
        return Err(format!("Docker is not installed\n{where_from}; then run `make kind`"));
    }
    let version = docker(&["version", "--format", "{{.Server.Version}}"]).map_err(|why| {
        let why = why.rsplit("failed: ").next().unwrap_or_default().to_owned();
        if why.contains("permission denied") {
            return format!("this user cannot use Docker ({why})\nrun relapse as root");
        }
        format!("Docker does not answer ({why})\nstart its engine (sudo systemctl start docker), then run `make kind`")
    })?;
    Ok(format!("Docker {version}"))
}

fn kind() -> Result<String, String> {
    let program = kind_program().ok_or("kind is not installed\nrun `make kind`")?;
    let said = within(Command::new(&program).arg("version"), SOON, &|| false)?;
    Ok(format!("{} ({})", said.split(' ').take(2).collect::<Vec<_>>().join(" "), program.display()))
}

/// The one that is asked for, else the one that `make kind` chose.
fn image(asked: Option<&str>) -> Result<String, String> {
    let Some(image) = node_image(asked) else {
        return Err("no node image yet\nrun `make kind`".into());
    };
    if is_here(&image) {
        return Ok(image);
    }
    let mend = asked.map_or_else(|| "run `make kind`".into(), |asked| format!("run `docker pull {asked}`"));
    Err(format!("the node image {image} is not on this machine\n{mend}"))
}

/// For the ingress of I1 and the API of I3; nothing else wants it.
fn nginx() -> Result<String, String> {
    noted("nginx-image")
        .filter(|image| is_here(image))
        .ok_or("no nginx image: I1's ingress and I3's API cannot run on kind\nrun `make kind`".into())
}

fn is_here(image: &str) -> bool {
    docker(&["image", "inspect", "--format", "{{.Id}}", image]).is_ok()
}

fn root() -> Result<String, String> {
    if is_root() {
        return Ok("can enter the namespaces of containers".into());
    }
    Err("faults are injected in the namespaces of kind's containers, which only root can enter\nrun relapse as root"
        .into())
}
