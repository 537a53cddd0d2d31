//! A server outside stops, and connections to it fail without any port reused: benign (twin of I7).

use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::{ClusterPlan, FlowPlan, OutsideId, Place, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;

use super::drop_all;
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, World, now};

/// A server outside stops; its host keeps running.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerDeathSpec {
    /// `outside/NAME`.
    pub host: Spanned<String>,
    /// Port of the server, used by a flow.
    #[schemars(range(min = 1))]
    pub port: Spanned<u16>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct ServerDeath {
    pub(crate) host: OutsideId,
    pub(crate) port: u16,
}

impl FaultSpec for ServerDeathSpec {
    const EXAMPLE: &'static str = "{ host: outside/host, port: 443 }";
    const LOOK: &'static [Look] = super::snat_collision::SnatCollisionSpec::LOOK;

    fn plan(&self, _at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let host = resolver.outside(&self.host)?;
        let port = self.port.value;
        let mut asked = resolver.workload.iter().flat_map(FlowPlan::asked);
        let here = |to| resolver.cluster.behind(to).contains(&Place::Outside(host));
        let is_asked = asked.any(|(to, asked, _)| asked == port && here(to));
        drop(asked);
        if !is_asked {
            let message = format!("nothing listens on port {port} of `{}`: no flow goes there", self.host.value);
            resolver.error(self.port.span, message, "name the port of a flow to that host");
        }
        Some(Box::new(ServerDeath { host, port }))
    }
}

// The mutation.

impl Fault for ServerDeath {
    fn changes(&self, cluster: &ClusterPlan) -> Vec<String> {
        vec![drop_all::what(cluster, self.host, self.port)]
    }

    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let host = world.cluster.outside(self.host).ns.clone();
            let (home, port) = (host.clone(), self.port);
            undo.push(format!("stop dropping packets of {}", host.name()), move || drop_all::lift(&home, Some(port)));
            let t0 = now();
            let read_back = drop_all::impose_on_port(&host, self.port)?;
            Ok(InForce {
                t0,
                t1: now(),
                what: format!("{} no longer answers on port {}", host.name(), self.port),
                read_back,
                reduced: None,
            })
        })
    }
}
