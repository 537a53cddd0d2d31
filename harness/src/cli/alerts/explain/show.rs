//! What `relapse alerts explain` prints.

use relapse_alerts::explain::{Explained, Part};
use relapse_alerts::recording::Header;
use relapse_alerts::report::words::{clock, number};
use relapse_alerts::rule::{Rule, What};
use relapse_alerts::verdict::{Firing, OfRule, OfTrial, Subject};
use relapse_reports::paint::{Page, columns, cut};
use relapse_reports::units::count;
use relapse_reports::words::{Tone, one_line};

/// Label sets that are plotted for one part.
const PLOTTED: usize = 3;
/// Columns for the text of a part, and for each of its numbers.
const TEXT: usize = 54;
const CELL: usize = 16;

const PHASES: [&str; 4] = ["baseline", "fault", "held", "healed"];

pub fn head(rule: &Rule, header: &Header, page: Page) -> Vec<String> {
    let twin = header.control.as_ref().map(|twin| format!("/{twin}")).unwrap_or_default();
    let wait = if let What::Alert { wait, .. } = &rule.what { clock(wait.as_secs_f64()) } else { String::new() };
    let title = page.strong(&format!("{} in {} {}{twin}", rule.name(), header.incident, header.scenario));
    let place = page.paint(Tone::Muted, &format!("{}:{}, for: {wait}, on {}", rule.file, rule.line, header.backend));
    vec![format!("{title}  {place}"), format!("  {}", one_line(&rule.expr))]
}

/// What became of the rule, in sentences.
pub fn verdict(settled: Option<&OfRule>, trial: Option<&OfTrial>, rule: &Rule, page: Page) -> Vec<String> {
    let wait = if let What::Alert { wait, .. } = &rule.what { *wait } else { std::time::Duration::ZERO };
    let (tone, lines) = match (settled, trial) {
        (Some(OfRule::NotCovered { metrics }), _) => {
            (Tone::Unsure, vec![format!("not covered: no exporter that was recorded has {}", metrics.join(", "))])
        }
        (Some(OfRule::CannotFire { why, nearest }), _) => {
            let nearest = nearest.iter().map(|nearest| format!("the nearest that was recorded: {nearest}"));
            (Tone::Bad, std::iter::once(format!("cannot fire: {why}")).chain(nearest).collect())
        }
        (Some(OfRule::AlwaysOn { why }), _) => (Tone::Unsure, vec![format!("always on: {why}")]),
        (Some(OfRule::Undecided { why }), _) | (_, Some(OfTrial::Undecided { why })) => {
            (Tone::Unsure, vec![format!("undecided: {why}")])
        }
        (None, Some(OfTrial::NotRecorded { metrics })) => {
            (Tone::Unsure, vec![format!("not recorded in this trial: {}", metrics.join(", "))])
        }
        (Some(OfRule::Error { message }), _) | (_, Some(OfTrial::Error { message })) => {
            (Tone::Bad, vec![format!("error: {message}")])
        }
        (None, Some(OfTrial::Fires(firings))) => (Tone::Good, firings.iter().take(PLOTTED).flat_map(fires).collect()),
        (None, Some(OfTrial::Pending { at, lasted, .. })) => (
            Tone::Unsure,
            vec![
                format!(
                    "never fires: its condition is true after {} for {}, and for: {} asks for more",
                    clock(at.as_secs_f64()),
                    clock(lasted.as_secs_f64()),
                    clock(wait.as_secs_f64())
                ),
                format!("would have fired with a `for` below {}", clock(lasted.as_secs_f64())),
            ],
        ),
        (None, Some(OfTrial::NeverTrue { close })) => {
            let mut lines = vec!["never true".to_owned()];
            lines.extend(close.as_ref().map(|close| {
                let (verb, side) = if close.above { ("peaked at", "below") } else { ("fell to", "above") };
                format!(
                    "{verb} {} of {}: would have been true with a threshold {side} {}",
                    number(close.value),
                    number(close.threshold),
                    number(close.value)
                )
            }));
            (Tone::Bad, lines)
        }
        (None, None) => (Tone::Unsure, vec!["not decided".to_owned()]),
    };
    lines.into_iter().map(|line| page.paint(tone, &format!("  {line}"))).collect()
}

fn fires(firing: &Firing) -> Vec<String> {
    let split = firing.split;
    let times = [
        ("condition", split.condition),
        ("scrape", split.scrape),
        ("evaluation", split.evaluation),
        ("for", split.wait),
    ];
    let times = times.map(|(name, time)| format!("{name} {}", clock(time.as_secs_f64()))).join(" + ");
    let held = if firing.held { " (held: the recorded fault was prolonged)" } else { "" };
    let late = if firing.late { ", when the original was over" } else { "" };
    let cleared = match firing.cleared {
        Some(cleared) => format!("over {} after healing", clock(cleared.as_secs_f64())),
        None => "still fires at the end".to_owned(),
    };
    let subject = match &firing.subject {
        Subject::Is { subject, labels } => format!("about {subject}, by {}", labels.join(" and ")),
        Subject::NotSaid => "does not say where".to_owned(),
    };
    let mut lines = vec![
        format!("fires after {}{late}{held}: {times}", clock(firing.after.as_secs_f64())),
        format!("  {subject}; {cleared}"),
    ];
    lines.extend(firing.few.iter().map(|few| format!("  {few}")));
    lines
}

