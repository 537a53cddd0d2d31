//! Each report of the hand-made verdicts.

use relapse_reports::paint::Page;

use super::expect::{Level, Outcome};
use super::sample::{card, card_of, expect, headers, rules, verdicts};
use super::scorecard::Scorecard;
use super::{against, html, markdown, text};
use crate::expr::Expression;
use crate::recording::{Exporter, Target};
use crate::rule::{RuleId, What};
use crate::verdict::{OfTrial, Verdicts};

fn graded() -> Scorecard {
    card(&verdicts(), true, &[])
}

fn shown(card: &Scorecard) -> String {
    let first = text::first_line(&card.input, card.promtool.as_deref());
    std::iter::once(first)
        .chain(text::lines(card, Page::PLAIN, &[], &["my-rules/".to_owned()]))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn on_a_terminal() {
    insta::assert_snapshot!(shown(&graded()));
}

#[test]
fn commands_repeat_what_was_given() {
    let next = |options: &[&str], paths: &[&str]| {
        let [options, paths] =
            [options, paths].map(|words| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        let lines = text::lines(&graded(), Page::PLAIN, &options, &paths);
        let from = lines.iter().position(|line| line.starts_with("next:")).unwrap();
        lines[from..].join("\n")
    };
    let all = [
        next(&["--config", "ci/relapse.yaml", "--recordings", "my recordings"], &[]),
        next(&["--all", "--scrape", "30s"], &["it's mine/*.yaml", "b.yaml"]),
        next(&[], &["-"]),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn the_command_that_explains_is_about_its_row() {
    let (mut rules, mut headers) = (rules(), headers());
    // One scenario's name is the end of the other's.
    headers[0].scenario = "late-coredns-loss".to_owned();
    headers[0].expected = headers[1].expected.clone();
    for (index, name) in [(1, "Now and then"), (7, "It's down")] {
        if let What::Alert { name: of, .. } = &mut rules.rules[index].what {
            name.clone_into(of);
        }
    }
    let mut verdicts = verdicts();
    let fires = verdicts.trials[&(RuleId(0), 1)].clone();
    verdicts.trials.insert((RuleId(0), 0), fires);
    let card = card_of(&rules, &headers, &verdicts, true, &[]);
    let line = text::lines(&card, Page::PLAIN, &[], &[]).into_iter().find(|line| line.starts_with("next:")).unwrap();
    assert!(line.ends_with("relapse alerts explain 'It'\\''s down' I3"), "{line}");
}

#[test]
fn verdicts_that_rest_on_derived_series_are_counted() {
    let (mut rules, mut headers) = (rules(), headers());
    headers[0].targets.push(Target { exporter: Exporter::KubeState, place: Default::default() });
    // Decided; not covered; through a recording rule.
    rules.rules[0].read = Expression::of("kube_pod_status_ready");
    rules.rules[8].read = Expression::of("kube_pod_status_ready");
    rules.rules[11].read = Expression::of("kube_node_info");
    rules.rules[1].read = Expression::of("a:b");
    let card = card_of(&rules, &headers, &verdicts(), true, &[]);
    assert_eq!(card.derived, 2);
    assert!(shown(&card).contains("derived: 2 rules rest on series derived from API objects"));
    assert_eq!(graded().derived, 0);
}

#[test]
fn without_promtool_what_reading_settles_is_shown() {
    let settled = Verdicts { trials: std::collections::BTreeMap::new(), ..verdicts() };
    insta::assert_snapshot!(shown(&card(&settled, false, &[])));
}

#[test]
fn in_markdown() {
    insta::assert_snapshot!(markdown::markdown(&graded()));
}

#[test]
fn json_is_read_as_it_was_written() {
    let card = graded();
    let json = serde_json::to_string_pretty(&card).unwrap();
    assert_eq!(serde_json::from_str::<Scorecard>(&json).unwrap(), card);
    insta::assert_snapshot!(json);
}

#[test]
fn a_page_has_a_lane_an_alert_and_hatches_what_is_held() {
    let page = html::html(&[graded()]);
    // I2, its twin, I3 with two alerts, I4 with a pending one.
    assert_eq!(page.matches("class=\"lane\"").count(), 5);
    assert_eq!(page.matches("class=\"firing\"").count(), 2, "ConntrackNearLimit, CoreDNSDown");
    assert_eq!(page.matches("class=\"false-alarm\"").count(), 1, "NicFlapping");
    assert_eq!(page.matches("class=\"held\"").count(), 2, "CoreDNSDown, TargetDown");
    assert!(!page.contains("<script"));
}

#[test]
fn an_alert_after_the_original_was_over_earns_nothing_and_is_no_false_alarm() {
    let mut late = verdicts();
    for verdict in late.trials.values_mut() {
        if let OfTrial::Fires(firings) = verdict {
            firings.iter_mut().for_each(|firing| firing.late = true);
        }
    }
    let card = card(&late, true, &[]);
    assert_eq!(card.caught.caught, 0);
    assert!(shown(&card).contains("too late: the original was over"));
    assert!(card.trials.iter().all(|trial| trial.false_alarms().next().is_none()));
}

#[test]
fn expectations_hold_or_say_why_not() {
    let lines = [
        expect(Some("ConntrackNearLimit"), "I2", Some(Level::Symptom), Some(180), false),
        expect(Some("TargetDown"), "I3", Some(Level::Collateral), None, false),
        expect(None, "I4", None, None, true),
        expect(Some("ConntrackNearLimit"), "I2", Some(Level::Symptom), Some(60), false),
        expect(Some("DnsFlaps"), "I4", Some(Level::Symptom), None, false),
        expect(Some("PodRetransmits"), "I1", Some(Level::Symptom), None, false),
        expect(Some("CoreDNSForwardErrors"), "I3", Some(Level::Symptom), None, false),
        expect(None, "I2", None, None, true),
        expect(Some("PodRetransmit"), "I1", Some(Level::Symptom), None, false),
        expect(Some("PodRetransmits"), "I9", Some(Level::Symptom), None, false),
        expect(Some("ManyToMany"), "I3", Some(Level::Symptom), None, false),
    ];
    let card = card(&verdicts(), true, &lines);
    let of = |expected: &super::scorecard::Expected| match &expected.outcome {
        Outcome::Holds => format!("{}: holds", expected.what),
        Outcome::Broken { why } => format!("{}: {why}", expected.what),
    };
    insta::assert_snapshot!(card.expected.iter().map(of).collect::<Vec<_>>().join("\n"));
    assert!(!card.holds());
}

#[test]
fn an_expected_level_gives_credit() {
    let line = expect(Some("TargetDown"), "I3", Some(Level::Cause), None, false);
    assert_eq!(card(&verdicts(), true, &[line]).caught.at_cause, 1);
    assert_eq!(graded().caught.at_cause, 0);
}

#[test]
fn a_change_wins_and_loses() {
    let before = graded();
    let mut changed = verdicts();
    changed.trials.remove(&(RuleId(0), 1));
    changed.trials.remove(&(RuleId(5), 2));
    let after = card(&changed, true, &[]);
    insta::assert_snapshot!(against::lines(&after, &before, Page::PLAIN).join("\n"));
    assert_eq!(against::lines(&before, &before, Page::PLAIN).last().map(String::as_str), Some("no difference"));
}
