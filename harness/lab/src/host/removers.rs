//! Removers for objects that backends created and a dead run left behind.
//!
//! A backend writes journal entries of its own kind, with instructions to clear them by hand
//! ([`super::journal::entry`]). A program built with that backend calls its remover; any other keeps the journal,
//! leaves everything in it untouched, and prints the instructions ([`super::recover`](mod@super::recover)).

use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::Result;

/// Removes objects of one kind.
#[derive(Debug, Clone, Copy)]
pub struct Remover {
    /// The kind of its entries.
    pub kind: &'static str,
    /// Settings restored together with them, and the values written there; a journal may contain no others.
    pub settings: &'static [(&'static str, &'static str)],
    /// Removes the object described by an entry.
    pub remove: fn(&Value) -> Result<Removed>,
}

/// The result of a removal.
#[derive(Debug, Clone)]
pub struct Removed {
    pub what: String,
    /// Whether the settings are still needed as they are.
    pub settings_needed: bool,
}

static REGISTERED: Mutex<Vec<Remover>> = Mutex::new(Vec::new());

/// Registers a remover.
pub fn register(remover: Remover) {
    REGISTERED.lock().unwrap_or_else(PoisonError::into_inner).push(remover);
}

/// The removers of the backends built into this program.
#[must_use]
pub fn registered() -> Vec<Remover> {
    REGISTERED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
