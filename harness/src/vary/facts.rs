//! Facts of a shared file become the scenario's own: the file is about addresses and names that are drawn anew.

use relapse_model::diagnostics::{Diagnostics, Source};
use relapse_model::zone::folded;

use super::tree::Tree;
use crate::scenario::Scenario;
use crate::scenario::cluster::Outside;
use crate::scenario::operator::Shared;

/// Replaces `cluster.operator` by the same facts in `cluster.declared` and `declaredMtu`, as far as they are about what
/// the scenario builds.
///
/// # Errors
/// All errors in the file of facts.
pub fn inline(tree: &mut Tree, scenario: &Scenario, source: &Source) -> Result<(), Diagnostics> {
    let (shared, wrong) = Shared::read(&scenario.cluster, source);
    wrong.into_result(())?;
    let (Some(shared), Some(cluster)) = (shared, tree.get_mut("cluster")) else { return Ok(()) };
    cluster.remove("operator");
    let facts = &shared.facts;
    for office in cluster.get_mut("offices").into_iter().flat_map(Tree::items_mut) {
        let known = office.get("name").and_then(Tree::text).and_then(|name| {
            facts.offices.iter().find(|(known, _)| known.value == name).and_then(|(_, known)| known.mtu)
        });
        if let Some(mtu) = known {
            office.or_insert("declaredMtu", Tree::number(mtu.value));
        }
    }
    let hosts = &scenario.cluster.outside;
    let at = |ip| hosts.iter().find(move |host| host.address.0 == ip || host.also_at.iter().any(|at| at.0 == ip));
    let resolves = |host: &Outside, name: &str| {
        host.records.iter().flat_map(|records| records.keys()).any(|owner| folded(owner) == folded(name))
    };
    let names = facts.names.iter().filter(|(name, _)| hosts.iter().any(|host| resolves(host, name)));
    let names = names.map(|(name, prefixes)| {
        (name.value.clone(), Tree::List(prefixes.iter().map(|prefix| Tree::string(prefix.0.to_string())).collect()))
    });
    let servers = facts.servers.iter().filter(|(_, server)| at(server.0.ip()).is_some());
    let servers = servers.map(|(name, server)| (name.value.clone(), Tree::string(server.0.to_string())));
    let entries = facts.entries.iter().filter_map(|(name, entry)| {
        let resolver = Tree::string(format!("outside/{}", at(entry.resolver.0)?.name.0));
        let port = Tree::number(entry.port.value);
        Some((name.value.clone(), Tree::Map(vec![("resolver".to_owned(), resolver), ("port".to_owned(), port)])))
    });
    let limit = facts.limits.nf_conntrack_max.map(|limit| ("nf_conntrack_max".to_owned(), Tree::number(limit.value)));
    let declared = [
        ("names", names.collect::<Vec<_>>()),
        ("servers", servers.collect()),
        ("entries", entries.collect()),
        ("limits", limit.into_iter().collect()),
    ];
    for (key, facts) in declared.into_iter().filter(|(_, facts)| !facts.is_empty()) {
        let of = cluster.or_insert("declared", Tree::Map(Vec::new())).or_insert(key, Tree::Map(Vec::new()));
        for (name, fact) in facts {
            of.or_insert(&name, fact);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use relapse_model::diagnostics::Source;
    use relapse_model::yaml;

    use crate::plan::{Plan, plan};
    use crate::vary::{Extent, Seed, draw};

    fn drawn(scenario: &str, extent: Extent, seed: u64) -> (String, Plan) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios").join(scenario);
        let source = yaml::read(&file, "scenario").expect("a shipped scenario");
        let text = draw(&source, Seed(seed), 1, extent).unwrap_or_else(|wrong| panic!("{wrong}")).text;
        let source = Source::new("elsewhere/drawn.yaml", text.clone());
        let plan = yaml::parse(&source).and_then(|scenario| plan(&scenario, &source));
        (text, plan.unwrap_or_else(|wrong| panic!("{wrong}\n{}", source.text)))
    }

    #[test]
    fn a_drawn_scenario_has_the_shared_facts_of_its_own_names_and_addresses() {
        for seed in 1..20 {
            for extent in [Extent::Numbers, Extent::All] {
                let (text, plan) = drawn("external-dns-loss.yaml", extent, seed);
                let operator = plan.cluster.operator();
                assert!(!text.contains("operator:"), "{text}");
                assert_eq!((operator.entries.len(), operator.paths.len()), (1, 2), "{text}");
                let (text, plan) = drawn("database-slow-shared.yaml", extent, seed);
                assert_eq!(plan.cluster.operator().servers.len(), 2, "{text}");
            }
            let (text, plan) = drawn("dns-wildcard-in-search.yaml", Extent::All, seed);
            assert_eq!(plan.cluster.operator().names.len(), 2, "{text}");
        }
    }
}
