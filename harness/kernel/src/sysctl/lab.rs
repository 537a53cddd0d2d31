//! The settings of a lab.
//!
//! A new namespace inherits most of its IPv4 and TCP settings from the initial one, which an administrator, a
//! distribution or a kubelet may have tuned. A lab writes every setting that its incidents or their timing depend
//! on, with the kernel's default unless a comment says otherwise, so that a run behaves the same on every machine.
//! All of them can be written by an ordinary user in their own user namespace. Scenarios change some of them
//! afterwards.

use std::fs;

use super::{put, read_host};
use crate::error::{Error, Result};
use crate::netns::NetNs;

/// One setting and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    pub key: &'static str,
    pub value: &'static str,
    /// Set if the setting may be absent or not writable by a lab (an older kernel, a part that is not built in or not
    /// loaded): the consequence. Otherwise a missing setting is an error.
    pub without: Option<&'static str>,
}

const fn must(key: &'static str, value: &'static str) -> Setting {
    Setting { key, value, without: None }
}

const fn may(key: &'static str, value: &'static str, without: &'static str) -> Setting {
    Setting { key, value, without: Some(without) }
}

/// The consequence of missing IPv6, and of missing connection tracking, which `doctor` checks separately.
const NO_IPV6: &str = "scenarios with IPv6 addresses do not run";
const NO_TRACKING: &str = "connection tracking is not loaded";

/// The settings of every namespace of a lab, applied before its first link. `forward` makes it a router.
#[must_use]
pub fn lab_settings(forward: bool) -> Vec<Setting> {
    let switch = if forward { "1" } else { "0" };
    // First, because writing these resets the settings of single interfaces.
    let mut settings = vec![must("net.ipv4.ip_forward", switch), may("net.ipv6.conf.all.forwarding", switch, NO_IPV6)];
    settings.extend_from_slice(WAYS);
    settings.extend_from_slice(PATH_MTU);
    settings.extend_from_slice(TCP);
    settings.extend_from_slice(IPV6);
    settings.extend_from_slice(CONNTRACK);
    settings
}

/// Writes settings in order and reads each back; returns the optional ones that are absent.
///
/// # Errors
/// The error reported by the kernel; a required setting is absent; another value is read back.
pub fn apply(ns: &NetNs, settings: &[Setting]) -> Result<Vec<Setting>> {
    ns.run(|| {
        let mut absent = Vec::new();
        for setting in settings {
            match put(ns.name(), setting.key, setting.value) {
                Err(e) if setting.without.is_some() && is_absent(&e) => absent.push(*setting),
                result => result?,
            }
        }
        Ok(absent)
    })?
}

/// The current values of everything a lab or a scenario may set in a namespace: the settings above and the timeouts
/// of connection tracking, in an order in which they can be written again. Absent settings are left out.
///
/// # Errors
/// The error reported by the kernel.
pub fn all_of(ns: &NetNs) -> Result<Vec<(String, String)>> {
    const NETFILTER: &str = "/proc/sys/net/netfilter";
    ns.run(|| {
        let mut keys: Vec<String> = lab_settings(true).iter().map(|setting| setting.key.to_owned()).collect();
        let timeouts = fs::read_dir(NETFILTER).into_iter().flatten().flatten();
        let timeouts = timeouts.filter_map(|file| file.file_name().into_string().ok());
        let timeouts = timeouts.filter(|name| name.starts_with("nf_conntrack_") && name.contains("timeout"));
        keys.extend(timeouts.map(|name| format!("net.netfilter.{name}")));
        let values = keys.into_iter().map(|key| match read_host(&key) {
            Ok(value) => Ok(Some((key, value))),
            Err(e) if e.errno() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(e),
        });
        values.filter_map(Result::transpose).collect()
    })?
}

/// Does not exist, or is writable only in the initial namespaces.
fn is_absent(error: &Error) -> bool {
    matches!(error.errno(), Some(libc::ENOENT | libc::EACCES))
}

/// Routing of packets, and what may change it. Nothing about ARP: neighbours are permanent.
const WAYS: &[Setting] = &[
    // Several incidents are about requests and replies on different paths; a scenario that needs the filter sets
    // it. The stricter of `all` and the interface's own value applies.
    must("net.ipv4.conf.all.rp_filter", "0"),
    must("net.ipv4.conf.default.rp_filter", "0"),
    // Not the default: a redirect would silently route around a fault.
    must("net.ipv4.conf.all.accept_redirects", "0"),
    must("net.ipv4.conf.default.accept_redirects", "0"),
    must("net.ipv4.conf.all.send_redirects", "0"),
    must("net.ipv4.conf.default.send_redirects", "0"),
    must("net.ipv4.conf.all.accept_local", "0"),
    must("net.ipv4.conf.default.accept_local", "0"),
    must("net.ipv4.conf.all.route_localnet", "0"),
    must("net.ipv4.conf.default.route_localnet", "0"),
    must("net.ipv4.ip_nonlocal_bind", "0"),
    must("net.ipv4.ip_default_ttl", "64"),
    must("net.ipv4.ip_local_port_range", "32768 60999"),
    // Not the default: lets servers listen on ports 53, 80 and 443 without further privileges.
    must("net.ipv4.ip_unprivileged_port_start", "0"),
    must("net.ipv4.icmp_echo_ignore_all", "0"),
];

