//! A spare NIC, through which no pod is routed, is released on purpose: benign (twin of I3).

use relapse_kernel::builder::Builder;
use relapse_kernel::link;
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::{NodeId, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::cluster::cable::{End, connect};
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, World, now};

/// A spare NIC of a node, which carries no pod traffic, is released on purpose.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NicReleaseSpec {
    pub node: Spanned<String>,
    /// Name of the NIC. Default eth2.
    pub nic: Option<Spanned<String>>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct NicRelease {
    pub(crate) node: NodeId,
    pub(crate) nic: String,
}

impl FaultSpec for NicReleaseSpec {
    const EXAMPLE: &'static str = "{ node: worker-1 }";
    const LOOK: &'static [Look] = super::link_loss::LinkLossSpec::LOOK;

    fn plan(&self, at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let node = resolver.node(&self.node);
        if let Some(nic) = &self.nic {
            resolver.interface_name(nic)?;
        }
        let nic = self.nic.as_ref().map_or("eth2", |nic| nic.value.as_str()).to_owned();
        if nic == resolver.cluster.network.pod_nic || nic == resolver.cluster.network.node_nic {
            let span = self.nic.as_ref().map_or(at, |nic| nic.span);
            resolver.error(
                span,
                format!("`{nic}` is not spare: it carries traffic"),
                "name a NIC that the network does not use",
            );
            return None;
        }
        Some(Box::new(NicRelease { node: node?, nic }))
    }
}

// The mutation.

impl Fault for NicRelease {
    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let cluster = world.cluster.as_ref();
            let ns = cluster.node(self.node).ns.clone();
            let far = format!("spare{}", self.node.0);
            // Both ends are running when this returns, and notifications arrive in order: agents see the NIC attached
            // first.
            let (inside, _outside) = connect(
                &End { at: &Builder::open(&ns)?, name: &self.nic, mtu: 1500 },
                &End { at: &Builder::open(cluster.fabric())?, name: &far, mtu: 1500 },
            )
            .await?;
            let (home, index) = (ns.clone(), inside.index);
            undo.push(format!("remove {}", self.nic), move || match link::get(&home, index)? {
                Some(_) => link::delete(&home, index),
                None => Ok(()),
            });
            let t0 = now();
            link::delete(&ns, inside.index)?;
            let found = link::find(&ns, &self.nic)?;
            let t1 = now();
            if let Some(link) = found {
                return Err(FaultError::NotInForce {
                    what: format!("release {}", self.nic),
                    read_back: format!("{link:?}"),
                });
            }
            Ok(InForce {
                t0,
                t1,
                what: format!("{} of {}, which carries no pod traffic, released", self.nic, ns.name()),
                read_back: format!("no {}", self.nic),
                reduced: None,
            })
        })
    }
}
