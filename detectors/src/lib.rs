//! Detectors of Kubernetes network incidents: signals in, findings out.
//!
//! Pure: no runtime, no root, no network, no clock. A map of the modules:
//! - [`signal`]: what can be observed; [`finding`]: what is said about it.
//! - [`operator`]: what an operator knows and tells all detectors once.
//! - [`detector`]: what a detector is, and what it is given; `claims`: what it says of what holds.
//! - `armed`: what each detector remembers of each node, or of the cluster. [`registry`]: [`registry::DetectorSet`],
//!   which feeds them all.
//! - [`record`]: signals to a file and back, and the replay of a recording through all detectors.
//! - `capped`, `dns_endpoints`, `wire`, `proven`, `tuples`: what several detectors need to keep or compute.
//! - one module a detector, in the registry below.

#![forbid(unsafe_code)]

pub mod detector;
pub mod finding;
pub mod operator;
pub mod prefix;
pub mod record;
pub mod registry;
pub mod signal;
pub mod time;

mod armed;
mod capped;
mod claims;
mod dns_endpoints;
mod proven;
mod tuples;
mod wire;

#[cfg(test)]
mod testing;

macro_rules! detectors {
    ($($visibility:vis $module:ident,)+) => {
        $($visibility mod $module;)+

        /// All built-in detectors.
        static DETECTORS: &[detector::DetectorInfo] = &[$($module::INFO),+];
    };
}

detectors! {
    // I1 mss-clamp-raised
    mss_change,
    pmtu_blackhole,
    // I2 conntrack-cap-reset
    pub conntrack_limit,
    conntrack_exhaustion,
    conntrack_pressure,
    // I3 coredns-single-replica-loss
    pod_nic,
    dns_redundancy,
    dns_replica,
    dns_failure,
    // I4 policy-route-lost
    policy_route,
    wrong_nic,
    // I5 database-slow
    server_slow,
    // I7 snat-port-collision
    snat_port_reuse,
    connect_stall,
    snat_exhaustion,
}
