//! `relapse doctor`: what this machine can and cannot run, and the line to type about it.

use std::process::ExitCode;

use relapse_kernel::{host, packet, process};

use crate::host::Consent;

pub fn main() -> ExitCode {
    let mut able = true;
    let mut say = |what: &str, result: Result<String, String>| match result {
        Ok(detail) => println!("  ok       {what}: {detail}"),
        Err(mend) => {
            println!("  missing  {what}: {mend}");
            able = false;
        }
    };
    println!("relapse {} on Linux {}", env!("CARGO_PKG_VERSION"), release());
    println!("backend netns");
    say("user namespaces", process::diagnose_user_namespaces().map(|()| "allowed".into()));
    say("open files", host::raise_nofile(16_384).map(|n| n.to_string()).map_err(|e| e.to_string()));
    let _ = packet::Filter::syn();
    let limit = host::conntrack_max()
        .map(|n| format!("nf_conntrack_max is {n}"))
        .map_err(|e| format!("{e}; the kernel has no connection tracking: modprobe nf_conntrack"));
    say("connection tracking", limit);
    println!("host writes");
    if host::is_root() {
        println!("  ok       root; {}", Consent::touches());
    } else {
        println!("  reduced  not root: of I2 the fall of the limit is left out, its symptom is replayed");
    }
    ExitCode::from(u8::from(!able))
}

fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}
