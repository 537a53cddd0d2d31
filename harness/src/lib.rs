//! relapse: replays published Kubernetes network incidents and proves that detectors catch them.
//!
//! Data flow: [`scenario`] (YAML) -> [`plan`] -> a cluster up -> collectors armed -> faults -> signals -> detectors ->
//! [`judge`] -> events ([`event`]) -> reports. [`run`] wires them together; clusters, workload, faults and collectors
//! are in [`relapse_lab`].
//!
//! The binary (`main.rs`) registers the backends. This crate depends on none but labs.

pub mod access;
pub mod cli;
pub mod config;
pub mod drawn;
pub mod effect;
pub mod effects;
pub mod judge;
pub mod nightly;
pub mod outside_detector;
pub mod plan;
pub mod run;
pub mod scenario;
pub mod shipped;
pub mod vary;

pub use relapse_reports::event;
