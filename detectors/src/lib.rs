//! Detectors of Kubernetes network incidents: signals in, findings out.
//!
//! Pure: no runtime, no root, no network, no clock. A map of the modules:
//! - [`signal`]: what can be observed; [`finding`]: what is said about it.
//! - [`operator`]: what an operator knows and tells all detectors once.
//! - [`detector`]: the trait, the registry and [`detector::DetectorSet`], which feeds them all.
//! - one module a detector.

pub mod finding;
pub mod operator;
pub mod prefix;
pub mod signal;
pub mod time;
