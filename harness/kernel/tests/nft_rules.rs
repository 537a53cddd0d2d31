//! Tables: written, read back, replaced, refused by the kernel.

use std::net::{Ipv4Addr, Ipv6Addr};

use relapse_kernel::nft::{self, Chain, CtState, Hook, Policy, Rule, Table, delete_table, list_tables};
use relapse_kernel::{Error, NetNs};

use crate::common::namespaces;
use crate::needs::tests;

tests! {
    namespaces => [
        every_expression_is_taken_and_means_what_it_says,
        a_refusal_names_the_rule_and_leaves_all_as_it_was,
        hundreds_of_rules_are_one_batch,
    ],
}

const TABLE: &str = "relapse-test";

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

/// Every supported match and statement, each in its own rule, with its representation by the `nft` command,
/// which decodes the same bytes independently.
fn filters() -> Vec<(Rule, &'static str)> {
    let rule = Rule::new;
    vec![
        (rule().iifname("eth0"), r#"iifname "eth0""#),
        (rule().oifname("eth0"), r#"oifname "eth0""#),
        (rule().iif(77), "iif 77"),
        (rule().not_oif(77), "oif != 77"),
        (rule().mark(7), "meta mark 0x00000007"),
        (rule().ip_saddr((address(1), 32)), "ip saddr 10.0.0.1"),
        (rule().ip_saddr((address(0), 24)), "ip saddr 10.0.0.0/24"),
        (rule().ip_daddr((Ipv4Addr::new(172, 16, 0, 0), 12)), "ip daddr 172.16.0.0/12"),
        (rule().not_ip_daddr((address(77), 27)), "ip daddr != 10.0.0.64/27"),
        (rule().l4proto(17), "meta l4proto 17"),
        (rule().tcp_dport(80), "tcp dport 80"),
        (rule().udp_dport(53), "udp dport 53"),
        (rule().icmp_type(8), "icmp type 8"),
        (rule().icmp_type(3).icmp_code(4), "icmp type 3 icmp code 4"),
        (rule().tcp_flags(2, 2), "tcp flags & 0x2 == 0x2"),
        (rule().tcp_flags_syn_ack(), "tcp flags 0x2,0x10 / 0x1,0x2,0x4,0x10"),
        (rule().ct_state(&[CtState::New]), "ct state 0x8"),
        (rule().ct_state(&[CtState::Invalid]), "ct state 0x1"),
        (rule().ct_direction_original(), "ct direction 0"),
        (rule().ct_direction_reply(), "ct direction 1"),
        (rule().ct_mark(7), "ct mark 0x00000007"),
        (rule().not_ct_mark(7), "ct mark != 0x00000007"),
        (rule().numgen_random(10, 3), "numgen random mod 10 3"),
        (rule().counter(), "counter packets 0 bytes 0"),
        (rule().accept(), "accept"),
        (rule().drop(), "drop"),
        (rule().mark_set(7), "meta mark set 0x00000007"),
        (rule().ct_mark_set(7), "ct mark set 0x00000007"),
        (rule().tcp_flags(2, 2).tcp_mss_clamp(1280), "tcp flags & 0x2 == 0x2 tcp option maxseg size set 1280"),
        (rule().reject_icmp(1), "reject with icmp 1"),
        (rule().notrack(), "notrack"),
    ]
}

fn translations() -> Vec<(&'static str, Rule, &'static str)> {
    let rule = || Rule::new().l4proto(6);
    vec![
        ("prerouting", Rule::new().dnat(address(9), None), "dnat to 10.0.0.9"),
        ("prerouting", rule().dnat(address(9), Some(8080)), "meta l4proto 6 dnat to 10.0.0.9:8080"),
        ("postrouting", Rule::new().masquerade(None), "masquerade"),
        ("postrouting", rule().masquerade(Some((4000, 4010))), "meta l4proto 6 masquerade to :4000-4010"),
    ]
}

/// Runs the `nft` command, if installed, as a child of the thread that has entered the namespace. Without it only the
/// kernel's own answers are checked.
fn command(ns: &NetNs, arguments: &[&str]) -> Option<String> {
    let output = ns.run(|| std::process::Command::new("nft").args(arguments).output()).expect("run").ok()?;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn every_expression_is_taken_and_means_what_it_says() {
    let ns = NetNs::create("expressions").expect("made");
    let chains = Table::new(TABLE)
        .chain(Chain::filter("early", Hook::Prerouting, -300, Policy::Accept))
        .chain(Chain::filter("forward", Hook::Forward, 0, Policy::Drop))
        .chain(Chain::nat("prerouting", Hook::Prerouting, -100))
        .chain(Chain::nat("postrouting", Hook::Postrouting, 100));
    let filters = filters().into_iter();
    let filters = filters.map(|(rule, text)| (if text == "notrack" { "early" } else { "forward" }, rule, text));
    let mut different = Vec::new();
    for (chain, rule, text) in filters.chain(translations()) {
        chains.clone().rule(chain, rule.comment("this")).replace(&ns).expect("in force");
        let Some(list) = command(&ns, &["-nn", "list", "ruleset"]) else { continue };
        let line = list.lines().find_map(|line| line.trim().strip_suffix(" comment \"this\""));
        if line != Some(text) {
            different.push((text, line.map_or(list.clone(), str::to_owned)));
        }
    }
    // Other versions may print a rule differently, but must be able to list it.
    if different.is_empty() || command(&ns, &["--version"]).is_none_or(|version| version.contains(" v1.0.")) {
        assert!(different.is_empty(), "{different:#?}");
    }
}

fn a_refusal_names_the_rule_and_leaves_all_as_it_was() {
    let ns = NetNs::create("refusals").expect("made");
    let base = || Table::new(TABLE).chain(Chain::filter("forward", Hook::Forward, 0, Policy::Accept));
    // Address translation is not allowed in chains of type filter.
    let wrong = base()
        .rule("forward", Rule::new().counter().comment("right"))
        .rule("forward", Rule::new().masquerade(None).comment("wrong"));
    let error = wrong.apply(&ns).expect_err("refused").to_string();
    assert!(error.contains("rule \"wrong\" of chain forward"), "{error}");
    assert!(list_tables(&ns).expect("listed").is_empty());

    let six: Ipv6Addr = "fd00::".parse().expect("an address");
    for rule in [Rule::new().ip_saddr((six, 64)).drop(), Rule::new().dnat(six, None)] {
        let error = base().rule("forward", rule.comment("six")).apply(&ns).expect_err("refused").to_string();
        assert!(error.contains("\"six\"") && error.contains("IP version"), "{error}");
    }
    let error = base().rule("nowhere", Rule::new().drop()).apply(&ns).expect_err("refused");
    assert_eq!(error.errno(), Some(libc::ENOENT), "{error}");
    assert!(base().rule("forward", Rule::new().comment("x".repeat(128))).apply(&ns).is_err());
    let longest = "x".repeat(127);
    base().rule("forward", Rule::new().counter().comment(&longest)).apply(&ns).expect("the longest comment");

    let again = base().apply(&ns).expect_err("exists already");
    assert_eq!(again.errno(), Some(libc::EEXIST), "{again}");
    wrong.replace(&ns).expect_err("refused");
    let present = nft::read(&ns, TABLE).expect("the old one stays");
    assert_eq!(present.iter().map(|rule| rule.comment.as_deref()).collect::<Vec<_>>(), [Some(&longest[..])]);
    assert_eq!(nft::counter(&ns, TABLE, &longest).expect("read"), 0);
    assert!(matches!(nft::counter(&ns, TABLE, "other"), Err(Error::NotFound { .. })));
    base().replace(&ns).expect("replaced");
    assert!(nft::read(&ns, TABLE).expect("read").is_empty());
    assert_eq!(list_tables(&ns).expect("listed"), [TABLE]);
    delete_table(&ns, TABLE).expect("deleted");
    assert!(list_tables(&ns).expect("listed").is_empty());
    assert!(matches!(nft::read(&ns, TABLE), Err(Error::NotFound { .. })));
    assert_eq!(delete_table(&ns, TABLE).expect_err("gone").errno(), Some(libc::ENOENT));
    base().replace(&ns).expect("replacing a missing table creates it");
}

fn hundreds_of_rules_are_one_batch() {
    let ns = NetNs::create("many").expect("made");
    let mut table = Table::new(TABLE).chain(Chain::nat("prerouting", Hook::Prerouting, -100));
    for number in 0..500u16 {
        let rule = Rule::new().ip_daddr((Ipv4Addr::new(10, 96, 0, 10), 32)).tcp_dport(number).counter();
        table = table.rule("prerouting", rule.dnat(address(2), Some(8080)).comment(format!("service {number}")));
    }
    table.apply(&ns).expect("in force");
    table.replace(&ns).expect("in force");
    // Each rule is refused separately; the error names the first.
    let mut wrong = Table::new("wrong").chain(Chain::filter("forward", Hook::Forward, 0, Policy::Accept));
    for number in 0..500 {
        wrong = wrong.rule("forward", Rule::new().masquerade(None).comment(format!("wrong {number}")));
    }
    let error = wrong.apply(&ns).expect_err("refused").to_string();
    assert!(error.contains("\"wrong 0\""), "{error}");
    // Unread refusals do not confuse the next batch.
    delete_table(&ns, TABLE).expect("deleted");
}
