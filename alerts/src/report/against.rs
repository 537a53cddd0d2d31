//! What a change of the rules wins and loses.

use std::collections::BTreeMap;

use relapse_reports::paint::Page;
use relapse_reports::words::Tone;

use super::expect::Level;
use super::scorecard::{Scorecard, SettledVerdict};
use super::text::{false_alarms, verdict};
use super::words::clock;

/// Compares the scorecard of the present rules with that of earlier ones, in lines.
#[must_use]
pub fn lines(now: &Scorecard, before: &Scorecard, page: Page) -> Vec<String> {
    let (mut won, mut lost) = (Vec::new(), Vec::new());
    let (new, old) = (incidents(now), incidents(before));
    for (scenario, now) in &new {
        let Some(before) = old.get(scenario) else { continue };
        let (list, text) = match (before, now) {
            (None, Some(now)) => (&mut won, format!("{scenario}: caught by {now}")),
            (Some(before), None) => (&mut lost, format!("{scenario}: was caught by {before}")),
            (Some(before), Some(now)) if now.level != before.level => (
                if now.level < before.level { &mut won } else { &mut lost },
                format!("{scenario}: {now}, was {before}"),
            ),
            // Less than an evaluation apart is no difference.
            (Some(before), Some(now)) if (now.after - before.after).abs() >= 1.0 => (
                if now.after < before.after { &mut won } else { &mut lost },
                format!("{scenario}: {now}, was {before}"),
            ),
            _ => continue,
        };
        list.push(text);
    }
    let sets = [
        ("false alarm", false_alarms(now), false_alarms(before)),
        ("cannot fire", of(now, SettledVerdict::CannotFire), of(before, SettledVerdict::CannotFire)),
        ("error", of(now, SettledVerdict::Error), of(before, SettledVerdict::Error)),
        ("always on", of(now, SettledVerdict::AlwaysOn), of(before, SettledVerdict::AlwaysOn)),
    ];
    for (what, now, before) in sets {
        lost.extend(now.iter().filter(|one| !before.contains(one)).map(|one| format!("{what}: {one}")));
        won.extend(before.iter().filter(|one| !now.contains(one)).map(|one| format!("no longer {what}: {one}")));
    }
    let mut lines = vec![format!("before: {}", verdict(before)), format!("now:    {}", verdict(now))];
    lines.extend(won.iter().map(|text| page.paint(Tone::Good, &format!("+ {text}"))));
    lines.extend(lost.iter().map(|text| page.paint(Tone::Bad, &format!("- {text}"))));
    if won.is_empty() && lost.is_empty() {
        lines.push("no difference".to_owned());
    }
    lines
}

struct Catch {
    alert: String,
    level: Option<Level>,
    after: f64,
}

impl std::fmt::Display for Catch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let level = self.level.map_or("-", Level::as_str);
        write!(f, "{} after {} ({level})", self.alert, clock(self.after))
    }
}

/// What catches each scenario.
fn incidents(card: &Scorecard) -> BTreeMap<String, Option<Catch>> {
    let caught = card.incidents.iter().map(|incident| {
        let first = card.first(incident).filter(|_| incident.caught.is_some());
        let caught = first.map(|(_, first)| Catch {
            alert: first.rule.name.clone(),
            level: incident.caught,
            after: first.after,
        });
        (format!("{} {}", incident.incident, incident.scenario), caught)
    });
    caught.collect()
}

fn of(card: &Scorecard, verdict: SettledVerdict) -> Vec<String> {
    card.settled(verdict).map(|rule| rule.rule.name.clone()).collect()
}
