//! The exporters' programs.

use std::path::{Path, PathBuf};

use relapse_series::tools;

#[derive(Debug, Clone)]
pub struct Programs {
    pub node_exporter: PathBuf,
    pub blackbox_exporter: PathBuf,
    mysqld_exporter: Option<PathBuf>,
}

impl Programs {
    /// Finds them by Debian's names, or by their own.
    ///
    /// # Errors
    /// The programs that are missing of those that every recording needs, and how to get them.
    pub fn find() -> Result<Self, String> {
        let node_exporter = tools::find(&["prometheus-node-exporter", "node_exporter"]);
        let blackbox_exporter = tools::find(&["prometheus-blackbox-exporter", "blackbox_exporter"]);
        let mysqld_exporter = tools::find(&["prometheus-mysqld-exporter", "mysqld_exporter"]);
        let missing = match (node_exporter, blackbox_exporter) {
            (Some(node_exporter), Some(blackbox_exporter)) => {
                return Ok(Self { node_exporter, blackbox_exporter, mysqld_exporter });
            }
            (None, Some(_)) => "node_exporter",
            (Some(_), None) => "blackbox_exporter",
            (None, None) => "node_exporter and blackbox_exporter",
        };
        Err(not_found(missing))
    }

    /// Needed beside a real database.
    ///
    /// # Errors
    /// If it was not found, with how to get it.
    pub fn mysqld_exporter(&self) -> Result<&Path, String> {
        self.mysqld_exporter.as_deref().ok_or_else(|| not_found("mysqld_exporter"))
    }
}

fn not_found(missing: &str) -> String {
    format!("{missing} not found: run scripts/prometheus.sh, or install them")
}
