//! Verdicts of earlier runs, by what they were made from. It may be deleted at any time, and what cannot be read in it is
//! decided anew.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use super::Settings;
use super::sources::Sources;
use super::trial::Trial;
use crate::rule::RuleId;
use crate::verdict::OfTrial;

/// Counts changes of how verdicts are made.
const VERSION: u32 = 7;

/// Of a recording. With more, all are forgotten.
const MOST: usize = 10_000;

/// The verdicts of one recording.
pub struct Cache {
    /// `None`: none are kept.
    file: Option<PathBuf>,
    verdicts: BTreeMap<String, OfTrial>,
    changed: bool,
}

/// All that a verdict depends on. `active` are the alerts that are active in the trial.
pub fn key(sources: &Sources<'_>, trial: &Trial<'_>, id: RuleId, active: &[RuleId], settings: &Settings) -> String {
    let mut hash = DefaultHasher::new();
    (VERSION, settings.promtool.identity(), settings.scrape).hash(&mut hash);
    let header = &trial.recording.header;
    let phases = header.phases;
    let read = |alert: &RuleId| sources.source(id).alerts.contains(alert);
    let of = || active.iter().copied().filter(read).chain([id]);
    if !of().all(|id| trial.is_constant(sources, id)) {
        (phases.fault, phases.heal, phases.end, header.lasted).hash(&mut hash);
    }
    header.scaled.hash(&mut hash);
    for id in of().flat_map(|id| sources.with_records(id)) {
        let (rule, source) = (sources.rule(id), sources.source(id));
        (rule.name(), &rule.expr, &rule.labels, rule.is_alert(), rule.reach).hash(&mut hash);
        (source.wait, source.keep_firing, source.evaluate, source.offset).hash(&mut hash);
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
        // Not what promtool cannot help: a slow machine, a full disk.
        if !matches!(verdict, OfTrial::Error { message } if message.starts_with("failed to ")) {
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
    use std::time::Duration;

    use super::super::decide;
    use super::*;
    use crate::labels::Labels;
    use crate::promtool::{Promtool, Version};
    use crate::recording::{Exporter, Recording};
    use crate::rule::RuleSet;

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
        struct Case {
            set: RuleSet,
            recording: Recording,
            labels: Labels,
            settings: Settings,
            active: Vec<RuleId>,
        }
        let case = || {
            let mut set = rules(vec![alert("A", "x / y > 5", 0), alert("B", "x > 1", 0)]);
            set.rules.push(alert("C", "ALERTS{alertname=\"B\"} == 1", 0));
            let recording = recording(vec![
                ("x", "eth0", samples(|s| Some(f64::from(s)))),
                ("other", "eth0", samples(|s| Some(-f64::from(s)))),
            ]);
            let version = Version { major: 3, minor: 5, patch: 0 };
            let settings = settings(Promtool::of_version(version));
            Case { set, recording, labels: labels(), settings, active: Vec::new() }
        };
        let key = |id: usize, change: &dyn Fn(&mut Case)| {
            let mut case = case();
            change(&mut case);
            let Case { set, recording, labels, settings, active } = &case;
            let sources = Sources::new(set, settings);
            key(&sources, &Trial::new(recording, labels, &sources.selectors), RuleId(id), active, settings)
        };
        let same = key(0, &|_| {});
        assert_eq!(key(0, &|_| {}), same);
        assert_eq!(key(0, &|case| case.recording.series[1].samples[0] = None), same, "it does not read this");
        assert_eq!(key(0, &|case| case.active = vec![RuleId(1)]), same, "nor alerts");
        let differs = |what: &str, change: &dyn Fn(&mut Case)| assert_ne!(key(0, change), same, "{what}");
        differs("expression", &|case| case.set.rules[0] = alert("A", "x / y > 6", 0));
        differs("for", &|case| case.set.rules[0] = alert("A", "x / y > 5", 1));
        differs("label of the rule", &|case| _ = case.set.rules[0].labels.insert("a".into(), "b".into()));
        differs("samples", &|case| case.recording.series[0].samples[0] = None);
        let cluster = || [("cluster".to_owned(), "a".to_owned())];
        differs("labels of the target", &|case| case.labels.set(Exporter::Node, cluster()));
        differs("fault", &|case| case.recording.header.phases.fault += 1);
        differs("lasted", &|case| case.recording.header.lasted = Some(Duration::from_secs(9)));
        differs("scaled", &|case| _ = case.recording.header.scaled.insert("x".into(), "1/2".into()));
        differs("scrape", &|case| case.settings.scrape /= 3);
        differs("evaluate", &|case| case.settings.evaluate /= 2);
        differs("interval", &|case| case.set.groups[0].interval = Some(Duration::from_secs(7)));
        differs("query_offset", &|case| case.set.groups[0].query_offset = Duration::from_secs(7));
        differs("version", &|case| case.settings.promtool.version.minor = 4);
        assert_ne!(key(2, &|_| {}), key(2, &|case| case.active = vec![RuleId(1)]));
    }

    #[test]
    fn what_promtool_itself_fails_at_is_not_kept() {
        let recording = recording(Vec::new());
        let mut cache = Cache::open(None, &Trial::new(&recording, &labels(), &[]));
        let error = |message: &str| OfTrial::Error { message: message.to_owned() };
        cache.put("a".to_owned(), &error("many-to-many matching not allowed"));
        cache.put("b".to_owned(), &error("failed to write promtool's files: No space left on device"));
        cache.put("c".to_owned(), &error("failed to get an answer from promtool within 60 s"));
        assert!(cache.get("a").is_some() && cache.get("b").is_none() && cache.get("c").is_none());
    }
}
