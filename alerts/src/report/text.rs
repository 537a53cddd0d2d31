//! A scorecard on a terminal.
//!
//! Job: lines, in colour if the page is. The first line needs no verdict, so that it can be printed before promtool is
//! asked. Left out: what is in a scorecard but not worth a line; JSON has all of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use relapse_reports::paint::{Line, Page, columns, cut};
use relapse_reports::units::count;
use relapse_reports::words::Tone;

use super::expect::Outcome;
use super::rows::{CLOSE, HEADS, Row, rows};
use super::scorecard::{Close, Incident, Input, Named, Scorecard, Settled, SettledVerdict, Trial};
use super::words::{self, clock};

/// At most this many rules are listed for one verdict.
const LISTED: usize = 8;
/// The width of the words at the start of a list of rules.
const HEAD: usize = 13;

/// "312 rules in 14 files; 9 ServiceMonitors skipped; promtool 2.53.1".
#[must_use]
pub fn first_line(input: &Input, promtool: Option<&str>) -> String {
    let mut line = format!("{} in {}", count(input.alerts + input.recording_rules, "rule"), count(input.files, "file"));
    if input.recording_rules > 0 {
        _ = write!(line, ", {} of them recording", input.recording_rules);
    }
    if !input.skipped.is_empty() {
        let skipped: Vec<String> = input.skipped.iter().map(|(kind, n)| count(*n, kind)).collect();
        _ = write!(line, "; {} skipped", skipped.join(", "));
    }
    match promtool {
        Some(version) => _ = write!(line, "; promtool {version}"),
        None => line.push_str("; no promtool"),
    }
    line
}

/// Everything after the first line. `options` and `paths` are as given on the command line, for the commands at the end.
#[must_use]
pub fn lines(card: &Scorecard, page: Page, options: &[String], paths: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    labels(card, page, &mut lines);
    not_covered(card, page, &mut lines);
    settled(card, page, &mut lines);
    if card.promtool.is_none() {
        lines.push(page.paint(Tone::Unsure, "Only these verdicts could be reached: the others need promtool."));
        expectations(card, page, &mut lines);
        return lines;
    }
    lines.push(String::new());
    table(card, page, &mut lines);
    remarks(card, page, &mut lines);
    expectations(card, page, &mut lines);
    lines.push(String::new());
    lines.push(format!("{} {}", page.strong(&verdict(card)), clock(card.took)));
    next(card, options, paths, &mut lines);
    lines
}

/// "You would catch 2 of 7, none at its cause."
#[must_use]
pub fn verdict(card: &Scorecard) -> String {
    let caught = card.caught;
    let cause = match (caught.caught, caught.at_cause) {
        (0, _) => String::new(),
        (_, 0) => ", none at its cause".to_owned(),
        (_, n) => format!(", {n} at the cause"),
    };
    format!("You would catch {} of {}{cause}.", caught.caught, caught.incidents)
}

fn labels(card: &Scorecard, page: Page, lines: &mut Vec<String>) {
    if card.inferred.is_empty() {
        return;
    }
    let hint = page.paint(Tone::Muted, "[--labels]");
    lines.push(format!("labels inferred: {}  {hint}", card.inferred.join(", ")));
}

/// Rules without recorded metrics, by the first words of these.
fn not_covered(card: &Scorecard, page: Page, lines: &mut Vec<String>) {
    let rules: Vec<&Settled> = card.settled(SettledVerdict::NotCovered).collect();
    if rules.is_empty() {
        return;
    }
    let mut families: BTreeMap<&str, usize> = BTreeMap::new();
    for metric in rules.iter().filter_map(|rule| rule.metrics.first()) {
        *families.entry(metric.split(['_', ':']).next().unwrap_or(metric)).or_default() += 1;
    }
    let mut families: Vec<(&str, usize)> = families.into_iter().collect();
    families.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let mut named: Vec<&str> = families.iter().take(4).map(|(name, _)| *name).collect();
    if families.len() > named.len() {
        named.push("...");
    }
    let families = if named.is_empty() { String::new() } else { format!(" ({})", named.join(", ")) };
    let text = format!("not covered: {}{families}: their metrics were not recorded", count(rules.len(), "rule"));
    lines.push(page.paint(Tone::Muted, &text));
}

fn place(rule: &Named) -> String {
    format!("{}:{} {}", rule.file, rule.line, rule.name)
}

