//! The lab as a backend: nothing outlasts a trial.

use std::time::Duration;

use relapse_kernel::process::LabProcess;

use crate::cluster::backend::{Backend, Ground, Lease, Places, Wanted};

/// Namespaces of a lab that has ended are gone by then, or the trial is dirty. Alone it takes a tenth of
/// a second; but the kernel clears them away one after the other, for the whole machine, and one with a
/// full connection table takes seconds.
pub const GONE_WITHIN: Duration = Duration::from_secs(30);

/// The backend of labs.
#[derive(Debug, Clone, Copy)]
pub struct Labs;

impl Backend for Labs {
    fn name(&self) -> &'static str {
        "netns"
    }

    fn unable(&self) -> Option<String> {
        None
    }

    fn is_real_cluster(&self) -> bool {
        false
    }

    fn places(&self) -> Option<&Places> {
        None
    }

    fn lease<'a>(
        &'a self,
        _: &Wanted,
        _: &dyn Fn(String),
        _: &dyn Fn() -> bool,
    ) -> Result<Box<dyn Lease + 'a>, String> {
        Ok(Box::new(Self))
    }

    fn close(&self) -> Vec<String> {
        Vec::new()
    }
}

impl Lease for Labs {
    fn ground(&self) -> Ground {
        Ground::Netns
    }

    fn prove_gone(&mut self, lab: &LabProcess) -> Result<(), String> {
        lab.proof_of_release(GONE_WITHIN).map(drop).map_err(|e| format!("namespaces of the lab: {e}"))
    }

    fn spoil(&mut self) {}
}
