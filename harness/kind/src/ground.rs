//! The ground of a trial: a kept cluster, as described to the trial's process.

use serde::{Deserialize, Serialize};

use super::created::Created;
use super::servers::Served;

/// The backend's name in trials and in `--backend`.
pub const BACKEND: &str = "kind";

/// The cluster that a trial's process works on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ground {
    pub run_id: String,
    pub cluster: Created,
    /// The nginx image loaded into every node, if the trial needs an ingress.
    pub nginx: Option<String>,
    /// Hosts outside that run a third party's server.
    pub servers: Vec<Served>,
}

impl Ground {
    /// The server that runs on this host outside, if any.
    pub fn server_on(&self, host: &str) -> Option<&Served> {
        self.servers.iter().find(|served| served.host == host)
    }
}