/// Lists of rules that say nothing in any trial, and of rules that fail in some.
fn settled(card: &Scorecard, page: Page, lines: &mut Vec<String>) {
    let of = |verdict| -> Vec<(String, Vec<String>)> {
        let rule = |rule: &Settled| {
            let nearest = rule.nearest.iter().map(|nearest| format!("nearest: {nearest}"));
            (place(&rule.rule), std::iter::once(rule.why.clone()).chain(nearest).collect())
        };
        card.settled(verdict).map(rule).collect()
    };
    list("CANNOT FIRE", Tone::Bad, &of(SettledVerdict::CannotFire), page, lines);
    let mut errors = of(SettledVerdict::Error);
    errors.extend(open(card, true));
    list("ERRORS", Tone::Bad, &errors, page, lines);
    // An alert such as Watchdog is meant to fire always.
    let pages = |rule: &&Settled| rule.severity.is_some_and(|severity| severity >= crate::rule::Severity::Warning);
    let always = card.settled(SettledVerdict::AlwaysOn).filter(pages);
    let always: Vec<_> = always.map(|rule| (place(&rule.rule), vec![rule.why.clone()])).collect();
    list("ALWAYS ON", Tone::Unsure, &always, page, lines);
    let mut undecided = of(SettledVerdict::Undecided);
    undecided.extend(open(card, false));
    list("UNDECIDED", Tone::Unsure, &undecided, page, lines);
    let mut never = of(SettledVerdict::NeverTrue);
    let all = never.len();
    never.retain(|(_, below)| below.len() > 1);
    list("NO SERIES", Tone::Unsure, &never, page, lines);
    if all > 0 {
        lines.push(page.paint(Tone::Muted, &format!("never true: {} (--json lists them)", count(all, "rule"))));
    }
}

/// Rules that are open in some trials, with the incidents and the first reason.
fn open(card: &Scorecard, error: bool) -> Vec<(String, Vec<String>)> {
    let mut rules: BTreeMap<&Named, (Vec<String>, &str)> = BTreeMap::new();
    for trial in &card.trials {
        for open in trial.open.iter().filter(|open| open.error == error) {
            let (scenarios, _) = rules.entry(&open.rule).or_insert_with(|| (Vec::new(), &open.why));
            let incident = if trial.base { &trial.incident } else { &trial.scenario };
            let twin = trial.control.as_ref().map(|twin| format!("{incident}'s twin {twin}"));
            let name = twin.unwrap_or_else(|| incident.clone());
            if !scenarios.contains(&name) {
                scenarios.push(name);
            }
        }
    }
    let of = |(rule, (names, why)): (&Named, (Vec<String>, &str))| {
        let during = match names.len() {
            all if all == card.trials.len() => String::new(),
            many if many > 3 => format!(" (only during {})", count(many, "trial")),
            _ => format!(" (only during {})", names.join(", ")),
        };
        (place(rule), vec![format!("{why}{during}")])
    };
    rules.into_iter().map(of).collect()
}

fn list(head: &str, tone: Tone, rules: &[(String, Vec<String>)], page: Page, lines: &mut Vec<String>) {
    for (n, (rule, below)) in rules.iter().take(LISTED).enumerate() {
        let line = if n == 0 {
            Line::new(page, 0).cell(Some(tone), head, HEAD).cell(None, &rules.len().to_string(), 4)
        } else {
            Line::new(page, HEAD + 4)
        };
        lines.push(line.cell(None, rule, 0).end());
        for text in below {
            lines.push(
                Line::new(page, HEAD + 4).cell(Some(Tone::Muted), &relapse_reports::words::one_line(text), 0).end(),
            );
        }
    }
    if rules.len() > LISTED {
        let more = format!("and {} more (--json lists all)", rules.len() - LISTED);
        lines.push(Line::new(page, HEAD + 4).cell(Some(Tone::Muted), &more, 0).end());
    }
}

fn table(card: &Scorecard, page: Page, lines: &mut Vec<String>) {
    let rows = rows(card);
    let width = |of: fn(&Row) -> &String, head: &str| {
        rows.iter().map(|row| columns(of(row))).max().unwrap_or(0).max(columns(head)) + 2
    };
    let widths =
        [width(|row| &row.incident, HEADS[0]), width(|row| &row.warning, HEADS[1]), width(|row| &row.after, HEADS[2])];
    let mut head = Line::new(page, 0);
    for (name, width) in HEADS.iter().zip(widths.into_iter().chain([0])) {
        head = head.cell(Some(Tone::Muted), name, width);
    }
    lines.push(head.end());
    for row in &rows {
        let line =
            Line::new(page, 0).cell(None, &row.incident, widths[0]).cell(Some(row.tone), &row.warning, widths[1]);
        lines.push(line.cell(Some(row.tone), &row.after, widths[2]).cell(None, &row.level, 0).end());
    }
}

