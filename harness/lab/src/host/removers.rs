//! What backends made and a run that died left: who removes it.
//!
//! A backend writes an entry of a kind of its own, and how a person clears it ([`super::journal::entry`]). Who was
//! built with that backend calls its remover; who was not keeps the journal, touches nothing of it, and passes that
//! line on ([`super::recover`](mod@super::recover)).

use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::Result;

/// How the things of one kind are removed.
#[derive(Debug, Clone, Copy)]
pub struct Remover {
    /// The kind of its entries.
    pub kind: &'static str,
    /// Settings that are set back with them, and what they write there: a journal can name no other.
    pub settings: &'static [(&'static str, &'static str)],
    /// Removes what an entry names.
    pub remove: fn(&Value) -> Result<Removed>,
}

/// What is gone.
#[derive(Debug, Clone)]
pub struct Removed {
    pub what: String,
    /// Somebody else still needs the settings as they are.
    pub settings_needed: bool,
}

static REGISTERED: Mutex<Vec<Remover>> = Mutex::new(Vec::new());

/// Makes a remover known to this program.
pub fn register(remover: Remover) {
    REGISTERED.lock().unwrap_or_else(PoisonError::into_inner).push(remover);
}

/// Those of the backends that this program was built with.
#[must_use]
pub fn registered() -> Vec<Remover> {
    REGISTERED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
