//! Hand-made verdicts for the tests of reports: one of each kind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::expect::{Expect, Level, Scope};
use super::grade::{Graded, grade};
use super::scorecard::Scorecard;
use crate::expr::Expression;
use crate::recording::{Header, Made, Phases};
use crate::rule::{Group, Rule, RuleId, RuleSet, Severity, What};
use crate::verdict::{Close, Firing, OfRule, OfTrial, Split, Subject, Verdicts};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn alert(file: &str, line: usize, name: &str, wait: u64, severity: Severity) -> Rule {
    Rule {
        group: 0,
        file: Arc::from(file),
        line,
        what: What::Alert { name: name.to_owned(), wait: secs(wait), keep_firing: Duration::ZERO, severity },
        expr: String::new(),
        labels: BTreeMap::new(),
        read: Expression::of(""),
        reach: Duration::ZERO,
    }
}

pub fn rules() -> RuleSet {
    use Severity::{Info, Warning};
    let names = [
        ("node.yaml", 4, "ConntrackNearLimit", 60, Warning),
        ("dns.yaml", 9, "CoreDNSDown", 900, Severity::Critical),
        ("dns.yaml", 31, "CoreDNSForwardErrors", 300, Warning),
        ("net.yaml", 12, "ManyToMany", 0, Warning),
        ("net.yaml", 20, "PodRetransmits", 0, Warning),
        ("net.yaml", 30, "NicFlapping", 0, Warning),
        ("net.yaml", 40, "Watchdog", 0, Info),
        ("net.yaml", 50, "TargetDown", 600, Warning),
        ("cilium.yaml", 3, "CiliumDrops", 0, Warning),
        ("net.yaml", 60, "SloBurn", 0, Warning),
        ("net.yaml", 70, "DnsFlaps", 900, Warning),
    ];
    let record = Rule { what: What::Record { name: "a:b".to_owned() }, ..alert("net.yaml", 80, "", 0, Info) };
    let rules = names.into_iter().map(|(file, line, name, wait, severity)| alert(file, line, name, wait, severity));
    RuleSet {
        groups: vec![Group {
            name: "all".to_owned(),
            file: Arc::from("node.yaml"),
            interval: None,
            query_offset: Duration::ZERO,
        }],
        rules: rules.chain([record]).collect(),
        files: 4,
        skipped: BTreeMap::from([("ServiceMonitor".to_owned(), 9)]),
    }
}

pub fn header(incident: &str, scenario: &str, control: Option<&str>, subject: &str) -> Header {
    Header {
        scenario: scenario.to_owned(),
        control: control.map(str::to_owned),
        incident: incident.to_owned(),
        title: "What happened".to_owned(),
        base: true,
        backend: "netns".to_owned(),
        made: Made {
            at: "2026-11-26T18:00:00Z".to_owned(),
            relapse: "0.1.0".to_owned(),
            kernel: "6.18".to_owned(),
            scenario: String::new(),
        },
        phases: Phases { fault: 60, heal: 180, end: 240 },
        expected: vec![("cause".to_owned(), subject.to_owned())],
        ..Header::default()
    }
}

fn firing(condition: u64, wait: u64, subject: Option<&str>) -> Firing {
    let split = Split { condition: secs(condition), scrape: secs(15), evaluation: secs(25), wait: secs(wait) };
    let after = split.condition + split.scrape + split.evaluation + split.wait;
    Firing {
        labels: labels(&[("severity", "warning")]),
        after,
        in_baseline: false,
        split,
        held: after > secs(120),
        late: false,
        cleared: Some(secs(40)),
        ended_early: None,
        positions: 3,
        few: None,
        subject: subject.map_or(Subject::NotSaid, |subject| Subject::Is {
            subject: subject.to_owned(),
            labels: vec!["instance".to_owned()],
        }),
    }
}

pub fn headers() -> Vec<Header> {
    vec![
        header("I1", "mss-clamp-raised", None, "path/a"),
        header("I2", "conntrack-cap-reset", None, "node/worker-1"),
        header("I2", "conntrack-cap-reset", Some("pod-deleted"), "node/worker-1"),
        header("I3", "coredns-loss", None, "node/worker-2"),
        header("I4", "policy-route-lost", None, "node/worker-2"),
    ]
}

pub fn verdicts() -> Verdicts {
    let mut all = Verdicts::default();
    let close = Close { value: 0.62, threshold: 0.75, above: true, labels: BTreeMap::new() };
    all.rules.insert(
        RuleId(2),
        OfRule::CannotFire {
            why: "CoreDNS 1.11 renamed coredns_forward_responses_total".to_owned(),
            nearest: Some("coredns_proxy_request_duration_seconds_count".to_owned()),
        },
    );
    all.rules.insert(RuleId(8), OfRule::NotCovered { metrics: vec!["cilium_drop_count_total".to_owned()] });
    all.rules.insert(RuleId(9), OfRule::Undecided { why: "looks back 3d, more than 6h".to_owned() });
    let error = OfTrial::Error { message: "many-to-many matching not allowed".to_owned() };
    all.rules.insert(RuleId(6), OfRule::AlwaysOn { why: "fires in the baseline of 2 of 5 recordings".to_owned() });
    for (rule, trial, verdict) in [
        (0, 1, OfTrial::Fires(vec![firing(20, 60, Some("node/worker-1"))])),
        (1, 3, OfTrial::Fires(vec![Firing { cleared: None, ..firing(20, 900, None) }])),
        (3, 3, error),
        (4, 0, OfTrial::NeverTrue { close: Some(close.clone()) }),
        (4, 1, OfTrial::NeverTrue { close: Some(Close { value: 0.1, ..close }) }),
        (5, 2, OfTrial::Fires(vec![firing(3, 0, Some("node/worker-1"))])),
        (7, 3, OfTrial::Fires(vec![firing(20, 600, None)])),
        (10, 4, OfTrial::Pending { at: secs(30), lasted: secs(20), wait: secs(900) }),
    ] {
        all.trials.insert((RuleId(rule), trial), verdict);
    }
    all
}

pub fn expect(alert: Option<&str>, incident: &str, level: Option<Level>, within: Option<u64>, miss: bool) -> Expect {
    Expect {
        alert: alert.map(str::to_owned),
        scope: Scope::Incident(incident.to_owned()),
        level,
        within: within.map(secs),
        miss: miss.then(|| "no rule yet".to_owned()),
    }
}

/// The scorecard of verdicts, or of what reading alone settles.
pub fn card(verdicts: &Verdicts, promtool: bool, expect: &[Expect]) -> Scorecard {
    card_of(&rules(), &headers(), verdicts, promtool, expect)
}

pub fn card_of(
    rules: &RuleSet,
    headers: &[Header],
    verdicts: &Verdicts,
    promtool: bool,
    expect: &[Expect],
) -> Scorecard {
    grade(&Graded {
        name: None,
        rules,
        headers: headers.iter().collect(),
        verdicts,
        unknown_values: BTreeMap::new(),
        labels: BTreeMap::from([
            ("node".to_owned(), labels(&[("job", "node-exporter"), ("instance", "{node}:9100")])),
            ("dns".to_owned(), labels(&[("job", "kube-dns")])),
        ]),
        inferred: vec!["job=node-exporter".to_owned(), "job=kube-dns (cluster DNS)".to_owned()],
        expect,
        promtool: promtool.then(|| "2.53.1".to_owned()),
        scrape: secs(15),
        evaluate: secs(30),
        took: Duration::from_millis(4_800),
    })
}
