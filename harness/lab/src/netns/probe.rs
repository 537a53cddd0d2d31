//! A throw-away lab that tries what labs need, for `doctor` and before a run: capabilities are found by trying, not
//! derived from versions and settings.
//!
//! A list of independent attempts: a failed one hides no other, and names what is unavailable without it.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use relapse_detectors::signal::CollectorKind;
use relapse_kernel::builder::Builder;
use relapse_kernel::delay::{Line, Shape};
use relapse_kernel::error::Context;
use relapse_kernel::nft::{Chain, Hook, Rule, Table};
use relapse_kernel::process::{Inside, LabCommand};
use relapse_kernel::{NetNs, nft, route, sysctl};
use serde::{Deserialize, Serialize};

use crate::cluster::backend::LAB;
use crate::cluster::cable::{End, connect};
use crate::cluster::outside::host_namespace;
use crate::collect;

/// The argument after [`LAB`] that starts a probe.
pub const PROBE: &str = "probe";
/// Time within which the namespaces of a lab that has ended must be gone, otherwise the trial is dirty. It usually
/// takes a tenth of a second; but the kernel cleans namespaces up sequentially, for the whole machine, and one with a
/// full connection table takes seconds.
pub const GONE_WITHIN: Duration = Duration::from_secs(30);
/// `errno` of a file without the required permission.
const EACCES: i32 = 13;
/// The address of a host of the lab.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 176, 96, 2));

/// One attempt and its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub what: String,
    /// The observation, or why it failed.
    pub result: Result<String, String>,
    /// What needs it.
    pub needed_by: NeededBy,
}

/// What is unavailable if an attempt fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NeededBy {
    /// Everything.
    Labs,
    /// These collectors, and detectors without any other.
    Collectors(Vec<CollectorKind>),
    /// Scenarios with slow or lossy paths.
    SlowPaths,
    /// Only interactive use.
    People,
}

/// Spawns the lab, collects its attempts, and verifies its release. `program` is run as the lab, if it is not the
/// running one.
#[must_use]
pub fn probe(program: Option<&Path>) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    let result = spawn(program, &mut attempts);
    attempts.insert(0, Attempt { what: "lab process".into(), result, needed_by: NeededBy::Labs });
    attempts
}

fn spawn(program: Option<&Path>, attempts: &mut Vec<Attempt>) -> Result<String, String> {
    let begin = Instant::now();
    let mut command = LabCommand::new([LAB, PROBE]);
    if let Some(program) = program {
        command = command.program(program);
    }
    let mut lab = command.spawn().map_err(|e| format!("failed to {e}"))?;
    let up = begin.elapsed();
    let events = lab.take_events().ok_or("the lab has no event pipe")?;
    let lines = BufReader::new(events).lines().map_while(Result::ok);
    attempts.extend(lines.filter_map(|line| serde_json::from_str(&line).ok()));
    let status = lab.wait().map_err(|e| e.to_string())?;
    if !status.success() {
        return Err(format!("the lab exited before its attempts were complete ({status})"));
    }
    let gone = lab.proof_of_release(GONE_WITHIN).map_err(|e| e.to_string())?;
    let millis = |time: Duration| format!("{:.0} ms", time.as_secs_f64() * 1e3);
    Ok(format!("entered after {}, gone {} after its end", millis(up), millis(gone)))
}

/// Inside the lab: runs the attempts and reports them.
pub fn answer(mut events: File) -> ExitCode {
    attempt_all(|attempt| {
        if let Ok(line) = serde_json::to_string(&attempt) {
            let _ = writeln!(events, "{line}");
        }
    });
    ExitCode::SUCCESS
}

