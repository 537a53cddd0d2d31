//! HTTP/1.1 over hyper: a server, which sends and accepts the requested number of bytes, and the client.

use std::convert::Infallible;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1 as client;
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use relapse_model::Failure;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The largest body sent or accepted, bytes.
const LARGEST: usize = 64 << 20;

/// A complete response.
pub type Answer = Response<Full<Bytes>>;

/// The path at which this number of bytes is served and accepted.
#[must_use]
pub fn bytes_path(bytes: u32) -> String {
    format!("/bytes/{bytes}")
}

/// A response, optionally with a header.
#[must_use]
pub fn answer(status: StatusCode, body: Bytes, header: Option<(&'static str, &str)>) -> Answer {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    if let Some((name, value)) = header
        && let Ok(value) = HeaderValue::from_str(value)
    {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
    response
}

/// Serves `GET /bytes/N` and `PUT /bytes/N`.
pub async fn bytes(request: Request<Incoming>) -> Answer {
    let (path, method) = (request.uri().path().to_owned(), request.method().clone());
    let wanted = path.strip_prefix("/bytes/").and_then(|n| n.parse::<usize>().ok()).filter(|n| *n <= LARGEST);
    let (status, body) = match (wanted, method) {
        (Some(n), Method::GET) => (StatusCode::OK, Bytes::from(vec![b'.'; n])),
        (Some(n), Method::PUT) => match received(request.into_body()).await {
            Some(bytes) if bytes == n => (StatusCode::CREATED, Bytes::new()),
            _ => (StatusCode::BAD_REQUEST, Bytes::new()),
        },
        _ => (StatusCode::NOT_FOUND, Bytes::new()),
    };
    answer(status, body, None)
}

/// Reads and discards a body. Returns its size, unless it is incomplete or too large.
async fn received(mut body: Incoming) -> Option<usize> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame.ok()?.data_ref().map_or(0, Bytes::len);
        if bytes > LARGEST {
            return None;
        }
    }
    Some(bytes)
}

/// Serves a listening socket forever.
pub async fn serve_with<F, R>(listener: TcpListener, respond: F)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Answer> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let respond = respond.clone();
            connections.spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let answer = respond(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                // A client may close its connection at any time.
                let _ = server::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
        while connections.try_join_next().is_some() {}
    }
}

/// A client's connection, for one request after another. Dropping it closes the connection.
pub struct Connection {
    sender: client::SendRequest<Full<Bytes>>,
    peer: String,
    /// Drives the connection.
    _driver: JoinSet<()>,
}

impl Connection {
    /// Uses an open stream.
    ///
    /// # Errors
    /// `Any` if the stream is closed.
    pub async fn open(stream: TcpStream) -> Result<Self, Failure> {
        let peer = stream.peer_addr().map_err(|_| Failure::Any)?.to_string();
        let (sender, connection) = client::handshake(TokioIo::new(stream)).await.map_err(|_| Failure::Any)?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Errors are reported by the request.
            let _ = connection.await;
        });
        Ok(Self { sender, peer, _driver: driver })
    }

    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends a request and receives its response.
    ///
    /// # Errors
    /// `Any` if no complete response arrives.
    pub async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<Response<Bytes>, Failure> {
        let request = Request::builder().method(method).uri(path).header(HOST, &self.peer).body(Full::new(body));
        let request = request.map_err(|_| Failure::Any)?;
        self.sender.ready().await.map_err(|_| Failure::Any)?;
        let (head, body) = self.sender.send_request(request).await.map_err(|_| Failure::Any)?.into_parts();
        let body = body.collect().await.map_err(|_| Failure::Any)?.to_bytes();
        Ok(Response::from_parts(head, body))
    }
}

/// Checks that a response is a 200 of this size.
///
/// # Errors
/// Its status; `Any` if it is 200 and the size differs.
pub fn whole(status: StatusCode, body: &Bytes, bytes: u32) -> Result<(), Failure> {
    match status {
        StatusCode::OK if body.len() == bytes as usize => Ok(()),
        StatusCode::OK => Err(Failure::Any),
        status => Err(Failure::Status(status.as_u16())),
    }
}

/// Gets a path over an open connection.
///
/// # Errors
/// `Any` if no complete response arrives.
pub async fn fetch(stream: TcpStream, path: &str) -> Result<(StatusCode, Bytes), Failure> {
    let response = Connection::open(stream).await?.send(Method::GET, path, Bytes::new()).await?;
    Ok((response.status(), response.into_body()))
}
