//! Links, rules and routes.

use super::{change, parse};
use crate::signal::{Change, Link, Observed, Route, RouteLookup, Rule};

pub(super) fn read(words: &[&str]) -> Option<Observed> {
    Some(match *words {
        ["link", link, index, ref state @ ..] => {
            let (change, name) = change(link);
            let working = change != Change::Removed && state.is_empty();
            let up = working || state == ["dark"];
            Link { change, index: parse(index), name: name.into(), up, carrier: working }.into()
        }
        [end @ ("from" | "to"), pod] => {
            let (change, pod) = change(pod);
            let pod = Some(parse(&format!("{pod}/32")));
            match end {
                "from" => Rule { change, priority: 1536, from: pod, to: None, table: 2 }.into(),
                _ => Rule { change, priority: 512, from: None, to: pod, table: 254 }.into(),
            }
        }
        ["default", metric] => {
            let (change, metric) = change(metric);
            let (gateway, link) = (Some(parse("10.176.96.1")), Some("eth1".to_owned()));
            Route { change, table: 2, destination: None, gateway, link, metric: parse(metric) }.into()
        }
        ["lookup", source, destination, link] => {
            let link = (link != "nowhere").then(|| link.to_owned());
            RouteLookup { source: parse(source), destination: parse(destination), link, table: None }.into()
        }
        _ => return None,
    })
}
