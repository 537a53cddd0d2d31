//! Changes the MSS that an office's VPN gateway writes into forwarded SYNs (I1).
//!
//! A clamp that no longer fits the tunnel is the incident; one that never fitted, or that changes nothing,
//! is a mistake in the scenario.

use relapse_detectors::prefix::Prefix;
use relapse_kernel::sockdiag::{SockDiag, TcpInfo, mask, state};
use relapse_kernel::{NetNs, link, nft, route};
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::{ClusterPlan, OfficeId, PodId, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::cluster::Cluster;
use crate::cluster::outside::{CLAMP_TABLE, ClampDirection, clamp};
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, Where, World, now};

/// Bytes of each segment that the timestamp option takes (RFC 7323, 3.2, padded).
const TIMESTAMPS: u32 = 12;

/// Changes the MSS that an office's gateway writes into forwarded SYNs.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MssClampSpec {
    pub office: Spanned<String>,
    /// Previous value: the office's `clamp`. It must fit the tunnel.
    #[schemars(range(min = 88, max = 65495))]
    pub from: Spanned<u16>,
    /// New value. It must be below the MSS that the ends offer themselves, since a clamp only lowers it.
    #[schemars(range(min = 88, max = 65495))]
    pub to: Spanned<u16>,
    /// Which SYNs are rewritten. Default from-office.
    #[serde(default)]
    pub direction: ClampDirection,
    /// MTU of the tunnel during the fault, bytes. Default: unchanged.
    #[schemars(range(min = 576, max = 65535))]
    pub tunnel_mtu: Option<Spanned<u16>>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct MssClamp {
    pub(crate) office: OfficeId,
    pub(crate) from: u16,
    pub(crate) to: u16,
    pub(crate) direction: ClampDirection,
    pub(crate) tunnel_mtu: Option<u16>,
}

impl FaultSpec for MssClampSpec {
    const EXAMPLE: &'static str = "{ office: beijing, from: 1280, to: 1380, direction: both }";
    const LOOK: &'static [Look] = &[
        (Where::Gateway, "nft list ruleset"),
        (Where::Gateway, "tcpdump -lvni any 'tcp[13] & 2 != 0 or icmp'"),
        (Where::Pod, "ss -tni state established"),
        (Where::Office, "ip route get {address}; ss -tni"),
    ];

    fn plan(&self, _at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let id = resolver.office(&self.office)?;
        let office = &resolver.cluster.offices[id.0];
        let headers: u16 = if office.prefix.address().is_ipv4() { 40 } else { 60 };
        let (clamp, name) = (office.clamp, office.name.clone());
        let mtu = self.tunnel_mtu.map_or(office.tunnel_mtu, |mtu| mtu.value);
        let (from, to, own) = (self.from.value, self.to.value, 1500 - headers);
        match clamp {
            Some(clamp) if clamp != from => {
                resolver.error(
                    self.from.span,
                    format!("office `{name}` clamps to {clamp}, not to {from}"),
                    format!("write {clamp}"),
                );
            }
            None => {
                resolver.error(
                    self.office.span,
                    format!("office `{name}` does not clamp, so there is nothing to change"),
                    format!("give it `clamp: {from}`"),
                );
            }
            Some(_) => {}
        }
        if from.saturating_add(headers) > mtu {
            let most = mtu.saturating_sub(headers);
            resolver.error(
                self.from.span,
                format!(
                    "an MSS of {from} makes packets of {} bytes, but the tunnel carries only {mtu}: it never worked",
                    from.saturating_add(headers)
                ),
                format!("write at most {most}, or raise `tunnelMtu`"),
            );
        }
        if to >= own {
            resolver.error(
                self.to.span,
                format!("a clamp to {to} has no effect: the ends already offer {own}, and a clamp only lowers it"),
                format!("write less than {own}"),
            );
        } else if to == from {
            resolver.error(self.to.span, format!("the clamp is already {from}"), "write another number");
        }
        Some(Box::new(MssClamp {
            office: id,
            from,
            to,
            direction: self.direction,
            tunnel_mtu: self.tunnel_mtu.map(|mtu| mtu.value),
        }))
    }
}

// The mutation.

impl Fault for MssClamp {
    fn changes(&self, cluster: &ClusterPlan) -> Vec<String> {
        vec![format!("the clamp of office/{}", cluster.offices[self.office.0].name)]
    }

