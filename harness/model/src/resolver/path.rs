//! Resolves paths of a scenario: values and ends.

use std::time::Duration;

use relapse_detectors::time::limit;

use super::Resolver;
use crate::diagnostics::listed;
use crate::plan::{PathId, PathPlan, Place, Target};
use crate::spanned::Spanned;
use crate::values;

/// The fields of a path in a scenario.
#[derive(Debug, Clone, Copy)]
pub struct WrittenPath<'a> {
    pub delay: Option<&'a Spanned<values::Duration>>,
    pub jitter: Option<&'a Spanned<values::Duration>>,
    pub loss: Option<&'a Spanned<values::Percent>>,
    pub rate: Option<&'a Spanned<values::Rate>>,
}

/// The longest delay, jitter included.
const LONGEST: Duration = Duration::from_secs(10);

/// All packets, per million.
const ALL: u32 = 1_000_000;

/// The lowest rate, bits per second: a packet of 1500 bytes takes 1.5 s.
const SLOWEST: u64 = 8_000;

impl Resolver<'_> {
    /// Resolves a path; values that are not written stay as before.
    pub fn path(&mut self, before: PathPlan, written: WrittenPath<'_>) -> PathPlan {
        let path = PathPlan {
            delay: written.delay.map_or(before.delay, |delay| delay.0),
            jitter: written.jitter.map_or(before.jitter, |jitter| jitter.0),
            loss: written.loss.map_or(before.loss, |loss| loss.0),
            rate: written.rate.map(|rate| rate.0).or(before.rate),
        };
        if let Some(at) = written.jitter.or(written.delay).filter(|_| path.jitter > path.delay) {
            let message = format!("`jitter` is {}, but `delay` only {}", limit(path.jitter), limit(path.delay));
            self.error(at.span, message, "write a jitter up to the delay");
        }
        if let Some(at) = written.delay.filter(|delay| delay.0 > LONGEST) {
            self.error(at.span, "`delay` is longer than 10 s", "write at most `10s`");
        }
        if let Some(at) = written.loss.filter(|loss| loss.0 >= ALL) {
            let help = "write less than `100%`; faults that cut a path are `link-loss` of a node's pod NIC, \
                        `policy-route-loss`, and `server-death` of a server outside";
            self.error(at.span, "`loss` is 100%: no packet passes", help);
        }
        if let Some(at) = written.rate.filter(|rate| rate.0 < SLOWEST) {
            self.error(
                at.span,
                "`rate` is below 8 kbit a second",
                "write at least `8kbit`: a large packet takes 1.5 s",
            );
        }
        path
    }

    /// Resolves the path written `outside/NAME`, `office/NAME` or `prefix/PREFIX`.
    pub fn path_of(&mut self, text: &Spanned<String>) -> Option<PathId> {
        let Some(prefix) = text.strip_prefix("prefix/") else {
            return match self.target_of(text, &["outside", "office", "prefix"])? {
                Target::Place(Place::Outside(id)) => Some(PathId::Outside(id)),
                Target::Place(Place::Office(id)) => Some(PathId::Office(id)),
                _ => None,
            };
        };
        let known: Vec<String> = self.cluster.prefixes.iter().map(|known| known.prefix.to_string()).collect();
        let found = known.iter().position(|known| known == prefix);
        if found.is_none() {
            let help = match known.as_slice() {
                [] => format!("give the cluster `prefixes: [ {{ prefix: {prefix} }} ]`"),
                known => format!("prefixes: {}", listed(known.iter().map(String::as_str))),
            };
            self.error(text.span, format!("there is no prefix `{prefix}`"), help);
        }
        found.map(PathId::Prefix)
    }
}
