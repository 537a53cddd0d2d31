//! What operators know about a cluster: a file of its own, shared by the scenarios that build that cluster.
//!
//! A scenario uses the facts about what it builds; other facts in the file are no errors, contradictions are.

use std::collections::BTreeMap;

use relapse_model::diagnostics::{Diagnostic, Diagnostics, Source, quoted};
use relapse_model::spanned::Spanned;
use relapse_model::values::{Address, Prefix, ServerAddress};
use relapse_model::yaml::{self, Document};
use schemars::JsonSchema;
use serde::Deserialize;

use super::ApiVersion;
use super::cluster::{Cluster, Limits};

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

/// A shared file of facts.
#[derive(Debug, Clone)]
pub struct Shared {
    pub source: Source,
    pub facts: OperatorFacts,
}

impl Shared {
    /// Reads the file that the scenario names, if any; its path is relative to the scenario's file.
    pub fn read(cluster: &Cluster, source: &Source) -> (Option<Self>, Diagnostics) {
        let mut wrong = Diagnostics::default();
        let Some(name) = &cluster.operator else { return (None, wrong) };
        let file = source.file.parent().unwrap_or_else(|| ".".as_ref()).join(&name.value);
        if name.is_empty() || !yaml::is_file(&file) {
            let message = format!("there is no file {} of operators' facts", quoted(&file.to_string_lossy()));
            let help = "write its path, relative to this file, such as `operators/NAME.yaml`";
            wrong.push(Diagnostic::at(source, name.span, message).help(help));
            return (None, wrong);
        }
        let facts = yaml::read(&file, OperatorFacts::NOUN).map_err(Diagnostics::from);
        let facts = facts.and_then(|source| Ok(Self { facts: yaml::parse(&source)?, source }));
        match facts {
            Ok(shared) => (Some(shared), wrong),
            Err(errors) => (None, errors),
        }
    }
}