fn attempt_all(mut report: impl FnMut(Attempt)) {
    let mut attempt = |what: &str, result: Result<String, String>, needed_by| {
        report(Attempt { what: what.into(), result, needed_by });
    };
    let checked = |result: relapse_kernel::Result<()>, seen: &str| match result {
        Ok(()) => Ok(seen.to_owned()),
        Err(e) => Err(format!("failed to {e}")),
    };
    let pair = in_runtime(two_hosts());
    let made = pair.as_ref().map(drop).map_err(|e| {
        // "sysctl: always initialize i_uid/i_gid": without it the settings of a user namespace have no valid owner.
        let old = e.errno() == Some(EACCES) && !relapse_kernel::host::is_root();
        let hint =
            "\nkernels before 5.10.224, 5.15.165 and 6.1.103 allow this only for root: use a newer kernel, or sudo relapse";
        format!("failed to {e}{}", if old { hint } else { "" })
    });
    attempt("network namespaces", made.map(|()| "two hosts connected by a veth pair".into()), NeededBy::Labs);
    let Ok((near, _)) = &pair else { return };
    attempt("settings", settings(near), NeededBy::People);
    attempt(
        "policy routing",
        checked(policy_routing(near), "a rule and its table were added and deleted"),
        NeededBy::Labs,
    );
    let rules_done = "source NAT with a port range and an MSS clamp were applied and read back";
    attempt("nftables", checked(rules(near), rules_done), NeededBy::Labs);
    let queued = queues(near).map(|()| "a rule queues packets, which are delivered late".into()).map_err(|e| {
        format!("failed to {e}\nload nfnetlink_queue and either nft_queue or both nft_compat and xt_NFQUEUE")
    });
    attempt("slow paths", queued, NeededBy::SlowPaths);
    for (collector, trial) in collect::info().filter_map(|info| Some((info, info.trial.as_ref()?))) {
        let result = checked(in_runtime(async { (trial.attempt)(near) }), trial.seen);
        attempt(trial.what, result, NeededBy::Collectors(collector.kinds.to_vec()));
    }
    attempt("programs in a pod", program(near), NeededBy::People);
}

async fn two_hosts() -> relapse_kernel::Result<(NetNs, NetNs)> {
    let (near, far) = (host_namespace("near", true).await?, host_namespace("far", false).await?);
    let end = |at| End { at, name: "eth0", mtu: 1400 };
    let (a, b) = connect(&end(&near), &end(&far)).await?;
    near.add_address(a.index, HERE, 32).await?;
    a.add_neighbour(IpAddr::V4(Ipv4Addr::new(10, 176, 96, 3)), &b).await?;
    Ok((near.ns, far.ns))
}

fn policy_routing(ns: &NetNs) -> relapse_kernel::Result<()> {
    let rule = route::Rule::ipv4(1536).from(HERE, 32).table(2);
    in_runtime(async { Builder::open(ns)?.add_rule(&rule).await })?;
    route::delete_rule(ns, &rule)
}

fn rules(ns: &NetNs) -> relapse_kernel::Result<()> {
    const TABLE: &str = "relapse-probe";
    const TCP: u8 = 6;
    const SYN: u8 = 2;
    let masquerade = Rule::new().ip_saddr((HERE, 32)).l4proto(TCP).masquerade(Some((46_990, 46_999)));
    let clamp = Rule::new().oifname("eth0").tcp_flags(SYN, SYN).counter().tcp_mss_clamp(1280);
    Table::new(TABLE)
        .chain(Chain::nat("postrouting", Hook::Postrouting, 100))
        .rule("postrouting", masquerade)
        .chain(Chain::filter("forward", Hook::Forward, -150, nft::Policy::Accept))
        .rule("forward", clamp)
        .apply(ns)?;
    nft::delete_table(ns, TABLE)
}

fn queues(ns: &NetNs) -> relapse_kernel::Result<()> {
    const TABLE: &str = "relapse-probe";
    let _line = Line::open(ns, 0, Shape::default())?;
    Table::new(TABLE)
        .chain(Chain::filter("forward", Hook::Forward, 0, nft::Policy::Accept))
        .rule("forward", Rule::new().queue(0))
        .apply(ns)?;
    nft::delete_table(ns, TABLE)
}

/// Settings missing from this kernel do not prevent a run: every scenario passes without them.
fn settings(ns: &NetNs) -> Result<String, String> {
    let all = sysctl::lab_settings(true);
    let absent = sysctl::apply(ns, &all).map_err(|e| format!("failed to {e}"))?;
    if absent.is_empty() {
        return Ok(format!("all {} were written and read back", all.len()));
    }
    let mut text = format!(
        "{} of {} do not exist on this kernel; every shipped scenario passes without them:",
        absent.len(),
        all.len()
    );
    for setting in absent {
        text.push_str(&format!("\n{}: {}", setting.key, setting.without.unwrap_or_default()));
    }
    Err(text)
}

/// Streams and builders need a runtime.
fn in_runtime<T>(job: impl Future<Output = relapse_kernel::Result<T>>) -> relapse_kernel::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context(|| "start a runtime".into())?.block_on(job)
}

fn program(ns: &NetNs) -> Result<String, String> {
    let shown = Inside::new(ns).command("/bin/sh").args(["-c", "ls /sys/class/net"]).output();
    let shown = shown.map_err(|e| e.to_string())?;
    let links = String::from_utf8_lossy(&shown.stdout);
    if links.split_whitespace().any(|name| name == "eth0") {
        Ok("a shell sees the pod's own interfaces".into())
    } else {
        Ok("a shell runs, but its /sys shows interfaces of another namespace".into())
    }
}
