//! Draws variations of a scenario: the same incident and the same twins with other numbers and, in labs, other names.
//!
//! A draw depends on the file and the seed alone. Its result is a complete scenario file, which runs again by itself.
//!
//! - [`facts`]: those of a shared file, which become the scenario's own.
//! - [`numbers`]: those that the scenario lets vary (`vary:`).
//! - [`names`], [`addresses`], [`network`], [`ports`], [`counts`]: what varies by itself in labs. On real clusters it
//!   stays, so that clusters and pods are kept.

mod addresses;
mod counts;
mod facts;
mod names;
mod network;
mod numbers;
mod ports;
mod tree;

use std::fmt;
use std::str::FromStr;

use fastrand::Rng;
use relapse_model::diagnostics::{Diagnostics, Source};
use relapse_model::yaml::{self, Document};

use crate::scenario::Scenario;
use tree::Tree;

/// Determines all draws of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// A new one, short enough to type.
    #[must_use]
    pub fn fresh() -> Self {
        Self(fastrand::u64(1..=0xffff_ffff))
    }

    /// The generator of one repetition of a scenario. It does not depend on which other scenarios run (FNV-1a).
    fn of(self, scenario: &str, repetition: u32) -> Rng {
        let bytes = self.0.to_le_bytes().into_iter().chain(repetition.to_le_bytes()).chain(scenario.bytes());
        Rng::with_seed(
            bytes
                .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)),
        )
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Seed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| "expected a number; write scenarios before --vary".to_owned())
    }
}

/// What a draw may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The numbers of `vary:`.
    Numbers,
    /// Also names, addresses, NICs, tables, priorities, ports, and the number of nodes and pods.
    All,
}

/// A drawn scenario.
#[derive(Debug)]
pub struct Drawn {
    /// The file.
    pub text: String,
    /// The numbers of `vary:`, by name.
    pub numbers: Vec<(String, String)>,
}

/// Draws a variation of a scenario.
///
/// # Errors
/// All errors in the file.
pub fn draw(source: &Source, seed: Seed, repetition: u32, extent: Extent) -> Result<Drawn, Diagnostics> {
    let scenario: Scenario = yaml::parse(source)?;
    let mut tree = tree_of(source)?;
    let mut rng = seed.of(&scenario.metadata.name.0, repetition);
    let numbers = numbers::draw(&scenario.vary, source, &tree, &mut rng)?;
    tree.scalars_mut("", &mut |_, scalar| {
        let drawn = numbers.iter().find(|(name, _)| scalar.anchor.as_ref() == Some(name));
        if let Some((_, text)) = drawn {
            scalar.text.clone_from(text);
        }
    });
    tree.remove("vary");
    facts::inline(&mut tree, &scenario, source)?;
    let mut lines = vec![
        format!("Drawn from {}: --vary {seed}, repetition {repetition}.", source.file.display()),
        format!("Numbers: {}.", listed(numbers.iter().map(|(name, text)| format!("{name} {text}")))),
    ];
    if extent == Extent::All {
        // A real cluster could not have these addresses.
        if let Some(cluster) = tree.get_mut("cluster") {
            cluster.remove("kindConfig");
        }
        // Addresses first: the others add none. Names come last, when everything has one.
        lines.push(network::draw(&mut tree, &mut rng));
        lines.push(addresses::draw(&mut tree, &mut rng));
        lines.push(ports::draw(&mut tree, &mut rng));
        lines.push(counts::draw(&mut tree, &mut rng));
        lines.push(names::draw(&mut tree, &mut rng));
    }
    let head: String = lines.iter().flat_map(|lines| lines.lines()).map(|line| format!("# {line}\n")).collect();
    Ok(Drawn { text: format!("{head}{}", tree.yaml()), numbers })
}

/// Reports errors in `vary:`.
pub(crate) fn check(scenario: &Scenario, source: &Source) -> Diagnostics {
    if scenario.vary.is_empty() {
        return Diagnostics::default();
    }
    match tree_of(source) {
        Ok(tree) => numbers::check(&scenario.vary, source, &tree),
        Err(wrong) => wrong,
    }
}

fn tree_of(source: &Source) -> Result<Tree, Diagnostics> {
    Ok(Tree::of(source, &yaml::nodes(source, Scenario::NOUN)?))
}

/// Things in a line, or "as they are".
fn listed(things: impl IntoIterator<Item = String>) -> String {
    let things: Vec<String> = things.into_iter().collect();
    if things.is_empty() { "as they are".to_owned() } else { things.join(", ") }
}
