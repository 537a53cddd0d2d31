//! An incident with all its scenarios: variants, and their benign twins.
//!
//! Job: the cells of the folded matrix in every report. Invariant: an incident is represented by the worst verdict and
//! time of its variants. Left out: tables, and the events of a trial.

use crate::event::{Outcome, Verdict};
use crate::marks;
use crate::statistics::{self, Group};
use crate::summary::{self, RunSummary};
use crate::table::Mark;
use crate::units;
use crate::words::{self, Tone};

/// An incident on one backend.
#[derive(Debug)]
pub struct Incident<'a> {
    /// "I4"; empty if the start of the events is lost.
    pub id: &'a str,
    pub backend: &'a str,
    /// Variants by name, each followed by its twins.
    pub groups: Vec<Group<'a>>,
}

/// The incidents on one backend, by number.
#[must_use]
pub fn incidents<'a>(run: &'a RunSummary, backend: &'a str) -> Vec<Incident<'a>> {
    let mut all: Vec<Incident<'a>> = Vec::new();
    for group in statistics::groups(run) {
        let info = &group.first().info;
        if info.trial.backend != backend {
            continue;
        }
        match all.iter_mut().find(|incident| incident.id == info.incident) {
            Some(incident) => incident.groups.push(group),
            None => all.push(Incident { id: &info.incident, backend, groups: vec![group] }),
        }
    }
    for incident in &mut all {
        incident.groups.sort_by_key(|group| (&group.first().info.trial.scenario, group.first().is_control()));
    }
    all.sort_by_key(|incident| (incident.id.len(), incident.id));
    all
}

impl<'a> Incident<'a> {
    /// "I4 policy-route-lost": the id and the common prefix of its scenarios' names.
    #[must_use]
    pub fn name(&self) -> String {
        let mut names = self.groups.iter().map(|group| group.first().info.trial.scenario.split('-'));
        let mut common: Vec<&str> = names.next().into_iter().flatten().collect();
        for name in names {
            let same = common.iter().zip(name).take_while(|(one, other)| *one == other).count();
            common.truncate(same);
        }
        let name = format!("{} {}", self.id, common.join("-"));
        if name == " " { "unknown incident".to_owned() } else { name.trim().to_owned() }
    }

    /// "3 variants, 2 twins".
    #[must_use]
    pub fn size(&self) -> String {
        let (variants, all) = (self.variants().count(), self.groups.len());
        format!("{}, {}", units::count(variants, "variant"), units::count(all - variants, "twin"))
    }

    /// The worst outcome.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.groups.iter().map(Group::outcome).max().unwrap_or(Outcome::Inconclusive)
    }

    /// Its groups without the twins.
    pub fn variants(&self) -> impl Iterator<Item = &Group<'a>> {
        self.groups.iter().filter(|group| !group.first().is_control())
    }

    /// Whether any trial was not skipped.
    #[must_use]
    pub fn ran(&self) -> bool {
        self.groups.iter().any(|group| group.ran() > 0)
    }

    /// Why no trial ran.
    #[must_use]
    pub fn reasons(&self) -> String {
        let reasons = self.groups.iter().flat_map(|group| group.first().reasons());
        summary::tally(reasons).into_iter().map(|(reason, _)| reason).collect::<Vec<_>>().join("; ")
    }

    /// The result of its twins.
    #[must_use]
    pub fn twins(&self) -> (Tone, String) {
        twins(self.groups.iter().filter(|group| group.first().is_control()))
    }

    /// A detector's marks in the variants, and its wrong marks in the twins.
    fn marks(&self, detector: &str) -> Vec<(&Group<'a>, Mark)> {
        let of = |group: &Group<'a>| {
            let marks = if group.first().is_control() { marks::wrong } else { marks::marks };
            marks(group, detector)
        };
        self.groups.iter().flat_map(|group| of(group).into_iter().map(move |mark| (group, mark))).collect()
    }

    /// Whether a detector has any mark here.
    #[must_use]
    pub fn has_marks(&self, detector: &str) -> bool {
        !self.marks(detector).is_empty()
    }

    /// "mss-clamp-raised 275 ms · mss-clamp-raised / client-dies FALSE ALARM".
    #[must_use]
    pub fn each(&self, detector: &str) -> String {
        let each = self.marks(detector).into_iter().map(|(group, mark)| {
            let id = &group.first().info.trial;
            let twin = id.control.as_ref().map_or_else(String::new, |control| format!(" / {control}"));
            format!("{}{twin} {}", id.scenario, mark.text)
        });
        each.collect::<Vec<_>>().join(" · ")
    }

    /// The longest time to detect and all wrong marks; unexpected findings only if there is neither.
    #[must_use]
    pub fn worst(&self, detector: &str) -> Vec<Mark> {
        let marks: Vec<Mark> = self.marks(detector).into_iter().map(|(_, mark)| mark).collect();
        let key = |mark: &Mark| (mark.tone, mark.text.clone());
        let longest = self.longest(detector).map(|text| (Tone::Good, text));
        let wrong = marks.iter().filter(|mark| mark.tone > Tone::Note).map(key);
        let mut shown = summary::tally(longest.into_iter().chain(wrong));
        if shown.is_empty() {
            shown = summary::tally(marks.iter().map(key));
        }
        if shown.iter().all(|((tone, _), _)| *tone == Tone::Note) {
            // These times do not matter.
            let timed = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
            let word = |text: &str| match text.split_once(' ') {
                Some((word, rest)) if timed(rest) => word.to_owned(),
                _ => text.to_owned(),
            };
            shown = summary::tally(marks.iter().map(|mark| (mark.tone, word(&mark.text))));
        }
        shown.into_iter().map(|((tone, text), _)| Mark { text, tone, detail: String::new() }).collect()
    }

    /// The longest time in any variant. Without repetitions a late time has a separate mark.
    fn longest(&self, detector: &str) -> Option<String> {
        let times = self.variants().flat_map(|group| {
            let verdicts = group.trials.iter().flat_map(|trial| &trial.verdicts);
            let repeated = group.trials.len() > 1;
            verdicts.filter(|decided| decided.expectation.detector == detector).filter_map(move |decided| match decided
                .verdict
            {
                Verdict::Detected { .. } => decided.since_visible(),
                Verdict::Late { .. } if repeated => decided.since_visible(),
                _ => None,
            })
        });
        times.max().map(|time| if time.is_zero() { "standing".to_owned() } else { units::span(time) })
    }
}

