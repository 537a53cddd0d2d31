//! What a program prints: findings, checked, and only what is new of them.
//!
//! Invariants: a finding is passed on once, again only when it gets louder, and once more when it is
//! over, as the built-in detectors do; what is kept and passed on is bounded. Left out: reading.

use std::collections::BTreeMap;

use relapse_detectors::finding::{Finding, Level, Severity, Subject};
use relapse_detectors::time::Time;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::lines::{Line, shown};

/// Most findings that are passed on in one trial.
const MOST: usize = 10_000;

/// A finding as a program prints it. Whose it is and since when is filled in here, whatever it says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PrintedFinding {
    #[serde(default)]
    incident: String,
    level: Level,
    severity: Option<Severity>,
    subject: Subject,
    #[serde(default)]
    evidence: String,
    #[serde(default)]
    cleared: bool,
    #[serde(default, rename = "detector")]
    _detector: IgnoredAny,
    #[serde(default, rename = "since")]
    _since: IgnoredAny,
}

/// What a line comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Nothing,
    News(Finding),
    /// It cannot be understood; said once.
    Malformed(String),
}

/// Listens to one program.
#[derive(Debug)]
pub(super) struct PrintedFindings {
    detector: String,
    line: u64,
    complained: bool,
    passed_on: usize,
    standing: BTreeMap<(Level, Subject), Severity>,
}

impl PrintedFindings {
    pub(super) const fn new(detector: String) -> Self {
        Self { detector, line: 0, complained: false, passed_on: 0, standing: BTreeMap::new() }
    }

    pub(super) fn read(&mut self, now: Time, line: &Line) -> Parsed {
        self.line += 1;
        if line.text.trim().is_empty() {
            return Parsed::Nothing;
        }
        let finding = match understand(line) {
            Ok(finding) => finding,
            Err(why) => {
                let text = shown(&line.text);
                return self.complain(format!("line {} of its output is not a finding: {why}: {text}", self.line));
            }
        };
        if !self.is_news(&finding) {
            return Parsed::Nothing;
        }
        if self.passed_on == MOST {
            return self
                .complain(format!("reported more than {MOST} findings; output from line {} on is ignored", self.line));
        }
        self.passed_on += 1;
        Parsed::News(Finding {
            detector: self.detector.clone(),
            incident: finding.incident,
            level: finding.level,
            severity: finding.severity.unwrap_or(Severity::Warning),
            subject: finding.subject,
            evidence: finding.evidence,
            since: now,
            cleared: finding.cleared,
        })
    }

    fn is_news(&mut self, finding: &PrintedFinding) -> bool {
        let identity = (finding.level, finding.subject.clone());
        if finding.cleared {
            return self.standing.remove(&identity).is_some();
        }
        let severity = finding.severity.unwrap_or(Severity::Warning);
        let standing = self.standing.get(&identity).copied();
        let news = standing.is_none_or(|standing| standing < severity);
        // Past the limit nothing is passed on, and nothing is kept.
        if news && self.passed_on < MOST {
            self.standing.insert(identity, severity);
        }
        news
    }

    fn complain(&mut self, why: String) -> Parsed {
        if std::mem::replace(&mut self.complained, true) { Parsed::Nothing } else { Parsed::Malformed(why) }
    }
}

fn understand(line: &Line) -> Result<PrintedFinding, String> {
    if line.cut {
        return Err("it is longer than 64 KiB".to_owned());
    }
    let finding: PrintedFinding = serde_json::from_str(&line.text).map_err(|error| {
        let error = error.to_string();
        // The parser counts lines within the line.
        error.split(" at line ").next().unwrap_or(&error).to_owned()
    })?;
    if finding.severity.is_none() && !finding.cleared {
        return Err("missing field `severity`".to_owned());
    }
    Ok(finding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(printed: &mut PrintedFindings, text: &str) -> Parsed {
        printed.read(Time(7), &Line { text: text.to_owned(), cut: false })
    }

    fn say(severity: &str) -> String {
        format!(r#"{{"incident":"I4","level":"cause","severity":"{severity}","subject":"node/a","evidence":"e"}}"#)
    }

    #[test]
    fn a_finding_gets_its_detector_and_its_time() {
        let mut printed = PrintedFindings::new("agent".to_owned());
        let line = r#"{"detector":"other","since":3,"level":"cause","severity":"warning","subject":"node/a"}"#;
        let Parsed::News(finding) = read(&mut printed, line) else { panic!("a finding") };
        assert_eq!((finding.detector.as_str(), finding.since), ("agent", Time(7)));
    }

    #[test]
    fn only_news_are_passed_on() {
        let mut printed = PrintedFindings::new("agent".to_owned());
        let cleared = r#"{"level":"cause","subject":"node/a","cleared":true}"#;
        let script =
            [cleared, &say("info"), &say("info"), &say("warning"), &say("info"), cleared, cleared, &say("info")];
        let news = script.map(|line| matches!(read(&mut printed, line), Parsed::News(_)));
        assert_eq!(news, [false, true, false, true, false, true, false, true]);
    }

    #[test]
    fn nonsense_is_said_once_with_its_line() {
        for (line, why) in [
            ("hello", "expected value: hello"),
            ("{}", "missing field `level`: {}"),
            (r#"{"level":"cause","subject":"node/a"}"#, "missing field `severity`"),
            (r#"{"level":"cause","severity":"loud","subject":"node/a"}"#, "unknown variant `loud`"),
            (r#"{"level":"cause","severity":"info","subject":"a"}"#, "is not a subject"),
            (r#"{"level":"cause","severity":"info","subject":"node/a","cleard":true}"#, "unknown field `cleard`"),
        ] {
            let mut printed = PrintedFindings::new("agent".to_owned());
            assert_eq!(read(&mut printed, ""), Parsed::Nothing);
            let Parsed::Malformed(said) = read(&mut printed, line) else { panic!("{line}") };
            assert!(said.starts_with("line 2 of its output is not a finding: ") && said.contains(why), "{said}");
            assert_eq!(read(&mut printed, line), Parsed::Nothing);
            assert!(matches!(read(&mut printed, &say("info")), Parsed::News(_)));
        }
    }

    #[test]
    fn a_flood_is_cut_off() {
        let mut printed = PrintedFindings::new("agent".to_owned());
        let mut heard =
            (0..MOST + 5).map(|n| read(&mut printed, &say("warning").replace("node/a", &format!("node/{n}"))));
        assert!(heard.by_ref().take(MOST).all(|heard| matches!(heard, Parsed::News(_))));
        assert!(matches!(heard.next(), Some(Parsed::Malformed(_))));
        assert!(heard.all(|heard| heard == Parsed::Nothing));
        assert_eq!(printed.standing.len(), MOST);
    }
}
