//! The workload's own servers while it runs: faults end them as their process would end, start them again, and have
//! them answer with errors.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use relapse_model::Place;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::ANY;
use crate::job::FaultError;
use crate::workload::client::{Home, Serve};
use crate::workload::errors::ErrorShare;
use crate::workload::{namespace, sockets};

/// All of relapse's own TCP servers. They end when this is dropped.
pub struct Servers(Vec<Server>);

struct Server {
    port: u16,
    serve: Serve,
    home: Home,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Server {
    fn task(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Servers {
    /// Servers that do not run yet.
    pub(super) fn new(all: impl Iterator<Item = (u16, Serve, Home)>) -> Self {
        Self(all.map(|(port, serve, home)| Server { port, serve, home, task: Mutex::default() }).collect())
    }

    fn at(&self, place: Place) -> impl Iterator<Item = &Server> {
        self.0.iter().filter(move |server| server.home.place == place)
    }

    /// Starts the servers of a place that do not run; every port is listening when this returns.
    ///
    /// # Errors
    /// When a port cannot be bound.
    pub fn start(&self, place: Place) -> Result<(), FaultError> {
        for server in self.at(place) {
            let mut task = server.task();
            if task.is_none() {
                let ns = namespace(server.home.cluster.as_ref(), place);
                let listener = sockets::tcp_listener(&ns, SocketAddr::new(ANY, server.port))?;
                *task = Some(tokio::spawn(serve(server.serve, listener, server.home.clone(), server.port)));
            }
        }
        Ok(())
    }

    /// Ends the servers of a place, with all of their connections; no port is listening when this returns.
    pub async fn stop(&self, place: Place) {
        for server in self.at(place) {
            stop(server).await;
        }
    }

    /// Ends all of them.
    pub async fn stop_all(&self) {
        for server in &self.0 {
            stop(server).await;
        }
    }

    /// What the HTTP servers of a place answer from now on instead of what was asked for.
    pub fn set_errors(&self, place: Place, errors: Option<ErrorShare>) {
        self.at(place).for_each(|server| server.home.errors.set(errors));
    }
}

/// Serves in a place. A pod that is created again starts its server again.
async fn serve(serve: Serve, mut listener: TcpListener, home: Home, port: u16) {
    let mut inode = namespace(home.cluster.as_ref(), home.place).inode();
    let mut inventory = home.cluster.inventory();
    loop {
        let created = async {
            while inventory.changed().await.is_ok() {
                let now = namespace(home.cluster.as_ref(), home.place);
                if now.inode() != inode {
                    return Some(now);
                }
            }
            None
        };
        let now = tokio::select! {
            () = (serve.run)(listener, home.clone()) => return,
            now = created => now,
        };
        let Some(now) = now else { return };
        inode = now.inode();
        match sockets::tcp_listener(&now, SocketAddr::new(ANY, port)) {
            Ok(again) => listener = again,
            Err(_) => return,
        }
    }
}

async fn stop(server: &Server) {
    let task = server.task().take();
    if let Some(task) = task {
        task.abort();
        let _ = task.await;
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.0.iter().for_each(|server| server.task().iter().for_each(JoinHandle::abort));
    }
}
