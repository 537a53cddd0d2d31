//! The expressions of rules, without a kernel. Their effect is tested in `tests/nft_rules.rs`.

use std::net::Ipv4Addr;

use netlink_packet_netfilter::nftables::{Cmp, DataAttribute, Expressions};

use super::{Rule, expression, ruleset};

#[test]
fn a_prefix_is_masked_only_where_bits_do_not_count() {
    let whole = Rule::new().ip_saddr((Ipv4Addr::new(10, 0, 0, 1), 32));
    assert_eq!(whole.names().collect::<Vec<_>>(), ["payload", "cmp"]);
    let rule = Rule::new().ip_saddr((Ipv4Addr::new(10, 1, 2, 253), 27));
    let part = rule.expressions().expect("of this IP version");
    assert_eq!(part[1], expression::mask(&[255, 255, 255, 224]));
    let Expressions::Cmp(compared) = &part[2] else { panic!("{part:?}") };
    assert!(compared.contains(&Cmp::Data(DataAttribute::Value(vec![10, 1, 2, 224]))), "{compared:?}");
    let all = Rule::new().ip_daddr((Ipv4Addr::UNSPECIFIED, 0));
    assert_eq!(all.expressions().expect("of this IP version")[1], expression::mask(&[0; 4]));
}

#[test]
fn a_comment_is_found_among_other_user_data() {
    let mut data = vec![7, 2, 1, 2];
    data.extend(ruleset::comment_data("why"));
    assert_eq!(ruleset::comment_of(&data).as_deref(), Some("why"));
    assert_eq!(ruleset::comment_of(&[]), None);
    assert_eq!(ruleset::comment_of(&[0, 9, b'x']), None, "cut short");
}