/// Path MTU: discovered, learned by the sender only, and reported without rate limit.
const PATH_MTU: &[Setting] = &[
    must("net.ipv4.ip_no_pmtu_disc", "0"),
    must("net.ipv4.ip_forward_use_pmtu", "0"),
    // Per namespace since 5.17, with 600 and 552 in a new one; machine-wide before.
    may(
        "net.ipv4.route.mtu_expires",
        "600",
        "a learned path MTU expires after the time set on this machine, usually 10 min",
    ),
    may("net.ipv4.route.min_pmtu", "552", "the smallest path MTU is the one set on this machine, usually 552 bytes"),
    // Probing would repair a path MTU black hole within seconds.
    must("net.ipv4.tcp_mtu_probing", "0"),
    // Not the defaults: no "fragmentation needed" may be lost to a rate limit, per peer or global.
    must("net.ipv4.icmp_ratelimit", "0"),
    must("net.ipv4.icmp_ratemask", "0"),
];

/// TCP retries, options and caches. The congestion control cannot be set here: a namespace takes the machine's,
/// and only sockets can select another.
const TCP: &[Setting] = &[
    must("net.ipv4.tcp_syn_retries", "6"),
    // Not the default: a connection that waits for the last ACK of its handshake keeps its listener, and so a killed
    // lab's namespace, until its SYN-ACK is due again: up to 16 s with 5 retries, 2 s with one.
    must("net.ipv4.tcp_synack_retries", "1"),
    // Since 6.5.
    may("net.ipv4.tcp_syn_linear_timeouts", "4", "SYNs are repeated after 1, 3 and 7 s, not every second"),
    must("net.ipv4.tcp_retries1", "3"),
    must("net.ipv4.tcp_retries2", "15"),
    // Not the default: a killed lab's sockets with unacknowledged data keep their namespace for
    // 108 s with 8 retries, 2 s with one.
    must("net.ipv4.tcp_orphan_retries", "1"),
    must("net.ipv4.tcp_fin_timeout", "60"),
    // Detectors read timestamps, and the reuse of ports in TIME-WAIT depends on them.
    must("net.ipv4.tcp_timestamps", "1"),
    must("net.ipv4.tcp_tw_reuse", "2"),
    must("net.ipv4.tcp_rfc1337", "0"),
    must("net.ipv4.tcp_sack", "1"),
    must("net.ipv4.tcp_window_scaling", "1"),
    must("net.ipv4.tcp_ecn", "2"),
    must("net.ipv4.tcp_early_retrans", "3"),
    must("net.ipv4.tcp_recovery", "1"),
    must("net.ipv4.tcp_slow_start_after_idle", "1"),
    // Not the default: what one flow learned about a destination must not affect the next.
    must("net.ipv4.tcp_no_metrics_save", "1"),
    must("net.ipv4.tcp_fastopen", "1"),
    must("net.ipv4.tcp_syncookies", "1"),
    must("net.ipv4.tcp_abort_on_overflow", "0"),
    must("net.ipv4.tcp_max_syn_backlog", "1024"),
    // Visible in namespaces of a user namespace since 6.3; 4096 in a new one since 5.4, 128 before, whatever the
    // machine's.
    may("net.core.somaxconn", "4096", "the accept queue has the length set by the kernel, usually 4096"),
    // Not the default, which follows the size of the socket table: a small one would forget the TIME_WAITs of I7.
    must("net.ipv4.tcp_max_tw_buckets", "65536"),
    must("net.ipv4.tcp_moderate_rcvbuf", "1"),
    must("net.ipv4.tcp_rmem", "4096 131072 6291456"),
    must("net.ipv4.tcp_wmem", "4096 16384 4194304"),
];

/// IPv6 stays on but silent: no automatic addresses, routes or packets.
const IPV6: &[Setting] = &[
    may("net.ipv6.conf.all.accept_ra", "0", NO_IPV6),
    may("net.ipv6.conf.default.accept_ra", "0", NO_IPV6),
    may("net.ipv6.conf.default.addr_gen_mode", "1", NO_IPV6),
    may("net.ipv6.conf.all.accept_dad", "0", NO_IPV6),
    may("net.ipv6.conf.default.accept_dad", "0", NO_IPV6),
    may("net.ipv6.conf.default.router_solicitations", "0", NO_IPV6),
];

/// Connection tracking; absent until the machine has loaded it.
const CONNTRACK: &[Setting] = &[
    // Not the default (2, since 5.19): with it a flow older than the first listener never sends an event.
    may("net.netfilter.nf_conntrack_events", "1", NO_TRACKING),
    // Out-of-window segments are invalid, and flows are picked up midstream: the two defaults on which incidents
    // of lost state depend.
    may("net.netfilter.nf_conntrack_tcp_be_liberal", "0", NO_TRACKING),
    may("net.netfilter.nf_conntrack_tcp_loose", "1", NO_TRACKING),
];
