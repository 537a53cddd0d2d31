//! A client of the MySQL protocol: login without a password, and queries with their result as text.
//!
//! It works on an open stream, since a socket has to be made in the namespace of its owner; the libraries make their
//! own. Source: MariaDB's documentation, "Client/Server Protocol".

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// `CLIENT_LONG_PASSWORD`, `CLIENT_CONNECT_WITH_DB`, `CLIENT_PROTOCOL_41`, `CLIENT_TRANSACTIONS`,
/// `CLIENT_SECURE_CONNECTION`, `CLIENT_PLUGIN_AUTH`.
const CAPABILITIES: u32 = 0x1 | 0x8 | 0x200 | 0x2000 | 0x8000 | 0x8_0000;
/// Maximum size of a packet, bytes.
const MAX_PACKET: u32 = 1 << 24;
/// `utf8mb4_general_ci`.
const CHARACTER_SET: u8 = 45;
/// A payload of this length continues in the next packet.
const FULL: usize = 0xff_ffff;

const COM_QUERY: u8 = 0x03;
const OK: u8 = 0x00;
const END: u8 = 0xfe;
const ERROR: u8 = 0xff;
/// The length of a NULL.
const NULL: u8 = 0xfb;

/// A row of a result; `None` is NULL.
pub type Row = Vec<Option<String>>;

type Reader<'a> = BufReader<&'a mut TcpStream>;

/// Reads the server's greeting and logs in as a user without a password.
///
/// # Errors
/// The error of the stream, or the server's message.
pub async fn log_in(stream: &mut TcpStream, user: &str, database: &str) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let greeting = receive(&mut stream).await?;
    if greeting.first() != Some(&10) {
        return Err(refusal(&greeting));
    }
    let mut login = Vec::new();
    login.extend(CAPABILITIES.to_le_bytes());
    login.extend(MAX_PACKET.to_le_bytes());
    login.push(CHARACTER_SET);
    login.extend([0; 23]);
    // The empty string between user and database is the password.
    for text in [user, "", database, "mysql_native_password"] {
        login.extend(text.as_bytes());
        login.push(0);
    }
    send(&mut stream, 1, &login).await?;
    let answer = receive(&mut stream).await?;
    if answer.first() == Some(&OK) { Ok(()) } else { Err(refusal(&answer)) }
}

/// Sends a statement and receives its result; the result is empty if the statement returns no rows.
///
/// # Errors
/// The error of the stream, or the server's message.
pub async fn query(stream: &mut TcpStream, statement: &str) -> Result<Vec<Row>> {
    let mut stream = BufReader::new(stream);
    send(&mut stream, 0, &[&[COM_QUERY], statement.as_bytes()].concat()).await?;
    let head = receive(&mut stream).await?;
    match head.first() {
        Some(&OK) => return Ok(Vec::new()),
        Some(&(ERROR | NULL)) | None => return Err(refusal(&head)),
        Some(_) => {}
    }
    // Descriptions of the columns, up to an end packet.
    while !is_end(&receive(&mut stream).await?) {}
    let mut rows = Vec::new();
    loop {
        let packet = receive(&mut stream).await?;
        match packet.first() {
            Some(&ERROR) => return Err(refusal(&packet)),
            _ if is_end(&packet) => return Ok(rows),
            _ => rows.push(row(&packet).ok_or_else(malformed)?),
        }
    }
}

async fn send(stream: &mut Reader<'_>, number: u8, payload: &[u8]) -> Result<()> {
    let length = u32::try_from(payload.len()).ok().filter(|length| *length < MAX_PACKET - 1);
    let length = length.ok_or_else(malformed)?.to_le_bytes();
    let packet = [&length[..3], &[number], payload].concat();
    stream.get_mut().write_all(&packet).await
}

/// The next payload, of one packet or several.
async fn receive(stream: &mut Reader<'_>) -> Result<Vec<u8>> {
    let mut payload = Vec::new();
    loop {
        let mut head = [0; 4];
        stream.read_exact(&mut head).await?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize;
        let begin = payload.len();
        payload.resize(begin + length, 0);
        stream.read_exact(&mut payload[begin..]).await?;
        if length < FULL {
            return Ok(payload);
        }
    }
}

/// An end packet has fewer than 9 bytes; a row may begin with the same byte.
fn is_end(packet: &[u8]) -> bool {
    packet.first() == Some(&END) && packet.len() < 9
}

fn row(mut packet: &[u8]) -> Option<Row> {
    let mut row = Row::new();
    while let Some((&first, rest)) = packet.split_first() {
        let (size, length) = match first {
            NULL => {
                row.push(None);
                packet = rest;
                continue;
            }
            0xfc => (2, number(rest.get(..2)?)),
            0xfd => (3, number(rest.get(..3)?)),
            END => (8, number(rest.get(..8)?)),
            small => (0, usize::from(small)),
        };
        let rest = &rest[size..];
        row.push(Some(String::from_utf8_lossy(rest.get(..length)?).into_owned()));
        packet = &rest[length..];
    }
    Some(row)
}

/// A little-endian number.
fn number(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// The server's message: after the code (2 bytes) and the SQL state (6 bytes).
fn refusal(packet: &[u8]) -> Error {
    match packet.get(9..).filter(|_| packet[0] == ERROR) {
        Some(message) => Error::other(String::from_utf8_lossy(message).into_owned()),
        None => malformed(),
    }
}

fn malformed() -> Error {
    Error::new(ErrorKind::InvalidData, "not the MySQL protocol")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_short_long_and_absent_values() {
        let long = "x".repeat(300);
        let packet = [&[2][..], b"42", &[NULL, 0, 0xfc, 44, 1], long.as_bytes()].concat();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(row(&packet), Some(vec![text("42"), None, text(""), text(&long)]));
        assert_eq!(row(&packet[..packet.len() - 1]), None);
        assert_eq!(row(&[0xfd, 1]), None);
    }

    #[test]
    fn a_row_that_begins_like_an_end_is_a_row() {
        assert!(is_end(&[END, 0, 0, 2, 0]));
        assert!(!is_end(&[END, 0, 0, 0, 1, 0, 0, 0, 0, b'.']));
    }

    #[test]
    fn an_error_is_the_servers_message() {
        let packet = [&[ERROR, 0x15, 0x04][..], b"#28000", b"Access denied"].concat();
        assert_eq!(refusal(&packet).to_string(), "Access denied");
        assert_eq!(refusal(&[1]).to_string(), "not the MySQL protocol");
        assert_eq!(refusal(&[]).to_string(), "not the MySQL protocol");
    }
}
