//! New clients come from an office, with a different MSS: benign (twin of I1).

use std::net::IpAddr;
use std::time::Duration;

use relapse_detectors::prefix::Prefix;
use relapse_kernel::builder::Builder;
use relapse_kernel::route::Route;
use relapse_kernel::{NetNs, link, route};
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::{FlowPlan, OfficeId, Place, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::MissedTickBehavior;

use crate::cluster::Cluster;
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, World, now};
use crate::workload::http;

/// New clients appear in the prefix next to an office's, with another MSS.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewClientsSpec {
    pub office: Spanned<String>,
    /// MSS in their SYNs.
    #[schemars(range(min = 88, max = 1460))]
    pub mss: Spanned<u16>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct NewClients {
    pub(crate) office: OfficeId,
    pub(crate) mss: u16,
}

impl FaultSpec for NewClientsSpec {
    const EXAMPLE: &'static str = "{ office: beijing, mss: 1200 }";
    const LOOK: &'static [Look] = super::mss_clamp::MssClampSpec::LOOK;

    fn plan(&self, _at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let office = resolver.office(&self.office)?;
        let cluster = &resolver.cluster;
        let plan = &cluster.offices[office.0];
        let is_taken = |prefix: Prefix| {
            let network = &cluster.network;
            let others = cluster.offices.iter().map(|office| office.prefix);
            let own = [network.node_prefix, network.pod_prefix, network.service_prefix];
            let hosts = cluster.outside.iter().any(|host| prefix.contains(host.address));
            hosts || others.chain(own).any(|other| other.overlaps(&prefix))
        };
        let message = match neighbour(plan.prefix) {
            None => Some(format!("there is no prefix after {} for new clients", plan.prefix)),
            Some(next) if is_taken(next) => Some(format!("{next}, the prefix of the new clients, is in use")),
            Some(_) if !resolver.workload.iter().any(|flow| downloads(flow, office)) => {
                Some(format!("no `http` flow starts at office/{}, and new clients ask what it asks", plan.name))
            }
            Some(_) => None,
        };
        if let Some(message) = message {
            resolver.error(self.office.span, message, "name another office");
        }
        Some(Box::new(NewClients { office, mss: self.mss.value }))
    }
}

// The mutation.

impl Fault for NewClients {
    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let cluster = world.cluster.as_ref();
            let plan = cluster.plan();
            let office = &plan.offices[self.office.0];
            let download = world.flows.iter().map(|(flow, _)| flow).find(|flow| downloads(flow, self.office));
            let download =
                download.ok_or_else(|| FaultError::NotFound { what: format!("an http flow of {}", office.name) })?;
            let server = plan.entry(download);
            let prefix = neighbour(office.prefix)
                .ok_or_else(|| FaultError::NotFound { what: "a neighbouring prefix".into() })?;
            let address = prefix.nth(10).ok_or_else(|| FaultError::NotFound { what: "an address".into() })?;
            move_in(cluster, self.office, prefix, address, undo).await?;
            let client = cluster.office(self.office).client.clone();
            let t0 = now();
            let mut t1 = None;
            let mut worked = 0;
            for _ in 0..DOWNLOADS {
                let from = (address, 0).into();
                let fetched = http::get_as(&client, server, download.response, from, self.mss);
                let fetched = tokio::time::timeout(PATIENCE, fetched).await;
                worked += u32::from(matches!(fetched, Ok(Ok(()))));
                t1.get_or_insert_with(now);
            }
            if worked < DOWNLOADS {
                return Err(FaultError::NotInForce {
                    what: format!("download from {address} with MSS {}", self.mss),
                    read_back: format!("{worked} of {DOWNLOADS} worked"),
                });
            }
            // They keep coming until the twin is over.
            let (more, response, mss) = (client.clone(), download.response, self.mss);
            let coming = tokio::spawn(async move {
                let mut clock = tokio::time::interval(EVERY);
                clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    clock.tick().await;
                    let fetched = http::get_as(&more, server, response, (address, 0).into(), mss);
                    let _ = tokio::time::timeout(PATIENCE, fetched).await;
                }
            });
            undo.push(format!("send the new clients in {prefix} away"), move || {
                coming.abort();
                Ok(())
            });
            Ok(InForce {
                t0,
                t1: t1.unwrap_or(t0),
                what: format!("new clients in {prefix} behind the gateway of {}, with MSS {}", office.name, self.mss),
                read_back: format!("{worked} of {DOWNLOADS} downloads worked"),
                reduced: None,
            })
        })
    }
}

/// Whether clients of this office download by this flow.
fn downloads(flow: &FlowPlan, office: OfficeId) -> bool {
    flow.kind == "http" && flow.from == Place::Office(office)
}

/// Downloads that must work.
const DOWNLOADS: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between later ones.
const EVERY: Duration = Duration::from_millis(100);

/// The next prefix of the same length.
fn neighbour(prefix: Prefix) -> Option<Prefix> {
    let last =
        prefix.nth((1_u128 << (if prefix.address().is_ipv4() { 32 } else { 128 } - u32::from(prefix.length()))) - 1)?;
    let next = match last {
        IpAddr::V4(last) => IpAddr::V4(u32::from(last).checked_add(1)?.into()),
        IpAddr::V6(last) => IpAddr::V6(u128::from(last).checked_add(1)?.into()),
    };
    Prefix::new(next, prefix.length()).ok()
}

/// Gives the office's client an address of the new population, and adds the return routes to it.
async fn move_in(
    cluster: &dyn Cluster,
    id: OfficeId,
    prefix: Prefix,
    address: IpAddr,
    undo: &mut UndoStack,
) -> Result<(), FaultError> {
    let office = cluster.office(id);
    let plan = &cluster.plan().offices[id.0];
    let find = |ns: &NetNs, name: &str| {
        link::find(ns, name)?.ok_or_else(|| FaultError::NotFound { what: format!("{name} in {}", ns.name()) })
    };
    let nic = find(&office.client, "eth0")?;
    let lan = find(&office.gateway, "lan")?;
    let vpn = find(cluster.fabric(), &format!("vpn{}", id.0))?;
    let length = Prefix::host(address).length();
    let (home, index) = (office.client.clone(), nic.index);
    undo.push(format!("remove {address}"), move || link::delete_address(&home, index, address, length));
    Builder::open(&office.client)?.add_address(nic.index, address, length).await?;
    Builder::open(&office.gateway)?.add_neighbour(lan.index, address, nic.mac.unwrap_or_default()).await?;
    let routes = [
        (office.gateway.clone(), Route::to(prefix.address(), prefix.length()).dev(lan.index)),
        (
            cluster.fabric().clone(),
            Route::to(prefix.address(), prefix.length()).via(plan.tunnel.0).dev(vpn.index).onlink(),
        ),
    ];
    for (ns, route) in routes {
        let (home, added) = (ns.clone(), route.clone());
        undo.push(format!("remove the route to {prefix} from {}", ns.name()), move || {
            route::delete_route(&home, &added)
        });
        Builder::open(&ns)?.add_route(&route).await?;
    }
    Ok(())
}
