//! Queueing to user space: `queue` (`CONFIG_NFT_QUEUE`), or the xt target NFQUEUE where a kernel has only that
//! (`CONFIG_NETFILTER_XT_TARGET_NFQUEUE`, `CONFIG_NFT_COMPAT`).

use netlink_packet_core::{DefaultNla, Nla};
use netlink_packet_netfilter::nftables::Expressions;

use super::expression::{number, raw};

const NFTA_QUEUE_NUM: u16 = 1;
const NFTA_TARGET_NAME: u16 = 1;
const NFTA_TARGET_REV: u16 = 2;
const NFTA_TARGET_INFO: u16 = 3;

/// The expression `queue`.
pub(super) fn queue(number: u16) -> Expressions {
    raw("queue", vec![DefaultNla::new(NFTA_QUEUE_NUM, number.to_be_bytes().to_vec())])
}

/// The xt target in place of a `queue` expression; `None` for other expressions.
pub(super) fn by_target(expression: &Expressions) -> Option<Expressions> {
    let Expressions::Other { expression_type, attributes } = expression else { return None };
    let queue = attributes.first().filter(|_| expression_type == "queue")?;
    let mut network_order = [0; 2];
    queue.emit_value(&mut network_order);
    // struct xt_NFQ_info: the number in host byte order, padded to XT_ALIGN.
    let mut info = u16::from_be_bytes(network_order).to_ne_bytes().to_vec();
    info.resize(8, 0);
    let target = vec![
        DefaultNla::new(NFTA_TARGET_NAME, b"NFQUEUE\0".to_vec()),
        number(NFTA_TARGET_REV, 0),
        DefaultNla::new(NFTA_TARGET_INFO, info),
    ];
    Some(raw("target", target))
}
