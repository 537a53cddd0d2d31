//! All faults: one file each, and one line each in the registry below.
//!
//! A file has two parts: the fault's YAML and its planning ([`FaultSpec`]), and the mutation itself
//! ([`crate::fault::Fault`]). The registry turns them into the list of faults a scenario can inject, tagged by
//! the fault's name.

use std::sync::Arc;

use relapse_model::Resolver;
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::fault::{FaultSpec, Planned};

mod drop_all;
mod filler;
mod served;

macro_rules! faults {
    ($($name:literal => $module:ident::$spec:ident,)*) => {
        $(pub mod $module;)*

        /// A fault to inject.
        #[derive(Debug, Clone, Deserialize, JsonSchema)]
        #[schemars(title = "fault")]
        pub enum Injection {
            $(#[serde(rename = $name)] $spec(Spanned<$module::$spec>),)*
        }

        impl Injection {
            /// Names of all faults.
            pub const NAMES: &'static [&'static str] = &[$($name),*];

            /// See [`FaultSpec::EXAMPLE`], in the same order.
            pub const EXAMPLES: &'static [&'static str] = &[$($module::$spec::EXAMPLE),*];

            /// Where its settings are.
            pub fn span(&self) -> Span {
                match self { $(Self::$spec(spec) => spec.span,)* }
            }

            /// Plans the fault.
            pub fn plan(&self, resolver: &mut Resolver<'_>) -> Option<Planned> {
                match self {
                    $(Self::$spec(spec) => {
                        let fault = Arc::from(spec.value.plan(spec.span, resolver)?);
                        Some(Planned { name: $name, look: $module::$spec::LOOK, fault })
                    })*
                }
            }
        }
    };
}

faults! {
    "policy-route-loss" => policy_route_loss::PolicyRouteLossSpec,
    "default-route-replace" => default_route_replace::DefaultRouteReplaceSpec,
    "pod-deletion" => pod_deletion::PodDeletionSpec,
    "conntrack-limit" => conntrack_limit::ConntrackLimitSpec,
    "conntrack-burst" => conntrack_burst::ConntrackBurstSpec,
    "dns-race" => dns_race::DnsRaceSpec,
    "mss-clamp" => mss_clamp::MssClampSpec,
    "client-death" => client_death::ClientDeathSpec,
    "new-clients" => new_clients::NewClientsSpec,
    "link-loss" => link_loss::LinkLossSpec,
    "nic-release" => nic_release::NicReleaseSpec,
    "dns-replica-loss" => dns_replica_loss::DnsReplicaLossSpec,
    "dns-replica-added" => dns_replica_added::DnsReplicaAddedSpec,
    "dns-rolling-restart" => dns_rolling_restart::DnsRollingRestartSpec,
    "dns-record" => dns_record::DnsRecordSpec,
    "slow-resolver" => slow_resolver::SlowResolverSpec,
    "snat-collision" => snat_collision::SnatCollisionSpec,
    "server-death" => server_death::ServerDeathSpec,
    "path-change" => path_change::PathChangeSpec,
    "service-rules-loss" => service_rules_loss::ServiceRulesLossSpec,
    "service-rules-rewrite" => service_rules_rewrite::ServiceRulesRewriteSpec,
    "kube-proxy-stopped" => kube_proxy_stopped::KubeProxyStoppedSpec,
    "endpoint-replaced" => endpoint_replaced::EndpointReplacedSpec,
    "missing-index" => missing_index::MissingIndexSpec,
    "ingress-misroute" => ingress_misroute::IngressMisrouteSpec,
    "ingress-reload" => ingress_reload::IngressReloadSpec,
    "external-dns-loss" => external_dns_loss::ExternalDnsLossSpec,
    "backend-errors" => backend_errors::BackendErrorsSpec,
    "pod-crash" => pod_crash::PodCrashSpec,
    "rolling-update" => rolling_update::RollingUpdateSpec,
    "carrier-flap" => carrier_flap::CarrierFlapSpec,
    "domain-failure" => domain_failure::DomainFailureSpec,
    "node-nic-route" => node_nic_route::NodeNicRouteSpec,
    "policy-drop" => policy_drop::PolicyDropSpec,
}
