//! A path of the network becomes slow, lossy or narrow, or fast again.

use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::{ClusterPlan, PathId, PathPlan, Resolver, WrittenPath, values};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, Requirement, UndoStack, Where, World, now};

/// A path changes. Values that are not given stay as in `cluster`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathChangeSpec {
    /// `outside/NAME`, `office/NAME`, or `prefix/PREFIX` of the cluster's `prefixes`.
    pub of: Spanned<String>,
    /// One-way delay of each packet.
    pub delay: Option<Spanned<values::Duration>>,
    /// Variation of the delay, up or down.
    pub jitter: Option<Spanned<values::Duration>>,
    /// Share of packets lost in each direction.
    pub loss: Option<Spanned<values::Percent>>,
    /// Bandwidth of each direction.
    pub rate: Option<Spanned<values::Rate>>,
}

/// The resolved fault.
#[derive(Debug)]
pub struct PathChange {
    pub(crate) path: PathId,
    pub(crate) to: PathPlan,
}

impl FaultSpec for PathChangeSpec {
    const EXAMPLE: &'static str = "{ of: outside/host, delay: 59ms }";
    const LOOK: &'static [Look] =
        &[(Where::Pod, "ping -c 3 {address}"), (Where::Pod, "ss -tni"), (Where::Node, crate::fault::SYNS)];

    fn plan(&self, at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let path = resolver.path_of(&self.of)?;
        let before = resolver.cluster.path(path);
        let written = WrittenPath {
            delay: self.delay.as_ref(),
            jitter: self.jitter.as_ref(),
            loss: self.loss.as_ref(),
            rate: self.rate.as_ref(),
        };
        let to = resolver.path(before, written);
        if to == before {
            let message = format!("the path of {} stays as it is", self.of.value);
            resolver.error(at, message, "write a `delay`, `jitter`, `loss` or `rate` that it does not have");
        }
        Some(Box::new(PathChange { path, to }))
    }
}

// The mutation.

impl Fault for PathChange {
    fn changes(&self, cluster: &ClusterPlan) -> Vec<String> {
        vec![format!("the path of {}", cluster.path_name(self.path))]
    }

    fn requires(&self) -> Vec<Requirement> {
        vec![Requirement::SlowPaths]
    }

    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let cluster = &world.cluster;
            let (path, before) = (self.path, cluster.paths().get(self.path));
            let (name, home) = (cluster.plan().path_name(path), cluster.clone());
            undo.push(format!("set the path of {name} back to {before}"), move || home.paths().set(path, before));
            let t0 = now();
            cluster.paths().set(path, self.to)?;
            let t1 = now();
            let read_back = cluster.paths().read_back(path)?;
            Ok(InForce { t0, t1, what: format!("path of {name}: {before} -> {}", self.to), read_back, reduced: None })
        })
    }
}
