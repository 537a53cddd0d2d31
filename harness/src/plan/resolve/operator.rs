//! What the operator declares to the detectors: in a file that scenarios share, in the scenario, or both.
//!
//! Invariant: a declared fact about something that the scenario builds agrees with it; a contradiction is reported at
//! its place in the file that declares it. Facts of a shared file about anything else are left out of the plan.

use std::collections::BTreeMap;
use std::net::IpAddr;

use relapse_detectors::operator::{DeclaredName, DeclaredServer, Entry};
use relapse_lab::fault::{Planned, Requirement};
use relapse_model::diagnostics::{Span, quoted};
use relapse_model::spanned::Spanned;
use relapse_model::values;
use relapse_model::zone::{self, folded};

use super::Planner;
use crate::plan::{OutsideId, OutsidePlan};
use crate::scenario::Scenario;
use crate::scenario::cluster::Limits;
use crate::scenario::operator::{OperatorFacts, Shared};

impl<'a> Planner<'a> {
    pub(super) fn plan_operator(&mut self, scenario: &Scenario, shared: Option<&'a Shared>) {
        let cluster = &scenario.cluster;
        if let Some(Shared { source, facts }) = shared {
            // Errors are reported in the file of facts.
            let own = std::mem::replace(&mut self.known.source, source);
            self.shared_by = Some(scenario.metadata.name.0.clone());
            self.plan_facts(facts);
            self.shared_by = None;
            self.known.source = own;
        }
        for (number, office) in cluster.offices.iter().enumerate() {
            if let Some(mtu) = office.declared_mtu {
                self.declare_mtu(number, mtu, "declaredMtu");
            }
        }
        let declared = &cluster.declared;
        self.declare_names(&declared.names, true);
        self.declare_servers(&declared.servers, true);
        for (name, entry) in &declared.entries {
            let Some(resolver) = self.outside(&entry.resolver) else {
                self.domain(name);
                continue;
            };
            self.has_records(resolver, &entry.resolver);
            self.declare_entry(name, resolver, entry.port.value);
        }
        self.declare_limits(&declared.limits);
    }

    fn plan_facts(&mut self, facts: &OperatorFacts) {
        let network = &self.cluster.network;
        let prefixes = [
            ("nodes", &facts.prefixes.nodes, network.node_prefix),
            ("pods", &facts.prefixes.pods, network.pod_prefix),
            ("services", &facts.prefixes.services, network.service_prefix),
        ];
        for (of, declared, built) in prefixes {
            if let Some(declared) = declared.as_ref().filter(|declared| declared.0 != built) {
                self.contradiction(declared.span, format!("the prefix of {of} is {built}"), &format!("write {built}"));
            }
        }
        for (name, known) in &facts.offices {
            let prefix = known.prefix.0;
            let built = self.cluster.offices.iter().position(|office| office.name == name.value);
            let other = self.cluster.offices.iter().find(|office| office.prefix.overlaps(&prefix));
            match (built, other.map(|other| (other.name.clone(), other.prefix))) {
                (Some(number), _) => {
                    let built = self.cluster.offices[number].prefix;
                    if built != prefix {
                        let message = format!("the prefix of office `{}` is {built}", name.value);
                        self.contradiction(known.prefix.span, message, &format!("write {built}"));
                    }
                    if let Some(mtu) = known.mtu {
                        self.declare_mtu(number, mtu, "mtu");
                    }
                }
                (None, Some((other, prefix))) => {
                    let message = format!("{prefix} is the prefix of office `{other}`");
                    self.contradiction(name.span, message, &format!("name it `{other}`"));
                }
                (None, None) => {}
            }
        }
        self.declare_limits(&facts.limits);
        self.declare_names(&facts.names, false);
        self.declare_servers(&facts.servers, false);
        for (name, entry) in &facts.entries {
            let address = entry.resolver.0;
            let at = |host: &OutsidePlan| host.address == address || host.also_at.contains(&address);
            match self.cluster.outside.iter().position(at) {
                None => self.domain(name),
                Some(host) if self.cluster.outside[host].records.is_empty() => {
                    let message = format!(
                        "{address} is outside host `{}`, which resolves no names",
                        self.cluster.outside[host].name
                    );
                    self.contradiction(entry.resolver.span, message, "write the address of the clients' own resolver");
                }
                Some(host) => self.declare_entry(name, OutsideId(host), entry.port.value),
            }
        }
    }

    /// Reports a declared fact that the scenario contradicts.
    fn contradiction(&mut self, span: Span, built: String, help: &str) {
        let message = match &self.shared_by {
            Some(scenario) => format!("in scenario `{scenario}`, {built}"),
            None => built,
        };
        self.error(span, message, help);
    }

    fn declare_mtu(&mut self, office: usize, mtu: Spanned<u16>, key: &str) {
        let office = &mut self.cluster.offices[office];
        office.declared_mtu = Some(mtu.value);
        if office.tunnel_mtu != mtu.value {
            let (name, built) = (office.name.clone(), office.tunnel_mtu);
            let message = format!("the tunnel of office `{name}` carries {built} bytes");
            self.contradiction(mtu.span, message, &format!("write `{key}: {built}`, or change `tunnelMtu`"));
        }
    }

