//! Checks what real clusters need on this machine. Changes nothing.

use std::process::Command;
use std::time::Duration;

use relapse_kernel::host::is_root;

use super::docker::{docker, kind_program, node_image, noted, on_path, within};

/// Time limit of a call to an installed program.
const SOON: Duration = Duration::from_secs(10);

/// Each part by name, with what was found, or why it is missing and, on a second line, how to fix it.
#[must_use]
pub fn parts() -> Vec<(&'static str, Result<String, String>)> {
    let engine = engine();
    let answers = engine.is_ok();
    let mut parts = vec![("Docker engine", engine), ("kind", kind())];
    if answers {
        parts.push(("node image", image(None)));
        parts.push(("nginx image", server("nginx-image", "no nginx image: I1's ingress and I3's API")));
        parts.push(("MariaDB image", server("mariadb-image", "no MariaDB image: databases of I5 and of the chains")));
    }
    parts.push(("root", root()));
    parts
}

/// The first missing part that is required.
#[must_use]
pub fn unable(requested_image: Option<&str>) -> Option<String> {
    let requested = requested_image.map(str::to_owned);
    let checks: [&dyn Fn() -> Result<String, String>; 4] = [&engine, &kind, &|| image(requested.as_deref()), &root];
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
    let output = within(Command::new(&program).arg("version"), SOON, &|| false)?;
    Ok(format!("{} ({})", output.split(' ').take(2).collect::<Vec<_>>().join(" "), program.display()))
}

/// The requested node image, otherwise the one chosen by `make kind`.
fn image(requested: Option<&str>) -> Result<String, String> {
    let Some(image) = node_image(requested) else {
        return Err("no node image yet\nrun `make kind`".into());
    };
    if is_here(&image) {
        return Ok(image);
    }
    let fix = requested.map_or_else(|| "run `make kind`".into(), |image| format!("run `docker pull {image}`"));
    Err(format!("the node image {image} is not on this machine\n{fix}"))
}

/// Needed only by scenarios with such a server.
fn server(noted_as: &str, missing: &str) -> Result<String, String> {
    let image = noted(noted_as).filter(|image| is_here(image));
    image.ok_or_else(|| format!("{missing} cannot run on kind\nrun `make kind`"))
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
