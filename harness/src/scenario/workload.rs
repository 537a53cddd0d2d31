//! What runs over the cluster for the whole trial: clients, and the servers they imply.

use relapse_model::spanned::Spanned;
use relapse_model::values::{Duration, Name};
use schemars::JsonSchema;
use serde::Deserialize;

/// One client. Places are written `pod/NAME`, `node/NAME`, `outside/NAME`, `office/NAME`; what it talks to
/// may also be `service/NAME`. From the name of a counted pod, attempts come from all of them in turn.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(title = "kind of flow")]
pub enum Flow {
    Tcp(Tcp),
    Http(Http),
    Dns(Dns),
    Ping(Ping),
    Hold(Hold),
}

/// A TCP request and its response, again and again.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tcp {
    /// Name by which effects speak of it.
    pub name: Spanned<Name>,
    /// Where the client runs, such as `pod/app`.
    pub from: Spanned<String>,
    /// What it talks to, such as `outside/database` or `service/shop`.
    pub to: Spanned<String>,
    /// Port of the server.
    #[schemars(range(min = 1))]
    pub port: Spanned<u16>,
    /// Time between the starts of two attempts. Default 100ms.
    pub every: Option<Spanned<Duration>>,
    /// Default 400ms.
    pub timeout: Option<Spanned<Duration>>,
    /// Bytes. Default 100.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub request: Option<Spanned<u32>>,
    /// Bytes. Default 1000.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub response: Option<Spanned<u32>>,
    #[serde(default)]
    pub connection: Connection,
    #[serde(default)]
    pub closes: Closes,
}

/// Whether attempts share a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Connection {
    /// Each attempt opens one.
    #[default]
    New,
    /// All attempts use one.
    Kept,
}

/// Which side closes a connection first, and so keeps it in TIME_WAIT.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Closes {
    #[default]
    Client,
    Server,
}

/// An HTTP GET, again and again.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Name by which effects speak of it.
    pub name: Spanned<Name>,
    /// Where the client runs, such as `pod/app`.
    pub from: Spanned<String>,
    /// A server or an ingress, such as `pod/ingress` or `service/shop`.
    pub to: Spanned<String>,
    /// Port of the server.
    #[schemars(range(min = 1))]
    pub port: Spanned<u16>,
    /// Time between the starts of two attempts. Default 100ms.
    pub every: Option<Spanned<Duration>>,
    /// Default 400ms.
    pub timeout: Option<Spanned<Duration>>,
    /// Bytes of the body. Default 1000.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub response: Option<Spanned<u32>>,
}

/// A name looked up as a pod's stub resolver does it, again and again.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// Name by which effects speak of it.
    pub name: Spanned<Name>,
    /// Where the client runs, such as `pod/app`.
    pub from: Spanned<String>,
    /// The name to look up.
    pub query: Spanned<String>,
    /// Default: cluster DNS.
    pub server: Option<Spanned<String>>,
    /// Time between the starts of two attempts. Default 100ms.
    pub every: Option<Spanned<Duration>>,
    /// Default 400ms.
    pub timeout: Option<Spanned<Duration>>,
}

/// An ICMP echo, again and again.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ping {
    /// Name by which effects speak of it.
    pub name: Spanned<Name>,
    /// Where the client runs, such as `pod/app`.
    pub from: Spanned<String>,
    /// What it talks to, such as `outside/database` or `service/shop`.
    pub to: Spanned<String>,
    /// Time between the starts of two attempts. Default 100ms.
    pub every: Option<Spanned<Duration>>,
    /// Default 400ms.
    pub timeout: Option<Spanned<Duration>>,
}

/// Connections opened one after another and then held open.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Name by which effects speak of it.
    pub name: Spanned<Name>,
    /// Where the client runs, such as `pod/app`.
    pub from: Spanned<String>,
    /// What it talks to, such as `outside/database` or `service/shop`.
    pub to: Spanned<String>,
    /// Port of the server.
    #[schemars(range(min = 1))]
    pub port: Spanned<u16>,
    /// How many are opened in all.
    #[schemars(range(min = 1, max = 100_000))]
    pub connections: Spanned<u32>,
    /// Time between two connections. Default 100ms.
    pub every: Option<Spanned<Duration>>,
    /// Default 400ms.
    pub timeout: Option<Spanned<Duration>>,
}
