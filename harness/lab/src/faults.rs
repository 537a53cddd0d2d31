//! All faults: one file each, and one line each in the registry below.
//!
//! A file has two parts: how the fault is written in a scenario and what planning makes of it
//! ([`FaultSpec`]), and the mutation itself ([`Fault`]). The registry makes of them the list of things
//! a scenario can inject, tagged by the fault's name.

use relapse_model::Resolver;
use relapse_model::spanned::Spanned;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::fault::{Fault, FaultSpec};

mod drop_all;

macro_rules! faults {
    ($($name:literal => $module:ident::$spec:ident,)*) => {
        $(pub mod $module;)*

        /// One thing to inject.
        #[derive(Debug, Clone, Deserialize, JsonSchema)]
        #[schemars(title = "fault")]
        pub enum Injection {
            $(#[serde(rename = $name)] $spec(Spanned<$module::$spec>),)*
        }

        impl Injection {
            /// Names of all faults.
            pub const NAMES: &'static [&'static str] = &[$($name),*];

            /// The fault's name.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$spec(_) => $name,)* }
            }

            /// What planning makes of it.
            pub fn plan(&self, resolver: &mut Resolver<'_>) -> Option<Box<dyn Fault>> {
                match self { $(Self::$spec(spec) => spec.value.plan(spec.span, resolver),)* }
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
    "dns-rolling-restart" => dns_rolling_restart::DnsRollingRestartSpec,
    "slow-resolver" => slow_resolver::SlowResolverSpec,
    "snat-collision" => snat_collision::SnatCollisionSpec,
    "server-death" => server_death::ServerDeathSpec,
}
