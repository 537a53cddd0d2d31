//! relapse: replays published Kubernetes network incidents and proves that detectors catch them.
//!
//! The way of the data, one direction, and the modules that carry it:
//! [`scenario`] (YAML) -> [`plan`] -> [`cluster`] up -> [`collect`] -> [`fault`] -> signals ->
//! detectors -> [`judge`] -> events ([`event`]) -> reports. [`run`] is the only place that wires them.
//! [`host`] owns what reaches beyond the lab: journal, lock, guardian, recovery.

pub mod cli;
pub mod cluster;
pub mod collect;
pub mod config;
pub mod fault;
pub mod faults;
pub mod host;
pub mod host_limit;
pub mod job;
pub mod judge;
pub mod kind;
pub mod netns;
pub mod outside_detector;
pub mod plan;
pub mod run;
pub mod scenario;
pub mod workload;

pub use relapse_model::diagnostics;
pub use relapse_reports::event;
