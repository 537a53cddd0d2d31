//! The slow-query log and the memory of each MariaDB outside, read by the agent of one node. Labs have none.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use relapse_detectors::signal::{CollectorKind, DatabaseMemory, SlowQuery};
use relapse_kernel::NetNs;
use relapse_kernel::sockdiag::{SockDiag, mask, state};
use relapse_model::OutsideId;
use tokio::task::JoinSet;

use super::{Agent, Armed, CollectorInfo, Opened, Start};
use crate::workload::servers::database::shop::Session;
use crate::workload::servers::database::{Database, is_mariadb};

pub const COLLECTORS: &[CollectorInfo] =
    &[CollectorInfo { kinds: &[CollectorKind::Databases], start: Start::Once(start), trial: None }];

/// Interval between two reads.
const EVERY: Duration = Duration::from_millis(500);
/// Changes of memory below this are not reported, bytes.
const CHANGE: u64 = 1 << 20;

/// Reads every MariaDB over its loopback, so that nothing of it passes the fabric.
fn start(agents: &[Arc<Agent>], _: &Opened, tasks: &mut JoinSet<()>) -> Option<Armed> {
    let agent = agents.first()?;
    let hosts = (0..agent.cluster.plan().outside.len()).map(OutsideId);
    let mut hosts = hosts.filter(|host| is_mariadb(agent.cluster.as_ref(), *host)).peekable();
    hosts.peek()?;
    for host in hosts {
        let ns = agent.cluster.outside(host).ns.clone();
        let server = match port(&ns) {
            Ok(Some(port)) => SocketAddr::new(agent.cluster.plan().outside[host.0].address, port),
            Ok(None) => return Some(Err(format!("nothing listens on {}", ns.name()))),
            Err(why) => return Some(Err(why.to_string())),
        };
        let agent = Arc::clone(agent);
        tasks.spawn(async move {
            if let Err(why) = follow(&agent, &ns, server).await {
                agent.lost(CollectorKind::Databases, why);
            }
        });
    }
    Some(Ok(()))
}

/// The port on which a host listens.
fn port(ns: &NetNs) -> relapse_kernel::Result<Option<u16>> {
    let listeners = SockDiag::open(ns)?.tcp_sockets(mask(&[state::LISTEN]))?;
    Ok(listeners.iter().map(|socket| socket.local.port()).min())
}

async fn follow(agent: &Agent, ns: &NetNs, server: SocketAddr) -> io::Result<()> {
    let mut session = Session::open(ns, Database::at(agent.cluster.as_ref(), server)).await?;
    session.run("TRUNCATE mysql.slow_log").await?;
    let (mut seen, mut known) = (0, 0);
    loop {
        // In the order of their ends; the clock's order is that of their beginnings.
        // Without those from its own host, by which a fault is read back.
        let entries = "SELECT ROUND(1e6*TIME_TO_SEC(query_time)),rows_examined FROM mysql.slow_log";
        let others = format!("WHERE user_host NOT LIKE '%[{}]%' LIMIT 10000 OFFSET {seen}", server.ip());
        for entry in session.run(&format!("{entries} {others}")).await? {
            seen += 1;
            let number = |column: usize| entry.get(column)?.as_ref()?.parse().ok();
            if let (Some(took_us), Some(rows_examined)) = (number(0), number(1)) {
                agent.emit(SlowQuery { server, took_us, rows_examined });
            }
        }
        let memory = session.run("SHOW GLOBAL STATUS LIKE 'Memory_used'").await?;
        let used = memory.iter().find_map(|row| row.get(1)?.as_ref()?.parse::<u64>().ok());
        if let Some(used) = used.filter(|used| used.abs_diff(known) >= CHANGE) {
            known = used;
            agent.emit(DatabaseMemory { server, used });
        }
        tokio::time::sleep(EVERY).await;
    }
}
