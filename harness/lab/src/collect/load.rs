//! Load and memory of a node, once a second. Nodes of labs share the machine's.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use relapse_detectors::signal::{CollectorKind, NodeLoad};
use relapse_kernel::Result;
use tokio::task::JoinSet;

use super::{Agent, CollectorInfo};

const EVERY: Duration = Duration::from_secs(1);

pub const COLLECTORS: &[CollectorInfo] = &[CollectorInfo::on_each_node(&[CollectorKind::Load], start)];

#[expect(clippy::unnecessary_wraps, reason = "collectors that open something may fail")]
fn start(agent: &Arc<Agent>, tasks: &mut JoinSet<()>) -> Result<()> {
    let agent = Arc::clone(agent);
    tasks.spawn(async move {
        let mut clock = tokio::time::interval(EVERY);
        loop {
            clock.tick().await;
            match read() {
                Ok(load) => agent.emit(load),
                Err(e) => agent.lost(CollectorKind::Load, e),
            }
        }
    });
    Ok(())
}

fn read() -> io::Result<NodeLoad> {
    let (load, memory) = (fs::read_to_string("/proc/loadavg")?, fs::read_to_string("/proc/meminfo")?);
    let wrong = || io::Error::from(io::ErrorKind::InvalidData);
    let of = |key: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).map(|kib| kib << 10)
    };
    Ok(NodeLoad {
        load1: load.split_whitespace().next().and_then(|load| load.parse().ok()).ok_or_else(wrong)?,
        cpus: std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
        memory_available: of("MemAvailable").ok_or_else(wrong)?,
        memory_total: of("MemTotal").ok_or_else(wrong)?,
    })
}
