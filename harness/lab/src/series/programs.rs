//! The exporters' programs.

use std::path::PathBuf;

use relapse_series::tools;

#[derive(Debug, Clone)]
pub struct Programs {
    pub node_exporter: PathBuf,
    pub blackbox_exporter: PathBuf,
}

impl Programs {
    /// Finds them by Debian's names, or by their own.
    ///
    /// # Errors
    /// The programs that are missing, and how to get them.
    pub fn find() -> Result<Self, String> {
        let node_exporter = tools::find(&["prometheus-node-exporter", "node_exporter"]);
        let blackbox_exporter = tools::find(&["prometheus-blackbox-exporter", "blackbox_exporter"]);
        let missing = match (node_exporter, blackbox_exporter) {
            (Some(node_exporter), Some(blackbox_exporter)) => return Ok(Self { node_exporter, blackbox_exporter }),
            (None, Some(_)) => "node_exporter",
            (Some(_), None) => "blackbox_exporter",
            (None, None) => "node_exporter and blackbox_exporter",
        };
        Err(format!("{missing} not found: run scripts/prometheus.sh, or install them"))
    }
}
