//! Suggested commands: the places and commands that the faults of an incident name.

use relapse_lab::fault::Where;

use crate::cli::doctor::is_installed;
use crate::plan::{Place, Plan};

/// A suggested command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    pub place: String,
    pub command: String,
    /// A program it needs that is not on this machine.
    pub missing: Option<String>,
}

/// All commands for an incident, in the order of its faults.
pub fn at(plan: &Plan) -> Vec<Look> {
    let cluster = plan.cluster_of(&plan.incident_trial);
    let failing = plan.incident_trial.effects().filter(|effect| effect.hurts()).find_map(|effect| effect.flow());
    let flow = failing.map(|id| &plan.workload[id.0]).or_else(|| plan.workload.first());
    // For a Service, its first pod.
    let ends = flow.map(|flow| std::iter::once(flow.from).chain(plan.cluster.behind(flow.to)).take(2));
    let ends: Vec<Place> = ends.into_iter().flatten().collect();
    let pod = ends.iter().find_map(|end| if let Place::Pod(id) = end { Some(*id) } else { None });
    let named = plan.incident_trial.detect.iter().filter_map(|expected| expected.subject.as_ref());
    let node = named
        .filter(|subject| subject.kind == relapse_detectors::finding::SubjectKind::Node)
        .map(|subject| subject.to_string())
        .next()
        .or_else(|| Some(cluster.place_name(Place::Node(cluster.pods.get(pod?.0)?.node))));
    let office =
        ends.iter().find_map(|end| if let Place::Office(id) = end { Some(&cluster.offices[id.0].name) } else { None });
    let outside =
        ends.iter().find_map(|end| if let Place::Outside(id) = end { Some(&cluster.outside[id.0]) } else { None });
    let place = |at| match at {
        Where::Node => node.clone(),
        Where::Pod => pod.map(|id| cluster.place_name(Place::Pod(id))),
        Where::Office => office.map(|name| format!("office/{name}")),
        Where::Gateway => office.map(|name| format!("gateway/{name}")),
        Where::Outside => outside.map(|host| format!("outside/{}", host.name)),
        Where::LoadBalancer => outside.filter(|o| o.load_balancer).map(|host| format!("load-balancer/{}", host.name)),
    };
    let address = flow.map(|flow| cluster.entry(flow).ip().to_string());
    let fill = |command: &str| {
        let mut text = command.replace("{table}", &cluster.network.pod_table.to_string());
        for (mark, value) in [
            ("{address}", address.clone()),
            ("{pod}", pod.map(|id| cluster.pods[id.0].address.to_string())),
            ("{link}", pod.map(|id| format!("veth{}", id.0))),
        ] {
            match value {
                Some(value) => text = text.replace(mark, &value),
                None if text.contains(mark) => return None,
                None => {}
            }
        }
        Some(text)
    };
    let mut looks: Vec<Look> = Vec::new();
    for fault in plan.incident_trial.steps.iter().flat_map(|step| &step.inject) {
        for (at, command) in fault.look {
            if let (Some(place), Some(command)) = (place(*at), fill(command)) {
                let missing = programs(&command).find(|program| !is_installed(program)).map(str::to_owned);
                let look = Look { place, command, missing };
                if !looks.contains(&look) {
                    looks.push(look);
                }
            }
        }
    }
    looks
}

/// The programs of a shell command.
fn programs(command: &str) -> impl Iterator<Item = &str> {
    command.split("; ").filter_map(|part| part.split_whitespace().next())
}