/// What the table needs explained, and what it does not show.
pub(super) fn notes(card: &Scorecard) -> Vec<(Tone, String)> {
    let mut notes = Vec::new();
    let firsts: Vec<_> = card.incidents.iter().filter_map(|incident| card.first(incident)).collect();
    let held = firsts.iter().filter(|(_, first)| first.held).max_by(|(_, a), (_, b)| a.after.total_cmp(&b.after));
    if let Some((_, held)) = held {
        let (true_after, wait) = (clock(held.condition), clock(held.wait));
        let text = match held.wait {
            0.0 => "* held: the recorded fault was prolonged".to_owned(),
            _ => format!(
                "* held: the recorded fault was prolonged; {} is true after {true_after}, then for: {wait}",
                held.rule.name
            ),
        };
        notes.push((Tone::Muted, text));
    }
    if card.derived > 0 {
        let verb = if card.derived == 1 { "rests" } else { "rest" };
        let text = format!("derived: {} {verb} on series derived from API objects", count(card.derived, "rule"));
        notes.push((Tone::Muted, text));
    }
    for (close, trial) in closest(card) {
        let name = if trial.base { &trial.incident } else { &trial.scenario };
        notes.push((Tone::Muted, format!("close: {} {} ({name})", close.rule.name, words::close(close))));
    }
    let alarms = false_alarms(card);
    let tone = if alarms.is_empty() { Tone::Good } else { Tone::Bad };
    let named: Vec<&str> = alarms.iter().map(String::as_str).collect();
    let shown = named.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
    let more = if named.len() > LISTED { format!(" and {} more", named.len() - LISTED) } else { String::new() };
    let twins = card.trials.iter().filter(|trial| trial.control.is_some()).count();
    notes.push((
        tone,
        format!("false alarms in {}: {}  {shown}{more}", count(twins, "twin"), alarms.len()).trim_end().to_owned(),
    ));
    notes
}

/// "NicFlapping (pod-deleted)", one for each rule and twin.
pub(super) fn false_alarms(card: &Scorecard) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for trial in &card.trials {
        for warning in trial.false_alarms() {
            let text = format!("{} ({})", warning.rule.name, trial.control.as_deref().unwrap_or_default());
            if !all.contains(&text) {
                all.push(text);
            }
        }
    }
    all
}

/// The rules that came closest in an incident, each once, without those in the table.
fn closest(card: &Scorecard) -> Vec<(&Close, &Trial)> {
    let in_table: Vec<String> = rows(card).into_iter().map(|row| row.warning).collect();
    let trials = card.trials.iter().filter(|trial| trial.control.is_none());
    let mut all: Vec<(&Close, &Trial)> =
        trials.flat_map(|trial| trial.close.iter().map(move |close| (close, trial))).collect();
    all.retain(|(close, _)| close.share() >= CLOSE && !in_table.contains(&close.rule.name));
    all.sort_by(|(one, _), (other, _)| other.share().total_cmp(&one.share()));
    let mut shown: Vec<(&Close, &Trial)> = Vec::new();
    for (close, trial) in all {
        if shown.len() < 3 && shown.iter().all(|(other, _)| other.rule != close.rule) {
            shown.push((close, trial));
        }
    }
    shown
}

fn remarks(card: &Scorecard, page: Page, lines: &mut Vec<String>) {
    lines.extend(notes(card).into_iter().map(|(tone, text)| page.paint(tone, &text)));
}

fn expectations(card: &Scorecard, page: Page, lines: &mut Vec<String>) {
    if card.expected.is_empty() {
        return;
    }
    let holds = card.expected.iter().filter(|expected| expected.outcome == Outcome::Holds).count();
    lines.push(String::new());
    let verb = if card.expected.len() == 1 { "holds" } else { "hold" };
    lines.push(format!("{holds} of {} {verb}", count(card.expected.len(), "expectation")));
    for expected in &card.expected {
        if let Outcome::Broken { why } = &expected.outcome {
            let what = cut(&expected.what, 90);
            lines.push(Line::new(page, 2).label(Tone::Bad, "✗ ").cell(None, &format!("{what}: {why}"), 0).end());
        }
    }
}

/// Commands that say more about what the table shows.
fn next(card: &Scorecard, options: &[String], paths: &[String], lines: &mut Vec<String>) {
    // What comes from a pipe has to be piped again, and cannot be named in a file.
    let is_piped = paths.iter().any(|path| path == "-");
    let piped = if is_piped { "... | " } else { "" };
    let given: String = options.iter().chain(paths).map(|word| format!(" {}", quoted(word))).collect();
    let mut commands = Vec::new();
    let rows: Vec<(&Incident, Row)> = card.incidents.iter().zip(rows(card)).collect();
    let missed = rows.iter().find(|(incident, _)| incident.caught.is_none());
    if let Some((incident, row)) = missed.or(rows.first()).filter(|(_, row)| row.warning != "-") {
        let of = if incident.base { &incident.incident } else { &incident.scenario };
        commands.push(format!("{piped}relapse alerts explain {} {of}{given}", quoted(&row.warning)));
    }
    if card.expected.is_empty() && !is_piped {
        // Do not overwrite the `relapse.yaml` that is being read.
        let file = if paths.is_empty() { "relapse.new.yaml" } else { "relapse.yaml" };
        commands.push(format!("relapse alerts suggest{given} > {file}"));
    }
    for (n, command) in commands.iter().enumerate() {
        lines.push(format!("{:<6}{command}", if n == 0 { "next:" } else { "" }));
    }
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:=,@%+".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}
