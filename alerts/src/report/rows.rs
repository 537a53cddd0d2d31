//! The table of incidents: a row for each, with its first warning or the rule that came closest.

use relapse_reports::words::Tone;

use super::expect::Level;
use super::scorecard::{Incident, Scorecard, Trial};
use super::words::{self, clock};

/// From this share of the way on, a rule that was never true came close.
pub(super) const CLOSE: f64 = 0.5;

/// One row of the table of incidents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub incident: String,
    pub warning: String,
    pub after: String,
    pub level: String,
    pub tone: Tone,
}

pub(super) const HEADS: [&str; 4] = ["incident", "first warning", "after", "level"];

pub(super) fn rows(card: &Scorecard) -> Vec<Row> {
    card.incidents.iter().map(|incident| row(card, incident)).collect()
}

fn row(card: &Scorecard, incident: &Incident) -> Row {
    let named = format!("{} {}", incident.incident, incident.scenario);
    let Some((_, first)) = card.first(incident) else {
        let trials: Vec<&Trial> = incident.trials.iter().filter_map(|n| card.trials.get(*n)).collect();
        let (warning, level) = almost(&trials).unwrap_or(("-".to_owned(), "-".to_owned()));
        return Row { incident: named, warning, after: "never".to_owned(), level, tone: Tone::Bad };
    };
    let level = first.level.map_or("-", Level::as_str);
    let mut notes = vec![level.to_owned()];
    if first.late {
        notes.push("too late: the original was over".to_owned());
    }
    if first.subject.is_none() {
        notes.push("does not say where".to_owned());
    } else if first.right == Some(false) && first.earns() {
        notes.push(format!("about {}", first.subject.as_deref().unwrap_or_default()));
    }
    match first.ended_early {
        Some(early) => notes.push(format!("over after {}, before healing", clock(early))),
        None if first.cleared.is_none() => notes.push("still fires at the end".to_owned()),
        None => {}
    }
    notes.extend(first.few.clone());
    if first.positions < 3 {
        notes.push(format!("fires by chance: {} of 3 scrape positions", first.positions));
    }
    let tone = match first.level {
        _ if !first.earns() => Tone::Unsure,
        Some(Level::Cause) => Tone::Good,
        _ => Tone::Note,
    };
    let after = format!("{}{}", clock(first.after), if first.held { "*" } else { "" });
    Row { incident: named, warning: first.rule.name.clone(), after, level: notes.join(", "), tone }
}

/// The rule that came closest where none fires: one that was true and not for long enough, or nearly true.
fn almost(trials: &[&Trial]) -> Option<(String, String)> {
    let pending = trials.iter().flat_map(|trial| &trial.pending);
    if let Some(pending) = pending.max_by(|one, other| (one.lasted / one.wait).total_cmp(&(other.lasted / other.wait)))
    {
        return Some((
            pending.rule.name.clone(),
            format!("true for {} of {}", clock(pending.lasted), clock(pending.wait)),
        ));
    }
    let close = trials.iter().flat_map(|trial| &trial.close).filter(|close| close.share() >= CLOSE);
    let close = close.max_by(|one, other| one.share().total_cmp(&other.share()))?;
    Some((close.rule.name.clone(), words::close(close)))
}
