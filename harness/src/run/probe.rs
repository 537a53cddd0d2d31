//! A throw-away lab that tries what every lab needs, for `doctor`: what works here is found out, not
//! derived from versions and settings.
//!
//! A plain list of attempts, each by itself: one that fails hides no other.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use relapse_kernel::conntrack::{Conntrack, Events};
use relapse_kernel::nft::{Chain, Hook, NatFlags, Rule, Table};
use relapse_kernel::packet::{Capture, Filter};
use relapse_kernel::process::{Inside, LabCommand};
use relapse_kernel::{NetNs, link, nft, route, sockdiag};
use serde::{Deserialize, Serialize};

use super::supervise::LAB;
use crate::cluster::cable::{End, connect};
use crate::cluster::netns::GONE_WITHIN;
use crate::cluster::outside::host_namespace;

/// The argument after [`LAB`] by which a lab is one to try things in.
pub(super) const PROBE: &str = "probe";
/// Two hosts of the lab.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 176, 96, 2));

/// One attempt and how it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub what: String,
    /// What was seen, or why it failed.
    pub result: Result<String, String>,
}

/// Spawns the lab, hears its attempts, and proves that it is gone. To be called from a thread that
/// lives on: `main`'s.
///
/// # Errors
/// When there can be no lab at all.
pub fn probe() -> Result<Vec<Attempt>, String> {
    let begin = Instant::now();
    let mut lab = LabCommand::new([LAB, PROBE]).spawn().map_err(|e| format!("failed to {e}"))?;
    let up = begin.elapsed();
    let events = lab.take_events().ok_or("the lab has no event pipe")?;
    let lines = BufReader::new(events).lines().map_while(Result::ok);
    let mut attempts: Vec<Attempt> = lines.filter_map(|line| serde_json::from_str(&line).ok()).collect();
    lab.wait().map_err(|e| e.to_string())?;
    let gone = lab.proof_of_release(GONE_WITHIN).map_err(|e| e.to_string());
    let millis = |time: Duration| format!("{:.0} ms", time.as_secs_f64() * 1e3);
    let result = gone.map(|gone| format!("entered after {}, gone {} after its end", millis(up), millis(gone)));
    attempts.insert(0, Attempt { what: "lab process".into(), result });
    Ok(attempts)
}

/// Inside: tries, and tells.
pub(super) fn answer(mut events: File) -> ExitCode {
    let tell = |what: &str, result: Result<String, String>| {
        let attempt = Attempt { what: what.to_owned(), result };
        if let Ok(line) = serde_json::to_string(&attempt) {
            let _ = writeln!(events, "{line}");
        }
    };
    attempt_all(tell);
    ExitCode::SUCCESS
}

fn attempt_all(mut tell: impl FnMut(&str, Result<String, String>)) {
    let pair = two_hosts();
    let said = pair.as_ref().map(|_| "two hosts on a cable, settings written".to_owned());
    tell("network namespaces", said.map_err(ToString::to_string));
    let Ok((near, far)) = &pair else { return };
    let mut say = |what: &str, result: relapse_kernel::Result<&str>| {
        tell(what, result.map(str::to_owned).map_err(|e| e.to_string()));
    };
    say("policy routing", policy_routing(near).map(|()| "a rule and its table were added and deleted"));
    say("nftables", rules(near).map(|()| "source NAT with a port range and an MSS clamp were applied and read back"));
    say("connection tracking", tracking(near).map(|()| "count, limit, statistics and events are read"));
    say("packet capture", capture(near).map(|()| "AF_PACKET with a filter is open"));
    say("socket state", sockdiag::destroy_all(far).map(|_| "sock_diag lists and destroys"));
    tell("programs in a pod", program(near));
}

fn two_hosts() -> relapse_kernel::Result<(NetNs, NetNs)> {
    let (near, far) = (host_namespace("near", true)?, host_namespace("far", false)?);
    let end = |ns| End { ns, name: "eth0", mtu: 1400 };
    let (a, b) = connect(&end(&near), &end(&far))?;
    link::add_address(&near, a.index, HERE, 32, link::PrefixRoute::Omit)?;
    a.knows(IpAddr::V4(Ipv4Addr::new(10, 176, 96, 3)), &b)?;
    Ok((near, far))
}

fn policy_routing(ns: &NetNs) -> relapse_kernel::Result<()> {
    let rule = route::Rule::ipv4(1536).from(HERE, 32).table(2);
    route::add_rule(ns, &rule)?;
    route::delete_rule(ns, &rule)
}

fn rules(ns: &NetNs) -> relapse_kernel::Result<()> {
    const TABLE: &str = "relapse-probe";
    const TCP: u8 = 6;
    const SYN: u8 = 2;
    let masquerade =
        Rule::new().ip_saddr((HERE, 32)).l4proto(TCP).masquerade(Some((46_990, 46_999)), NatFlags::default());
    let clamp = Rule::new().oifname("eth0").tcp_flags(SYN, SYN).counter().tcp_mss_clamp(1280);
    Table::new(TABLE)
        .chain(Chain::nat("postrouting", Hook::Postrouting, 100))
        .rule("postrouting", masquerade)
        .chain(Chain::filter("forward", Hook::Forward, -150, nft::Policy::Accept))
        .rule("forward", clamp)
        .apply(ns)?;
    nft::delete_table(ns, TABLE)
}

fn tracking(ns: &NetNs) -> relapse_kernel::Result<()> {
    let tracking = Conntrack::open(ns)?;
    tracking.table()?;
    tracking.stats()?;
    in_runtime(|| Events::open(ns).map(drop))
}

fn capture(ns: &NetNs) -> relapse_kernel::Result<()> {
    in_runtime(|| Capture::open(ns, &Filter::any_of([Filter::tcp(), Filter::dns()])).map(drop))
}

/// Streams are registered with a runtime.
fn in_runtime<T>(job: impl FnOnce() -> relapse_kernel::Result<T>) -> relapse_kernel::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| relapse_kernel::Error::kernel("start a runtime".to_owned(), e))?;
    let _entered = runtime.enter();
    job()
}

fn program(ns: &NetNs) -> Result<String, String> {
    let shown = Inside::new(ns).command("/bin/sh").args(["-c", "ls /sys/class/net"]).output();
    let shown = shown.map_err(|e| e.to_string())?;
    let links = String::from_utf8_lossy(&shown.stdout);
    if links.split_whitespace().any(|name| name == "eth0") {
        Ok("a shell sees the pod's own interfaces".into())
    } else {
        Ok("a shell runs; its /sys shows other interfaces than its own".into())
    }
}
