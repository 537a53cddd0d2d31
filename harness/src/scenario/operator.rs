//! What operators know about a cluster: a file of its own, shared by the scenarios that build that cluster.
//!
//! A scenario uses the facts about what it builds; other facts in the file are no errors, contradictions are.

use std::collections::BTreeMap;

use relapse_model::spanned::Spanned;
use relapse_model::values::{Address, Prefix, ServerAddress};
use relapse_model::yaml::Document;
use schemars::JsonSchema;
use serde::Deserialize;

use super::ApiVersion;
use super::cluster::Limits;

/// What operators know about a cluster. Scenarios name this file as `cluster.operator`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OperatorFacts {
    /// Version of this format.
    pub api_version: ApiVersion,
    pub kind: Kind,
    #[serde(default)]
    pub prefixes: Prefixes,
    /// Offices and other sites, by name.
    #[serde(default)]
    pub offices: BTreeMap<Spanned<String>, KnownOffice>,
    #[serde(default)]
    pub limits: Limits,
    /// Domain names, and the prefixes of their addresses.
    #[serde(default)]
    pub names: BTreeMap<Spanned<String>, Vec<Spanned<Prefix>>>,
    /// Names of servers, which findings use instead of address and port.
    #[serde(default)]
    pub servers: BTreeMap<Spanned<String>, Spanned<ServerAddress>>,
    /// External names by which clients outside reach the cluster.
    #[serde(default)]
    pub entries: BTreeMap<Spanned<String>, KnownEntry>,
}

impl Document for OperatorFacts {
    const NOUN: &'static str = "file of operators' facts";
    const BEGIN: &'static str = "begin with `apiVersion: relapse/v1` and `kind: Operator`; `relapse schema --operator` \
                                 prints what may follow";
}

/// What the file describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(rename = "OperatorKind")]
pub enum Kind {
    Operator,
}

/// Prefixes of the cluster.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prefixes {
    /// Subnet of the nodes' primary interface.
    pub nodes: Option<Spanned<Prefix>>,
    /// Subnet of the pods.
    pub pods: Option<Spanned<Prefix>>,
    /// Virtual addresses of Services.
    pub services: Option<Spanned<Prefix>>,
}

/// An office or another site.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KnownOffice {
    /// Its subnet.
    pub prefix: Spanned<Prefix>,
    /// MTU of the path to it, bytes. Default: not known.
    #[schemars(range(min = 576, max = 65535))]
    pub mtu: Option<Spanned<u16>>,
}

/// An external name of the cluster.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KnownEntry {
    /// Address of the clients' own resolver.
    pub resolver: Spanned<Address>,
    /// TCP port at the addresses of the name.
    #[schemars(range(min = 1))]
    pub port: Spanned<u16>,
}
