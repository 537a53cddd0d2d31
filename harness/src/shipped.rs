//! Scenarios and kind configurations embedded in the program, so that it works in an empty folder.
//!
//! They have paths below [`ROOT`] and are read by the same code as files on disk.

use std::path::{Component, Path, PathBuf};

use include_dir::{Dir, include_dir};

/// The virtual folder of the embedded files. It does not exist on disk.
const ROOT: &str = "(shipped)";

static SCENARIOS: Dir = include_dir!("$CARGO_MANIFEST_DIR/../scenarios");
static KIND_CONFIGS: Dir = include_dir!("$CARGO_MANIFEST_DIR/../kind-configs");

/// Registers the embedded files. Must be called before any file is read.
pub fn register() {
    relapse_model::yaml::carry(text);
}

/// Paths of the embedded scenarios.
#[must_use]
pub fn scenarios() -> Vec<PathBuf> {
    let folder = Path::new(ROOT).join("scenarios");
    let yaml = SCENARIOS.files().filter(|file| file.path().extension().is_some_and(|ending| ending == "yaml"));
    yaml.map(|file| folder.join(file.path())).collect()
}

/// The embedded scenario with this file name, without `.yaml`.
#[must_use]
pub fn scenario(name: &str) -> Option<PathBuf> {
    scenarios().into_iter().find(|path| path.file_stem().is_some_and(|stem| stem == name))
}

fn text(path: &Path) -> Option<&'static str> {
    let path = path.strip_prefix(ROOT).ok()?;
    let mut parts: Vec<&str> = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    let (folder, rest) = parts.split_first()?;
    let folder = match *folder {
        "scenarios" => &SCENARIOS,
        "kind-configs" => &KIND_CONFIGS,
        _ => return None,
    };
    folder.get_file(rest.join("/"))?.contents_utf8()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_carried_file_is_found_by_its_path_and_nothing_else_is() {
        let file = scenario("policy-route-lost").expect("it is shipped");
        assert!(text(&file).is_some_and(|text| text.contains("kind: Scenario")));
        assert!(text(&file.with_file_name("../kind-configs/two-workers.yaml")).is_some());
        let facts = file.with_file_name("operators/tickets.yaml");
        assert!(text(&facts).is_some_and(|text| text.contains("kind: Operator")));
        assert!(!scenarios().contains(&facts));
        for other in ["scenarios/policy-route-lost.yaml", "(shipped)/scenarios/none.yaml", "(shipped)/../Cargo.toml"] {
            assert_eq!(text(Path::new(other)), None, "{other}");
        }
    }
}
