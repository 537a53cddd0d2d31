//! CoreDNS as a scenario has it: its Corefile, and replicas that come and go.

use std::net::IpAddr;

use relapse_model::ClusterPlan;

/// So long a replica that was told to end still answers: longer than kube-proxy takes to leave it out.
const LAMEDUCK: &str = "2s";

/// What CoreDNS is configured with: the cluster's own zone, everything else to the scenario's upstream
/// resolvers in their order. No cache: it would only delay what the incidents are about.
pub fn corefile(plan: &ClusterPlan) -> Option<String> {
    let dns = plan.dns.as_ref()?;
    let upstreams: Vec<IpAddr> = dns.upstreams.iter().map(|id| plan.outside[id.0].address).collect();
    let upstreams = upstreams.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    Some(format!(
        ".:53 {{
    errors
    health {{
        lameduck {LAMEDUCK}
    }}
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
    }}
    forward . {upstreams} {{
        policy sequential
    }}
}}
"
    ))
}
