//! HTTP/1.1 over hyper: relapse's own server, which sends the requested number of bytes, and the reverse proxy that
//! stands in for an ingress controller.

use std::convert::Infallible;
use std::net::SocketAddr;

use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1 as client;
use hyper::header::HOST;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use relapse_kernel::NetNs;
use relapse_model::Failure;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::workload::client::Serve;
use crate::workload::sockets;

/// The largest response served, bytes.
const LARGEST: usize = 64 << 20;

/// The server of `http` flows.
pub const SERVE: Serve = |listener| Box::pin(serve(listener));

/// Serves `/bytes/N`.
async fn serve(listener: TcpListener) {
    serve_with(listener, |path| async move {
        let wanted = path.strip_prefix("/bytes/").and_then(|n| n.parse::<usize>().ok()).filter(|n| *n <= LARGEST);
        match wanted {
            Some(n) => (StatusCode::OK, Bytes::from(vec![b'.'; n])),
            None => (StatusCode::NOT_FOUND, Bytes::new()),
        }
    })
    .await;
}

/// Passes every request on to `backend`, as an ingress controller does.
pub async fn proxy(listener: TcpListener, ns: NetNs, backend: SocketAddr) {
    serve_with(listener, move |path| {
        let ns = ns.clone();
        async move {
            let passed_on = async { fetch(sockets::connect(&ns, backend).await?, backend, &path).await };
            passed_on.await.unwrap_or((StatusCode::BAD_GATEWAY, Bytes::new()))
        }
    })
    .await;
}

async fn serve_with<F, R>(listener: TcpListener, respond: F)
where
    F: Fn(String) -> R + Clone + Send + 'static,
    R: Future<Output = (StatusCode, Bytes)> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let respond = respond.clone();
            connections.spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let answer = respond(request.uri().path().to_owned());
                    async move {
                        let (status, body) = answer.await;
                        let mut response = Response::new(Full::new(body));
                        *response.status_mut() = status;
                        Ok::<_, Infallible>(response)
                    }
                });
                // A client may close its connection at any time.
                let _ = server::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Gets a path over an open connection.
///
/// # Errors
/// `Any` if no complete response arrives.
pub async fn fetch(stream: TcpStream, peer: SocketAddr, path: &str) -> Result<(StatusCode, Bytes), Failure> {
    let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await.map_err(|_| Failure::Any)?;
    let request = Request::get(path).header(HOST, peer.to_string()).body(Empty::<Bytes>::new());
    let response = async {
        let response = sender.send_request(request.map_err(|_| Failure::Any)?).await.map_err(|_| Failure::Any)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|_| Failure::Any)?.to_bytes();
        Ok((status, body))
    };
    // The connection is driven here, so that it ends with the attempt.
    tokio::select! {
        response = response => response,
        _ = connection => Err(Failure::Any),
    }
}
