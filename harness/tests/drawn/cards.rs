//! The numbers of each incident's card over many draws: outside its guard bands, and separated by no threshold.
//!
//! A detector may compare a number with what it knows (a limit with the load, an MSS with what passed). One that
//! compares it with a constant is wrong for some drawn incident or for some drawn twin.

use std::collections::BTreeMap;
use std::net::IpAddr;

use relapse::plan::Plan;
use relapse::vary::{Extent, draw};
use relapse_detectors::prefix::Prefix;
use relapse_model::yaml;
use serde_json::Value;

use crate::support::shipped;
use crate::{SEED, source};

/// Draws of each scenario. Numbers alone are quick.
const DRAWS: u32 = 40;

/// One number of one trial.
#[derive(Debug)]
struct Number {
    card: String,
    what: &'static str,
    is_twin: bool,
    value: f64,
    /// It lies outside the guard band of the card, on the right side.
    is_outside_band: bool,
}

/// The numbers that each card must have, or nothing is proved about it. Those of I3 and I4 tell nothing apart: a NIC or
/// a route is there or is not.
const SWEPT: [(&str, &str); 8] = [
    ("I1", "MSS"),
    ("I1", "step of the MSS"),
    ("I2", "limit"),
    ("I5", "response time"),
    ("I5", "delay"),
    ("I6", "RTT"),
    ("I6", "step of the RTT"),
    ("I7", "ports"),
];

#[test]
fn no_threshold_separates_drawn_incidents_from_drawn_twins() {
    let numbers: Vec<Number> = shipped::plans().iter().flat_map(|shipped| of_scenario(shipped, DRAWS)).collect();
    let sides = sides(&numbers);
    for (card, what) in SWEPT {
        let (incidents, twins) = &sides.get(&(card.to_owned(), what)).unwrap_or_else(|| panic!("{card} has no {what}"));
        let (incidents, twins) = (extremes(incidents), extremes(twins));
        println!("{card} {what}: incidents {incidents:?}, twins {twins:?}");
        assert!(!separates(incidents, twins), "{card}: {what} {incidents:?} in incidents, {twins:?} in twins");
    }
    assert_eq!(sides.len(), SWEPT.len(), "{:?}", sides.keys());
}

#[test]
fn the_shipped_numbers_alone_would_be_separated() {
    let one = shipped::plans().into_iter().find(|plan| plan.name == "mss-clamp-raised").expect("it is shipped");
    let text = &source(&one).text;
    let numbers = of_text(&one, text);
    let sides = sides(&numbers);
    let (incidents, twins) = &sides[&("I1".to_owned(), "MSS")];
    assert!(separates(extremes(incidents), extremes(twins)), "{numbers:?}");
}

#[test]
fn every_draw_is_outside_the_guard_bands() {
    for shipped in shipped::plans() {
        for number in of_scenario(&shipped, DRAWS) {
            assert!(number.is_outside_band, "{}: {number:?}", shipped.name);
        }
    }
}

/// The values of incidents and of twins, by card and kind of number.
type Sides = BTreeMap<(String, &'static str), (Vec<f64>, Vec<f64>)>;

fn sides(numbers: &[Number]) -> Sides {
    let mut sides = Sides::new();
    for number in numbers {
        let (incidents, twins) = sides.entry((number.card.clone(), number.what)).or_default();
        if number.is_twin { twins } else { incidents }.push(number.value);
    }
    sides
}

/// Smallest and largest value.
fn extremes(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)))
}

/// Whether all of one side lie above all of the other.
fn separates(one: (f64, f64), other: (f64, f64)) -> bool {
    one.0 > other.1 || other.0 > one.1
}

fn of_scenario(shipped: &Plan, draws: u32) -> Vec<Number> {
    if !SWEPT.iter().any(|(card, _)| *card == shipped.incident) {
        return Vec::new();
    }
    let source = source(shipped);
    let drawn = (1..=draws).map(|repetition| draw(&source, SEED, repetition, Extent::Numbers));
    drawn.flat_map(|drawn| of_text(shipped, &drawn.unwrap_or_else(|wrong| panic!("{wrong}")).text)).collect()
}

fn of_text(shipped: &Plan, text: &str) -> Vec<Number> {
    let scenario = yaml::any(text).unwrap_or_else(|wrong| panic!("{wrong}"));
    let twins = scenario["controls"].as_array().into_iter().flatten().map(|control| (true, &control["inject"]));
    let mut found = Vec::new();
    for (is_twin, inject) in twins.chain([(false, &scenario["inject"])]) {
        for (fault, fields) in
            inject.as_array().into_iter().flatten().flat_map(|fault| fault.as_object().into_iter().flatten())
        {
            let numbers = of_fault(&scenario, fault, fields, is_twin);
            found.extend(numbers.into_iter().map(|(what, value, is_outside_band)| Number {
                card: shipped.incident.clone(),
                what,
                is_twin,
                value,
                is_outside_band,
            }));
        }
    }
    found
}

