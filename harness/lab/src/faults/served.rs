//! Pods with a server of relapse's own, for faults of servers.

use relapse_model::diagnostics::{Span, quoted};
use relapse_model::{Place, PodId, PodRole, Resolver, Target};

/// The first port at which flows ask this pod, over HTTP if `http`. Reports at `at` if there is none.
pub(super) fn port_of(resolver: &mut Resolver<'_>, at: Span, pod: PodId, http: bool) -> Option<u16> {
    let cluster = &resolver.cluster;
    let spec = &cluster.pods[pod.0];
    let (name, is_plain) = (spec.name.clone(), spec.role == PodRole::Plain);
    let here = |to: Target| cluster.behind(to).contains(&Place::Pod(pod));
    let flows = resolver.workload.iter().flat_map(|flow| {
        let own = flow.port.map(|port| (flow.kind, flow.to, port));
        own.into_iter().chain(flow.parts.iter().map(|part| (part.kind, part.to, part.port)))
    });
    let is_http = |kind| ["http", "call", "get", "transfer"].contains(&kind);
    let asked = flows.filter(|(kind, to, _)| (!http || is_http(kind)) && here(*to)).map(|(_, _, port)| port);
    let ingresses = cluster.pods.iter().filter_map(|pod| match pod.role {
        PodRole::Ingress { backend, port, .. } => Some((backend, port)),
        PodRole::Plain | PodRole::Dns => None,
    });
    let behind = ingresses.filter(|(backend, _)| here(Target::Service(*backend))).map(|(_, port)| port);
    let port = asked.chain(behind).next().filter(|_| is_plain);
    if port.is_none() {
        let (over, kinds) = if http { (" over HTTP", "an `http` flow") } else { ("", "a flow") };
        let message = format!("no server in pod {} is asked{over}", quoted(&name));
        resolver.error(at, message, format!("name a pod that {kinds} talks to, itself or through its Service"));
    }
    port
}
