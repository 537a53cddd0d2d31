//! A node's default route is replaced by an equal one of another metric: benign (twin of I4).

use relapse_kernel::builder::Builder;
use relapse_kernel::route;
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::{ClusterPlan, NodeId, Resolver};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, Where, World, now};

/// A node's default route is replaced by an equal one with another metric.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DefaultRouteReplaceSpec {
    pub node: Spanned<String>,
    /// Metric of the new route. That of the original is 0.
    #[schemars(range(min = 1))]
    pub metric: Spanned<u32>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct DefaultRouteReplace {
    pub(crate) node: NodeId,
    pub(crate) metric: u32,
}

impl FaultSpec for DefaultRouteReplaceSpec {
    const EXAMPLE: &'static str = "{ node: worker-1, metric: 50 }";
    const LOOK: &'static [Look] = &[(Where::Node, "ip route show table all type unicast")];

    fn plan(&self, _at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        Some(Box::new(DefaultRouteReplace { node: resolver.node(&self.node)?, metric: self.metric.value }))
    }
}

// The mutation.

impl Fault for DefaultRouteReplace {
    fn changes(&self, cluster: &ClusterPlan) -> Vec<String> {
        vec![cluster.pod_table_of(self.node)]
    }

    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let cluster = world.cluster.as_ref();
            let ns = &cluster.node(self.node).ns;
            let table = cluster.plan().network.pod_table;
            let is_default = |saved: &route::SavedRoute| saved.route().destination.1 == 0;
            let old = route::save_routes(ns, Some(table))?.into_iter().find(is_default);
            let old = old.ok_or_else(|| FaultError::NotFound { what: format!("a default route in table {table}") })?;
            let new = old.route().metric(self.metric);
            let (home, before, after) = (ns.clone(), old.clone(), new.clone());
            undo.push(format!("restore the default route of table {table}"), move || {
                before.restore(&home)?;
                if route::routes(&home, Some(table))?
                    .iter()
                    .any(|route| route.metric == after.metric && route.destination.1 == 0)
                {
                    route::delete_route(&home, &after)?;
                }
                Ok(())
            });
            let builder = Builder::open(ns)?;
            let t0 = now();
            builder.add_route(&new).await?;
            old.delete(ns)?;
            let found = route::routes(ns, Some(table))?;
            let t1 = now();
            let in_force = found.iter().any(|route| route.destination.1 == 0 && route.metric == self.metric);
            if !in_force || old.is_in_force(ns)? {
                return Err(FaultError::NotInForce {
                    what: "replace the default route".into(),
                    read_back: format!("{found:?}"),
                });
            }
            Ok(InForce {
                t0,
                t1,
                what: format!("default route of table {table} replaced by one with metric {}", self.metric),
                read_back: format!("default metric {}", self.metric),
                reduced: None,
            })
        })
    }
}
