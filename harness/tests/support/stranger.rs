//! A kind cluster of another owner on this machine, created as that owner would.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use relapse_kind::NODE_WRITES;
use relapse_kind::noted;
use tempfile::TempDir;

use super::real_run::{docker, printed, until};

/// The cluster, and its state after creation.
pub struct Stranger {
    name: String,
    folder: TempDir,
    /// Containers with their start times, its network, its owner's kubeconfig.
    before: Vec<String>,
    had_network: bool,
    /// Settings that its node writes on this machine, with their previous values, to be restored here.
    settings: Vec<(PathBuf, String)>,
}

impl Stranger {
    /// Creates a single node on kind's default network, without a pod network: images of `make kind` contain none of
    /// kind's own, and its API server needs none.
    pub fn new() -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let had_network = networks()?.iter().any(|network| network == "kind");
        let name = format!("someone-elses-{}", std::process::id());
        let settings = NODE_WRITES.map(|(key, _)| Path::new("/proc/sys").join(key.replace('.', "/")));
        let settings =
            settings.into_iter().filter_map(|file| Some((file.clone(), std::fs::read_to_string(file).ok()?)));
        let settings = settings.collect();
        let mut made = Self { name, folder, before: Vec::new(), had_network, settings };
        let config = made.folder.path().join("config.yaml");
        let text = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnetworking: { disableDefaultCNI: true }\n";
        std::fs::write(&config, text).map_err(|e| e.to_string())?;
        let mut command = Command::new(noted("kind").map_or_else(|| "kind".into(), PathBuf::from));
        command.args(["create", "cluster", "--name", &made.name, "--kubeconfig"]).arg(made.kubeconfig());
        command.arg("--config").arg(config);
        if let Some(image) = std::env::var("RELAPSE_KIND_IMAGE").ok().or_else(|| noted("image")) {
            command.args(["--image", &image]);
        }
        let output = command.output().map_err(|e| format!("kind: {e}"))?;
        if !output.status.success() {
            return Err(format!("the other cluster could not be made: {}", printed(&output)));
        }
        made.before = made.look()?;
        Ok(made)
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Asserts that the cluster is unchanged and its API server answers.
    pub fn is_untouched(&self) -> Result<(), String> {
        let now = self.look()?;
        if now != self.before {
            return Err(format!("the other cluster was {:#?}, is {now:#?}", self.before));
        }
        let node = format!("{}-control-plane", self.name);
        let ask = ["exec", &node, "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "get", "--raw", "/readyz"];
        // It is slow on a busy machine.
        until("the other cluster's API server answers", Duration::from_secs(30), || {
            Ok(docker(&ask).ok().filter(|answer| answer == "ok"))
        })
        .map(drop)
    }

    fn look(&self) -> Result<Vec<String>, String> {
        let filter = format!("label=io.x-k8s.kind.cluster={}", self.name);
        let containers = docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter])?;
        let mut seen = Vec::new();
        for id in containers.lines() {
            let format = "{{.Id}} {{.State.Status}} {{.State.StartedAt}} {{json .NetworkSettings.Networks}}";
            seen.push(docker(&["inspect", "--format", format, id])?);
        }
        if seen.is_empty() {
            return Err("the other cluster is gone".into());
        }
        seen.push(std::fs::read_to_string(self.kubeconfig()).map_err(|e| format!("its kubeconfig: {e}"))?);
        Ok(seen)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let filter = format!("label=io.x-k8s.kind.cluster={}", self.name);
        for container in docker(&["ps", "--all", "--quiet", "--filter", &filter]).unwrap_or_default().lines() {
            let _ = docker(&["rm", "--force", "--volumes", container]);
        }
        if !self.had_network {
            let _ = docker(&["network", "rm", "kind"]);
        }
        for (file, value) in &self.settings {
            let _ = std::fs::write(file, value);
        }
    }
}

fn networks() -> Result<Vec<String>, String> {
    Ok(docker(&["network", "ls", "--format", "{{.Name}}"])?.lines().map(str::to_owned).collect())
}
