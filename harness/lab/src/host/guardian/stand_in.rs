//! One setting and one other namespace, in memory, for tests.

use std::path::Path;
use std::sync::{Arc, Mutex};

use super::super::settings::{Namespace, Settings};
use super::super::{Error, Result, Site};

#[derive(Debug)]
pub struct StandIn(Mutex<State>);

#[derive(Debug)]
struct State {
    value: String,
    ignore_writes: bool,
    /// `None`: counting fails.
    entries: Option<u64>,
}

pub const NEIGHBOUR: u64 = 4242;

/// A site with this setting and all files below a folder.
pub fn site(settings: &Arc<StandIn>, dir: &Path) -> Site {
    Site {
        settings: Arc::clone(settings) as _,
        locks: vec![dir.join("lock")],
        journals: dir.join("journal"),
        removers: Vec::new(),
    }
}

impl StandIn {
    pub fn with(value: &str) -> Self {
        Self(Mutex::new(State { value: value.into(), ignore_writes: false, entries: Some(0) }))
    }

    pub fn ignore_writes(&self, ignore: bool) {
        self.0.lock().unwrap().ignore_writes = ignore;
    }

    pub fn set_entries(&self, entries: Option<u64>) {
        self.0.lock().unwrap().entries = entries;
    }
}

impl Settings for StandIn {
    fn read(&self, _key: &str) -> Result<String> {
        Ok(self.0.lock().unwrap().value.clone())
    }

    fn write(&self, _key: &str, value: &str) -> Result<()> {
        let mut state = self.0.lock().unwrap();
        if !state.ignore_writes {
            state.value = value.into();
        }
        Ok(())
    }

    fn namespaces(&self) -> Result<Vec<Namespace>> {
        Ok(vec![Namespace { inode: NEIGHBOUR, path: "/".into(), who: "process 7 nginx".into() }])
    }

    fn entries(&self, _namespace: &Namespace) -> Result<Option<u64>> {
        let entries = self.0.lock().unwrap().entries;
        entries.map(Some).ok_or_else(|| Error::Guardian { what: "count entries: failed".into() })
    }
}
