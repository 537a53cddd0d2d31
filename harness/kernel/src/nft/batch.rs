//! Messages that take effect together or not at all.
//!
//! `NFNL_MSG_BATCH_BEGIN`, the messages, `NFNL_MSG_BATCH_END`, in one send. Only the last message
//! requests an acknowledgement (hundreds of them would not fit in the receive buffer); any message can be
//! refused, and a refusal carries its sequence number, which identifies the message here.

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::nftables::NfTablesMessage;
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};

use crate::error::{Error, Result};
use crate::netlink::Netlink;

/// `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u16 = 10;

pub(super) struct Batch {
    bytes: Vec<u8>,
    /// What each message does; its index is the message's sequence number.
    steps: Vec<String>,
    last: usize,
}

impl Batch {
    pub(super) fn new() -> Self {
        let mut batch = Self { bytes: Vec::new(), steps: Vec::new(), last: 0 };
        batch.control(ControlMessage::BatchBegin, "begin the batch");
        batch
    }

    /// Adds a message for the IPv4 family with `flags` in addition to `NLM_F_REQUEST`.
    pub(super) fn push(&mut self, step: String, message: NfTablesMessage, flags: u16) {
        self.last = self.bytes.len();
        let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
        self.frame(step, NetfilterMessage::new(header, message), flags);
    }

    /// Sends the batch; it is in force when this returns.
    pub(super) fn send(mut self, netlink: &Netlink, what: &str) -> Result<()> {
        // Flags follow length and type in `struct nlmsghdr`.
        let flags = (NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes();
        let at = self.last + 6;
        for (byte, flag) in self.bytes[at..at + 2].iter_mut().zip(flags) {
            *byte |= flag;
        }
        self.control(ControlMessage::BatchEnd, "commit the batch");
        let refusals = netlink.send_each(what, &self.bytes)?;
        match refusals.into_iter().next() {
            None => Ok(()),
            Some(refusal) => {
                let step = self.steps.get(refusal.sequence as usize).map_or("?", String::as_str);
                Err(Error::kernel(format!("{what}: {step}"), refusal.error))
            }
        }
    }

    fn control(&mut self, message: ControlMessage, step: &str) {
        let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFTABLES);
        self.frame(step.into(), NetfilterMessage::new(header, NetfilterMessageInner::None(message)), 0);
    }

    fn frame(&mut self, step: String, payload: NetfilterMessage, flags: u16) {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = u32::try_from(self.steps.len()).unwrap_or(u32::MAX);
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(payload));
        message.finalize();
        let start = self.bytes.len();
        self.bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut self.bytes[start..]);
        self.steps.push(step);
    }
}
