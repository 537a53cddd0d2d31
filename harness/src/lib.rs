//! relapse: replays published Kubernetes network incidents and proves that detectors catch them.
//!
//! The way of the data, one direction, and what carries it:
//! [`scenario`] (YAML) -> [`plan`] -> a cluster up -> collectors armed -> faults -> signals -> detectors -> [`judge`] ->
//! events ([`event`]) -> reports. [`run`] is the only place that wires them; clusters, workload, faults and collectors
//! are [`relapse_lab`]'s.
//!
//! Which backends there are the program says (`main.rs`): nothing here names one but labs, which need nothing.

pub mod cli;
pub mod config;
pub mod effect;
pub mod effects;
pub mod judge;
pub mod outside_detector;
pub mod plan;
pub mod run;
pub mod scenario;
pub mod shipped;

pub use relapse_reports::event;
