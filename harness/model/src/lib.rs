//! What labs and scenarios share: the cluster and the workload as plans, and how they are written and told about.
//!
//! A map of the modules:
//! - [`plan`]: nodes, pods, Services, hosts, offices and flows, by number. [`resolver`]: their names looked up. [`replicas`]: those of cluster DNS.
//! - [`spanned`], [`values`]: values of a file with their places, texts with a syntax. [`yaml`]: files of YAML as types.
//! - [`diagnostics`]: what is wrong with a file.
//! - [`kind_config`]: configurations of real clusters, which scenarios name.
//!
//! Left out: what is done with any of it. No I/O but reading files.

pub mod diagnostics;
pub mod kind_config;
pub mod plan;
pub mod replicas;
pub mod resolver;
pub mod spanned;
pub mod values;
pub mod yaml;

pub use plan::{
    ClusterPlan, DnsPlan, Failure, FlowId, FlowPlan, NetworkPlan, NodeId, NodePlan, OfficeId, OfficePlan, OutsideId,
    OutsidePlan, Place, PodId, PodPlan, PodRole, ServiceId, ServicePlan, Target,
};
pub use resolver::Resolver;
