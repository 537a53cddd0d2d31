//! Parses the findings that a program prints, and passes on changes.
//!
//! Invariants: a finding is passed on once, again only when its severity rises, and once more when it is cleared, as by
//! the built-in detectors; what is kept and passed on is bounded.

use std::collections::BTreeMap;

use relapse_detectors::finding::{Finding, Level, Severity, Subject};
use relapse_detectors::time::Time;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::lines::{Line, shown};

/// Maximum number of findings passed on in one trial.
const MOST: usize = 10_000;

/// A finding as printed by a program. Its detector and start time are ignored and set here.
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

/// The result of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Nothing,
    Changed(Finding),
    /// The line is malformed; reported once.
    Malformed(String),
}

/// Parses the output of one program.
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
        let finding = match parse(line) {
            Ok(finding) => finding,
            Err(why) => {
                let text = shown(&line.text);
                return self.complain(format!("line {} of its output is not a finding: {why}: {text}", self.line));
            }
        };
        if !self.is_change(&finding) {
            return Parsed::Nothing;
        }
        if self.passed_on == MOST {
            return self
                .complain(format!("reported more than {MOST} findings; output from line {} on is ignored", self.line));
        }
        self.passed_on += 1;
        Parsed::Changed(Finding {
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

    fn is_change(&mut self, finding: &PrintedFinding) -> bool {
        let identity = (finding.level, finding.subject.clone());
        if finding.cleared {
            return self.standing.remove(&identity).is_some();
        }
        let severity = finding.severity.unwrap_or(Severity::Warning);
        let standing = self.standing.get(&identity).copied();
        let change = standing.is_none_or(|standing| standing < severity);
        // Past the limit nothing is passed on or kept.
        if change && self.passed_on < MOST {
            self.standing.insert(identity, severity);
        }
        change
    }

    fn complain(&mut self, why: String) -> Parsed {
        if std::mem::replace(&mut self.complained, true) { Parsed::Nothing } else { Parsed::Malformed(why) }
    }
}

fn parse(line: &Line) -> Result<PrintedFinding, String> {
    if line.cut {
        return Err("it is longer than 64 KiB".to_owned());
    }
    let finding: PrintedFinding = serde_json::from_str(&line.text).map_err(|error| {
        let error = error.to_string();
        // Drop the parser's line number, which is always 1.
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

    fn finding(severity: &str) -> String {
        format!(r#"{{"incident":"I4","level":"cause","severity":"{severity}","subject":"node/a","evidence":"e"}}"#)
    }

    #[test]
    fn a_finding_gets_its_detector_and_its_time() {
        let mut printed = PrintedFindings::new("agent".to_owned());
        let line = r#"{"detector":"other","since":3,"level":"cause","severity":"warning","subject":"node/a"}"#;
        let Parsed::Changed(finding) = read(&mut printed, line) else { panic!("a finding") };
        assert_eq!((finding.detector.as_str(), finding.since), ("agent", Time(7)));
    }

    #[test]
    fn only_news_are_passed_on() {
        let mut printed = PrintedFindings::new("agent".to_owned());
        let cleared = r#"{"level":"cause","subject":"node/a","cleared":true}"#;
        let script = [
            cleared,
            &finding("info"),
            &finding("info"),
            &finding("warning"),
            &finding("info"),
            cleared,
            cleared,
            &finding("info"),
        ];
        let passed_on = script.map(|line| matches!(read(&mut printed, line), Parsed::Changed(_)));
        assert_eq!(passed_on, [false, true, false, true, false, true, false, true]);
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
            let Parsed::Malformed(why_blind) = read(&mut printed, line) else { panic!("{line}") };
            assert!(
                why_blind.starts_with("line 2 of its output is not a finding: ") && why_blind.contains(why),
                "{why_blind}"
            );
            assert_eq!(read(&mut printed, line), Parsed::Nothing);
            assert!(matches!(read(&mut printed, &finding("info")), Parsed::Changed(_)));
        }
    }

    #[test]
    fn a_flood_is_cut_off() {
        let mut printed = PrintedFindings::new("agent".to_owned());
        let mut parsed =
            (0..MOST + 5).map(|n| read(&mut printed, &finding("warning").replace("node/a", &format!("node/{n}"))));
        assert!(parsed.by_ref().take(MOST).all(|one| matches!(one, Parsed::Changed(_))));
        assert!(matches!(parsed.next(), Some(Parsed::Malformed(_))));
        assert!(parsed.all(|one| one == Parsed::Nothing));
        assert_eq!(printed.standing.len(), MOST);
    }
}
