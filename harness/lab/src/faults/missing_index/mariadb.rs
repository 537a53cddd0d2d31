//! The index of a table in MariaDB is dropped and created again. The table has as many rows as a query needs to take
//! the wanted time without it.

use std::io;

use relapse_detectors::time::{limit, span};
use tokio::time::Instant;

use super::{MissingIndex, SLACK};
use crate::cluster::Cluster;
use crate::fault::{FaultError, InForce, UndoStack, now, wait_for};
use crate::workload::servers::database::shop::{Access, Session};

/// `EXPLAIN`'s type of a look-up by an index.
const BY_INDEX: &str = "ref";
/// `EXPLAIN`'s type of a scan.
const SCAN: &str = "ALL";
/// The share of the wanted time that a query must take: the machine may have been slower when the rows were counted.
const LEAST: f64 = 0.75;

/// Gives the table the number of rows that the wanted time needs. A container that is kept has it already.
pub async fn prepare(fault: &MissingIndex, cluster: &dyn Cluster) -> Result<(), FaultError> {
    let host = cluster.outside(fault.server);
    let fit = async { Session::open(&host.ns, fault.database(cluster)).await?.fit(fault.query).await };
    fit.await.map(|_| ()).map_err(at(&host.name))
}

pub async fn inject(fault: &MissingIndex, cluster: &dyn Cluster, undo: &mut UndoStack) -> Result<InForce, FaultError> {
    let host = cluster.outside(fault.server);
    let (name, ns, database, query) = (host.name.clone(), host.ns.clone(), fault.database(cluster), fault.query);
    let fast = query.mul_f64(LEAST);
    let mut session = Session::open(&ns, database).await.map_err(at(&name))?;
    let before = session.explain().await.map_err(at(&name))?;
    undo.push(format!("create the index of {name}"), move || {
        wait_for(Box::pin(async move {
            let healed = async {
                let mut session = Session::open(&ns, database).await?;
                session.create_index().await?;
                let (access, deadline) = (session.explain().await?, Instant::now() + SLACK);
                // One fast answer proves it; a busy machine may be late with others.
                let mut took = session.time().await?;
                while took >= fast && Instant::now() < deadline {
                    took = took.min(session.time().await?);
                }
                Ok((access, took))
            };
            let (access, took) = healed.await.map_err(at(&name))?;
            if access.kind == BY_INDEX && took < fast {
                return Ok(());
            }
            let read_back = format!("EXPLAIN says {}, and a query takes {}", access.kind, span(took));
            Err(FaultError::NotInForce { what: format!("create the index of {name}"), read_back })
        }))
    });
    let t0 = now();
    session.drop_index().await.map_err(at(&host.name))?;
    let after = session.explain().await.map_err(at(&host.name))?;
    let took = session.time().await.map_err(at(&host.name))?;
    let t1 = now();
    let says = |access: &Access| format!("{}, {} rows", access.kind, access.rows);
    let read_back =
        format!("EXPLAIN says {} ({} before), and a query takes {}", says(&after), says(&before), span(took));
    if before.kind != BY_INDEX || after.kind != SCAN || took < fast {
        return Err(FaultError::NotInForce { what: format!("drop the index of {}", host.name), read_back });
    }
    let what = format!("{} scans its whole table, about {} for each query", host.name, limit(query));
    Ok(InForce { t0, t1, what, read_back, reduced: None })
}

fn at(host: &str) -> impl Fn(io::Error) -> FaultError {
    move |error| FaultError::Refused { what: format!("ask MariaDB on {host}"), why: error.to_string() }
}
