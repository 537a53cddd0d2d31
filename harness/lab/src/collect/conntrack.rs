//! Connection tracking: limit and count (polled: there is no notification), statistics, events.

use std::sync::Arc;
use std::time::Duration;

use relapse_detectors::signal::{Change, CollectorKind, ConntrackStats, ConntrackTable, Flow, Protocol, Tuple};
use relapse_kernel::Result;
use relapse_kernel::conntrack::{self, Conntrack, ConntrackEvents, status};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::{Agent, CollectorInfo};

/// Polling interval of the limit; a lowered limit is noticed after half of it on average.
const TABLE_EVERY: Duration = Duration::from_millis(2);
/// A count that hardly changes is reported every so many polls.
const TABLE_AT_LEAST: u32 = 24;
/// Statistics are read every so many polls.
const STATS_EVERY: u32 = 12;

pub const COLLECTORS: &[CollectorInfo] = &[
    CollectorInfo::on_each_node(&[CollectorKind::ConntrackTable, CollectorKind::ConntrackStats], start_polling).tried(
        "connection tracking",
        "count, limit and statistics were read",
        |ns| Conntrack::open(ns).and_then(|tracking| tracking.table().and(tracking.stats())).map(drop),
    ),
    CollectorInfo::on_each_node(&[CollectorKind::ConntrackEvents], start_events).tried(
        "flow events",
        "flow events are received",
        |ns| ConntrackEvents::open(ns).map(drop),
    ),
];

fn start_polling(agent: &Arc<Agent>, tasks: &mut JoinSet<()>) -> Result<()> {
    let tracking = Conntrack::open(&agent.ns)?;
    let mut table = read_table(&tracking)?;
    let mut stats = read_stats(&tracking)?;
    agent.emit(table);
    agent.emit(stats);
    let agent = Arc::clone(agent);
    tasks.spawn(async move {
        let mut clock = tokio::time::interval(TABLE_EVERY);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut polls = 0_u32;
        loop {
            clock.tick().await;
            polls = polls.wrapping_add(1);
            match read_table(&tracking) {
                Ok(now) => {
                    let moved = now.count.abs_diff(table.count) * 100 > table.limit;
                    if now.limit != table.limit || moved || polls.is_multiple_of(TABLE_AT_LEAST) {
                        agent.emit(now);
                        table = now;
                    }
                }
                Err(e) => agent.lost(CollectorKind::ConntrackTable, e),
            }
            if polls.is_multiple_of(STATS_EVERY) {
                match read_stats(&tracking) {
                    Ok(now) => {
                        if now != stats || polls.is_multiple_of(STATS_EVERY * TABLE_AT_LEAST) {
                            agent.emit(now);
                            stats = now;
                        }
                    }
                    Err(e) => agent.lost(CollectorKind::ConntrackStats, e),
                }
            }
        }
    });
    Ok(())
}

fn read_table(tracking: &Conntrack) -> Result<ConntrackTable> {
    tracking.table().map(|(count, limit)| ConntrackTable { count, limit })
}

fn read_stats(tracking: &Conntrack) -> Result<ConntrackStats> {
    tracking.stats().map(|stats| ConntrackStats {
        drop: stats.drop,
        early_drop: stats.early_drop,
        insert_failed: stats.insert_failed,
        clash_resolve: stats.clash_resolve,
        invalid: stats.invalid,
    })
}

fn start_events(agent: &Arc<Agent>, tasks: &mut JoinSet<()>) -> Result<()> {
    let mut events = ConntrackEvents::open(&agent.ns)?;
    let agent = Arc::clone(agent);
    tasks.spawn(async move {
        loop {
            match events.next().await {
                Ok(batch) => batch.iter().for_each(|event| emit(&agent, event)),
                Err(e) => agent.lost(CollectorKind::ConntrackEvents, e),
            }
        }
    });
    Ok(())
}

fn emit(agent: &Agent, event: &conntrack::Event) {
    let entry = &event.entry;
    let tuple = |(source, destination)| Tuple { source, destination };
    agent.emit(Flow {
        change: match event.change {
            conntrack::Change::New => Change::Added,
            conntrack::Change::Update => Change::Changed,
            conntrack::Change::Destroy => Change::Removed,
        },
        protocol: match entry.protocol {
            1 | 58 => Protocol::Icmp,
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            other => Protocol::Other(other),
        },
        original: tuple(entry.original),
        reply: tuple(entry.reply),
        replied: entry.has(status::SEEN_REPLY),
    });
}
