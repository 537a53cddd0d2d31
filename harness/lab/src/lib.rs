//! Clusters to break: their structure, their workload, the faults, and the collected signals.
//!
//! Modules, from the lowest layer up:
//! - [`job`], [`host_limit`]: work that may fail; requests for the machine-wide conntrack limit from inside a lab.
//! - [`host`]: what reaches beyond the lab: lock, journal, guardian, recovery.
//! - [`cluster`]: nodes, pods, Services, the fabric and the outside world as namespace handles; the backend interface
//!   ([`cluster::backend`]). [`workload`]: real clients and servers. [`collect`]: kernel and API events into signals.
//! - [`netns`]: the lab backend. [`series`]: exporters inside the namespaces, and what they export.
//! - [`fault`]: the fault interface. [`faults`]: all faults, with their YAML.
//!
//! Left out: what a scenario expects, and whether its expectations were met.

pub mod cluster;
pub mod collect;
pub mod fault;
pub mod faults;
pub mod host;
pub mod host_limit;
pub mod job;
pub mod netns;
pub mod series;
pub mod workload;
