//! relapse: replays published Kubernetes network incidents and proves that detectors catch them.
//!
//! The way of the data, one direction, and the modules that carry it:
//! [`scenario`] (YAML) -> [`plan`] -> [`cluster`] up -> [`collect`] -> [`fault`] -> signals ->
//! detectors -> [`judge`] -> events ([`event`]) -> reports. [`run`] is the only place that wires them.
//! [`host`] owns what reaches beyond the lab: journal, lock, guardian, recovery.

pub mod cli;
pub mod config;
pub mod judge;
pub mod outside_detector;
pub mod plan;
pub mod run;
pub mod scenario;

pub use relapse_lab::{cluster, collect, fault, faults, host, host_limit, job, netns, workload};
pub use relapse_model::diagnostics;
pub use relapse_reports::event;
