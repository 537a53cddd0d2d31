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
const VERSION: u32 = 1;

/// Of a recording, the verdicts that are kept besides those in use.
const MOST: usize = 10_000;

/// The verdicts of one recording.
pub struct Cache {
    /// `None`: none are kept.
    file: Option<PathBuf>,
    verdicts: BTreeMap<String, OfTrial>,
}

/// `$XDG_CACHE_HOME/relapse/alerts`, `~/.cache/relapse/alerts`.
pub fn folder() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(cache.join("relapse/alerts"))
}

/// All that a verdict depends on.
pub fn key(sources: &Sources<'_>, trial: &Trial<'_>, id: RuleId, settings: &Settings) -> String {
    let mut hash = DefaultHasher::new();
    (VERSION, settings.promtool.version, settings.scrape, settings.evaluate).hash(&mut hash);
    let header = &trial.recording.header;
    let phases = header.phases;
    (phases.fault, phases.heal, phases.end, header.lasted, &header.scaled).hash(&mut hash);
    for id in sources.with_records(id) {
        let (rule, source) = (sources.rule(id), sources.source(id));
        (rule.name(), &rule.expr, &rule.labels, rule.is_alert(), rule.reach).hash(&mut hash);
        (source.hold, source.keep_firing, source.evaluate).hash(&mut hash);
    }
    for series in trial.relevant(sources, id) {
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
        Self { file, verdicts: read.unwrap_or_default() }
    }

    pub fn get(&self, key: String) -> Option<OfTrial> {
        self.verdicts.get(&key).cloned()
    }

    /// Adds verdicts. Where that fails, they are decided again the next time.
    pub fn store<'b>(mut self, fresh: impl Iterator<Item = (String, &'b OfTrial)>) {
        let Some(file) = self.file else { return };
        let before = self.verdicts.len();
        if before > MOST {
            self.verdicts.clear();
        }
        // Not what may come of a slow machine.
        let lasts =
            |verdict: &OfTrial| !matches!(verdict, OfTrial::Error { message } if message.contains(run::UNANSWERED));
        let kept = fresh.filter(|(_, verdict)| lasts(verdict));
        self.verdicts.extend(kept.map(|(key, verdict)| (key, verdict.clone())));
        if self.verdicts.len() == before {
            return;
        }
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
