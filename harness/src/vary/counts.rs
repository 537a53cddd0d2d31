//! How many nodes and pods there are besides those that the scenario names.

use fastrand::Rng;

use super::tree::Tree;

/// At most so many more of each: enough to break a rule that counts, few enough to build quickly.
const MORE: usize = 2;

pub fn draw(tree: &mut Tree, rng: &mut Rng) -> String {
    let (nodes, pods) = (rng.usize(..=MORE), rng.usize(..=MORE));
    let Some(cluster) = tree.get_mut("cluster") else { return String::new() };
    let named = nodes_of(cluster);
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
