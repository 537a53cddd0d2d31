//! kube-proxy's rules for one Service on a node: read, changed and written again by the programs of its own container.
//!
//! The chains that are changed belong to that one Service. kube-proxy writes them when the endpoints of the Service
//! change, and otherwise once an hour: in mode iptables `KUBE-SVC-*` and `KUBE-SEP-*` of table `nat`
//! (`pkg/proxy/iptables/proxier.go`), in mode nftables `service-*` and `endpoint-*` of table `ip kube-proxy`
//! (`pkg/proxy/nftables/proxier.go`).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::Stdio;

use relapse_kernel::process::Inside;
use relapse_kernel::{NetNs, nft};
use relapse_lab::cluster::ServiceRules;

use super::{failed, kube_proxy};

/// kube-proxy's table in mode nftables.
const TABLE: &str = "kube-proxy";
/// What precedes the address that an endpoint's rule translates to.
const TO: [&str; 2] = ["--to-destination ", "dnat to "];

/// The rules of a Service: chains, each with its rules as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    is_nftables: bool,
    chains: Vec<(String, Vec<String>)>,
}

impl Rules {
    /// Reads the rules of a Service (`default/shop`) on a node.
    ///
    /// # Errors
    /// If kube-proxy does not run there, or its rules cannot be listed.
    pub fn read(node: &NetNs, service: &str) -> Result<Self, String> {
        if nft::list_tables(node).map_err(failed)?.iter().any(|table| table == TABLE) {
            Ok(Self::of_nft(&run(node, "nft", &["list", "table", "ip", TABLE], "")?, service))
        } else {
            Ok(Self::of_iptables(&run(node, "iptables-save", &["-t", "nat"], "")?, service))
        }
    }

    fn of_iptables(text: &str, service: &str) -> Self {
        let comment = format!("\"{service}:");
        let mut chains: Vec<(String, Vec<String>)> = Vec::new();
        for line in text.lines().filter(|line| line.contains(&comment)) {
            let Some(chain) = line.strip_prefix("-A ").and_then(|rest| rest.split(' ').next()) else { continue };
            if !["KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-"].iter().any(|prefix| chain.starts_with(prefix)) {
                continue;
            }
            match chains.iter_mut().find(|(name, _)| name == chain) {
                Some((_, rules)) => rules.push(line.to_owned()),
                None => chains.push((chain.to_owned(), vec![line.to_owned()])),
            }
        }
        Self { is_nftables: false, chains }
    }

    fn of_nft(text: &str, service: &str) -> Self {
        let of_it = format!("-{service}/");
        let mut chains: Vec<(String, Vec<String>)> = Vec::new();
        let mut current = None;
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("chain ").and_then(|rest| rest.strip_suffix(" {")) {
                let is_its =
                    ["service-", "endpoint-"].iter().any(|kind| name.starts_with(kind)) && name.contains(&of_it);
                current = is_its.then_some(chains.len());
                if is_its {
                    chains.push((name.to_owned(), Vec::new()));
                }
            } else if let Some(number) = current {
                // A map of several elements is listed over several lines; only the chain's end stands alone.
                if line == "}" && chains[number].1.last().is_none_or(|rule| is_complete(rule)) {
                    current = None;
                } else if chains[number].1.last().is_some_and(|rule| !is_complete(rule)) {
                    let rule = chains[number].1.last_mut();
                    rule.into_iter().for_each(|rule| *rule = format!("{rule} {line}"));
                } else {
                    chains[number].1.push(line.to_owned());
                }
            }
        }
        Self { is_nftables: true, chains }
    }

    /// The addresses and ports that its chains lead to.
    pub fn destinations(&self) -> Vec<String> {
        let services = self.chains.iter().filter(|(name, _)| !is_endpoint(name));
        let text: String = services.flat_map(|(_, rules)| rules).fold(String::new(), |text, rule| text + rule + " ");
        let named = |name: &String| text.split([' ', ',', '}']).any(|word| word == name);
        let led_to = self.chains.iter().filter(|(name, _)| is_endpoint(name) && named(name));
        let found: BTreeSet<_> = led_to.flat_map(|(_, rules)| rules).filter_map(|rule| destination(rule)).collect();
        found.into_iter().map(str::to_owned).collect()
    }

    /// Writes them on a node, changed, in one transaction.
    ///
    /// # Errors
    /// If the program refuses.
    pub fn write(&self, node: &NetNs, to: ServiceRules) -> Result<(), String> {
        let text = self.script(to);
        if self.is_nftables {
            run(node, "nft", &["-f", "-"], &text).map(drop)
        } else {
            run(node, "iptables-restore", &["--noflush", "-w", "5"], &text).map(drop)
        }
    }

    fn script(&self, to: ServiceRules) -> String {
        let changed = self.chains.iter().filter(|(name, _)| match to {
            ServiceRules::Whole => true,
            ServiceRules::Gone => !is_endpoint(name),
            ServiceRules::Stale(_) => is_endpoint(name),
        });
        let (mut first, mut then) = (String::new(), String::new());
        for (name, rules) in changed {
            let rules: Vec<String> = match to {
                ServiceRules::Whole => rules.clone(),
                ServiceRules::Gone => Vec::new(),
                ServiceRules::Stale(address) => rules.iter().map(|rule| led_to(rule, address)).collect(),
            };
            let (head, rules) = if self.is_nftables {
                let rule = |rule: &String| format!("add rule ip {TABLE} {name} {rule}\n");
                (format!("flush chain ip {TABLE} {name}\n"), rules.iter().map(rule).collect::<String>())
            } else {
                // A chain that is declared is emptied.
                (format!(":{name} - [0:0]\n"), rules.iter().map(|rule| format!("{rule}\n")).collect())
            };
            first += &head;
            then += &rules;
        }
        if self.is_nftables { first + &then } else { format!("*nat\n{first}{then}COMMIT\n") }
    }
}