/// The numbers of one fault, with whether they lie outside the guard band of the card, on the side of incident or twin.
fn of_fault(scenario: &Value, fault: &str, fields: &Value, is_twin: bool) -> Vec<(&'static str, f64, bool)> {
    let cluster = &scenario["cluster"];
    let number = |key: &str| fields[key].as_f64().unwrap_or_else(|| panic!("{fault} has no {key}"));
    // The side of the guard band on which a trial must lie.
    let sided = |incident: bool, twin: bool| if is_twin { twin } else { incident };
    match fault {
        "mss-clamp" | "new-clients" => {
            let office = &cluster["offices"][0];
            let (mtu, clamp) = (office["tunnelMtu"].as_f64().unwrap(), office["clamp"].as_f64().unwrap());
            let mss = number(if fault == "mss-clamp" { "to" } else { "mss" });
            // What the first pod sends to this MSS, and what the tunnel carries then.
            let sent = cluster["pods"][0]["mtu"].as_f64().unwrap_or(1500.0).min(mss + 40.0);
            let carried = fields["tunnelMtu"].as_f64().unwrap_or(mtu);
            let is_outside = (1400.0..=1419.0).contains(&mtu) && sided(sent > carried, sent <= carried);
            vec![("MSS", mss, is_outside), ("step of the MSS", mss - clamp, is_outside && clamp < mss)]
        }
        "conntrack-limit" => {
            let limit = limit(fields);
            let load = scenario["steadyState"]["held"].as_f64().unwrap();
            vec![("limit", limit, sided(limit <= 2.0 * load, limit >= 10.0 * load))]
        }
        "missing-index" => {
            let flows = scenario["workload"].as_array().unwrap().iter().filter_map(|flow| flow.get("query"));
            let usual =
                flows.filter_map(|flow| flow.get("takes")).map(milliseconds).next().filter(|_| is_heavy(scenario));
            let (usual, delay) = (usual.unwrap_or(0.0), milliseconds(&fields["query"]));
            let is_outside = sided(delay >= 200.0 && delay >= 4.0 * usual, delay <= 5.0 || delay < 0.5 * usual);
            vec![("response time", usual + delay, is_outside), ("delay", delay, is_outside)]
        }
        "dns-record" | "path-change" => {
            let Some((usual, rtt)) = round_trips(cluster, fault, fields) else { return Vec::new() };
            let is_outside = sided(rtt >= 3.0 * usual && rtt >= usual + 20.0, rtt < 1.5 * usual || rtt < usual + 5.0);
            vec![("RTT", rtt, is_outside), ("step of the RTT", rtt - usual, is_outside)]
        }
        "snat-collision" => vec![("ports", ports(&fields["ports"]), true)],
        _ => Vec::new(),
    }
}

/// Whether every query of the scenario takes long without any fault.
fn is_heavy(scenario: &Value) -> bool {
    let mut flows = scenario["workload"].as_array().unwrap().iter().filter_map(|flow| flow.get("query"));
    flows.all(|flow| flow.get("takes").is_some())
}

/// The limit that is written: `to`, or kube-proxy's default.
fn limit(fields: &Value) -> f64 {
    let or = |key: &str, default: f64| fields[key].as_f64().unwrap_or(default);
    let scale = fields["scale"].as_str().and_then(|scale| scale.split_once('/')).unwrap_or(("1", "1"));
    let scale = scale.0.parse::<f64>().unwrap() / scale.1.parse::<f64>().unwrap();
    fields["to"]
        .as_f64()
        .unwrap_or_else(|| or("min", 131_072.0).max(or("maxPerCore", 32_768.0) * or("cores", 1.0)) * scale)
}

/// The RTT to the store or the database before and after, in milliseconds. `None` for a change of another kind.
fn round_trips(cluster: &Value, fault: &str, fields: &Value) -> Option<(f64, f64)> {
    let hosts = cluster["outside"].as_array()?;
    let host = hosts.iter().find(|host| host.get("delay").is_some())?;
    let own = milliseconds(&host["delay"]);
    if fault == "path-change" {
        return Some((2.0 * own, 2.0 * milliseconds(fields.get("delay")?)));
    }
    let paths = cluster["prefixes"].as_array()?;
    let beside = |address: &Value| {
        let address: IpAddr = address.as_str()?.parse().ok()?;
        let on = |path: &&Value| {
            path["prefix"].as_str().and_then(|p| p.parse::<Prefix>().ok()).is_some_and(|p| p.contains(address))
        };
        Some(paths.iter().find(on).map_or(0.0, |path| milliseconds(&path["delay"])))
    };
    let last = fields["addresses"].as_array()?.iter().filter_map(beside).next_back()?;
    Some((2.0 * own, 2.0 * (own + last)))
}

fn milliseconds(duration: &Value) -> f64 {
    let text = duration.as_str().unwrap_or_default();
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1000.0)];
    let parsed =
        units.into_iter().find_map(|(unit, times)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * times));
    parsed.unwrap_or_else(|| panic!("{duration} is not one number and a unit"))
}

fn ports(range: &Value) -> f64 {
    let (first, last) = range.as_str().and_then(|range| range.split_once('-')).expect("a range");
    last.parse::<f64>().unwrap() - first.parse::<f64>().unwrap() + 1.0
}