    fn outdates_facts(&self) -> bool {
        self.tunnel_mtu.is_some()
    }

    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let cluster = world.cluster.as_ref();
            let plan = &cluster.plan().offices[self.office.0];
            let gateway = cluster.office(self.office).gateway.clone();
            let (home, before, prefix, to) = (gateway.clone(), plan.clamp, plan.prefix, self.to);
            // Undone last: connections opened meanwhile keep their MSS, and would wait until TCP gives up.
            let headers = if prefix.address().is_ipv4() { 40 } else { 60 };
            let pods: Vec<_> = (0..cluster.plan().pods.len())
                .map(|number| (cluster.pod(PodId(number)).ns, cluster.plan().pods[number].mtu - headers))
                .collect();
            let client = cluster.office(self.office).client.clone();
            undo.push(format!("abort connections stuck on {}", plan.name), move || {
                // Their SYNs may be on the way with the MSS of the fault.
                let opening = SockDiag::open(&client)?;
                opening.tcp_sockets(mask(&[state::SYN_SENT]))?.iter().try_for_each(|socket| opening.destroy(socket))?;
                pods.iter().try_for_each(|(pod, own)| end_stuck(pod, prefix, to, *own))
            });
            undo.push(format!("restore the clamp of {}", plan.name), move || match before {
                Some(size) => clamp(size, prefix, ClampDirection::FromOffice).replace(&home),
                None => nft::delete_table_if_there(&home, CLAMP_TABLE),
            });
            if let Some(mtu) = self.tunnel_mtu {
                narrow(cluster, self.office, mtu, undo)?;
            }
            // A path MTU learned by a server would hide the fault for ten minutes.
            for number in 0..cluster.plan().pods.len() {
                route::flush_path_mtu(&cluster.pod(PodId(number)).ns)?;
            }
            let t0 = now();
            clamp(self.to, prefix, self.direction).replace(&gateway)?;
            let rules: Vec<_> = nft::read(&gateway, CLAMP_TABLE)?.into_iter().filter_map(|rule| rule.comment).collect();
            let t1 = now();
            let value = format!("MSS {}", self.to);
            if rules.is_empty() || !rules.iter().all(|rule| rule.starts_with(&value)) {
                return Err(FaultError::NotInForce {
                    what: format!("clamp to {}", self.to),
                    read_back: rules.join(", "),
                });
            }
            Ok(InForce {
                t0,
                t1,
                what: format!("MSS clamp of the gateway of {}: {} -> {}", plan.name, self.from, self.to),
                read_back: rules.join(", "),
                reduced: None,
            })
        })
    }
}

/// Aborts connections to the office that use the MSS of the fault, or, if the pod's own MSS is smaller, use that
/// and wait for an acknowledgment; half-open ones, whose MSS is not known, too.
fn end_stuck(pod: &NetNs, office: Prefix, mss: u16, own: u16) -> Result<(), FaultError> {
    let sockets = SockDiag::open(pod)?;
    let states = [state::SYN_RECV, state::ESTABLISHED, state::CLOSE_WAIT, state::FIN_WAIT_1, state::LAST_ACK];
    let stuck = |info: TcpInfo| {
        let size = info.snd_mss + TIMESTAMPS;
        size >= u32::from(mss) || size >= u32::from(own) && info.unacked > 0
    };
    sockets
        .tcp_sockets(mask(&states))?
        .iter()
        .filter(|socket| office.contains(socket.remote.ip()))
        .filter(|socket| socket.state == state::SYN_RECV || socket.info.is_some_and(stuck))
        .try_for_each(|socket| sockets.destroy(socket))
}

/// Gives both ends of the office's tunnel another MTU.
fn narrow(cluster: &dyn Cluster, office: OfficeId, mtu: u16, undo: &mut UndoStack) -> Result<(), FaultError> {
    let gateway = cluster.office(office).gateway.clone();
    let missing = || FaultError::NotFound { what: "the tunnel".into() };
    let near = link::find(&gateway, "tunnel")?.ok_or_else(missing)?;
    let far = link::find(cluster.fabric(), &format!("vpn{}", office.0))?.ok_or_else(missing)?;
    for (ns, link) in [(gateway, near), (cluster.fabric().clone(), far)] {
        let (home, index, before) = (ns.clone(), link.index, link.mtu);
        undo.push(format!("restore the MTU of {} to {before}", link.name), move || link::set_mtu(&home, index, before));
        link::set_mtu(&ns, link.index, u32::from(mtu))?;
    }
    Ok(())
}
