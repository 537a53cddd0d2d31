//! Verdicts of earlier runs, by what they were made from. It may be deleted at any time, and what cannot be read in it is
//! decided anew.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use super::sources::Sources;
use super::trial::Trial;
use super::{Settings, run};
use crate::rule::RuleId;
use crate::verdict::OfTrial;

/// Counts changes of how verdicts are made.
const VERSION: u32 = 5;

/// Of a recording. With more, all are forgotten.
const MOST: usize = 10_000;

/// The verdicts of one recording.
pub struct Cache {
    /// `None`: none are kept.
    file: Option<PathBuf>,
    verdicts: BTreeMap<String, OfTrial>,
    changed: bool,
}

/// All that a verdict depends on. `active` are the alerts whose series the rule may read.
pub fn key(sources: &Sources<'_>, trial: &Trial<'_>, id: RuleId, active: &[RuleId], settings: &Settings) -> String {
    let mut hash = DefaultHasher::new();
    (VERSION, settings.promtool.version, settings.scrape, settings.evaluate).hash(&mut hash);
    let header = &trial.recording.header;
    let phases = header.phases;
    let of = || active.iter().copied().chain([id]);
    if !of().all(|id| trial.is_constant(sources, id)) {
        (phases.fault, phases.heal, phases.end, header.lasted).hash(&mut hash);
    }
    header.scaled.hash(&mut hash);
    for id in of().flat_map(|id| sources.with_records(id)) {
        let (rule, source) = (sources.rule(id), sources.source(id));
        (rule.name(), &rule.expr, &rule.labels, rule.is_alert(), rule.reach).hash(&mut hash);
        (source.hold, source.keep_firing, source.evaluate, source.offset).hash(&mut hash);
    }
    for series in of().flat_map(|id| trial.relevant(sources, id)) {
        trial.hash(series).hash(&mut hash);
    }
    format!("{:016x}", hash.finish())
}

impl Cache {
    pub fn open(folder: Option<&Path>, trial: &Trial<'_>) -> Self {
        let header = &trial.recording.header;
        let mut hash = DefaultHasher::new();
        (&header.scenario, &header.control, &header.backend, &header.title, &header.made.at).hash(&mut hash);
        let file = folder.map(|folder| folder.join(format!("{:016x}.json", hash.finish())));
        let read = file.as_deref().and_then(|file| serde_json::from_slice(&std::fs::read(file).ok()?).ok());
        let read = read.filter(|verdicts: &BTreeMap<_, _>| verdicts.len() < MOST);
        Self { file, verdicts: read.unwrap_or_default(), changed: false }
    }

    pub fn get(&self, key: &str) -> Option<OfTrial> {
        self.verdicts.get(key).cloned()
    }

    pub fn put(&mut self, key: String, verdict: &OfTrial) {
        // Not what may come of a slow machine.
        if !matches!(verdict, OfTrial::Error { message } if message.contains(run::UNANSWERED)) {
            self.changed |= self.verdicts.insert(key, verdict.clone()).is_none();
        }
    }

    /// Writes what is new. Where that fails, it is decided again the next time.
    pub fn store(self) {
        let Some(file) = self.file.filter(|_| self.changed) else { return };
        let write = || {
            let folder = file.parent()?;
            std::fs::create_dir_all(folder).ok()?;
            // Written beside it and renamed: another relapse may read it at any time.
            let mut beside = tempfile::NamedTempFile::new_in(folder).ok()?;
            serde_json::to_writer(&mut beside, &self.verdicts).ok()?;
            beside.persist(&file).ok()
        };
        let _ = write();
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{alert, labels, promtool, recording, rules, samples, settings};
    use super::super::{Sources, decide};
    use super::*;

    #[test]
    fn what_cannot_be_read_is_decided_anew() {
        let Some(promtool) = promtool() else { return };
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { cache: Some(folder.path().join("a")), ..settings(promtool) };
        let set = rules(vec![alert("High", "x > 5", 0), alert("Higher", "x > 1e300", 0)]);
        let recordings = [recording(vec![("x", "eth0", samples(|s| Some(f64::from(s / 100) * 9.1)))])];
        let decided = || decide(&set, &recordings, &labels(), &settings, BTreeMap::new()).trials;
        let first = decided();
        let file = || std::fs::read_dir(folder.path().join("a")).unwrap().next().unwrap().unwrap().path();
        let written = std::fs::read_to_string(file()).unwrap();
        assert_eq!(decided(), first);
        // It is used.
        std::fs::write(file(), written.replace("\"value\":18.2", "\"value\":7.5")).unwrap();
        assert_ne!(decided(), first);
        for wrong in ["", "{", "[]", "{\"0\": 1}", "\0\0"] {
            std::fs::write(file(), wrong).unwrap();
            assert_eq!(decided(), first);
            assert_eq!(std::fs::read_to_string(file()).unwrap(), written);
        }
        std::fs::remove_dir_all(folder.path().join("a")).unwrap();
        assert_eq!(decided(), first);
    }

    #[test]
    fn all_that_a_verdict_depends_on_is_in_its_key() {
        let Some(promtool) = promtool() else { return };
        let settings = settings(promtool);
        let of = |expr: &str, hold: u64, value: f64, settings: &Settings| {
            let set = rules(vec![alert("A", expr, hold)]);
            let recording = recording(vec![
                ("x", "eth0", samples(|s| Some(value * f64::from(s)))),
                ("other", "eth0", samples(|s| Some(value - f64::from(s)))),
            ]);
            let sources = Sources::new(&set, settings);
            key(&sources, &Trial::new(&recording, &labels(), &sources.selectors), RuleId(0), &[], settings)
        };
        let key = of("x > 5", 0, 1.0, &settings);
        assert_eq!(of("x > 5", 0, 1.0, &settings), key);
        assert_ne!(of("x > 6", 0, 1.0, &settings), key);
        assert_ne!(of("x > 5", 1, 1.0, &settings), key);
        assert_ne!(of("x > 5", 0, 2.0, &settings), key);
        let faster = Settings { scrape: settings.scrape / 3, ..settings.clone() };
        assert_ne!(of("x > 5", 0, 1.0, &faster), key);
    }
}
