//! Detectors of Kubernetes network incidents: signals in, findings out.
//!
//! Pure: no runtime, no root, no network, no clock. A map of the modules:
//! - [`signal`]: what can be observed; [`finding`]: what is said about it.
//! - [`operator`]: what an operator knows and tells all detectors once.
//! - [`detector`]: the trait. [`registry`]: all of them, and [`registry::DetectorSet`], which feeds them.
//! - [`record`]: signals to a file and back, and the replay of a recording through all detectors.
//! - `claims`, `wire`, `proven`, `tuples`: what several detectors need to keep or compute.
//! - one module a detector, grouped by the incident that taught it.

#![forbid(unsafe_code)]

pub mod detector;
pub mod finding;
pub mod operator;
pub mod prefix;
pub mod record;
pub mod registry;
pub mod signal;
pub mod time;

mod claims;
mod proven;
mod tuples;
mod wire;

// I1 mss-clamp-raised
mod mss_change;
mod pmtu_blackhole;
// I2 conntrack-cap-reset
mod conntrack_exhaustion;
pub mod conntrack_limit;
mod conntrack_pressure;
// I3 coredns-single-replica-loss
mod dns_failure;
mod dns_redundancy;
mod dns_replica;
mod pod_nic;
// I4 policy-route-lost
mod policy_route;
mod wrong_nic;
// I7 snat-port-collision
mod connect_stall;
mod snat_exhaustion;
mod snat_port_reuse;

#[cfg(test)]
mod testing;