/// "6 silent", "5/6 silent".
pub fn twins<'g>(twins: impl Iterator<Item = &'g Group<'g>>) -> (Tone, String) {
    let outcomes: Vec<Outcome> = twins.map(Group::outcome).collect();
    let silent = outcomes.iter().filter(|outcome| **outcome == Outcome::Pass).count();
    match outcomes.iter().max() {
        None => (Tone::Muted, "none".to_owned()),
        Some(Outcome::Pass) => (Tone::Good, format!("{silent} silent")),
        Some(Outcome::Skipped) if silent == 0 => (Tone::Skipped, "skipped".to_owned()),
        Some(worst) => (words::outcome_tone(*worst), format!("{silent}/{} silent", outcomes.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn worst(incidents: &[Incident<'_>], id: &str, detector: &str) -> Vec<String> {
        let incident = incidents.iter().find(|incident| incident.id == id).expect("the incident");
        incident.worst(detector).into_iter().map(|mark| mark.text).collect()
    }

    #[test]
    fn an_incident_is_shown_by_its_worst() {
        let run = RunSummary::of(&sample::run());
        let all = incidents(&run, "netns");
        assert_eq!(worst(&all, "I1", "pmtu-blackhole"), ["late 5.12 s", "FALSE ALARM"]);
        assert_eq!(worst(&all, "I3", "alertmanager"), ["miss (known)"]);
        assert_eq!(all.iter().find(|incident| incident.id == "I1").expect("I1").twins().1, "0/1 silent");

        let run = RunSummary::of(&sample::both(|_| true));
        let all = incidents(&run, "netns");
        assert_eq!(worst(&all, "I4", "policy-route"), ["2.2 ms"]);
        assert_eq!(worst(&all, "I3", "dns-failing"), ["3.40 s", "1× late"]);
    }

    #[test]
    fn variants_are_one_incident_and_twins_follow_their_variant() {
        let mut run = RunSummary::of(&sample::run());
        let mut variant = run.trials.iter().find(|trial| trial.name() == "I4 policy-route-lost").expect("I4").clone();
        "policy-route-cut".clone_into(&mut variant.info.trial.scenario);
        run.trials.push(variant);
        let all = incidents(&run, "netns");
        let lost = all.iter().find(|incident| incident.id == "I4").expect("I4");
        assert_eq!((lost.name().as_str(), lost.size().as_str()), ("I4 policy-route", "2 variants, 1 twin"));
        let names: Vec<String> = lost.groups.iter().map(|group| group.first().name()).collect();
        let expected =
            ["I4 policy-route-cut", "I4 policy-route-lost", "I4 policy-route-lost / table-rebuilt (control)"];
        assert_eq!(names, expected);
        assert_eq!(lost.each("wrong-nic"), "policy-route-cut 1.02 s · policy-route-lost 1.02 s");
    }
}
