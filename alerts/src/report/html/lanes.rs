//! Alerts over the phases of a trial.
//!
//! Job: a lane a rule: pending, then firing, until it is over. The axis has a part for each phase, each with a scale of
//! its own, since a fault held for `for: 15m` would hide what was recorded in two minutes. What lies in the held part is
//! hatched.

use std::collections::BTreeMap;

use maud::{Markup, PreEscaped, html};
use relapse_reports::html::svg::{Svg, down};

use crate::report::expect::Level;
use crate::report::scorecard::{Named, Trial, Warning};
use crate::report::words::clock;
use crate::rule::Severity;

pub(super) const STYLE: &str = include_str!("lanes.css");

const WIDTH: f64 = 1_000.0;
const LEFT: f64 = 278.0;
const RIGHT: f64 = 20.0;
const PHASES: f64 = 18.0;
const LANE: f64 = 22.0;

/// The hatching, which all charts share.
pub(super) fn patterns() -> Markup {
    html! {
        svg.patterns width="0" height="0" aria-hidden="true" {
            (PreEscaped("<defs><pattern id=\"hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" \
                patternTransform=\"rotate(45)\"><path d=\"M0 0V6\"/></pattern></defs>"))
        }
    }
}

/// A part of the axis.
struct Part {
    name: &'static str,
    seconds: f64,
    from: f64,
    to: f64,
}

impl Part {
    fn x(&self, seconds: f64) -> f64 {
        let share = if self.seconds > 0.0 { seconds / self.seconds } else { 0.0 };
        self.from + (self.to - self.from) * share.clamp(0.0, 1.0)
    }
}

/// Baseline, fault as recorded, fault held, healed.
struct Axis {
    parts: [Part; 4],
}

impl Axis {
    fn of(trial: &Trial) -> Self {
        let fault = f64::from(trial.phases.fault);
        let ends = trial.warnings.iter().map(|warning| warning.after + warning.ended_early.unwrap_or_default());
        let ends = ends.chain(trial.pending.iter().map(|pending| pending.after + pending.lasted));
        let held = (ends.fold(fault, f64::max) - fault) * 1.15;
        let cleared = trial.warnings.iter().filter_map(|warning| warning.cleared);
        let healed = cleared.fold(f64::from(trial.phases.healed), f64::max) * 1.05;
        let shares = if held > 0.0 { [0.12, 0.40, 0.28, 0.20] } else { [0.15, 0.60, 0.0, 0.25] };
        let lengths = [f64::from(trial.phases.baseline), fault, held, healed];
        let mut at = LEFT;
        let parts = ["baseline", "fault", "held", "healed"];
        let mut numbered = 0;
        let parts = parts.map(|name| {
            let (from, share, seconds) = (at, shares[numbered], lengths[numbered]);
            at += (WIDTH - LEFT - RIGHT) * share;
            numbered += 1;
            Part { name, seconds, from, to: at }
        });
        Self { parts }
    }

    /// Seconds from the injection, before healing.
    fn x(&self, seconds: f64) -> f64 {
        let [baseline, fault, held, _] = &self.parts;
        if seconds < 0.0 {
            baseline.x(baseline.seconds + seconds)
        } else if seconds <= fault.seconds {
            fault.x(seconds)
        } else {
            held.x(seconds - fault.seconds)
        }
    }

    fn end(&self, end: End) -> f64 {
        let healed = &self.parts[3];
        match end {
            End::Before(seconds) => self.x(seconds),
            End::After(seconds) => healed.x(seconds),
            End::Never => healed.to,
        }
    }
}

/// When an alert is over: before healing, in seconds from the injection, or after it, in seconds from healing.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
enum End {
    Before(f64),
    After(f64),
    Never,
}

impl End {
    fn of(warning: &Warning) -> Self {
        match (warning.ended_early, warning.cleared) {
            (Some(early), _) => Self::Before(warning.after + early),
            (None, Some(cleared)) => Self::After(cleared),
            (None, None) => Self::Never,
        }
    }
}

/// What becomes of a rule: of all its label sets together.
struct Lane {
    title: String,
    tone: &'static str,
    pending: f64,
    firing: Option<(f64, End)>,
    until: f64,
}

