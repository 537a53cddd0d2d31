//! relapse's own TCP server and database, and their client: a request and its response, of given sizes.
//!
//! On the wire: a header of 13 bytes (request size, response size, milliseconds before the response, whether the server
//! closes), the request's bytes, the response's bytes. The side that closes first holds TIME_WAIT afterwards.

use std::io;
use std::time::Duration;

use relapse_model::Failure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::cluster::ServerDelay;
use crate::workload::client::Serve;
use crate::workload::failure_of;

/// The server of `tcp` flows, and the database.
pub const SERVE: Serve = Serve { protocol: Some("tcp"), run: |listener, home| Box::pin(serve(listener, home.delay())) };

/// Bytes of the header.
const HEADER: usize = 13;

/// A request and its response.
#[derive(Debug, Clone, Copy)]
pub struct Exchange {
    /// Bytes.
    pub request: u32,
    /// Bytes.
    pub response: u32,
    /// Delay of the response that the client asks for, whole milliseconds.
    pub takes: Duration,
    pub server_closes: bool,
}

impl Exchange {
    /// Without delay, and closed by the client.
    #[must_use]
    pub const fn new(request: u32, response: u32) -> Self {
        Self { request, response, takes: Duration::ZERO, server_closes: false }
    }
}

/// Payload of requests and responses.
static FILLER: [u8; 1 << 16] = [b'.'; 1 << 16];

/// One request and its response over an open connection.
///
/// # Errors
/// The failure as seen by the client.
pub async fn exchange(stream: &mut TcpStream, exchange: &Exchange) -> Result<(), Failure> {
    exchange_io(stream, exchange).await.map_err(|e| failure_of(&e))
}

async fn exchange_io(stream: &mut TcpStream, exchange: &Exchange) -> io::Result<()> {
    let Exchange { request, response, takes, server_closes } = *exchange;
    let mut head = Vec::with_capacity(HEADER + request.min(1400) as usize);
    head.extend_from_slice(&request.to_be_bytes());
    head.extend_from_slice(&response.to_be_bytes());
    head.extend_from_slice(&u32::try_from(takes.as_millis()).unwrap_or(u32::MAX).to_be_bytes());
    head.push(u8::from(server_closes));
    // Small requests leave in one segment with their header.
    let first = request.min(1400);
    head.extend_from_slice(&FILLER[..first as usize]);
    stream.write_all(&head).await?;
    send(stream, request - first).await?;
    receive(stream, response).await?;
    if server_closes {
        // The server's FIN comes first; ours answers it.
        let _ = stream.read(&mut [0]).await?;
    }
    Ok(())
}

async fn send(stream: &mut TcpStream, mut left: u32) -> io::Result<()> {
    while left > 0 {
        let chunk = left.min(1 << 16) as usize;
        stream.write_all(&FILLER[..chunk]).await?;
        left -= u32::try_from(chunk).unwrap_or(left);
    }
    Ok(())
}

async fn receive(stream: &mut TcpStream, mut left: u32) -> io::Result<()> {
    let mut buffer = vec![0; left.clamp(1, 1 << 15) as usize];
    while left > 0 {
        let want = buffer.len().min(left as usize);
        match stream.read(&mut buffer[..want]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => left -= u32::try_from(read).unwrap_or(left),
        }
    }
    Ok(())
}

/// Serves such requests forever.
async fn serve(listener: TcpListener, delay: ServerDelay) {
    let mut connections = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let delay = delay.clone();
            connections.spawn(async move {
                // A client may close its connection at any time.
                let _ = answer(stream, &delay).await;
            });
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(mut stream: TcpStream, delay: &ServerDelay) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut head = [0; HEADER];
        match stream.read_exact(&mut head).await {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        };
        let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        receive(&mut stream, number(0)).await?;
        let takes = delay.get() + Duration::from_millis(number(8).into());
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        send(&mut stream, number(4)).await?;
        if head[HEADER - 1] != 0 {
            return stream.shutdown().await;
        }
    }
}
