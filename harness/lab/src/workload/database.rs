//! What a client of a database does: open a connection, and ask over it.
//!
//! relapse's own database answers as its TCP server does ([`echo`]), after its host's delay. Where a third party's
//! answers, this is the one file that has to speak its protocol.

use std::net::SocketAddr;

use relapse_kernel::NetNs;
use relapse_model::{Failure, Query};
use tokio::net::TcpStream;

use super::servers::echo::{self, Exchange};
use super::sockets;

/// A connection that is ready for queries.
///
/// # Errors
/// How it failed, as the client sees it.
pub async fn open(ns: &NetNs, peer: SocketAddr) -> Result<TcpStream, Failure> {
    sockets::connect(ns, peer).await
}

/// One query and its whole response.
///
/// # Errors
/// How it failed, as the client sees it.
pub async fn ask(stream: &mut TcpStream, query: &Query) -> Result<(), Failure> {
    let Query { request, response, takes } = *query;
    echo::exchange(stream, &Exchange { takes, ..Exchange::new(request, response) }).await
}
