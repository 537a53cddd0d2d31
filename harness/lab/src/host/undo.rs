//! A journal undone: what backends made first, then settings.

use serde_json::Value;

use super::journal::{self, Journal};
use super::removers::Remover;
use super::restore::{self, Undone};
use super::{Result, Site};

fn of<'a>(site: &'a Site, entry: &Value) -> Option<&'a Remover> {
    let kind = entry.get("what").and_then(Value::as_str)?;
    site.removers.iter().find(|remover| remover.kind == kind)
}

/// What in a journal nobody here can remove: how a person clears it.
pub(super) fn out_of_reach(site: &Site, journal: &Journal) -> Vec<String> {
    let foreign = journal.others().filter(|entry| of(site, entry).is_none());
    foreign.filter_map(journal::clear).map(str::to_owned).collect()
}

/// Undoes a journal: what was made first, then settings, which stay while somebody needs them.
///
/// # Errors
/// What could not be removed or set back; the journal must then stay.
pub fn undo(site: &Site, journal: &Journal) -> Result<Vec<Undone>> {
    let mut undone = Vec::new();
    let mut needed = false;
    for entry in journal.others() {
        let Some(remover) = of(site, entry) else { continue };
        let removed = (remover.remove)(entry)?;
        needed |= removed.settings_needed;
        undone.push(Undone::Removed { what: removed.what });
    }
    if !needed {
        undone.extend(restore::undo(&*site.settings, journal)?);
    }
    Ok(undone)
}