fn lanes(trial: &Trial) -> BTreeMap<&Named, Lane> {
    let mut lanes: BTreeMap<&Named, Lane> = BTreeMap::new();
    for warning in &trial.warnings {
        let level = warning.level.map_or("", Level::as_str);
        let labels: Vec<String> = warning.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let title = format!("{} after {} {level} {}", warning.rule.name, clock(warning.after), labels.join(" "));
        let tone = match warning.level {
            _ if warning.severity == Severity::Info => "quiet",
            None if !warning.late => "false-alarm",
            Some(Level::Collateral) | None => "collateral",
            Some(_) => "firing",
        };
        let lane = lanes.entry(&warning.rule).or_insert_with(|| Lane {
            title,
            tone,
            pending: warning.after - warning.wait,
            firing: Some((warning.after, End::of(warning))),
            until: 0.0,
        });
        // Warnings are in the order of time, so that only the end can change.
        if let Some((_, end)) = &mut lane.firing
            && End::of(warning) > *end
        {
            *end = End::of(warning);
        }
    }
    for pending in &trial.pending {
        let title = format!("{} true for {} of {}", pending.rule.name, clock(pending.lasted), clock(pending.wait));
        let until = pending.after + pending.lasted;
        lanes.entry(&pending.rule).or_insert(Lane { title, tone: "", pending: pending.after, firing: None, until });
    }
    lanes
}

pub(super) fn chart(trial: &Trial) -> Markup {
    let axis = Axis::of(trial);
    let lanes = lanes(trial);
    #[expect(clippy::cast_precision_loss, reason = "a handful of lanes")]
    let bottom = PHASES + 8.0 + LANE * lanes.len() as f64 + 4.0;
    let mut svg = Svg::default();
    let [_, fault, held, healed] = &axis.parts;
    let class = if trial.control.is_some() { "window twin" } else { "window" };
    svg.rect(class, (fault.from, PHASES), (healed.from - fault.from, bottom - PHASES));
    for (n, part) in axis.parts.iter().enumerate().filter(|(_, part)| part.to > part.from) {
        let shade = if n % 2 == 0 { "phases" } else { "phases odd-phase" };
        svg.group(shade, 0.0, &format!("{} {}", part.name, clock(part.seconds)), |svg| {
            svg.rect("", (part.from, 0.0), (part.to - part.from - 1.0, PHASES - 3.0));
            let text = format!("{} {}", part.name, clock(part.seconds));
            svg.text("", (f64::midpoint(part.from, part.to), 11.0), &text);
        });
    }
    let mut y = PHASES + 8.0;
    for (rule, lane) in &lanes {
        svg.group("lane", y, &lane.title, |svg| {
            svg.text("", (LEFT - 12.0, 15.0), &relapse_reports::paint::cut(&rule.name, 38));
            let bar = |svg: &mut Svg, class: &str, from: f64, to: f64| svg.rect(class, (from, 6.0), (to - from, 10.0));
            bar(svg, "inactive", axis.parts[0].from, healed.to);
            let start = axis.x(lane.pending);
            let end = match lane.firing {
                Some((after, end)) => {
                    let (fires, over) = (axis.x(after), axis.end(end));
                    bar(svg, "pending", start, fires);
                    bar(svg, lane.tone, fires, over);
                    over
                }
                None => {
                    let over = axis.x(lane.until);
                    bar(svg, "pending", start, over);
                    over
                }
            };
            let (from, to) = (start.max(held.from), end.min(held.to));
            if to > from {
                bar(svg, "held", from, to);
            }
        });
        y += LANE;
    }
    for x in [fault.from, healed.from] {
        svg.path("instant force", &down(x, PHASES, bottom));
    }
    svg.end(WIDTH, bottom + 4.0, "alerts over the phases of the trial")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{card, verdicts};

    #[test]
    fn an_alert_is_over_where_it_ends() {
        let mut trial = card(&verdicts(), true, &[]).trials.swap_remove(1);
        let mut again = trial.warnings[0].clone();
        let of = |trial: &Trial| lanes(trial).into_values().next().and_then(|lane| lane.firing);
        assert_eq!(of(&trial), Some((120.0, End::After(40.0))));
        trial.warnings[0].ended_early = Some(10.0);
        assert_eq!(of(&trial), Some((120.0, End::Before(130.0))));
        again.cleared = None;
        trial.warnings.push(again);
        assert_eq!(of(&trial), Some((120.0, End::Never)));
        let axis = Axis::of(&trial);
        assert!(axis.end(End::Before(130.0)) < axis.end(End::After(0.0)));
    }
}
