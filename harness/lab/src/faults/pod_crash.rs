//! A pod's program ends by itself, and again each time it is started (W5): CrashLoopBackOff.
//!
//! The container is killed, and the pod's servers end with it: their sockets are reset or refused. The kubelet starts it
//! again, and it ends before its servers listen. The pod stays, with its address and its links; while no container
//! runs, it is no endpoint. Undone as an operator would: the pod is replaced.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use relapse_detectors::time::limit;
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::{Failure, Place, PodId, Resolver, values};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::oneshot;

use super::served::port_of;
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, Where, World, now, wait_for};
use crate::workload::sockets;

/// A pod's program ends by itself, and again each time it is started.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodCrashSpec {
    pub pod: Spanned<String>,
    /// How long its program runs before it ends again, without answering. Default 200ms.
    pub exits_after: Option<Spanned<values::Duration>>,
    /// How long the kubelet waits before the second restart; then twice as long each time. Default 10s, as a real
    /// kubelet, which has a back-off of its own.
    pub back_off: Option<Spanned<values::Duration>>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct PodCrash {
    pub(crate) pod: PodId,
    /// Of one of its servers.
    pub(crate) port: u16,
    pub(crate) exits_after: Duration,
    pub(crate) back_off: Duration,
}

/// As a kubelet has them.
const BACK_OFF: Duration = Duration::from_secs(10);
const EXITS_AFTER: Duration = Duration::from_millis(200);

impl FaultSpec for PodCrashSpec {
    const EXAMPLE: &'static str = "{ pod: a, exitsAfter: 100ms, backOff: 1s }";
    const LOOK: &'static [Look] = &[(Where::Pod, "ss -tln"), (Where::Node, "nft list ruleset")];

    fn plan(&self, _at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let mut duration = |key, given: Option<&Spanned<values::Duration>>, default| match given {
            Some(given) => resolver.duration(key, given),
            None => Some(default),
        };
        let exits_after = duration("exitsAfter", self.exits_after.as_ref(), EXITS_AFTER);
        let back_off = duration("backOff", self.back_off.as_ref(), BACK_OFF);
        let pod = resolver.pod(&self.pod)?;
        let port = port_of(resolver, self.pod.span, pod, false)?;
        Some(Box::new(PodCrash { pod, port, exits_after: exits_after?, back_off: back_off? }))
    }
}

// The mutation.

/// Time within which a connect to the pod itself is refused or succeeds.
const CONNECTS_WITHIN: Duration = Duration::from_secs(2);

impl Fault for PodCrash {
    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let (cluster, servers) = (Arc::clone(&world.cluster), Arc::clone(&world.servers));
            let (id, place, port) = (self.pod, Place::Pod(self.pod), self.port);
            let name = cluster.pod(id).name;
            let (crashed, is_crashed) = oneshot::channel();
            let again = {
                let (cluster, exits_after, back_off) = (Arc::clone(&cluster), self.exits_after, self.back_off);
                tokio::spawn(async move {
                    // It never crashed if the other end is dropped.
                    if is_crashed.await.is_err() {
                        return;
                    }
                    while cluster.restarted(id, back_off).await.is_ok() {
                        // Part of the fault: how long the program runs.
                        tokio::time::sleep(exits_after).await;
                        if cluster.crash(id).await.is_err() {
                            return;
                        }
                    }
                })
                .abort_handle()
            };
            let (home, its_servers) = (Arc::clone(&cluster), Arc::clone(&servers));
            undo.push(format!("replace pod {name}"), move || {
                again.abort();
                wait_for(Box::pin(async move {
                    home.delete_pod(id).await?;
                    home.add_pod(id).await?;
                    its_servers.start(place)?;
                    home.set_running(id, true).await?;
                    match connect(&home.pod(id).ns, SocketAddr::new(home.plan().pods[id.0].address, port)).await {
                        Ok(()) => Ok(()),
                        Err(read_back) => {
                            Err(FaultError::NotInForce { what: format!("replace pod {name}"), read_back })
                        }
                    }
                }))
            });
            let pod = cluster.pod(id);
            let server = SocketAddr::new(cluster.plan().pods[id.0].address, port);
            let t0 = now();
            cluster.crash(id).await?;
            servers.stop(place).await;
            let connected = connect(&pod.ns, server).await;
            let t1 = now();
            // The receiver is gone only if the runtime ends.
            let _ = crashed.send(());
            match connected {
                Err(read_back) => {
                    let again = limit(self.exits_after);
                    let what = format!("the program of pod {} was killed, and ends {again} after each start", pod.name);
                    Ok(InForce { t0, t1, what, read_back: format!("port {port}: {read_back}"), reduced: None })
                }
                Ok(()) => {
                    let what = format!("end the program of pod {}", pod.name);
                    Err(FaultError::NotInForce { what, read_back: format!("{server} accepts connections") })
                }
            }
        })
    }
}

/// Whether a server accepts connections, seen in its own namespace; otherwise why not.
async fn connect(ns: &relapse_kernel::NetNs, server: SocketAddr) -> Result<(), String> {
    let connected = tokio::time::timeout(CONNECTS_WITHIN, sockets::connect(ns, server)).await;
    match connected.unwrap_or(Err(Failure::Timeout)) {
        Ok(_) => Ok(()),
        Err(Failure::Refused) => Err("connections are refused".to_owned()),
        Err(_) => Err("no connection".to_owned()),
    }
}
