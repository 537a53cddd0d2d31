//! Tables as the kernel takes them: written, read back, replaced, refused.

mod common;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use relapse_kernel::conntrack::status;
use relapse_kernel::nft::{
    self, Chain, CtState, Family, Hook, NatFlags, Policy, Rule, Table, append_rule, delete_rule, delete_table,
    insert_rule, list_tables,
};
use relapse_kernel::{Error, NetNs};

const TABLE: &str = "relapse-test";

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

/// Every match and statement there is, each in a rule of its own, with what the command `nft` (a
/// second reader of the same bytes) makes of it.
fn matches() -> Vec<(Rule, &'static str)> {
    let rule = Rule::new;
    vec![
        (rule().iifname("eth0"), r#"iifname "eth0""#),
        (rule().not_iifname("eth0"), r#"iifname != "eth0""#),
        (rule().oifname("eth0"), r#"oifname "eth0""#),
        (rule().not_oifname("eth0"), r#"oifname != "eth0""#),
        (rule().iif(77), "iif 77"),
        (rule().not_iif(77), "iif != 77"),
        (rule().oif(77), "oif 77"),
        (rule().not_oif(77), "oif != 77"),
        (rule().mark(0x10), "meta mark 0x00000010"),
        (rule().ip_saddr(address(1)), "ip saddr 10.0.0.1"),
        (rule().ip_saddr((address(0), 24)), "ip saddr 10.0.0.0/24"),
        (rule().not_ip_saddr((address(77), 27)), "ip saddr != 10.0.0.64/27"),
        (rule().ip_daddr((Ipv4Addr::new(172, 16, 0, 0), 12)), "ip daddr 172.16.0.0/12"),
        (rule().not_ip_daddr(address(9)), "ip daddr != 10.0.0.9"),
        (rule().l4proto(17), "meta l4proto 17"),
        (rule().tcp_sport(80), "tcp sport 80"),
        (rule().tcp_dport(8000..=8080), "tcp dport 8000-8080"),
        (rule().udp_sport(1..=53), "udp sport 1-53"),
        (rule().udp_dport(53), "udp dport 53"),
        (rule().icmp_type(8), "icmp type 8"),
        (rule().icmp_type(3).icmp_code(4), "icmp type 3 icmp code 4"),
        (rule().tcp_flags_syn(), "tcp flags 0x2 / 0x1,0x2,0x4,0x10"),
        (rule().tcp_flags_syn_ack(), "tcp flags 0x2,0x10 / 0x1,0x2,0x4,0x10"),
        (rule().tcp_flags_rst(), "tcp flags & 0x4 == 0x4"),
        (rule().tcp_mss_above(1360), "tcp option maxseg size > 1360"),
        (rule().tcp_mss(1360), "tcp option maxseg size 1360"),
        (rule().ct_state(&[CtState::New]), "ct state 0x8"),
        (rule().ct_state(&[CtState::Established, CtState::Related]), "ct state 0x2,0x4"),
        (rule().ct_state(&[CtState::Invalid]), "ct state 0x1"),
        (rule().ct_direction_original(), "ct direction 0"),
        (rule().ct_direction_reply(), "ct direction 1"),
        (rule().ct_status(status::DNAT), "ct status 0x20"),
        (rule().not_ct_status(status::DNAT), "ct status ! 0x20"),
        (rule().ct_mark(7), "ct mark 0x00000007"),
        (rule().not_ct_mark(7), "ct mark != 0x00000007"),
        (rule().length_above(1400), "meta length > 1400"),
        (rule().numgen_random(10, 3), "numgen random mod 10 3"),
        (rule().numgen_inc(4, 0), "numgen inc mod 4 0"),
        (rule().tcp_dport(1).tcp_sport(2), "tcp dport 1 tcp sport 2"),
    ]
}

fn statements() -> Vec<(Rule, &'static str)> {
    let rule = Rule::new;
    vec![
        (rule().counter(), "counter packets 0 bytes 0"),
        (rule().accept(), "accept"),
        (rule().drop(), "drop"),
        (rule().return_(), "return"),
        (rule().ct_mark_set(7), "ct mark set 0x00000007"),
        (rule().mark_set(9), "meta mark set 0x00000009"),
        (
            rule().tcp_flags_syn().tcp_mss_clamp(1280),
            "tcp flags 0x2 / 0x1,0x2,0x4,0x10 tcp option maxseg size set 1280",
        ),
        (rule().reject_tcp_reset(), "reject with tcp reset"),
        (rule().reject_icmp(1), "reject with icmp 1"),
        (rule().notrack(), "notrack"),
    ]
}

fn translations() -> Vec<(&'static str, Rule, &'static str)> {
    let rule = || Rule::new().l4proto(6);
    let random = NatFlags::FULLY_RANDOM | NatFlags::PERSISTENT;
    vec![
        ("prerouting", Rule::new().dnat(address(9), None), "dnat to 10.0.0.9"),
        ("prerouting", rule().dnat(address(9), Some(8080)), "meta l4proto 6 dnat to 10.0.0.9:8080"),
        ("prerouting", Rule::new().redirect(None), "redirect"),
        ("prerouting", rule().redirect(Some(15001)), "meta l4proto 6 redirect to :15001"),
        ("postrouting", Rule::new().snat(address(9), None, NatFlags::NONE), "snat to 10.0.0.9"),
        (
            "postrouting",
            rule().snat(address(9), Some((1024, 1027)), random),
            "meta l4proto 6 snat to 10.0.0.9:1024-1027 fully-random,persistent",
        ),
        ("postrouting", Rule::new().masquerade(None, NatFlags::NONE), "masquerade"),
        (
            "postrouting",
            rule().masquerade(Some((4000, 4010)), NatFlags::RANDOM),
            "meta l4proto 6 masquerade to :4000-4010 random",
        ),
    ]
}

/// Runs the command `nft`, where it is installed, as a child of the thread that stands in the namespace.
fn command(ns: &NetNs, arguments: &'static [&str]) -> Option<String> {
    let output = ns.run(move || std::process::Command::new("nft").args(arguments).output()).expect("run");
    let Ok(output) = output else {
        eprintln!("the command nft is not installed: read back from the kernel only");
        return None;
    };
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn listed(ns: &NetNs) -> Option<String> {
    command(ns, &["-nn", "list", "ruleset"])
}

#[test]
fn every_expression_is_taken_and_means_what_it_says() {
    if !common::namespaces() {
        return;
    }
    let ns = NetNs::create("expressions").expect("made");
    let chains = Table::new(TABLE)
        .chain(Chain::filter("early", Hook::Prerouting, -300, Policy::Accept))
        .chain(Chain::filter("forward", Hook::Forward, 0, Policy::Drop))
        .chain(Chain::route("mangle", -150))
        .chain(Chain::nat("prerouting", Hook::Prerouting, -100))
        .chain(Chain::nat("postrouting", Hook::Postrouting, 100));
    let filters = matches().into_iter().chain(statements());
    let filters = filters.map(|(rule, text)| (if text == "notrack" { "early" } else { "forward" }, rule, text));
    let mut different = Vec::new();
    for (chain, rule, text) in filters.chain(translations()) {
        chains.clone().rule(chain, rule.comment("this")).replace(&ns).expect("in force");
        let Some(list) = listed(&ns) else { continue };
        let line = list.lines().find_map(|line| line.trim().strip_suffix(" comment \"this\""));
        if line != Some(text) {
            different.push((text, line.map_or(list.clone(), str::to_owned)));
        }
    }
    // Other versions may say the same in other words, but list it they must.
    if different.is_empty() || command(&ns, &["--version"]).is_none_or(|version| version.contains(" v1.0.")) {
        assert!(different.is_empty(), "{different:#?}");
    }
    println!("in other words: {different:#?}");
}

#[test]
fn ipv6_rules_in_a_table_for_both() {
    if !common::namespaces() {
        return;
    }
    let ns = NetNs::create("inet").expect("made");
    let six: Ipv6Addr = "fd00::".parse().expect("an address");
    Table::new(TABLE)
        .family(Family::INET)
        .chain(Chain::filter("forward", Hook::Forward, 0, Policy::Accept))
        .chain(Chain::nat("postrouting", Hook::Postrouting, 100))
        .rule("forward", Rule::new().ip_saddr((six, 61)).tcp_dport(80).drop())
        .rule("forward", Rule::new().ip_daddr(address(1)).drop())
        .rule("forward", Rule::new().icmpv6_type(2).drop())
        .rule("forward", Rule::new().ipv6().tcp_flags_syn().tcp_mss_clamp(1260))
        .rule("postrouting", Rule::new().ipv6().snat(six, None, NatFlags::NONE))
        .rule("postrouting", Rule::new().ipv4().masquerade(None, NatFlags::NONE))
        .apply(&ns)
        .expect("in force");
    if let Some(list) = listed(&ns) {
        assert!(list.contains("ip6 saddr fd00::/61 tcp dport 80 drop"), "{list}");
        assert!(list.contains("meta nfproto 2 masquerade"), "{list}");
    }
    delete_table(&ns, TABLE).expect("deleted, whatever its family");
    let blind = Table::new(TABLE)
        .chain(Chain::filter("forward", Hook::Forward, 0, Policy::Accept))
        .rule("forward", Rule::new().ip_saddr(six).drop().comment("six"));
    let error = blind.apply(&ns).expect_err("refused").to_string();
    assert!(error.contains("\"six\"") && error.contains("IP version"), "{error}");
    blind.family(Family::IPV6).apply(&ns).expect("in force");
}

#[test]
fn rules_come_and_go_by_handle() {
    if !common::namespaces() {
        return;
    }
    let ns = NetNs::create("handles").expect("made");
    let chain = Chain::filter("output", Hook::Output, 0, Policy::Accept);
    let table = Table::new(TABLE).chain(chain.clone()).rule("output", Rule::new().counter().comment("middle"));
    table.apply(&ns).expect("in force");
    let first = insert_rule(&ns, TABLE, "output", &Rule::new().drop().comment("first")).expect("inserted");
    let last = append_rule(&ns, TABLE, "output", &Rule::new().accept()).expect("appended");
    let comments = || -> Vec<Option<String>> {
        nft::read(&ns, TABLE).expect("read").rules.into_iter().map(|rule| rule.comment).collect()
    };
    assert_eq!(comments(), [Some("first".into()), Some("middle".into()), None]);
    assert_eq!(nft::read(&ns, TABLE).expect("read").chains, [chain]);
    delete_rule(&ns, TABLE, "output", first).expect("deleted");
    delete_rule(&ns, TABLE, "output", last).expect("deleted");
    assert_eq!(comments(), [Some("middle".into())]);
    let gone = delete_rule(&ns, TABLE, "output", last).expect_err("gone");
    assert_eq!(gone.errno(), Some(libc::ENOENT), "{gone}");

    assert_eq!(nft::counter(&ns, TABLE, "middle").expect("read"), 0);
    assert!(matches!(nft::counter(&ns, TABLE, "other"), Err(Error::NotFound { .. })));
    assert_eq!(list_tables(&ns).expect("listed"), [TABLE]);
    delete_table(&ns, TABLE).expect("deleted");
    assert!(list_tables(&ns).expect("listed").is_empty());
    assert!(matches!(nft::read(&ns, TABLE), Err(Error::NotFound { .. })));
    assert!(matches!(delete_table(&ns, TABLE), Err(Error::NotFound { .. })));
}

#[test]
fn a_refusal_names_the_rule_and_leaves_all_as_it_was() {
    if !common::namespaces() {
        return;
    }
    let ns = NetNs::create("refusals").expect("made");
    let base = || Table::new(TABLE).chain(Chain::filter("forward", Hook::Forward, 0, Policy::Accept));
    // Translation is not for chains of type filter.
    let wrong = base()
        .rule("forward", Rule::new().counter().comment("right"))
        .rule("forward", Rule::new().masquerade(None, NatFlags::NONE).comment("wrong"));
    let error = wrong.apply(&ns).expect_err("refused").to_string();
    assert!(error.contains("rule \"wrong\" of chain forward"), "{error}");
    assert!(list_tables(&ns).expect("listed").is_empty());

    let error = base().rule("nowhere", Rule::new().drop()).apply(&ns).expect_err("refused");
    assert_eq!(error.errno(), Some(libc::ENOENT), "{error}");
    assert!(base().rule("forward", Rule::new().comment("x".repeat(128))).apply(&ns).is_err());
    base().rule("forward", Rule::new().comment("x".repeat(127))).apply(&ns).expect("the longest comment");

    let again = base().apply(&ns).expect_err("there already");
    assert_eq!(again.errno(), Some(libc::EEXIST), "{again}");
    wrong.replace(&ns).expect_err("refused");
    assert_eq!(nft::read(&ns, TABLE).expect("the old one stays").rules.len(), 1);
    base().replace(&ns).expect("replaced");
    assert!(nft::read(&ns, TABLE).expect("read").rules.is_empty());
    delete_table(&ns, TABLE).expect("deleted");
    base().replace(&ns).expect("made where there was none");
}

#[test]
fn hundreds_of_rules_are_one_batch() {
    if !common::namespaces() {
        return;
    }
    let ns = NetNs::create("many").expect("made");
    let mut table = Table::new(TABLE).chain(Chain::nat("prerouting", Hook::Prerouting, -100));
    for number in 0..500u16 {
        let rule = Rule::new().ip_daddr(Ipv4Addr::new(10, 96, 0, 10)).tcp_dport(number).counter();
        table = table.rule("prerouting", rule.dnat(address(2), Some(8080)).comment(format!("service {number}")));
    }
    let start = Instant::now();
    table.apply(&ns).expect("in force");
    println!("500 rules applied and read back in {:?}", start.elapsed());
    let start = Instant::now();
    table.replace(&ns).expect("in force");
    println!("500 rules replaced and read back in {:?}", start.elapsed());
    // Each rule is refused by itself; the first is named.
    let mut wrong = Table::new("wrong").chain(Chain::filter("forward", Hook::Forward, 0, Policy::Accept));
    for number in 0..500 {
        wrong = wrong.rule("forward", Rule::new().redirect(None).comment(format!("wrong {number}")));
    }
    let error = wrong.apply(&ns).expect_err("refused").to_string();
    assert!(error.contains("\"wrong 0\""), "{error}");
    // What the refusals left behind does not confuse the next batch.
    delete_table(&ns, TABLE).expect("deleted");
}

#[test]
fn one_small_table_is_cheap() {
    if !common::namespaces() {
        return;
    }
    let ns = NetNs::create("cheap").expect("made");
    let table = Table::new(TABLE)
        .chain(Chain::filter("forward", Hook::Forward, 0, Policy::Accept))
        .rule("forward", Rule::new().tcp_flags_syn().counter().comment("syn"));
    let start = Instant::now();
    table.apply(&ns).expect("in force");
    println!("apply and read back: {:?}", start.elapsed());
    std::thread::sleep(std::time::Duration::from_millis(100));
    let start = Instant::now();
    table.replace(&ns).expect("in force");
    println!("first replace and read back: {:?}", start.elapsed());
    let start = Instant::now();
    (0..100).for_each(|_| table.replace(&ns).expect("in force"));
    println!("replace and read back: {:?} each", start.elapsed() / 100);
    let start = Instant::now();
    let rule = Rule::new().tcp_flags_rst().drop().comment("reset");
    for _ in 0..10 {
        append_rule(&ns, TABLE, "forward", &rule).expect("in force");
    }
    println!("append_rule: {:?} each", start.elapsed() / 10);
    let start = Instant::now();
    for rule in nft::read(&ns, TABLE).expect("read").rules.iter().skip(1) {
        delete_rule(&ns, TABLE, "forward", rule.handle).expect("deleted");
    }
    println!("delete_rule: {:?} each", start.elapsed() / 10);
    let start = Instant::now();
    (0..100).for_each(|_| assert_eq!(nft::counter(&ns, TABLE, "syn").expect("read"), 0));
    println!("counter: {:?} each", start.elapsed() / 100);
}
