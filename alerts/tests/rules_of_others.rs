//! Rules as people publish them, which are not part of the project: `RELAPSE_RULES=FOLDER`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use relapse_alerts::expr::{self, Gone, Selector};
use relapse_alerts::rule::RuleSet;
use relapse_alerts::rules::{self, Input};

fn rules() -> Option<RuleSet> {
    let Some(folder) = std::env::var_os("RELAPSE_RULES") else {
        eprintln!("skipped: RELAPSE_RULES names no folder of rules");
        return None;
    };
    Some(rules::read(&[Input::Path(folder.into())]).unwrap_or_else(|wrong| panic!("{wrong}")))
}

/// As the programs look for it.
fn promtool() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::var_os("PROMTOOL")
        .map(PathBuf::from)
        .into_iter()
        .chain(std::env::split_paths(&path).map(|folder| folder.join("promtool")))
        .chain(cache.map(|cache| cache.join("relapse/tools/prometheus/usr/bin/promtool")))
        .find(|program| program.is_file());
    if found.is_none() {
        eprintln!("skipped: there is no promtool");
    }
    found
}

#[test]
fn all_are_read() {
    let Some(set) = rules() else { return };
    for rule in &set.rules {
        let read = &rule.read;
        assert_eq!(read.failure, None, "{}:{}", rule.file, rule.line);
        if let Some(comparison) = &read.comparison {
            let left = expr::read(&comparison.left).unwrap_or_else(|error| panic!("{}: {error}", comparison.left));
            let metrics = |selectors: &[Selector]| selectors.iter().map(|s| s.metric.clone()).collect::<Vec<_>>();
            assert_eq!(metrics(&left.selectors), metrics(rule.selectors()), "{}", comparison.left);
            assert_eq!(left.reach, read.reach, "{}", comparison.left);
        }
    }
}

/// An expression that has no result without any series, as settling assumes, has none in promtool.
#[test]
fn what_has_no_result_without_series_has_none_in_promtool() {
    let (Some(set), Some(promtool)) = (rules(), promtool()) else { return };
    let mut test = "evaluation_interval: 1m\ntests:\n- interval: 1m\n  promql_expr_test:\n".to_owned();
    let mut asked = 0;
    for rule in &set.rules {
        if rule.read.needs.gone(Gone::Nowhere, &|_| true).is_some() {
            asked += 1;
            let expr = serde_json::to_string(&rule.expr).expect("a string");
            writeln!(test, "  - {{ expr: {expr}, eval_time: 10m, exp_samples: [] }}").expect("a string");
        }
    }
    assert!(asked > 0);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("test.yaml");
    std::fs::write(&file, test).expect("written");
    let output = Command::new(promtool).args(["test", "rules"]).arg(&file).output().expect("promtool runs");
    let words = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{words}");
}
