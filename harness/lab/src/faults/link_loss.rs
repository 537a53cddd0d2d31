//! A node loses its pod NIC (I3).

use relapse_kernel::NetNs;
use relapse_kernel::builder::{Builder, VethEnd};
use relapse_kernel::link::{self, Address, Link};
use relapse_kernel::route::{self, Neighbour, SavedRoute};
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::{ClusterPlan, NodeId, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::cluster::Cluster;
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, Where, World, now};
use crate::job::wait_for;

/// A node loses its pod NIC.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LinkLossSpec {
    pub node: Spanned<String>,
    pub how: How,
}

/// How a NIC is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// The interface is deleted, and its peer in the network with it.
    Deleted,
    /// The interface is set down.
    Down,
    /// The interface leaves the node; its peer stays, as when the cloud still shows it attached.
    Moved,
}

/// The same, resolved.
#[derive(Debug)]
pub struct LinkLoss {
    pub(crate) node: NodeId,
    pub(crate) how: How,
}

impl FaultSpec for LinkLossSpec {
    const EXAMPLE: &'static str = "{ node: worker-1, how: moved }";
    const LOOK: &'static [Look] = &[
        (Where::Node, "ip -br link; ip -br addr"),
        (Where::Node, "ip rule; ip route show table {table}"),
        (Where::Pod, "getent hosts example-api.com; cat /etc/resolv.conf"),
    ];

    fn plan(&self, _at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        Some(Box::new(LinkLoss { node: resolver.node(&self.node)?, how: self.how }))
    }
}

// The mutation.

impl Fault for LinkLoss {
    fn changes(&self, cluster: &ClusterPlan) -> Vec<String> {
        let node = &cluster.nodes[self.node.0].name;
        // Its routes go with it.
        vec![format!("{} of node/{node}", cluster.network.pod_nic), cluster.pod_table_of(self.node)]
    }

    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let (nic, far) = pod_nic(world.cluster.as_ref(), self.node)?;
            let (ns, name) = (world.cluster.node(self.node).ns.clone(), nic.name.clone());
            let near = End::save(&ns, &nic)?;
            let away = NetNs::create("detached")?;
            let (how, limbo, saved, other) = (self.how, away.clone(), near.clone(), far.clone());
            undo.push(format!("restore {name} of {}", ns.name()), move || {
                match how {
                    How::Deleted if link::get(&saved.ns, saved.link.index)?.is_none() => {
                        wait_for(Box::pin(recreate(&saved, &other)))?;
                    }
                    How::Moved => {
                        if let Some(found) = link::get(&limbo, saved.link.index)? {
                            link::move_to(&limbo, found.index, &saved.ns, Some(&saved.link.name))?;
                        }
                    }
                    How::Deleted | How::Down => {}
                }
                link::set_up(&saved.ns, saved.link.index, true)?;
                link::wait_running(&saved.ns, saved.link.index)?;
                link::wait_running(&other.ns, other.link.index)?;
                wait_for(Box::pin(async {
                    saved.restore().await?;
                    other.restore().await
                }))
            });
            let t0 = now();
            match self.how {
                How::Deleted => link::delete(&ns, nic.index)?,
                How::Down => link::set_up(&ns, nic.index, false)?,
                How::Moved => link::move_to(&ns, nic.index, &away, None).map(drop)?,
            }
            let found = link::find(&ns, &name)?;
            let t1 = now();
            let read_back = match found {
                None => format!("no {name}"),
                Some(link) if self.how == How::Down && !link.up => format!("{name} is down"),
                Some(link) => {
                    return Err(FaultError::NotInForce {
                        what: format!("remove {name}"),
                        read_back: format!("{link:?}"),
                    });
                }
            };
            Ok(InForce {
                t0,
                t1,
                what: format!("{name} of {} {}", ns.name(), self.how.done()),
                read_back,
                reduced: None,
            })
        })
    }
}

impl How {
    const fn done(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Down => "set down",
            Self::Moved => "moved out of the node",
        }
    }
}

/// A node's pod NIC, and the fabric's end of its cable.
pub(super) fn pod_nic(cluster: &dyn Cluster, node: NodeId) -> Result<(Link, End), FaultError> {
    let (ns, fabric) = (&cluster.node(node).ns, cluster.fabric());
    let missing = |what: &str| FaultError::NotFound { what: format!("{what} of {}", ns.name()) };
    let name = &cluster.plan().network.pod_nic;
    let nic = link::find(ns, name)?.ok_or_else(|| missing(name))?;
    let peer = nic.peer.and_then(|peer| link::get(fabric, peer).transpose());
    let far = End::save(fabric, &peer.ok_or_else(|| missing("the fabric's end"))??)?;
    Ok((nic, far))
}

/// One end of a cable with everything that is removed with it: addresses, neighbours, routes.
#[derive(Clone)]
pub(super) struct End {
    ns: NetNs,
    link: Link,
    addresses: Vec<Address>,
    neighbours: Vec<Neighbour>,
    routes: Vec<SavedRoute>,
}

impl End {
    pub fn save(ns: &NetNs, link: &Link) -> Result<Self, FaultError> {
        let mut addresses = link::addresses(ns)?;
        addresses.retain(|address| address.index == link.index);
        let mut neighbours = route::neighbours(ns)?;
        neighbours.retain(|neighbour| neighbour.index == link.index && neighbour.permanent);
        let mut routes = route::save_routes(ns, None)?;
        // Routes of the local table are created by the kernel.
        routes.retain(|saved| saved.route().oif == Some(link.index) && saved.route().table != route::LOCAL);
        Ok(Self { ns: ns.clone(), link: link.clone(), addresses, neighbours, routes })
    }

    async fn restore(&self) -> Result<(), FaultError> {
        let builder = Builder::open(&self.ns)?;
        let present = link::addresses(&self.ns)?;
        for address in &self.addresses {
            let exists = present.iter().any(|now| now.index == address.index && now.address == address.address);
            // IPv6 link-local addresses are created by the kernel.
            if !exists && address.address.is_ipv4() {
                builder.add_address(address.index, address.address, address.prefix_len).await?;
            }
        }
        for neighbour in &self.neighbours {
            if let Some(mac) = neighbour.mac {
                builder.add_neighbour(neighbour.index, neighbour.address, mac).await?;
            }
        }
        let ipv4: Vec<_> = self.routes.iter().filter(|saved| saved.route().destination.0.is_ipv4()).cloned().collect();
        route::restore_routes(&self.ns, &ipv4)
    }

    pub fn set_down(&self) -> Result<(), FaultError> {
        link::set_up(&self.ns, self.link.index, false)
    }

    /// Sets it up with all that it had, and waits until the other end, which stayed up, is running as well.
    pub async fn set_up_again(&self, other: &NetNs, index: u32) -> Result<(), FaultError> {
        link::set_up(&self.ns, self.link.index, true)?;
        link::wait_running(&self.ns, self.link.index)?;
        link::wait_running(other, index)?;
        self.restore().await
    }

    fn veth_end(&self) -> Result<VethEnd, FaultError> {
        let Link { name, index, mtu, mac, .. } = self.link.clone();
        let mac = mac.ok_or_else(|| FaultError::NotFound { what: format!("the MAC of {name}") })?;
        Ok(VethEnd { at: Builder::open(&self.ns)?, name, index, mac, mtu })
    }
}

/// Deleting one end of a veth deletes both: creates a new pair with the same indexes and MACs.
async fn recreate(near: &End, far: &End) -> Result<(), FaultError> {
    near.veth_end()?.make(&far.veth_end()?).await
}
