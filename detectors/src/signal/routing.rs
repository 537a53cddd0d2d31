//! Links, rules and routes of a node, and its kernel's route look-ups for pods.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Change;
use crate::prefix::Prefix;

/// A network interface of the node (rtnetlink group `RTNLGRP_LINK`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub change: Change,
    pub index: u32,
    pub name: String,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Carrier present (`IFF_LOWER_UP`).
    pub carrier: bool,
}

impl Link {
    /// Present, up and with its carrier.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.change != Change::Removed && self.up && self.carrier
    }
}

/// A policy routing rule (`RTNLGRP_IPV4_RULE`). `None` prefixes mean "all".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub change: Change,
    pub priority: u32,
    pub from: Option<Prefix>,
    pub to: Option<Prefix>,
    pub table: u32,
}

/// A route (`RTNLGRP_IPV4_ROUTE`), of any table but `local`. `destination: None` is the default route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub change: Change,
    pub table: u32,
    pub destination: Option<Prefix>,
    pub gateway: Option<IpAddr>,
    /// Name of the outgoing interface, where known.
    pub link: Option<String>,
    pub metric: u32,
}

/// The kernel's answer to "where would a packet from this pod to this address go?" (`RTM_GETROUTE`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteLookup {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// The interface it would leave by; `None` when unreachable.
    pub link: Option<String>,
    /// The table that answered, if the kernel reports it.
    pub table: Option<u32>,
}
