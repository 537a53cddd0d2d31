//! Shared by labs and scenarios: plans of cluster and workload, YAML parsing and diagnostics.
//!
//! Modules:
//! - [`plan`]: nodes, pods, Services, hosts, offices and flows, by number. [`resolver`]: looks up their names.
//!   [`replicas`]: those of cluster DNS.
//! - [`spanned`], [`values`]: values with their place in a file, strings with a syntax. [`yaml`]: YAML files as types.
//! - [`diagnostics`]: errors in a file.
//! - [`kind_config`]: kind cluster configurations named by scenarios.
//!
//! Reading files is the only I/O.

pub mod diagnostics;
pub mod kind_config;
pub mod plan;
pub mod replicas;
pub mod resolver;
pub mod spanned;
pub mod values;
pub mod yaml;
pub mod zone;

pub use plan::{
    ClusterPlan, DnsPlan, Failure, FlowId, FlowPlan, ForwardPolicy, NameId, NamePlan, NetworkPlan, NodeId, NodePlan,
    OfficeId, OfficePlan, OutsideId, OutsidePlan, PartId, PartPlan, PathId, PathPlan, Place, PodId, PodPlan, PodRole,
    PrefixPlan, Query, ServiceId, ServicePlan, Step, Target, TrafficPolicy, Work, time_in_cache,
};
pub use resolver::{Resolver, WrittenPath};
