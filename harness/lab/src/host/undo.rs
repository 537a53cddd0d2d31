//! Undoes a journal: objects created by backends first, then settings.

use serde_json::Value;

use super::journal::{self, Journal};
use super::removers::Remover;
use super::restore::{self, Undone};
use super::{Result, Site};

fn of<'a>(site: &'a Site, entry: &Value) -> Option<&'a Remover> {
    let kind = entry.get("what").and_then(Value::as_str)?;
    site.removers.iter().find(|remover| remover.kind == kind)
}

/// Instructions to clear the entries of a journal that this program has no remover for.
pub(super) fn out_of_reach(site: &Site, journal: &Journal) -> Vec<String> {
    let foreign = journal.others().filter(|entry| of(site, entry).is_none());
    foreign.filter_map(journal::clear).map(str::to_owned).collect()
}

/// Undoes a journal: created objects first, then settings, unless those are still needed.
///
/// # Errors
/// When something could not be removed or restored; the journal must then be kept.
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
