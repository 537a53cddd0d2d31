//! The client of a database: opens a connection and sends queries over it.
//!
//! relapse's own database is its TCP server ([`echo`]), which responds after its host's delay. A client for a third
//! party's protocol belongs in this file; nothing else depends on the protocol.

use std::net::SocketAddr;

use relapse_kernel::NetNs;
use relapse_model::{Failure, Query};
use tokio::net::TcpStream;

use super::echo::{self, Exchange};
use crate::workload::sockets;

/// A connection that is ready for queries.
///
/// # Errors
/// The failure as seen by the client.
pub async fn open(ns: &NetNs, peer: SocketAddr) -> Result<TcpStream, Failure> {
    sockets::connect(ns, peer).await
}

/// Sends a query and receives its response.
///
/// # Errors
/// The failure as seen by the client.
pub async fn ask(stream: &mut TcpStream, query: &Query) -> Result<(), Failure> {
    let Query { request, response, takes } = *query;
    echo::exchange(stream, &Exchange { takes, ..Exchange::new(request, response) }).await
}
