//! Where the exporters are: in `PATH`, or where `scripts/prometheus.sh` unpacks Debian's packages.

use std::ffi::OsStr;
use std::path::PathBuf;

/// The exporters' programs.
#[derive(Debug, Clone)]
pub struct Programs {
    pub node_exporter: PathBuf,
    pub blackbox_exporter: PathBuf,
}

impl Programs {
    /// # Errors
    /// The programs that are missing, and how to get them.
    pub fn find() -> Result<Self, String> {
        let found = ["prometheus-node-exporter", "prometheus-blackbox-exporter"].map(|name| (name, find(name)));
        let missing: Vec<&str> = found.iter().filter(|(_, path)| path.is_none()).map(|(name, _)| *name).collect();
        match found {
            [(_, Some(node_exporter)), (_, Some(blackbox_exporter))] => Ok(Self { node_exporter, blackbox_exporter }),
            _ => Err(format!("{} not found: run scripts/prometheus.sh, or install them", missing.join(" and "))),
        }
    }
}

/// A program by Debian's name for it, in `PATH` also by the name it has elsewhere (`node_exporter`).
fn find(name: &str) -> Option<PathBuf> {
    let upstream = name.trim_start_matches("prometheus-").replace('-', "_");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).flat_map(|folder| [folder.join(name), folder.join(&upstream)]);
    folders
        .chain(cache().map(|cache| cache.join("relapse/tools/prometheus/usr/bin").join(name)))
        .find(|file| file.is_file())
}

fn cache() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| value.as_os_str() != OsStr::new("")).map(PathBuf::from);
    set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))
}
