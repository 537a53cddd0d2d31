//! Probes.

use std::net::SocketAddr;

use super::parse;
use crate::signal::{Observed, Probe, ProbeKind};

pub(super) fn read(words: &[&str]) -> Option<Observed> {
    Some(match *words {
        // A probe, its outcome (an error other than "ok" and "true"), and the name it asks for.
        ["probe", kind, target, outcome, ref name @ ..] => {
            let kind = match kind {
                "service" => ProbeKind::DnsService,
                "endpoint" => ProbeKind::DnsEndpoint,
                "upstream" => ProbeKind::DnsUpstream,
                "echo" => ProbeKind::Echo,
                _ => panic!("unknown kind of probe: {kind}"),
            };
            let ok = outcome == "ok" || outcome == "true";
            let why = if outcome == "false" { "timeout" } else { outcome };
            let (took_us, error) = if ok { (900, None) } else { (400_000, Some(why.to_owned())) };
            let (source, target, about) = (parse("10.176.64.11"), parse(target), name.first().map(ToString::to_string));
            Probe { kind, source, target, port: None, about, ok, took_us, error }.into()
        }
        // A connect to a Service, to a port of it (ADDRESS:PORT), or to its nth endpoint.
        ["connect", service, to, outcome] => {
            let (kind, target) = match (to, to.parse::<SocketAddr>()) {
                (_, Ok(port)) => (ProbeKind::Service, port),
                ("service", _) => (ProbeKind::Service, ([192, 168, 0, 20], 80).into()),
                (number, _) => (ProbeKind::Endpoint, ([10, 176, 98, 20 + parse::<u8>(number)], 80).into()),
            };
            let (target, port) = (target.ip(), Some(target.port()));
            let (took_us, error) = failure(outcome);
            let (ok, about) = (error.is_none(), Some(service.to_owned()));
            Probe { kind, source: parse("10.176.64.11"), target, port, about, ok, took_us, error }.into()
        }
        ["healthz", outcome] => {
            let (source, port) = (parse("10.176.64.11"), Some(10256));
            let (took_us, error) = failure(outcome);
            let ok = error.is_none();
            Probe { kind: ProbeKind::KubeProxy, source, target: source, port, about: None, ok, took_us, error }.into()
        }
        // A look-up of an external name.
        ["external", outcome] => Probe {
            kind: ProbeKind::ExternalName,
            source: parse("10.176.64.11"),
            target: parse("203.0.113.53"),
            port: None,
            about: Some("tickets.example.com".into()),
            ok: outcome == "ok",
            took_us: 900,
            error: (outcome != "ok").then(|| outcome.to_owned()),
        }
        .into(),
        _ => return None,
    })
}

/// How long a probe took, microseconds, and why it failed.
fn failure(outcome: &str) -> (u64, Option<String>) {
    match outcome {
        "ok" => (900, None),
        "timeout" => (400_000, Some(outcome.to_owned())),
        _ => (300, Some(outcome.to_owned())),
    }
}
