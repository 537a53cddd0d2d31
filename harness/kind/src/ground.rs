//! The ground of a trial: a cluster that is kept, as the trial's process hears of it.

use serde::{Deserialize, Serialize};

use super::created::Created;
use super::servers::Served;

/// As trials and `--backend` call the backend.
pub const BACKEND: &str = "kind";

/// What a trial's process is told of the cluster it works on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ground {
    pub run_id: String,
    pub scenario: String,
    pub cluster: Created,
    /// The image of a real nginx, loaded into every node, where an ingress is wanted and there is one.
    pub nginx: Option<String>,
    /// Hosts outside on which a third party's server runs.
    pub servers: Vec<Served>,
}

impl Ground {
    /// The server that runs on this host outside, where one does.
    pub fn server_on(&self, host: &str) -> Option<&Served> {
        self.servers.iter().find(|served| served.host == host)
    }
}
