//! `packet`: a SYN or a SYN-ACK is seen, or never seen, at a place while the faults are in force.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use relapse_detectors::signal::CollectorKind;
use relapse_detectors::time::Time;
use relapse_kernel::Result;
use relapse_kernel::packet::{Capture, Filter, Packet as Frame};
use relapse_lab::workload::namespace;
use relapse_model::spanned::Spanned;
use relapse_model::{ClusterPlan, FlowPlan, Place};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::effect::{Effect, EffectPlanner, EffectSpec, Ground, Watch};

/// A packet in flight when the fault came into force may still arrive so much later, and later by what its path delays.
const IN_FLIGHT: Duration = Duration::from_millis(20);

/// A SYN or a SYN-ACK is seen, or is never seen.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PacketSpec {
    #[serde(default)]
    pub syn: bool,
    #[serde(default)]
    pub syn_ack: bool,
    /// Sender.
    pub from: Spanned<String>,
    /// Receiver.
    pub to: Spanned<String>,
    /// Where to look for it.
    pub at: Spanned<String>,
    #[serde(default)]
    pub never: bool,
}

impl EffectSpec for PacketSpec {
    fn plan(&self, planner: &mut EffectPlanner<'_, '_>) -> Option<Arc<dyn Effect>> {
        let resolver = &mut *planner.resolver;
        if self.syn == self.syn_ack {
            let message =
                if self.syn { "a packet is either a SYN or a SYN-ACK" } else { "the kind of packet is missing" };
            resolver.error(self.from.span, message, "write `syn: true` or `synAck: true`");
        }
        let (from, to, at) = (resolver.place(&self.from), resolver.place(&self.to), resolver.place(&self.at));
        Some(Arc::new(Packet { from: from?, to: to?, at: at?, syn_ack: self.syn_ack, wanted: !self.never }))
    }
}

#[derive(Debug)]
struct Packet {
    from: Place,
    to: Place,
    at: Place,
    syn_ack: bool,
    wanted: bool,
}

impl Effect for Packet {
    fn text(&self, _: &[FlowPlan], cluster: &ClusterPlan) -> String {
        format!(
            "{} from {} to {} {} at {}",
            if self.syn_ack { "SYN-ACK" } else { "SYN" },
            cluster.place_name(self.from),
            cluster.place_name(self.to),
            if self.wanted { "seen" } else { "never seen" },
            cluster.place_name(self.at)
        )
    }

    fn needs(&self) -> Option<&'static [CollectorKind]> {
        Some(&[CollectorKind::Packets])
    }

    fn watch(&self, on: &mut Ground<'_>) -> Result<Box<dyn Watch>> {
        let mut capture = Capture::open(&namespace(on.cluster.as_ref(), self.at), &Filter::syn())?;
        let plan = on.cluster.plan();
        let (source, destination, syn_ack) = (plan.address(self.from), plan.address(self.to), self.syn_ack);
        let slowest = plan.paths().map(|(_, path)| path.delay + path.jitter).max().unwrap_or_default();
        let in_flight = IN_FLIGHT + slowest;
        let seen = Arc::new(Seen::default());
        let (counter, in_force) = (Arc::clone(&seen), Arc::clone(on.in_force));
        on.tasks.spawn(async move {
            let mut frames = Vec::new();
            let mut lost_before = 0;
            while capture.next_batch(&mut frames).await.is_ok() {
                let begin = in_force.load(Ordering::Relaxed);
                let lost = capture.lost();
                if begin == 0 {
                    lost_before = lost;
                }
                counter.lost.store(lost - lost_before, Ordering::Relaxed);
                let counted = frames.drain(..).filter(|frame| {
                    let Frame::Tcp(tcp) = &frame.packet else { return false };
                    begin > 0
                        && Time(frame.at) > Time(begin) + in_flight
                        && tcp.source.ip() == source
                        && tcp.destination.ip() == destination
                        && tcp.flags.ack == syn_ack
                });
                counter.packets.fetch_add(counted.count() as u64, Ordering::Relaxed);
            }
            counter.ended.store(true, Ordering::Relaxed);
        });
        Ok(Box::new(Counted { seen, wanted: self.wanted }))
    }
}

/// What the capture has seen since the faults are in force.
#[derive(Debug, Default)]
struct Seen {
    packets: AtomicU64,
    lost: AtomicU64,
    /// It failed, and sees nothing more.
    ended: AtomicBool,
}

struct Counted {
    seen: Arc<Seen>,
    wanted: bool,
}

impl Watch for Counted {
    /// A capture that missed something cannot show that there was nothing.
    fn judge(&self) -> (bool, String) {
        let packets = self.seen.packets.load(Ordering::Relaxed);
        let missed = match (self.seen.ended.load(Ordering::Relaxed), self.seen.lost.load(Ordering::Relaxed)) {
            (true, _) => ", and the capture ended early".to_owned(),
            (false, 0) => String::new(),
            (false, lost) => format!(", and the capture lost {lost} packets"),
        };
        let holds = if self.wanted { packets > 0 } else { packets == 0 && missed.is_empty() };
        (holds, format!("{packets} seen{missed}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_seen_or_never_seen() {
        for (wanted, count, holds) in [(true, 1, true), (true, 0, false), (false, 0, true), (false, 1, false)] {
            assert_eq!(judged(wanted, count, 0, false).0, holds, "wanted {wanted}, {count} seen");
        }
    }

    #[test]
    fn a_capture_that_missed_something_does_not_show_that_there_was_nothing() {
        assert_eq!(judged(false, 0, 3, false), (false, "0 seen, and the capture lost 3 packets".to_owned()));
        assert_eq!(judged(false, 0, 0, true), (false, "0 seen, and the capture ended early".to_owned()));
        assert!(judged(true, 1, 3, true).0, "what was seen was there");
    }

    fn judged(wanted: bool, packets: u64, lost: u64, ended: bool) -> (bool, String) {
        let (packets, lost, ended) = (packets.into(), lost.into(), ended.into());
        Counted { seen: Arc::new(Seen { packets, lost, ended }), wanted }.judge()
    }
}