/// Which columns of a plot belong to which phase.
struct Columns {
    /// Bounds of the phases, by index of the instants.
    bounds: [(usize, usize); 4],
}

impl Columns {
    fn of(explained: &Explained) -> Self {
        let fault = i64::from(explained.phases.heal) - i64::from(explained.phases.fault);
        let ends = [0, fault, fault + i64::from(explained.hold), i64::MAX];
        let mut from = 0;
        let bounds = ends.map(|end| {
            let to = explained.instants.iter().filter(|at| **at < end).count().max(from);
            let bound = (from, to);
            from = to;
            bound
        });
        Self { bounds }
    }

    fn shown(&self) -> impl Iterator<Item = (&'static str, (usize, usize))> {
        PHASES.into_iter().zip(self.bounds).filter(|(_, (from, to))| to > from)
    }

    /// A text of one character an instant, with a line between phases.
    fn join(&self, text: &[char]) -> String {
        let parts =
            self.shown().map(|(_, (from, to))| text.get(from..to).unwrap_or_default().iter().collect::<String>());
        parts.collect::<Vec<_>>().join("│")
    }
}

/// The table of parts, a plot for each, and where it fails.
pub fn parts(explained: &Explained, rule: &Rule, page: Page) -> Vec<String> {
    let phases = Columns::of(explained);
    let mut lines = vec![String::new()];
    let mut head = format!("  {:<TEXT$}", "part");
    for (name, _) in phases.shown() {
        head.push_str(&format!("{name:<CELL$}"));
    }
    lines.push(page.paint(Tone::Muted, head.trim_end()));
    for part in &explained.parts {
        let text = cut(&format!("{}{}", "  ".repeat(part.depth), one_line(&part.text)), TEXT - 2);
        let mut line = format!("  {text}{}", " ".repeat(TEXT - columns(&text)));
        for (_, bounds) in phases.shown() {
            let cell = cell(part, bounds);
            line.push_str(&format!("{cell}{}", " ".repeat(CELL.saturating_sub(columns(&cell)))));
        }
        lines.push(line.trim_end().to_owned());
    }
    lines.push(String::new());
    lines.extend(plots(explained, &phases, page));
    lines.push(String::new());
    lines.extend(failing(explained, &phases, rule).into_iter().map(|line| format!("  {line}")));
    lines
}

/// "0.2", "0.2 .. 0.9", "0.9 (2 series)", "–" for no result.
fn cell(part: &Part, (from, to): (usize, usize)) -> String {
    if let Some(error) = &part.error {
        return cut(error, CELL - 2);
    }
    let values = part.values.values().map(|values| values.get(from..to).unwrap_or_default());
    let series = values.clone().filter(|values| values.iter().any(Option::is_some)).count();
    let present: Vec<f64> = values.flatten().flatten().copied().collect();
    let (Some(least), Some(most)) = (extreme(&present, f64::min), extreme(&present, f64::max)) else {
        return if present.is_empty() { "–".to_owned() } else { "NaN".to_owned() };
    };
    let many = if series > 1 { format!(" ({series})") } else { String::new() };
    if least.to_bits() == most.to_bits() {
        format!("{}{many}", number(least))
    } else {
        format!("{}..{}{many}", number(least), number(most))
    }
}

fn extreme(values: &[f64], pick: fn(f64, f64) -> f64) -> Option<f64> {
    values.iter().copied().filter(|value| !value.is_nan()).reduce(pick)
}

/// One row of bars for the label sets of each part that vary most.
fn plots(explained: &Explained, phases: &Columns, page: Page) -> Vec<String> {
    let mut head = String::new();
    for (n, (name, (from, to))) in phases.shown().enumerate() {
        if n > 0 {
            head.push('│');
        }
        head.push_str(&format!("{:<width$}", cut(name, to - from), width = to - from));
    }
    let mut lines = vec![page.paint(Tone::Muted, &format!("  {head}"))];
    for part in &explained.parts {
        let mut series: Vec<_> = part.values.iter().collect();
        series.sort_by_key(|(_, values)| std::cmp::Reverse(values.windows(2).filter(|pair| differ(pair)).count()));
        let differs = |label: &str| series.iter().any(|(labels, _)| labels.get(label) != series[0].0.get(label));
        for (labels, values) in series.iter().take(PLOTTED) {
            let name = part.text.split(['{', '(', ' ']).find(|word| !word.is_empty()).unwrap_or_default();
            let shown = labels.iter().filter(|(label, _)| differs(label));
            let shown: Vec<String> = shown.map(|(label, value)| format!("{label}={value}")).collect();
            let text = if part.depth == 0 { "whole".to_owned() } else { name.to_owned() };
            let named = cut(&format!("{text} {}", shown.join(" ")), 60);
            lines.push(format!("  {}  {}", phases.join(&bars(values)), page.paint(Tone::Muted, &named)));
        }
        if series.len() > PLOTTED {
            let more =
                format!("  and {} more label sets of {}", series.len() - PLOTTED, cut(&one_line(&part.text), 60));
            lines.push(page.paint(Tone::Muted, &more));
        }
    }
    lines
}

