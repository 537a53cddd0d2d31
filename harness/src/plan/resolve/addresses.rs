//! Owners of addresses, and prefixes in use.

use std::collections::HashMap;
use std::net::IpAddr;

use relapse_detectors::prefix::Prefix;
use relapse_model::diagnostics::Span;
use relapse_model::spanned::Spanned;
use relapse_model::values;

use super::Planner;

/// Assigned addresses and prefixes.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    owners: HashMap<IpAddr, String>,
    /// Named prefixes, with their place in the file, if any.
    prefixes: Vec<(Prefix, String, Option<Span>)>,
}

impl Addresses {
    /// Assigns an address that the scenario did not choose. Returns false if it is taken.
    pub(super) fn give(&mut self, address: IpAddr, owner: &str) -> bool {
        if self.owners.contains_key(&address) {
            return false;
        }
        self.owners.insert(address, owner.to_owned());
        true
    }

    /// The owner of an address.
    pub(super) fn owner(&self, address: IpAddr) -> &str {
        self.owners.get(&address).map_or("another host", String::as_str)
    }

    /// Assigns the first free address of a prefix, from `first` on.
    pub(super) fn next(&mut self, prefix: Prefix, first: u128, owner: &str) -> Option<IpAddr> {
        let usable = |a: &IpAddr| !is_edge(prefix, *a);
        // Fewer than this are ever needed, so a longer search means an exhausted prefix.
        let address =
            (first..first + 8192).map_while(|i| prefix.nth(i)).filter(usable).find(|a| !self.owners.contains_key(a))?;
        self.owners.insert(address, owner.to_owned());
        Some(address)
    }
}

impl Planner<'_> {
    /// Assigns an address chosen by the scenario, if it is a valid host address and free.
    pub(super) fn claim(&mut self, addresses: &mut Addresses, address: &Spanned<values::Address>, owner: &str) {
        let ip = address.0;
        let impossible = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast();
        if impossible || ip == IpAddr::from([255; 4]) {
            self.error(address.span, format!("{ip} is not the address of a host"), "write a unicast address");
        } else if let Some(other) = addresses.owners.get(&ip) {
            let message = format!("{owner} and {other} have the same address, {ip}");
            self.error(address.span, message, "give one of them another address, or leave it out");
        } else {
            addresses.owners.insert(ip, owner.to_owned());
        }
    }

    /// Reports an address that is not a host address in its prefix.
    pub(super) fn inside(&mut self, address: &Spanned<values::Address>, prefix: Prefix, name: &str) {
        let ip = address.0;
        if !prefix.contains(ip) {
            let help = format!("write an address of {prefix}, or leave it out");
            self.error(address.span, format!("{ip} lies outside {name} {prefix}"), help);
        } else if is_edge(prefix, ip) {
            self.error(address.span, format!("{ip} names {name} {prefix} itself, not a host"), "write another address");
        }
    }

    /// Adds a prefix. Reports an overlap with another one.
    pub(super) fn take_prefix(&mut self, addresses: &mut Addresses, prefix: Prefix, name: &str, span: Option<Span>) {
        let overlapped = addresses.prefixes.iter().find(|(other, ..)| other.overlaps(&prefix));
        if let Some((other, other_name, other_span)) = overlapped
            && let Some(at) = span.or(*other_span)
        {
            let message = format!("{name} {prefix} and {other_name} {other} overlap");
            self.error(at, message, "choose a prefix that shares no address with the other");
        }
        addresses.prefixes.push((prefix, name.to_owned(), span));
    }

    /// Reports a host outside with an address of the cluster or an office, or with an IPv6 address.
    pub(super) fn apart(&mut self, addresses: &Addresses, address: &Spanned<values::Address>, owner: &str) {
        if address.0.is_ipv6() {
            let message = format!("{owner} has the address {}, but clusters support only IPv4", address.0);
            self.error(address.span, message, "write an address such as `10.176.46.4`");
        }
        if let Some((prefix, name, _)) = addresses.prefixes.iter().find(|(prefix, ..)| prefix.contains(address.0)) {
            let message = format!("{owner} has the address {}, which belongs to {name} {prefix}", address.0);
            self.error(address.span, message, "a host outside needs an address of its own");
        }
    }
}

/// Whether an address is the first or last one of a prefix with at least four addresses.
fn is_edge(prefix: Prefix, address: IpAddr) -> bool {
    let bits = 32_u8.saturating_sub(prefix.length());
    bits >= 2 && (address == prefix.address() || prefix.nth((1 << bits) - 1) == Some(address))
}
