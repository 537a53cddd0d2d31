//! `packet`: a SYN or a SYN-ACK is seen, or never seen, at a place while the faults are in force.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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

use crate::effect::{Effect, EffectSpec, Ground, Stating, Watch};

/// A packet in flight when the fault came into force may still arrive.
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
    fn plan(&self, stating: &mut Stating<'_, '_>) -> Option<Arc<dyn Effect>> {
        let resolver = &mut *stating.resolver;
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
        let count = Arc::new(AtomicU64::new(0));
        let (counter, in_force) = (Arc::clone(&count), Arc::clone(on.in_force));
        on.tasks.spawn(async move {
            let mut frames = Vec::new();
            while capture.next_batch(&mut frames).await.is_ok() {
                let begin = in_force.load(Ordering::Relaxed);
                let counted = frames.drain(..).filter(|frame| {
                    let Frame::Tcp(tcp) = &frame.packet else { return false };
                    begin > 0
                        && Time(frame.at) > Time(begin) + IN_FLIGHT
                        && tcp.source.ip() == source
                        && tcp.destination.ip() == destination
                        && tcp.flags.ack == syn_ack
                });
                counter.fetch_add(counted.count() as u64, Ordering::Relaxed);
            }
        });
        Ok(Box::new(Counted { count, wanted: self.wanted }))
    }
}

struct Counted {
    count: Arc<AtomicU64>,
    wanted: bool,
}

impl Watch for Counted {
    fn judge(&self) -> (bool, String) {
        let packets = self.count.load(Ordering::Relaxed);
        ((packets > 0) == self.wanted, format!("{packets} seen"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_seen_or_never_seen() {
        for (wanted, count, holds) in [(true, 1, true), (true, 0, false), (false, 0, true), (false, 1, false)] {
            let watch = Counted { count: Arc::new(AtomicU64::new(count)), wanted };
            assert_eq!(watch.judge().0, holds, "wanted {wanted}, {count} seen");
        }
    }
}
