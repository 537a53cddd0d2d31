//! What rules are made of, without a kernel. What they mean to one is in `tests/nft_rules.rs`.

use std::net::Ipv4Addr;

use netlink_packet_core::{DefaultNla, Nla};
use netlink_packet_netfilter::nftables::{Cmp, DataAttribute, Expressions};

use super::{Family, NatFlags, Prefix, Rule, expression, ruleset};

fn expressions(rule: &Rule, family: Family) -> Vec<Expressions> {
    rule.expressions(family.0.into()).expect("of this IP version")
}

fn names(rule: &Rule, family: Family) -> Vec<String> {
    expressions(rule, family).iter().map(|e| expression::name(e).to_owned()).collect()
}

#[test]
fn a_prefix_is_masked_only_where_bits_do_not_count() {
    let whole = Rule::new().ip_saddr(Ipv4Addr::new(10, 0, 0, 1));
    assert_eq!(names(&whole, Family::IPV4), ["payload", "cmp"]);
    let part = expressions(&Rule::new().ip_saddr((Ipv4Addr::new(10, 1, 2, 253), 27)), Family::IPV4);
    assert_eq!(part[1], expression::mask(&[255, 255, 255, 224]));
    let Expressions::Cmp(compared) = &part[2] else { panic!("{part:?}") };
    assert!(compared.contains(&Cmp::Data(DataAttribute::Value(vec![10, 1, 2, 224]))), "{compared:?}");
    let all = expressions(&Rule::new().ip_daddr((Ipv4Addr::UNSPECIFIED, 0)), Family::IPV4);
    assert_eq!(all[1], expression::mask(&[0; 4]));
}

#[test]
#[should_panic(expected = "a prefix of 33 bits")]
fn a_prefix_is_no_longer_than_its_address() {
    let _ = Prefix::new(Ipv4Addr::LOCALHOST, 33);
}

#[test]
fn the_ip_version_is_checked_once_and_only_where_there_are_two() {
    let address = Ipv4Addr::new(10, 0, 0, 1);
    let rule = Rule::new().iif(7).ip_saddr(address).ip_daddr(address);
    assert_eq!(names(&rule, Family::IPV4), ["meta", "cmp", "payload", "cmp", "payload", "cmp"]);
    assert_eq!(names(&rule, Family::INET), ["meta", "cmp", "meta", "cmp", "payload", "cmp", "payload", "cmp"]);
    assert!(rule.expressions(Family::IPV6.0.into()).is_none());
}

#[test]
fn a_masquerade_says_that_it_has_ports() {
    let flags = |ports| {
        let expressions = expressions(&Rule::new().masquerade(ports, NatFlags::RANDOM), Family::IPV4);
        let Some(Expressions::Other { attributes, .. }) = expressions.into_iter().next_back() else { panic!() };
        let flags = attributes.into_iter().find(|attribute: &DefaultNla| attribute.kind() == 1).expect("flags");
        let mut value = [0; 4];
        flags.emit_value(&mut value);
        u32::from_be_bytes(value)
    };
    assert_eq!((flags(None), flags(Some((1024, 1024)))), (1 << 2, 1 << 2 | 1 << 1));
}

#[test]
fn a_comment_is_found_among_other_user_data() {
    let mut data = vec![7, 2, 1, 2];
    data.extend(ruleset::comment_data("why"));
    assert_eq!(ruleset::comment_of(&data).as_deref(), Some("why"));
    assert_eq!(ruleset::comment_of(&[]), None);
    assert_eq!(ruleset::comment_of(&[0, 9, b'x']), None, "cut short");
}
