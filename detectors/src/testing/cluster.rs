//! Pods and Services, and what nodes and programs report of themselves.

use super::{change, operator, parse};
use crate::signal::{
    ConntrackStats, ConntrackTable, Container, ContainerState, Endpoint, Endpoints, IngressLog, KernelLog, Observed,
    Pod,
};

pub(super) fn read(words: &[&str]) -> Option<Observed> {
    Some(match *words {
        ["pod", name, address] => {
            let (change, name) = change(name);
            Pod { change, name: name.into(), address: parse(address), link: format!("veth-{name}") }.into()
        }
        // Endpoints of kube-dns; the nth CoreDNS pod has the address 10.176.98.(2 + n).
        ["endpoints", ref ready @ ..] => {
            let endpoint = |word: &&str| {
                let (number, node) = word.split_once('@').expect("NUMBER@NODE");
                let address = [10, 176, 98, 2 + parse::<u8>(number)].into();
                Endpoint { pod: format!("coredns-{number}"), address, node: node.into() }
            };
            let operator = operator();
            let ready = ready.iter().map(endpoint).collect();
            Endpoints { service: operator.dns_service, address: operator.dns_address, ready }.into()
        }
        // A Service with its ready endpoints: NAME@ADDRESS@NODE.
        ["service", name, address, ref ready @ ..] => {
            let endpoint = |word: &&str| {
                let parts: Vec<_> = word.split('@').collect();
                let [pod, address, node] = parts[..] else { panic!("POD@ADDRESS@NODE") };
                Endpoint { pod: pod.into(), address: parse(address), node: node.into() }
            };
            let ready = ready.iter().map(endpoint).collect();
            Endpoints { service: name.into(), address: parse(address), ready }.into()
        }
        // The endpoints of a Service; the nth pod has the address 10.176.98.(20 + n).
        ["behind", service, ref ready @ ..] => {
            let endpoint = |word: &&str| {
                let (number, node) = word.split_once('@').expect("NUMBER@NODE");
                let address = [10, 176, 98, 20 + parse::<u8>(number)].into();
                Endpoint { pod: format!("{service}-{number}"), address, node: node.into() }
            };
            let ready = ready.iter().map(endpoint).collect();
            Endpoints { service: service.into(), address: parse("192.168.0.20"), ready }.into()
        }
        // A container's state ("running", "exit=137", or why it waits) and restarts.
        ["container", pod, state, restarts] => {
            let state = match (state, state.strip_prefix("exit=")) {
                (_, Some("0")) => ContainerState::Terminated { reason: "Completed".into(), exit_code: 0 },
                (_, Some(code)) => ContainerState::Terminated { reason: "Error".into(), exit_code: parse(code) },
                ("running", _) => ContainerState::Running,
                (reason, _) => ContainerState::Waiting { reason: reason.into() },
            };
            Container { pod: pod.into(), container: "app".into(), state, restarts: parse(restarts) }.into()
        }
        // An ingress' status, its back end and that one's status; `-` where there is none.
        ["ingress", status, upstream, upstream_status] => IngressLog {
            pod: "ingress".into(),
            status: parse(status),
            upstream: (upstream != "-").then(|| parse(upstream)),
            upstream_status: (upstream_status != "-").then(|| parse(upstream_status)),
            took_us: 1000,
        }
        .into(),
        ["table", share] => {
            let (count, limit) = share.split_once('/').expect("COUNT/LIMIT");
            ConntrackTable { count: parse(count), limit: parse(limit) }.into()
        }
        ["stats", ref counts @ ..] => {
            let mut stats = ConntrackStats::default();
            for count in counts {
                let (name, value) = count.split_once('=').expect("NAME=COUNT");
                match name {
                    "drop" => stats.drop = parse(value),
                    "early_drop" => stats.early_drop = parse(value),
                    "insert_failed" => stats.insert_failed = parse(value),
                    "clash_resolve" => stats.clash_resolve = parse(value),
                    _ => panic!("unknown statistic: {name}"),
                }
            }
            stats.into()
        }
        // Read by the agent of a node in this network namespace.
        ["log", netns, ref line @ ..] => KernelLog { line: line.join(" "), netns: Some(parse(netns)) }.into(),
        _ => return None,
    })
}
