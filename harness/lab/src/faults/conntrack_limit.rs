//! Writes the connection tracking limit: a number, or kube-proxy's default (I2).
//!
//! The default is kube-proxy's own formula, max(min, maxPerCore x cores); `scale` shrinks it so that a
//! laptop can fill the table. The limit is one value for the whole machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use relapse_detectors::time::Time;
use relapse_kernel::conntrack::{Conntrack, Entry};
use relapse_model::{ClusterPlan, NodeId, Place};
use schemars::JsonSchema;
use serde::Deserialize;

mod by_kube_proxy;
mod full_size;

use relapse_model::Resolver;
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::values::Fraction;

use super::filler::{self, insert, numbered};
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, Requirement, UndoStack, Where, World, now};
use crate::host::LimitWrite;
use crate::workload::FlowSwitch;
use by_kube_proxy::{KubeProxyWrite, guardian_failed};

/// Writes the conntrack limit. Takes exactly one of `to` and `as`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConntrackLimitSpec {
    /// The new limit.
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub to: Option<Spanned<u64>>,
    /// Computes the new limit: max(min, maxPerCore x cores) x scale.
    #[serde(rename = "as")]
    pub formula: Option<Spanned<Formula>>,
    /// Number of cores of the node, with `as`.
    #[schemars(range(min = 1, max = 1024))]
    pub cores: Option<Spanned<u64>>,
    /// kube-proxy's `conntrack.min`. Default 131072.
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub min: Option<Spanned<u64>>,
    /// kube-proxy's `conntrack.maxPerCore`. Default 32768.
    #[schemars(range(min = 1, max = 2_097_151))]
    pub max_per_core: Option<Spanned<u64>>,
    /// Factor applied to the result. Default 1/1.
    pub scale: Option<Spanned<Fraction>>,
}

/// Where a limit comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Formula {
    /// What kube-proxy writes when its configuration is empty.
    KubeProxyDefault,
}

/// The same, computed.
#[derive(Debug)]
pub struct ConntrackLimit {
    pub(crate) limit: u64,
    /// How the number is computed.
    pub(crate) formula: String,
    /// Written by kube-proxy, if there is a real one.
    pub(crate) by_kube_proxy: bool,
    /// Factor and result of the formula before it was applied, if they differ.
    pub(crate) scaled: Option<((u32, u32), u64)>,
}

impl ConntrackLimitSpec {
    fn computed(&self, cores: u64) -> ConntrackLimit {
        let (min, per_core) = (self.min.map_or(131_072, |m| m.value), self.max_per_core.map_or(32_768, |m| m.value));
        let whole = min.max(per_core.saturating_mul(cores));
        let mut formula = format!("max({min}, {per_core} x {cores} cores) = {whole}");
        let scale = self.scale.as_ref().map(|scale| scale.value.0).filter(|(over, under)| over != under);
        let limit = match scale {
            Some((over, under)) => {
                let scaled = u128::from(whole) * u128::from(over) / u128::from(under);
                let scaled = u64::try_from(scaled).unwrap_or(u64::MAX);
                formula.push_str(&format!(", x {over}/{under} = {scaled}"));
                scaled
            }
            None => whole,
        };
        ConntrackLimit { limit, formula, by_kube_proxy: true, scaled: scale.map(|scale| (scale, whole)) }
    }
}

impl FaultSpec for ConntrackLimitSpec {
    const EXAMPLE: &'static str = "{ as: kube-proxy-default, cores: 2, min: 1000, maxPerCore: 1000 }";
    const LOOK: &'static [Look] = &[
        (Where::Node, "sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max"),
        (Where::Node, "conntrack -S"),
        (Where::Pod, "ss -tn state syn-sent"),
    ];

    fn plan(&self, at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let settings = [
            ("cores", self.cores.map(|s| s.span)),
            ("min", self.min.map(|s| s.span)),
            ("maxPerCore", self.max_per_core.map(|s| s.span)),
            ("scale", self.scale.as_ref().map(|s| s.span)),
        ];
        match (&self.to, &self.formula) {
            (Some(to), None) => {
                let misplaced: Vec<_> =
                    settings.iter().filter_map(|(name, span)| span.map(|span| (name, span))).collect();
                for (name, span) in &misplaced {
                    resolver.error(
                        *span,
                        format!("`{name}` has no effect with `to`"),
                        "it belongs to `as: kube-proxy-default`",
                    );
                }
                misplaced.is_empty().then(|| {
                    let formula = to.value.to_string();
                    Box::new(ConntrackLimit { limit: to.value, formula, by_kube_proxy: false, scaled: None })
                        as Box<dyn Fault>
                })
            }
            (None, Some(formula)) => {
                let Some(cores) = self.cores else {
                    resolver.error(formula.span, "the formula needs the number of cores", "add `cores: 16`");
                    return None;
                };
                let computed = self.computed(cores.value);
                if computed.limit == 0 {
                    let span = self.scale.as_ref().map_or(at, |s| s.span);
                    resolver.error(span, format!("the limit would be 0: {}", computed.formula), "use a larger `scale`");
                    return None;
                }
                Some(Box::new(computed))
            }
            (Some(_), Some(formula)) => {
                resolver.error(formula.span, "`as` and `to` both set the limit", "leave one of them out");
                None
            }
            (None, None) => {
                resolver.error(
                    at,
                    "`conntrack-limit` has no new limit",
                    "add `to: NUMBER` or `as: kube-proxy-default`",
                );
                None
            }
        }
    }
}

// The mutation.

impl Fault for ConntrackLimit {
    fn changes(&self, _: &ClusterPlan) -> Vec<String> {
        vec!["nf_conntrack_max".to_owned()]
    }

