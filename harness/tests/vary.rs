//! Draws every scenario many times, without running any: each draw is a valid scenario, a seed repeats it exactly, and
//! no threshold on one number separates the drawn incidents of a card from its drawn twins.

mod support {
    pub mod shipped;
}
mod drawn {
    mod cards;
}

use std::collections::BTreeSet;

use relapse::plan::{Plan, plan};
use relapse::scenario::Scenario;
use relapse::vary::{Extent, Seed, draw};
use relapse_model::diagnostics::Source;
use relapse_model::yaml::{self, Document};
use support::shipped;

/// Draws of each scenario that are planned.
const DRAWS: u32 = 8;
const SEED: Seed = Seed(14);

fn source(shipped: &Plan) -> Source {
    yaml::read(&shipped.file, Scenario::NOUN).unwrap_or_else(|wrong| panic!("{}", wrong.message))
}

/// The text of a drawn scenario.
fn text_of(shipped: &Plan, repetition: u32, extent: Extent) -> String {
    draw(&source(shipped), SEED, repetition, extent).unwrap_or_else(|wrong| panic!("{}", wrong.plain())).text
}

fn planned(shipped: &Plan, text: &str) -> Plan {
    let source = Source::new(shipped.file.clone(), text);
    let planned = yaml::parse(&source).and_then(|scenario| plan(&scenario, &source));
    planned.unwrap_or_else(|wrong| panic!("{}\n{text}", wrong.plain()))
}

#[test]
fn every_draw_is_a_valid_scenario_with_the_same_trials() {
    for shipped in shipped::plans() {
        let names = |plan: &Plan| plan.trials().map(|trial| trial.control.clone()).collect::<Vec<_>>();
        for repetition in 1..=DRAWS {
            for extent in [Extent::Numbers, Extent::All] {
                let plan = planned(&shipped, &text_of(&shipped, repetition, extent));
                assert_eq!((&plan.name, names(&plan)), (&shipped.name, names(&shipped)));
            }
        }
    }
}

#[test]
fn a_seed_repeats_a_draw_exactly_and_no_two_draws_are_alike() {
    for shipped in shipped::plans() {
        let all: BTreeSet<String> = (1..=10).map(|repetition| text_of(&shipped, repetition, Extent::All)).collect();
        assert_eq!(all.len(), 10, "{}", shipped.name);
        assert!(
            (1..=10).all(|repetition| all.contains(&text_of(&shipped, repetition, Extent::All))),
            "{}",
            shipped.name
        );
        let other = draw(&source(&shipped), Seed(15), 1, Extent::All).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert!(!all.contains(&other.text), "{}", shipped.name);
    }
}

#[test]
fn what_a_lab_draws_has_no_name_of_the_file() {
    for shipped in shipped::plans() {
        let plan = planned(&shipped, &text_of(&shipped, 1, Extent::All));
        let names = |plan: &Plan| -> BTreeSet<String> {
            let cluster = &plan.cluster;
            let nodes = cluster.nodes.iter().map(|node| format!("{} {}", node.name, node.address));
            let pods = cluster.pods.iter().map(|pod| format!("{} {}", pod.name, pod.address));
            let outside = cluster.outside.iter().map(|host| format!("{} {}", host.name, host.address));
            let flows = plan.workload.iter().map(|flow| flow.name.clone());
            nodes.chain(pods).chain(outside).chain(flows).collect()
        };
        let kept: Vec<String> = names(&plan).intersection(&names(&shipped)).cloned().collect();
        assert!(kept.is_empty(), "{}: {kept:?}", shipped.name);
    }
}
