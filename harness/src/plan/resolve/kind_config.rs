//! Finds and reads a scenario's kind configuration and compares it with the scenario, so that its errors are reported
//! with all others and not after half a minute of creating a cluster.

use std::path::{Component, Path, PathBuf};

use relapse_model::diagnostics::{did_you_mean, quoted};
use relapse_model::kind_config::Config;
use relapse_model::spanned::Spanned;
use relapse_model::yaml::is_file;

use super::Planner;

impl Planner<'_> {
    /// Finds the file, next to the scenario or in `kind-configs`.
    pub(super) fn kind_config(&mut self, name: &Spanned<String>) -> Option<PathBuf> {
        let path = Path::new(&name.value);
        if name.is_empty() || !path.components().all(|c| matches!(c, Component::Normal(_))) {
            self.error(
                name.span,
                format!("{} is not a file in `kind-configs`", quoted(name)),
                "write its name, such as `two-workers.yaml`",
            );
            return None;
        }
        let folder = self.source.file.parent().unwrap_or(Path::new("."));
        let shared = [folder.join("kind-configs"), folder.join("../kind-configs")];
        let mut places = std::iter::once(folder).chain(shared.iter().map(PathBuf::as_path));
        let Some(file) = places.find_map(|place| Some(place.join(path)).filter(|file| is_file(file))) else {
            let existing = yaml_files(&shared);
            let help = did_you_mean(name, "kind configurations", existing.iter().map(String::as_str));
            self.error(name.span, format!("there is no kind configuration {}", quoted(name)), help);
            return None;
        };
        match Config::read(&file) {
            Ok(config) => self.compare(&config, name),
            Err(why) => self.error(name.span, format!("kind configuration {why}"), ""),
        }
        Some(file)
    }

    /// Reports differences between the configuration and the scenario's cluster.
    fn compare(&mut self, config: &Config, name: &Spanned<String>) {
        let (have, wanted) = (config.nodes, self.cluster.nodes.len());
        if have < wanted {
            let message =
                format!("kind configuration {} has {have} nodes, but the scenario needs {wanted}", quoted(name));
            self.error(name.span, message, format!("write {wanted} entries under its `nodes`, or name another"));
        }
        let network = &self.cluster.network;
        for (of, scenario, key, kind) in [
            ("podPrefix", network.pod_prefix, "podSubnet", config.pod_prefix),
            ("servicePrefix", network.service_prefix, "serviceSubnet", config.service_prefix),
        ] {
            if scenario != kind {
                let name_of = quoted(name);
                let message = format!("the scenario's {of} is {scenario}, but the {key} of {name_of} is {kind}");
                self.error(name.span, message, format!("write `{key}: {scenario}` under its `networking`"));
            }
        }
    }
}

fn yaml_files(folders: &[PathBuf]) -> Vec<String> {
    let entries = folders.iter().flat_map(std::fs::read_dir).flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".yaml") || name.ends_with(".yml")).collect();
    names.sort();
    names
}