fn differ(pair: &[Option<f64>]) -> bool {
    matches!(pair, [one, other] if one.map(f64::to_bits) != other.map(f64::to_bits))
}

/// A bar for each value, from the least to the most; blank where there is none.
fn bars(values: &[Option<f64>]) -> Vec<char> {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let present: Vec<f64> = values.iter().flatten().copied().filter(|value| value.is_finite()).collect();
    let least = extreme(&present, f64::min).unwrap_or(0.0);
    let most = extreme(&present, f64::max).unwrap_or(0.0);
    let bar = |value: f64| {
        let share = if most > least { (value - least) / (most - least) } else { 0.5 };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the bars")]
        let at = (share.clamp(0.0, 1.0) * 7.0).round() as usize;
        BARS[at.min(7)]
    };
    values.iter().map(|value| value.map_or(' ', bar)).collect()
}

/// Where the expression has no result while the fault is in force, and what would have given one.
fn failing(explained: &Explained, phases: &Columns, rule: &Rule) -> Vec<String> {
    let [_, fault, held, _] = phases.bounds;
    let during = (fault.0, held.1);
    let mut lines = Vec::new();
    let has = |part: &Part| any(part, during);
    let Some(root) = explained.parts.first() else { return lines };
    if has(root) {
        let from = (during.0..during.1).find(|n| at(root, *n));
        let last = (during.0..during.1).rev().find(|n| at(root, *n));
        if let (Some(from), Some(to)) = (from, last) {
            let [from, to] = [from, to].map(|n| explained.instants.get(n).copied().unwrap_or_default());
            let still = if any(root, phases.bounds[3]) { ", and for a while after healing" } else { "" };
            lines.push(format!("true between {from} s and {to} s after the fault{still}"));
        }
        return lines;
    }
    lines.push("while the fault is in force, the expression has no result:".to_owned());
    let before = lines.len();
    for part in explained.parts.iter().filter(|part| !has(part)) {
        let sides: Vec<&Part> = part.of.iter().filter_map(|n| explained.parts.get(*n)).collect();
        let text = cut(&one_line(&part.text), 80);
        if sides.is_empty() {
            let ever = part.values.is_empty();
            let why = if ever { "matches no series at any time" } else { "has no series during the fault" };
            lines.push(format!("- {text} {why}"));
        } else if sides.iter().all(|side| has(side)) {
            lines.extend(compared(part, &sides, during, &text));
        }
    }
    if lines.len() == before {
        lines.push(format!("- {}", cut(&one_line(&rule.expr), 80)));
    }
    lines
}

/// Why a part has no result although what it consists of has.
fn compared(part: &Part, sides: &[&Part], during: (usize, usize), text: &str) -> Option<String> {
    let op = part.op.as_deref()?;
    let range = |part: &Part| {
        let values = part.values.values().filter_map(|values| values.get(during.0..during.1));
        let values: Vec<f64> = values.flatten().flatten().copied().collect();
        Some((extreme(&values, f64::min)?, extreme(&values, f64::max)?))
    };
    let (least, most) = range(sides.first()?)?;
    let would = match op {
        ">" | ">=" => format!("its left side is at most {}: it would be true with less on the right", number(most)),
        "<" | "<=" => format!("its left side is at least {}: it would be true with more on the right", number(least)),
        "==" | "!=" if least.to_bits() == most.to_bits() => format!("its left side is {} all the time", number(least)),
        "==" | "!=" => format!("its left side is {} to {}", number(least), number(most)),
        "unless" => "what is on its right exists for all that is on its left".to_owned(),
        _ => {
            let sides = count(sides.len(), "side");
            format!("its {sides} have results, but no two with the same labels (`on`, `ignoring`)")
        }
    };
    Some(format!("- {text}: {would}"))
}

fn at(part: &Part, n: usize) -> bool {
    part.values.values().any(|values| matches!(values.get(n), Some(Some(_))))
}

fn any(part: &Part, (from, to): (usize, usize)) -> bool {
    (from..to).any(|n| at(part, n))
}