    fn declare_names(&mut self, names: &BTreeMap<Spanned<String>, Vec<Spanned<values::Prefix>>>, own: bool) {
        for (name, prefixes) in names {
            self.domain(name);
            if prefixes.is_empty() {
                let message = format!("no prefix is declared for {}", quoted(name));
                self.error(name.span, message, "write `[PREFIX]`, or leave the name out");
            }
            let declared =
                DeclaredName { name: folded(name), prefixes: prefixes.iter().map(|prefix| prefix.0).collect() };
            let outside = &self.cluster.outside;
            let records = outside.iter().flat_map(|host| host.records.iter().map(move |record| (&host.name, record)));
            let mut of_name = records.filter(|(_, (owner, _))| *owner == declared.name);
            let elsewhere = of_name.find_map(|(host, (_, addresses))| {
                let is_elsewhere =
                    |address: &&IpAddr| !declared.prefixes.iter().any(|prefix| prefix.contains(**address));
                Some((host.clone(), *addresses.iter().find(is_elsewhere)?))
            });
            if let Some((host, address)) = elsewhere.filter(|_| !prefixes.is_empty()) {
                let message =
                    format!("outside host `{host}` resolves {} to {address}, in none of these prefixes", quoted(name));
                self.contradiction(name.span, message, "add the prefix of that address, or correct the record");
            }
            if self.cluster.declared_names.iter().any(|other| other.name == declared.name) {
                self.twice(name);
            } else if own || self.is_resolved(&declared.name) {
                self.cluster.declared_names.push(declared);
            }
        }
    }

    /// Whether a resolver outside has a record for this name.
    fn is_resolved(&self, name: &str) -> bool {
        let owner =
            |host: &OutsidePlan| zone::owner(host.records.iter().map(|(owner, _)| owner.as_str()), name).is_some();
        self.cluster.outside.iter().any(owner)
    }

    fn declare_servers(&mut self, servers: &BTreeMap<Spanned<String>, Spanned<values::ServerAddress>>, own: bool) {
        for (name, at) in servers {
            let (address, format) = (at.0, values::Name::FORMAT);
            if !(format.accepts)(name) {
                self.error(name.span, format!("{} is not {}", quoted(name), format.what), format.right);
            }
            let declared = self.cluster.declared_servers.clone();
            if let Some(other) = declared.iter().find(|other| other.address == address) {
                let message = format!("{address} has another name, {}", quoted(&other.name));
                self.error(name.span, message, "declare one name for each address and port");
            }
            if declared.iter().any(|other| other.name == name.value) {
                self.twice(name);
            }
            let host = self.cluster.outside.iter().find(|host| host.name == name.value);
            let is_at = |host: &OutsidePlan| host.address == address.ip() || host.also_at.contains(&address.ip());
            if let Some(host) = host.filter(|host| !is_at(host)) {
                let message = format!("the address of outside host `{}` is {}", host.name, host.address);
                let help = format!("write `{}: {}:{}`", host.name, host.address, address.port());
                self.contradiction(at.span, message, &help);
            }
            let cluster = &self.cluster;
            let built = cluster.places().any(|place| cluster.address(place) == address.ip())
                || cluster.outside.iter().any(|host| host.also_at.contains(&address.ip()));
            if own || built {
                self.cluster.declared_servers.push(DeclaredServer { name: name.value.clone(), address });
            }
        }
    }

    fn declare_entry(&mut self, name: &Spanned<String>, resolver: OutsideId, port: u16) {
        self.domain(name);
        let host = &self.cluster.outside[resolver.0];
        let (at, folded) = (host.name.clone(), folded(name));
        let is_known = zone::owner(host.records.iter().map(|(owner, _)| owner.as_str()), &folded).is_some();
        if !is_known && !host.records.is_empty() {
            let message = format!("outside host `{at}` has no record of {}", quoted(name));
            self.contradiction(name.span, message, "add the record, or name the resolver that has it");
        }
        if self.cluster.declared_entries.iter().any(|other| other.name == folded) {
            self.twice(name);
        }
        let resolver = self.cluster.outside[resolver.0].address;
        self.cluster.declared_entries.push(Entry { name: folded, resolver, port });
    }

    fn declare_limits(&mut self, limits: &Limits) {
        if let Some(limit) = limits.nf_conntrack_max {
            if self.cluster.declared_conntrack_limit.is_some() {
                self.error(limit.span, "the file of facts declares this limit, too", "declare it once");
            }
            self.cluster.declared_conntrack_limit = Some(limit.value);
        }
    }

    /// Reports a name that the file of facts declares as well.
    fn twice(&mut self, name: &Spanned<String>) {
        self.error(name.span, format!("{} is declared twice", quoted(name)), "declare it here or in the file of facts");
    }

    /// Reports a benign change that sets a limit below the declared one: that is the incident.
    pub(super) fn keeps_limits(&mut self, at: Span, changes: &[Planned]) {
        let Some(declared) = self.cluster.declared_conntrack_limit else { return };
        let below = changes.iter().flat_map(|change| change.requires()).find_map(|requirement| match requirement {
            Requirement::ConntrackLimit(to) if to < u64::from(declared) => Some(to),
            _ => None,
        });
        if let Some(to) = below {
            let message =
                format!("this control sets nf_conntrack_max to {to}, and operators declared at least {declared}");
            self.error(at, message, "set a limit of at least that, or declare a smaller one");
        }
    }
}
