use super::*;

fn of(text: &str) -> Expression {
    read(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn reach(text: &str) -> u64 {
    of(text).reach.as_secs()
}

/// The metrics without any of which there is no result, each tried alone.
fn needed(text: &str) -> Vec<String> {
    let read = of(text);
    let alone = |index: &usize| read.needs.gone(Gone::Nowhere, &|other| other == *index).is_some();
    (0..read.selectors.len()).filter(alone).filter_map(|index| read.selectors[index].metric.clone()).collect()
}

#[test]
fn every_selector_is_found_with_its_matchers() {
    let read = of(r#"sum(rate(a{x="1",y!~"2|3"}[5m])) by (z) / on() {__name__="b",x!=""} > scalar({__name__=~"c.*"})"#);
    let names: Vec<_> = read.selectors.iter().map(|selector| selector.metric.as_deref()).collect();
    assert_eq!(names, [Some("a"), Some("b"), None]);
    let tests = |index: usize| read.selectors[index].tests.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(tests(0), [r#"x="1""#, r#"y!~"2|3""#]);
    assert_eq!(tests(1), [r#"x!="""#]);
    assert_eq!(tests(2), [r#"__name__=~"c.*""#]);
    let not_y = &read.selectors[0].tests[1];
    assert!(not_y.is_match("4") && !not_y.is_match("3"));
    let reads = |index: usize, metric: &str| read.selectors[index].reads(metric);
    assert!(reads(1, "b") && !reads(1, "c") && reads(2, "cd") && !reads(2, "d"));
}

#[test]
fn of_a_range_more_matters_than_the_latest_value() {
    let ranges = |text: &str| of(text).ranges.into_iter().collect::<Vec<_>>();
    assert_eq!(ranges("a > 1 and rate(b[5m]) > c"), [1]);
    assert_eq!(ranges("max_over_time(a[5m:1m]) + a offset 1h"), [0; 0]);
    assert_eq!(ranges("a - timestamp(b) + sum(timestamp(c > 0))"), [1, 2]);
    assert_eq!(Expression::of("a + holt_winters(b[5m], 0.5, 0.5)").ranges.len(), 3);
}

#[test]
fn what_may_be_empty_is_not_needed() {
    for (text, empty) in [
        ("a == 1", &[][..]),
        ("absent(a == 1)", &["a"]),
        ("absent_over_time(a[5m])", &["a"]),
        ("a or b", &["a", "b"]),
        ("a unless b", &["b"]),
        ("a and b", &[]),
        ("a * on(x) group_left(y) b", &[]),
        ("(count(a) or vector(0)) < 1", &["a"]),
        ("a == bool 1", &[]),
        ("sum(a) > scalar(b)", &["b"]),
        ("c and (a or b)", &["a", "b"]),
        ("rate(a[5m]) > 0 and rate(b[5m]) > 0 unless c", &["c"]),
        ("label_replace(a, \"x\", \"$1\", \"y\", \"(.*)\")", &[]),
        ("topk(3, a)", &[]),
        ("-a", &[]),
    ] {
        let all: Vec<_> = of(text).selectors.into_iter().filter_map(|selector| selector.metric).collect();
        let rest: Vec<_> = all.into_iter().filter(|metric| !empty.contains(&metric.as_str())).collect();
        assert_eq!(needed(text), rest, "{text}");
    }
}

#[test]
fn a_constant_decides_nothing_about_what_was_not_recorded() {
    let all = |_: usize| true;
    let gone = |text: &str, how| of(text).needs.gone(how, &all).is_some();
    for text in ["(count(a) or vector(0)) < 1", "absent(a)", "absent(a) or absent(b)", "sum(b) > bool scalar(a)"] {
        assert!(gone(text, Gone::Unseen), "{text}");
    }
    for text in ["(count(a) or vector(0)) < 1", "absent(a)", "vector(1)"] {
        assert!(!gone(text, Gone::Nowhere), "{text}");
    }
    assert!(gone("a or b", Gone::Nowhere));
    assert_eq!(of("absent(a) or b").needs.always(&all), Some(vec![0]));
    assert_eq!(of("absent(a) and b").needs.always(&all), None);
}

#[test]
fn the_reach_is_added_up_along_the_path() {
    assert_eq!(reach("a > 1"), 0);
    assert_eq!(reach("rate(a[5m])"), 300);
    assert_eq!(reach("rate(a[5m] offset 1h)"), 3900);
    assert_eq!(reach("max_over_time(rate(a[5m])[1h:1m] offset 10m)"), 300 + 3600 + 600);
    assert_eq!(reach("rate(a[5m]) + rate(b[2m] offset 1m)"), 300);
    assert_eq!(reach("a offset -1h"), 0);
    assert_eq!(reach("predict_linear(a[6h], 24*60*60) < 0"), 6 * 3600);
    assert_eq!(of("a @ 1609746000").reach, Duration::MAX);
    assert_eq!(reach("a @ end()"), 0);
}

#[test]
fn the_comparison_at_the_top_is_turned_to_the_right() {
    let compared = |text: &str| of(text).comparison.map(|c| (c.left, c.op, c.threshold));
    let some = |left: &str, op, threshold| Some((left.to_owned(), op, threshold));
    assert_eq!(compared("a / b > 0.75"), some("a / b", CompareOp::Above, 0.75));
    assert_eq!(
        compared("(sum by (x) (rate(a[5m])) <= 2 * (1 + 3))"),
        some("sum by (x) (rate(a[5m]))", CompareOp::AtMost, 8.0)
    );
    assert_eq!(compared("-1 < a"), some("a", CompareOp::Above, -1.0));
    assert_eq!(compared("(a * ignoring () group_left () b) > 1"), None);
    for none in ["a > b", "a > bool 1", "a > 1 and b > 2", "absent(a)", "a"] {
        assert_eq!(compared(none), None, "{none}");
    }
}

#[test]
fn what_no_prometheus_parses_is_wrong_and_what_only_this_parser_does_not_is_left() {
    for text in ["sum(rate(a)", "a >", "sum by (x a", "\"open", "", "a b", "{}", "1 > 2", "up == = 1", "a)"] {
        assert!(matches!(read(text), Err(Failure::Wrong(_))), "{text}: {:?}", read(text));
    }
    for text in [
        "holt_winters(a[5m], 0.1, 0.1)",
        "rate(a[5m * 2])",
        "rate(a[5m] smoothed)",
        "future_function(a)",
        "{a=\"b\" or c=\"d\"}",
        "a{x=~\"(?P<n>a)(?<m>b)\\\\C\"}",
        "a offset (5m + 1m)",
    ] {
        assert!(matches!(read(text), Err(Failure::Unknown(_))), "{text}: {:?}", read(text));
    }
}

#[test]
fn an_expression_that_was_not_read_may_read_each_of_its_names() {
    let unread = Expression::of(r#"holt_winters(node_load1{job="x"}[1h], 0.1, 0.2) offset 5m"#);
    let names: Vec<_> = unread.selectors.iter().filter_map(|selector| selector.metric.as_deref()).collect();
    assert_eq!(names, ["holt_winters", "job", "node_load1", "offset", "x"]);
    assert!(unread.failure.is_some());
    assert_eq!(unread.reach, Duration::from_secs(3900));
}

#[test]
fn deep_and_long_expressions_are_left() {
    for text in [format!("{}a{}", "(".repeat(50_000), ")".repeat(50_000)), vec!["a"; 50_000].join(" + ")] {
        assert!(matches!(read(&text), Err(Failure::TooLong(_))));
    }
    let long = format!("a{{x=\"{}\"}} > {}", "(+-".repeat(100_000), vec!["1"; 900].join("+"));
    assert_eq!(of(&long).selectors.len(), 1);
}

#[test]
fn odd_numbers_and_durations_do_no_harm() {
    for text in [
        "rate(a[1e30])",
        "a offset 1e30",
        "a offset -1e30",
        "a offset nan",
        "a offset inf",
        "a @ 1e30",
        "a @ -1e30",
        "a @ nan",
        "a[-5m]",
        "rate(a[999999999999999999999y])",
        "rate(a[0x10])",
        "a[5m:1e30]",
        "a[1e30:5m]",
        "a offset 18446744073709551616",
        "0x > a",
        "1e > a",
        "a > 1e999",
        "a[999999999y:999999999y] offset 99999999999y",
        "a{x=~\"(a{1000}){1000}\"}",
        "\u{0}a",
        "a{\"b\"=\"c\"}",
        "{\"a.b\"}",
        "a{b=\"\\xff\"}",
        "a{b='\\u12'}",
        "'\\",
        "a # x",
        "# x",
        "é",
        "a{é=\"é\"}",
        "time()",
        "a[5m] @ start() offset 5m",
        "-1 ^ -a",
    ] {
        assert_ne!(read(text).err(), Some(Failure::Unknown("its parser failed".to_owned())), "{text}");
        let _ = Expression::unread(text, Failure::Unknown(String::new()));
    }
}
