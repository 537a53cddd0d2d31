//! Undoes the settings of a journal that still have one of our values.
//!
//! For each setting the oldest entry has the value to restore, and every value written since is
//! ours. The current value is one of ours (the old one is written and read back), the old value (the mutation
//! was never made, or is undone already), or neither (another process has written it since: left and reported).

use super::journal::{Entry, Journal};
use super::settings::Settings;
use super::{Error, Result};

/// The result for one setting or one created object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undone {
    Restored {
        key: String,
        value: String,
    },
    /// It was removed.
    Removed {
        what: String,
    },
    /// It already has its old value.
    Already {
        key: String,
        value: String,
    },
    /// Another process has written it since.
    NotOurs {
        key: String,
        found: String,
        expected: String,
    },
}

/// Undoes every setting in a journal.
///
/// # Errors
/// When settings could not be read or written; the journal must then be kept.
pub fn undo(settings: &dyn Settings, journal: &Journal) -> Result<Vec<Undone>> {
    let mut done = Vec::new();
    let mut failed = Vec::new();
    for change in changes(journal) {
        match change.undo(settings) {
            Ok(undone) => done.push(undone),
            Err(error) => failed.push(error),
        }
    }
    match failed.len() {
        0 => Ok(done),
        1 => Err(failed.remove(0)),
        _ => {
            let why = failed.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            Err(Error::Unsafe { what: "restore the settings".into(), why })
        }
    }
}

/// All entries of one setting.
struct Change {
    key: String,
    old: String,
    written: Vec<String>,
}

fn changes(journal: &Journal) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    for entry in journal.known() {
        let Entry::Sysctl { key, old, new } = entry;
        match changes.iter_mut().find(|change| change.key == *key) {
            Some(change) => change.written.push(new.clone()),
            None => changes.push(Change { key: key.clone(), old: old.clone(), written: vec![new.clone()] }),
        }
    }
    changes.reverse();
    changes
}

impl Change {
    fn undo(self, settings: &dyn Settings) -> Result<Undone> {
        let Self { key, old, mut written } = self;
        let found = settings.read(&key)?;
        if found == old {
            return Ok(Undone::Already { key, value: old });
        }
        if !written.contains(&found) {
            return Ok(Undone::NotOurs { key, found, expected: written.pop().unwrap_or_default() });
        }
        settings.write(&key, &old)?;
        let read_back = settings.read(&key)?;
        if read_back == old {
            return Ok(Undone::Restored { key, value: old });
        }
        Err(Error::Unsafe { what: format!("restore {key} = {old}"), why: format!("read back {read_back}") })
    }
}

impl std::fmt::Display for Undone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Restored { key, value } => write!(f, "{key} was restored to {value}"),
            Self::Removed { what } => write!(f, "{what} was removed"),
            Self::Already { key, value } => write!(f, "{key} is {value}, its previous value"),
            Self::NotOurs { key, found, expected } => {
                write!(
                    f,
                    "{key} is {found}, not the {expected} that was written: another process changed it; left as it is"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::guardian::stand_in::StandIn;
    use super::super::identity::Process;
    use super::super::journal::Stored;
    use super::*;

    fn journal(entries: &[(&str, &str)]) -> Journal {
        let mut journal = Journal::new("r", Process::own().unwrap()).unwrap();
        journal.entries = entries
            .iter()
            .map(|(old, new)| Stored::Known(Entry::Sysctl { key: "k".into(), old: (*old).into(), new: (*new).into() }))
            .collect();
        journal
    }

    #[test]
    fn what_is_found_decides() {
        let twice = journal(&[("1", "2"), ("2", "3")]);
        let cases = [
            ("1", "1", Undone::Already { key: "k".into(), value: "1".into() }),
            // The second write was journalled and never made.
            ("2", "1", Undone::Restored { key: "k".into(), value: "1".into() }),
            ("3", "1", Undone::Restored { key: "k".into(), value: "1".into() }),
            ("9", "9", Undone::NotOurs { key: "k".into(), found: "9".into(), expected: "3".into() }),
        ];
        for (found, after, expected) in cases {
            let settings = StandIn::with(found);
            assert_eq!(undo(&settings, &twice).unwrap(), [expected]);
            assert_eq!(settings.read("k").unwrap(), after);
        }
    }
}
