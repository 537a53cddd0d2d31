//! Repetitions and two backends.

use super::*;

/// Four repetitions of three incidents in the lab and on kind, filtered by `keep`.
pub(crate) fn both(keep: impl Fn(&TrialId) -> bool) -> Vec<RunEvent> {
    let scripts = (1..=4).flat_map(|n| [in_the_lab(n), on_kind(n)]).flatten();
    play(scripts.filter(|script| keep(&script.info.trial)).collect(), None)
}

/// The same trials on a single backend.
pub(crate) fn alone(backend: &str) -> Vec<RunEvent> {
    play(in_the_lab(1).into_iter().map(|script| script.on(backend, 1)).collect(), None)
}

/// One symptom is late once, and one trial is inconclusive.
fn in_the_lab(n: u32) -> Vec<Script> {
    let more = u64::from(n);
    let start = |seconds: u64| ms(1_000 * (seconds + 4 * more));
    let route = lost(start(0)).effect("app-database fails: timeout", Some(ms(12)), "5 of 5 attempts timed out");
    let route = if n == 3 {
        route.ended(ms(4_100), Outcome::Inconclusive, &["not enough of an effect: 1 of 5 attempts failed"])
    } else {
        both_found(route, us(1_700 + 130 * more), ms(980 + 11 * more))
    };
    let control = route_trial(start(0) + ms(9), ms(900)).control("table-rebuilt").all(&Verdict::Silent);
    let late = n == 2;
    let failing = symptom("dns-failing", DNS, ms(3_000));
    let after = ms(if late { 3_400 } else { 1_100 + 9 * more });
    let dns = dns_trial(start(20)).found(after, failing, "2 queries in a row without answer");
    let dns = if late {
        dns.ended(ms(5_260), Outcome::Fail, &["dns-failing was late: 3.40 s, deadline 3 s"])
    } else {
        dns.passed(ms(4_260))
    };
    let limit = limit(start(30))
        .injected(us(90), "nf_conntrack_max 262144 -> 4096", "4096")
        .found(us(3_100), cause("conntrack-limit", NODE, ms(500)), "262144 -> 4096")
        .passed(ms(2_500));
    [route, control.passed(ms(2_790)), dns, limit].map(|script| script.on("netns", n)).into()
}

/// One control is inconclusive once, one symptom is always missed, one incident is skipped.
fn on_kind(n: u32) -> Vec<Script> {
    let more = u64::from(n);
    let start = |seconds: u64| ms(1_000 * (40 + seconds + 4 * more));
    let route = lost(start(0)).effect("app-database fails: timeout", Some(ms(12)), "5 of 5 attempts timed out");
    let control = route_trial(start(0) + ms(9), ms(900)).control("table-rebuilt");
    let control = if n == 4 {
        let why = "table-rebuilt is not in force: table 2 is empty";
        let control = control.all(&Verdict::Undecided { why: why.to_owned() });
        control.ended(ms(2_790), Outcome::Inconclusive, &[why])
    } else {
        control.all(&Verdict::Silent).passed(ms(2_790))
    };
    let dns = dns_trial(start(20)).verdict(symptom("dns-failing", DNS, ms(3_000)), Verdict::Missed).ended(
        ms(5_260),
        Outcome::Fail,
        &["dns-failing missed"],
    );
    let route = both_found(route, ms(19 + 3 * more), ms(560 + 7 * more));
    [route, control, dns, limit(start(30)).skipped()].map(|script| script.on("kind", n)).into()
}

fn both_found(route: Script, cause_after: Duration, symptom_after: Duration) -> Script {
    route
        .found(cause_after, cause("policy-route", NODE, ms(500)), "route table 2 lost its default")
        .found(symptom_after, symptom("wrong-nic", NODE, ms(3_000)), "SYN left by eth0")
        .passed(ms(3_370))
}
