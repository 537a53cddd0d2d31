//! The HTTP servers of some pods answer with an error: 500s are an incident (W4), some 404s its benign twin.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use relapse_kernel::NetNs;
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::{ClusterPlan, Place, PodId, Resolver, values};
use schemars::JsonSchema;
use serde::Deserialize;

use super::served::port_of;
use crate::cluster::Cluster;
use crate::fault::{Fault, FaultError, FaultSpec, InForce, Job, Look, UndoStack, Where, World, now, wait_for};
use crate::workload::errors::ErrorShare;
use crate::workload::servers::http::{bytes_path, fetch};
use crate::workload::sockets;

/// The HTTP servers of some pods answer with an error.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendErrorsSpec {
    /// Names of pods.
    pub pods: Option<Spanned<Vec<Spanned<String>>>>,
    /// Name of a Service: all of its pods.
    pub service: Option<Spanned<String>>,
    /// HTTP status of these answers.
    #[schemars(range(min = 400, max = 599))]
    pub status: Spanned<u16>,
    /// Share of the answers. Default 100%.
    pub share: Option<Spanned<values::Percent>>,
}

/// The same, resolved.
#[derive(Debug)]
pub struct BackendErrors {
    /// With the port of an HTTP server.
    pub(crate) pods: Vec<(PodId, u16)>,
    pub(crate) errors: ErrorShare,
}

impl FaultSpec for BackendErrorsSpec {
    const EXAMPLE: &'static str = "{ pods: [b], status: 500 }";
    const LOOK: &'static [Look] = &[
        (Where::Pod, "tcpdump -lnAi any 'tcp[((tcp[12] & 0xf0) >> 2):4] = 0x48545450' | grep HTTP/1"),
        (Where::Pod, "ss -tin"),
    ];

    fn plan(&self, at: Span, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
        let pods: Vec<(Span, PodId)> = match (&self.pods, &self.service) {
            (Some(pods), None) => pods.iter().filter_map(|pod| Some((pod.span, resolver.pod(pod)?))).collect(),
            (None, Some(service)) => {
                let id = resolver.service(service)?;
                let cluster = &resolver.cluster;
                let there = cluster.services[id.0].pods.iter().filter(|pod| !cluster.is_spare(**pod));
                there.map(|pod| (service.span, *pod)).collect()
            }
            _ => {
                resolver.error(at, "either `pods` or `service` is needed", "write `service: NAME`");
                return None;
            }
        };
        let status = StatusCode::from_u16(self.status.value).ok();
        let millionths = self.share.as_ref().map_or(1_000_000, |share| share.0);
        if let Some(share) = self.share.as_ref().filter(|_| millionths < LEAST) {
            let help = "write at least `1%`, or leave it out";
            resolver.error(share.span, "`share` is less than 1%, too few answers to read back", help);
        }
        if let Some(pods) = self.pods.as_ref().filter(|pods| pods.is_empty()) {
            resolver.error(pods.span, "no pod is named", "name pods, or write `service: NAME`");
        }
        let served = pods.iter().filter_map(|(at, pod)| Some((*pod, port_of(resolver, *at, *pod, true)?)));
        let pods = served.collect::<Vec<_>>();
        Some(Box::new(BackendErrors { pods, errors: ErrorShare { status: status?, millionths } }))
    }
}

// The mutation.

/// The smallest share, in millionths.
const LEAST: u32 = 10_000;
/// Requests by which a share is read back: more than needed for 1%, beside those of the workload.
const REQUESTS: u32 = 1000;
/// Time limit of one of them.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

impl Fault for BackendErrors {
    fn changes(&self, cluster: &ClusterPlan) -> Vec<String> {
        self.pods.iter().map(|(id, _)| format!("the answers of pod/{}", cluster.pods[id.0].name)).collect()
    }

    fn inject<'a>(&'a self, world: &'a World, undo: &'a mut UndoStack) -> Job<'a, Result<InForce, FaultError>> {
        Box::pin(async move {
            let cluster = world.cluster.as_ref();
            for (id, port) in &self.pods {
                let (servers, place) = (Arc::clone(&world.servers), Place::Pod(*id));
                let (ns, server) = (cluster.pod(*id).ns, server(cluster, *id, *port));
                undo.push(format!("let {} answer as before", cluster.pod(*id).name), move || {
                    servers.set_errors(place, None);
                    let status = wait_for(Box::pin(status(&ns, server)))?;
                    let read_back = format!("status {status}");
                    let what = || format!("let {} answer as before", ns.name());
                    if status.is_success() { Ok(()) } else { Err(FaultError::NotInForce { what: what(), read_back }) }
                });
            }
            let t0 = now();
            for (id, _) in &self.pods {
                world.servers.set_errors(Place::Pod(*id), Some(self.errors));
            }
            for (id, port) in &self.pods {
                self.read_back(cluster, *id, *port).await?;
            }
            let t1 = now();
            let status = self.errors.status;
            let names: Vec<_> = self.pods.iter().map(|(id, _)| cluster.pod(*id).name).collect();
            let share = f64::from(self.errors.millionths) / 10_000.0;
            let what = format!("{share}% of the answers of {} have the status {}", names.join(", "), status.as_u16());
            Ok(InForce { t0, t1, what, read_back: format!("a request was answered {status}"), reduced: None })
        })
    }
}

impl BackendErrors {
    async fn read_back(&self, cluster: &dyn Cluster, id: PodId, port: u16) -> Result<(), FaultError> {
        let (ns, server) = (cluster.pod(id).ns, server(cluster, id, port));
        for _ in 0..REQUESTS {
            if status(&ns, server).await? == self.errors.status {
                return Ok(());
            }
        }
        let what = format!("let {} answer {}", ns.name(), self.errors.status);
        Err(FaultError::NotInForce { what, read_back: format!("no such answer to {REQUESTS} requests") })
    }
}

fn server(cluster: &dyn Cluster, id: PodId, port: u16) -> SocketAddr {
    SocketAddr::new(cluster.plan().pods[id.0].address, port)
}

/// The status of an answer, asked in the server's own namespace.
async fn status(ns: &NetNs, server: SocketAddr) -> Result<StatusCode, FaultError> {
    let asked = async { fetch(sockets::connect(ns, server).await?, &bytes_path(1)).await };
    match tokio::time::timeout(ANSWERED_WITHIN, asked).await {
        Ok(Ok((status, _))) => Ok(status),
        _ => {
            let what = format!("ask {server} in {}", ns.name());
            Err(FaultError::NotInForce { what, read_back: "no answer".into() })
        }
    }
}
