//! Real clusters for the whole of a test program: trials of several runs stand on them, one after the other.

use std::path::Path;
use std::sync::Arc;

use relapse_kind::Kind;
use relapse_lab::cluster::backend::{Backend, Lease, Places, Wanted};

/// At a time, at most.
const CLUSTERS: usize = 2;

/// A backend that outlasts runs. Whoever makes one ends it.
pub struct Kept(Kind);

impl Kept {
    /// Nothing is made before a trial wants it.
    pub fn new() -> Arc<Self> {
        let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kind");
        Arc::new(Self(Kind::new(&format!("test-{}", std::process::id()), None, &logs, CLUSTERS)))
    }

    /// Removes the clusters there are; says what could not be removed.
    pub fn end(&self) -> Vec<String> {
        self.0.close()
    }
}

impl Backend for Kept {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn unable(&self) -> Option<String> {
        self.0.unable()
    }

    fn is_real_cluster(&self) -> bool {
        self.0.is_real_cluster()
    }

    fn places(&self) -> Option<&Places> {
        self.0.places()
    }

    fn lease<'a>(
        &'a self,
        wanted: &Wanted,
        tell: &dyn Fn(String),
        stop: &dyn Fn() -> bool,
    ) -> Result<Box<dyn Lease + 'a>, String> {
        self.0.lease(wanted, tell, stop)
    }

    /// A run ends, and its cluster stays.
    fn close(&self) -> Vec<String> {
        Vec::new()
    }
}