    fn requires(&self) -> Vec<Requirement> {
        vec![Requirement::ConntrackLimit(self.limit)]
    }

    fn scale(&self) -> Option<(u32, u32)> {
        self.scaled.map(|(scale, _)| scale)
    }

    fn enlarge<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<(), FaultError>> {
        Box::pin(async move {
            match self.scaled {
                Some((_, whole)) => full_size::prepare(world, undo, whole).await,
                None => Ok(()),
            }
        })
    }

    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            if !world.host_limit.is_available() {
                return self.fill_instead(world, undo);
            }
            let limit = world.host_limit.clone();
            if let Some((_, whole)) = self.scaled.filter(|_| world.full_size) {
                return full_size::write_default(world, undo, whole, &self.formula).await;
            }
            undo.push("restore nf_conntrack_max", move || limit.restore());
            let mut emulated = String::new();
            if self.by_kube_proxy
                && let Some(kube_proxy) = world.cluster.kube_proxy(self.limit)
            {
                match by_kube_proxy::write(kube_proxy?, self.limit, &self.formula, world).await? {
                    KubeProxyWrite::Done(in_force) => return Ok(in_force),
                    KubeProxyWrite::LeftAlone(what) => emulated = format!("; {what}"),
                }
            }
            let written = write(world, self.limit).await?;
            Ok(InForce {
                t0: Time(written.t0),
                t1: Time(written.t1),
                what: format!("nf_conntrack_max {} -> {} ({}){emulated}", written.before, self.limit, self.formula),
                read_back: written.read_back.to_string(),
                reduced: None,
            })
        })
    }
}

async fn write(world: &World, value: u64) -> Result<LimitWrite, FaultError> {
    let limit = world.host_limit.clone();
    // The guardian answers over a pipe, so wait outside the runtime's own threads.
    let written = tokio::task::spawn_blocking(move || limit.write(value)).await;
    written.map_err(|_| guardian_failed())?
}

/// Addresses of entries that stand for unrelated connections (RFC 2544, not routed anywhere).
const BALLAST: [u8; 2] = [198, 18];
/// Timeout of such an entry, seconds.
const BALLAST_TIMEOUT: u32 = 600;

impl ConntrackLimit {
    /// Without permission to write the limit: fills the table until as much room is left below the existing limit as
    /// the write would have left, if any, and the workload fills the rest. The fall of the limit itself is left out.
    fn fill_instead(&self, world: &World, undo: &mut UndoStack) -> Result<InForce, FaultError> {
        let cluster = world.cluster.as_ref();
        let nodes = loaded(world);
        // Growing flows would otherwise take the room that must be left.
        let growing = growing(world);
        let again = growing.clone();
        undo.push("resume opening held connections", move || {
            again.iter().for_each(|flow| flow.pause(false));
            Ok(())
        });
        growing.iter().for_each(|flow| flow.pause(true));
        let mut tables = Vec::new();
        for node in nodes {
            let ns = cluster.node(node).ns.clone();
            let (_, existing) = Conntrack::open(&ns)?.table()?;
            let home = ns.clone();
            undo.push(format!("remove the filler entries from the table of {}", ns.name()), move || {
                Conntrack::open(&home)?.delete_marked(BALLAST_MARK)
            });
            let wanted = existing.saturating_sub(self.limit);
            insert(&ns, BALLAST_MARK, &mut (0..wanted.saturating_sub(LAST)).map(ballast))?;
            tables.push((ns, wanted));
        }
        // There was room to spare up to here: the mutation is what takes it.
        let t0 = now();
        let mut read_back = Vec::new();
        for (ns, wanted) in tables {
            insert(&ns, BALLAST_MARK, &mut (wanted.saturating_sub(LAST)..wanted).map(ballast))?;
            read_back.push(format!("{}: {}", ns.name(), filler::read_back(&ns, wanted)?));
        }
        growing.iter().for_each(|flow| flow.pause(false));
        Ok(InForce {
            t0,
            t1: now(),
            what: format!("table filled up to {} entries below the existing limit", self.limit),
            read_back: read_back.join(", "),
            reduced: Some((
                "the fall of nf_conntrack_max".into(),
                "it cannot be written here; the table was filled to the existing limit instead".into(),
            )),
        })
    }
}

/// The nodes whose tables the flows that hold connections fill.
fn loaded(world: &World) -> Vec<NodeId> {
    let holds = world.flows.iter().filter(|(flow, _)| flow.holds());
    let node = |from: Place| match from {
        Place::Pod(id) => Some(world.cluster.plan().pods[id.0].node),
        Place::Node(id) => Some(id),
        Place::Outside(_) | Place::Office(_) => None,
    };
    let mut nodes: Vec<NodeId> = holds.filter_map(|(flow, _)| node(flow.from)).collect();
    nodes.dedup();
    if nodes.is_empty() {
        nodes.push(NodeId(0));
    }
    nodes
}

/// The flows that open ever more connections.
fn growing(world: &World) -> Vec<Arc<FlowSwitch>> {
    world.flows.iter().filter(|(flow, _)| flow.holds()).map(|(_, switch)| Arc::clone(switch)).collect()
}

/// Number of filler entries inserted at t0.
const LAST: u64 = 16_384;
/// The mark that identifies the filler entries for removal ("ball").
const BALLAST_MARK: NonZeroU32 = NonZeroU32::new(0x6261_6c6c).unwrap();

fn ballast(number: u64) -> Entry {
    let destination = SocketAddr::from((Ipv4Addr::from([BALLAST[0], BALLAST[1] + 1, 0, 1]), 80));
    Entry::established(numbered(BALLAST, number), destination, BALLAST_TIMEOUT)
}
