//! Detectors of Kubernetes network incidents: signals in, findings out.
//!
//! Pure: no runtime, no root, no network, no clock. The modules:
//! - [`signal`]: what can be observed; [`finding`]: what detectors report.
//! - [`operator`]: what an operator knows about the cluster, given to all detectors.
//! - [`detector`]: the detector trait and its input; `claims`: what a detector claims now.
//! - `armed`: a detector's state for each node, or for the cluster. [`registry`]: [`registry::DetectorSet`], which
//!   feeds all of them.
//! - [`history`]: what a detector that starts late cannot know.
//! - [`triage`]: where to look first, in six steps. [`replay`]: the same for a recording.
//! - [`record`]: writes and reads signals, and replays a recording through all detectors.
//! - `capped`, `dns_endpoints`, `hidden_clients`, `names`, `paths`, `proven`, `round_trips`, `service_probes`, `tuples`,
//!   `usual`, `wire`: state and computations that several detectors share.
//! - one module per detector, in the registry below.

#![forbid(unsafe_code)]

pub mod detector;
pub mod finding;
pub mod history;
pub mod operator;
pub mod prefix;
pub mod record;
pub mod registry;
pub mod replay;
pub mod signal;
pub mod time;
pub mod triage;

mod armed;
mod capped;
mod claims;
mod dns_endpoints;
mod hidden_clients;
mod names;
mod paths;
mod proven;
mod round_trips;
mod service_probes;
mod tuples;
mod usual;
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
    // I6 dns-record-wrong
    dns_answer,
    path_slow,
    // I5 database-slow
    server_slow,
    // W1 service-rules-loss, W2 kube-proxy-stopped
    service_rules,
    service_failure,
    kube_proxy,
    // I7 snat-port-collision
    snat_port_reuse,
    connect_stall,
    snat_exhaustion,
    // W3 ingress-misroute
    ingress_route,
    gateway_errors,
    // W6 external-dns-loss
    external_dns,
    // W4 backend-errors
    backend_errors,
    // W5 pod-crash
    pod_crash,
}
