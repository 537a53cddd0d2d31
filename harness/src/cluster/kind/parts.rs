//! What real clusters need of this machine: looked at, never changed.

use std::process::Command;
use std::time::Duration;

use relapse_kernel::host::is_root;

use super::docker::{docker, kind_program, node_image, within};

/// What a question to a program that is installed may take.
const SOON: Duration = Duration::from_secs(10);

/// Each part by name, and what was seen of it, or why it is missing and what to do about that.
#[must_use]
pub fn parts() -> Vec<(&'static str, Result<String, String>)> {
    let engine = engine();
    let answers = engine.is_ok();
    let mut parts = vec![("Docker engine", engine), ("kind", kind())];
    if answers {
        parts.push(("node image", image(None)));
    }
    parts.push(("root", root()));
    parts
}

/// The first part that is missing: nothing can run without it.
#[must_use]
pub fn unable(image_asked: Option<&str>) -> Option<String> {
    let asked = image_asked.map(str::to_owned);
    let checks: [&dyn Fn() -> Result<String, String>; 4] = [&engine, &kind, &|| image(asked.as_deref()), &root];
    checks.iter().find_map(|check| check().err()).map(|why| why.replace('\n', " "))
}

fn engine() -> Result<String, String> {
    let version = docker(&["version", "--format", "{{.Server.Version}}"]).map_err(|why| {
        let why = why.rsplit("failed: ").next().unwrap_or_default().to_owned();
        format!("Docker does not answer ({why})\ninstall it and start its engine, then: make kind")
    })?;
    Ok(format!("Docker {version}"))
}

fn kind() -> Result<String, String> {
    let program = kind_program().ok_or("kind is not installed\nmake kind")?;
    let said = within(Command::new(&program).arg("version"), SOON, &|| false)?;
    Ok(format!("{} ({})", said.split(' ').take(2).collect::<Vec<_>>().join(" "), program.display()))
}

/// Without one noted down, kind pulls its own default.
fn image(asked: Option<&str>) -> Result<String, String> {
    let Some(image) = node_image(asked) else {
        return Err("no node image is noted down\nmake kind".into());
    };
    match docker(&["image", "inspect", "--format", "{{.Id}}", &image]) {
        Ok(_) => Ok(image),
        Err(_) => Err(format!("the node image {image} is not on this machine\nmake kind")),
    }
}

fn root() -> Result<String, String> {
    if is_root() {
        return Ok("may enter the namespaces of containers".into());
    }
    Err("faults are made inside the namespaces of kind's containers, which only root may enter\nrun it as root".into())
}