fn is_endpoint(chain: &str) -> bool {
    chain.starts_with("KUBE-SEP-") || chain.starts_with("endpoint-")
}

/// Whether a listed rule has all lines of its maps.
fn is_complete(rule: &str) -> bool {
    rule.matches('{').count() == rule.matches('}').count()
}

/// The address and port that a rule translates to.
fn destination(rule: &str) -> Option<&str> {
    let rest = TO.iter().find_map(|to| rule.split_once(to))?.1;
    rest.split(' ').next()
}

/// The rule with another address in its translation.
fn led_to(rule: &str, address: IpAddr) -> String {
    let Some(before) = destination(rule) else { return rule.to_owned() };
    let port = before.rsplit_once(':').map_or("", |(_, port)| port);
    rule.replace(before, &format!("{address}:{port}"))
}

/// Runs a program of kube-proxy's container in the node's network namespace.
fn run(node: &NetNs, program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let pid = kube_proxy::running_in(node).ok_or_else(|| format!("{} has no kube-proxy", node.name()))?;
    let inside = Inside::new(node).with_files_of(pid).map_err(failed)?;
    let mut command = inside.command(program);
    command.args(arguments).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let failed = |e: &dyn std::fmt::Display| format!("{program} on {}: {e}", node.name());
    let mut child = command.spawn().map_err(|e| failed(&e))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(|e| failed(&e))?;
    }
    let output = child.wait_with_output().map_err(|e| failed(&e))?;
    if !output.status.success() {
        let mut why = String::new();
        let _ = write!(why, "{}", String::from_utf8_lossy(&output.stderr).trim());
        return Err(failed(&why));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const IPTABLES: &str = "*nat
:KUBE-SEP-AAA - [0:0]
-A KUBE-SERVICES -d 192.168.3.4/32 -p tcp -m comment --comment \"default/shop:tcp-80 cluster IP\" -m tcp --dport 80 -j KUBE-SVC-XXX
-A KUBE-SEP-AAA -s 10.176.97.5/32 -m comment --comment \"default/shop:tcp-80\" -j KUBE-MARK-MASQ
-A KUBE-SEP-AAA -p tcp -m comment --comment \"default/shop:tcp-80\" -m tcp -j DNAT --to-destination 10.176.97.5:80
-A KUBE-SEP-BBB -p tcp -m comment --comment \"default/shop2:tcp-80\" -m tcp -j DNAT --to-destination 10.176.97.6:80
-A KUBE-SVC-XXX -m comment --comment \"default/shop:tcp-80 -> 10.176.97.5:80\" -j KUBE-SEP-AAA
COMMIT
";

    const NFT: &str = "table ip kube-proxy {
	map service-ips {
		elements = { 192.168.3.4 . tcp . 80 : goto service-AAA-default/shop/tcp/tcp-80 }
	}
	chain service-AAA-default/shop/tcp/tcp-80 {
		ip daddr 192.168.3.4 tcp dport 80 ip saddr != 10.176.96.0/20 jump mark-for-masquerade
		numgen random mod 2 vmap { 0 : goto endpoint-BBB-default/shop/tcp/tcp-80__10.176.97.5/80,
					   1 : goto endpoint-CCC-default/shop/tcp/tcp-80__10.176.97.6/80 }
	}

	chain endpoint-BBB-default/shop/tcp/tcp-80__10.176.97.5/80 {
		ip saddr 10.176.97.5 jump mark-for-masquerade
		meta l4proto tcp dnat to 10.176.97.5:80
	}

	chain endpoint-CCC-default/shop/tcp/tcp-80__10.176.97.6/80 {
		meta l4proto tcp dnat to 10.176.97.6:80
	}

	chain endpoint-DDD-default/other/tcp/tcp-80__10.176.97.7/80 {
		meta l4proto tcp dnat to 10.176.97.7:80
	}
}
";

    #[test]
    fn the_chains_of_one_service_in_mode_iptables() {
        let rules = Rules::of_iptables(IPTABLES, "default/shop");
        assert_eq!(rules.destinations(), ["10.176.97.5:80"]);
        assert_eq!(rules.script(ServiceRules::Gone), "*nat\n:KUBE-SVC-XXX - [0:0]\nCOMMIT\n");
        let stale = rules.script(ServiceRules::Stale([10, 176, 97, 250].into()));
        assert!(stale.contains("DNAT --to-destination 10.176.97.250:80\n") && !stale.contains("KUBE-SVC"), "{stale}");
        assert_eq!(Rules::of_iptables(&rules.script(ServiceRules::Whole), "default/shop"), rules);
    }

    #[test]
    fn the_chains_of_one_service_in_mode_nftables() {
        let rules = Rules::of_nft(NFT, "default/shop");
        assert_eq!(rules.chains.iter().map(|(_, rules)| rules.len()).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(rules.destinations(), ["10.176.97.5:80", "10.176.97.6:80"]);
        let gone = rules.script(ServiceRules::Gone);
        assert_eq!(gone, "flush chain ip kube-proxy service-AAA-default/shop/tcp/tcp-80\n");
        let stale = rules.script(ServiceRules::Stale([10, 176, 97, 250].into()));
        assert_eq!(stale.matches("dnat to 10.176.97.250:80").count(), 2, "{stale}");
    }
}
