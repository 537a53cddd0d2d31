//! The client of a database: opens a connection and sends queries over it.
//!
//! relapse's own database is its TCP server ([`echo`]), which responds after its host's delay. If a backend runs a
//! MariaDB, the same query is one on its table ([`shop`]), in its protocol ([`mysql`]). Nothing else depends on
//! which of them answers.

pub mod mysql;
pub mod shop;

use std::net::SocketAddr;

use relapse_kernel::NetNs;
use relapse_model::{Failure, OutsideId, Place, Query};
use tokio::net::TcpStream;

use super::echo::{self, Exchange};
use super::mariadb;
use crate::cluster::Cluster;
use crate::workload::{failure_of, sockets};

/// A database at an address.
#[derive(Debug, Clone, Copy)]
pub struct Database {
    peer: SocketAddr,
    is_mariadb: bool,
}

impl Database {
    #[must_use]
    pub fn at(cluster: &dyn Cluster, peer: SocketAddr) -> Self {
        let is_mariadb = match cluster.plan().place_at(peer.ip()) {
            Some(Place::Outside(host)) => is_mariadb(cluster, host),
            _ => false,
        };
        Self { peer, is_mariadb }
    }

    /// A connection that is ready for queries.
    ///
    /// # Errors
    /// The failure as seen by the client.
    pub async fn open(&self, ns: &NetNs) -> Result<TcpStream, Failure> {
        let mut stream = sockets::connect(ns, self.peer).await?;
        if self.is_mariadb {
            mysql::log_in(&mut stream, shop::USER, shop::NAME).await.map_err(|e| failure_of(&e))?;
        }
        Ok(stream)
    }

    /// Sends a query and receives its response.
    ///
    /// # Errors
    /// The failure as seen by the client.
    pub async fn ask(&self, stream: &mut TcpStream, query: &Query) -> Result<(), Failure> {
        let Query { request, response, takes } = *query;
        if self.is_mariadb {
            return mysql::query(stream, &shop::sql(query)).await.map(|_| ()).map_err(|e| failure_of(&e));
        }
        echo::exchange(stream, &Exchange { takes, ..Exchange::new(request, response) }).await
    }
}

/// Whether a MariaDB answers there instead of relapse's own database.
#[must_use]
pub fn is_mariadb(cluster: &dyn Cluster, host: OutsideId) -> bool {
    cluster.plan().outside[host.0].server == Some(mariadb::SERVER.name) && cluster.serves_itself(Place::Outside(host))
}
