//! How many nodes and pods there are besides those that the scenario names.

use fastrand::Rng;

use super::tree::Tree;

/// At most so many more of each: enough to break a rule that counts, few enough to build quickly.
const MORE: usize = 2;

pub fn draw(tree: &mut Tree, rng: &mut Rng) -> String {
    let (nodes, pods) = (rng.usize(..=MORE), rng.usize(..=MORE));
    let Some(cluster) = tree.get_mut("cluster") else { return String::new() };
    let named = nodes_of(cluster);
    let nodes = if keeps_places(cluster, named.len()) { nodes } else { 0 };
    // At the end, so that the others keep their addresses.
    let all: Vec<String> = named.iter().cloned().chain((1..=nodes).map(|i| format!("more-{i}"))).collect();
    *cluster.or_insert("nodes", Tree::number(0)) = Tree::List(all.iter().map(Tree::string).collect());
    let list = cluster.or_insert("pods", Tree::List(Vec::new()));
    if let Tree::List(list) = list {
        list.extend((1..=pods).map(|i| {
            let node = Tree::string(all[rng.usize(..all.len())].clone());
            Tree::Map(vec![("name".into(), Tree::string(format!("idle-{i}"))), ("node".into(), node)])
        }));
    }
    format!("{nodes} more nodes and {pods} more pods.")
}

/// Whether everything stays where it is when nodes are added: what names no node goes to one by its number, and an
/// address of its own to a share, which more nodes make smaller.
fn keeps_places(cluster: &Tree, nodes: usize) -> bool {
    let mut number = 0;
    let mut stays = |pod: &Tree| {
        let count = pod.get("count").and_then(Tree::text).and_then(|text| text.parse().ok()).unwrap_or(1_usize);
        number += count;
        pod.get("address").is_none() && (pod.get("node").is_some() || number <= nodes)
    };
    let pods = cluster.get("pods").map(Tree::items).unwrap_or_default().iter().all(&mut stays);
    let replicas = cluster.get("dns").filter(|dns| dns.get("nodes").is_none()).and_then(|dns| dns.get("replicas"));
    pods && replicas.and_then(Tree::text).and_then(|text| text.parse().ok()).unwrap_or(0_usize) <= nodes
}

/// The names of the nodes; those that a number stands for are the planner's.
fn nodes_of(cluster: &Tree) -> Vec<String> {
    let nodes = cluster.get("nodes");
    let number = nodes.and_then(Tree::text).and_then(|text| text.parse::<usize>().ok());
    match (number, nodes) {
        (Some(number), _) => (1..=number).map(|i| format!("worker-{i}")).collect(),
        (None, Some(list)) => list.items().iter().filter_map(Tree::text).map(str::to_owned).collect(),
        (None, None) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_node_is_added_where_something_goes_by_their_number() {
        let pod = |keys: &[&str]| {
            let value = |key: &&str| ((*key).into(), Tree::string(if *key == "count" { "2" } else { "worker-1" }));
            Tree::Map(keys.iter().map(value).collect())
        };
        let keeps = |pods: &[Tree]| keeps_places(&Tree::Map(vec![("pods".into(), Tree::List(pods.to_vec()))]), 2);
        let (named, default) = (pod(&["node"]), pod(&[]));
        assert!(keeps(&[]) && keeps(&[default.clone(), default.clone()]));
        assert!(keeps(&[named.clone(), named.clone(), named.clone()]));
        assert!(!keeps(&[named.clone(), named, default.clone()]), "the third goes to the first of two nodes");
        assert!(!keeps(&[default, pod(&["count"])]));
        assert!(!keeps(&[pod(&["node", "address"])]));
    }
}
