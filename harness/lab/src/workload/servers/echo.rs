//! relapse's own TCP server and its client: a request and its response, of given sizes.
//!
//! On the wire: a header of nine bytes (request size, response size, whether the server closes), the request's bytes,
//! the response's bytes. The side that closes first holds TIME_WAIT afterwards.

use std::io;

use relapse_model::Failure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::workload::client::Serve;
use crate::workload::failure_of;

/// The server of `tcp` flows.
pub const SERVE: Serve = |listener| Box::pin(serve(listener));

/// Payload of requests and responses.
static FILLER: [u8; 1 << 16] = [b'.'; 1 << 16];

/// One request and its response over an open connection.
///
/// # Errors
/// The failure as seen by the client.
pub async fn exchange(stream: &mut TcpStream, request: u32, response: u32, server_closes: bool) -> Result<(), Failure> {
    exchange_io(stream, request, response, server_closes).await.map_err(|e| failure_of(&e))
}

async fn exchange_io(stream: &mut TcpStream, request: u32, response: u32, server_closes: bool) -> io::Result<()> {
    let mut head = Vec::with_capacity(9 + request.min(1400) as usize);
    head.extend_from_slice(&request.to_be_bytes());
    head.extend_from_slice(&response.to_be_bytes());
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
async fn serve(listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            connections.spawn(async move {
                // A client may close its connection at any time.
                let _ = answer(stream).await;
            });
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut head = [0; 9];
        match stream.read_exact(&mut head).await {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        };
        let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        receive(&mut stream, number(0)).await?;
        send(&mut stream, number(4)).await?;
        if head[8] != 0 {
            return stream.shutdown().await;
        }
    }
}
