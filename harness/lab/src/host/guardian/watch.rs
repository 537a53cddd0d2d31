//! Checks whether a lower limit harms other namespaces, before the write and while it is in force.

use std::time::{Duration, Instant};

use super::super::Result;
use super::super::settings::{Namespace, Settings};

/// Finding namespaces walks all processes; counting entries in those found is cheap.
const FIND_EVERY: Duration = Duration::from_secs(1);
/// Consecutive failures to count after which the limit is restored.
const PATIENCE: u32 = 5;

/// Watches the other namespaces on behalf of one written value.
pub(super) struct Watch {
    limit: u32,
    own: Vec<u64>,
    found: Vec<Namespace>,
    stale: Option<Instant>,
    failures: u32,
}

impl Watch {
    pub(super) const fn new(limit: u32, own: Vec<u64>) -> Self {
        Self { limit, own, found: Vec::new(), stale: None, failures: 0 }
    }

    /// A description of a namespace that holds more than half of the limit, if any.
    pub(super) fn harm(&mut self, settings: &dyn Settings) -> Result<Option<String>> {
        let now = Instant::now();
        if self.stale.is_none_or(|stale| now >= stale) {
            self.found = settings.namespaces()?;
            self.found.retain(|namespace| !self.own.contains(&namespace.inode));
            self.stale = Some(now + FIND_EVERY);
        }
        for namespace in &self.found {
            let Some(entries) = settings.entries(namespace)? else { continue };
            if entries * 2 > u64::from(self.limit) {
                let limit = self.limit;
                return Ok(Some(format!("{namespace} holds {entries} entries, more than half of {limit}")));
            }
        }
        Ok(None)
    }

    /// The same while the value is in force; returns a reason to restore it.
    pub(super) fn check(&mut self, settings: &dyn Settings) -> Option<String> {
        match self.harm(settings) {
            Ok(harm) => {
                self.failures = 0;
                harm
            }
            Err(error) => {
                self.failures += 1;
                (self.failures >= PATIENCE).then(|| format!("other namespaces can no longer be watched: {error}"))
            }
        }
    }
}
