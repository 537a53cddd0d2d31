//! Clusters to break: what they are made of, what runs on them, what goes wrong, what is seen of it.
//!
//! A map of the modules, in the order of who uses whom:
//! - [`job`], [`host_limit`]: work that may fail; the machine-wide limit as a lab asks for it.
//! - [`host`]: what reaches beyond the lab: lock, journal, guardian, recovery.
//! - [`cluster`]: nodes, pods, Services, the fabric and the outside world over namespace handles; what a backend is
//!   ([`cluster::backend`]). [`workload`]: real clients and servers. [`collect`]: kernel and API events into signals.
//! - [`netns`]: the backend of labs.
//! - [`fault`]: what a fault is. [`faults`]: all of them, with their YAML.
//!
//! Left out: what a scenario expects, and whether it came true.

pub mod cluster;
pub mod collect;
pub mod fault;
pub mod faults;
pub mod host;
pub mod host_limit;
pub mod job;
pub mod netns;
pub mod workload;
