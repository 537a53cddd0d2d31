//! Slow and lossy paths in the fabric: of outside hosts, offices and prefixes.
//!
//! A packet passes up to four of them, one after the other: its source's own, its source's prefix, its destination's
//! prefix, its destination's own. Each is a chain after the fabric's checks, and has one line per direction
//! ([`relapse_kernel::delay`]). Without slow paths there is neither table nor line. Echo requests that the fabric
//! answers are not forwarded, so they are not delayed.
//!
//! Invariant: existing chains stay, since the kernel drops every queued packet of the fabric if one is removed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use relapse_detectors::prefix::Prefix;
use relapse_kernel::delay::{Line, Shape};
use relapse_kernel::nft::{self, Chain, Hook, Policy, Rule, Table};
use relapse_kernel::{NetNs, Result};
use relapse_model::{ClusterPlan, PathId, PathPlan};

/// The fabric's nft table for slow paths.
const TABLE: &str = "relapse-paths";

/// Chains in the order in which a packet passes them.
const CHAINS: [&str; 4] = ["from-end", "from-prefix", "to-prefix", "to-end"];

/// All paths of a cluster.
#[derive(Debug)]
pub struct Paths {
    fabric: NetNs,
    /// Each path with its name and the addresses at its end; the longest prefix first.
    ends: Vec<(PathId, String, Vec<Prefix>)>,
    slow: Mutex<Slow>,
}

/// The slow ones.
#[derive(Debug, Default)]
struct Slow {
    lines: BTreeMap<PathId, Lines>,
    /// The next queue number. None is reused: packets of a dropped line may still wait.
    next: u16,
}

#[derive(Debug)]
struct Lines {
    path: PathPlan,
    queues: [u16; 2],
    /// To its end, and from there.
    lines: [Line; 2],
}

impl Paths {
    /// Applies the paths of the plan.
    ///
    /// # Errors
    /// If the kernel refuses a queue or the rules.
    pub fn new(fabric: &NetNs, plan: &ClusterPlan) -> Result<Self> {
        let ends = |id| match id {
            PathId::Outside(id) => {
                let host = &plan.outside[id.0];
                std::iter::once(&host.address).chain(&host.also_at).map(|address| Prefix::host(*address)).collect()
            }
            PathId::Office(id) => vec![plan.offices[id.0].prefix, Prefix::host(plan.offices[id.0].tunnel.0)],
            PathId::Prefix(id) => vec![plan.prefixes[id].prefix],
        };
        let mut ends: Vec<_> = plan.paths().map(|(id, _)| (id, plan.path_name(id), ends(id))).collect();
        ends.sort_by_key(|(.., prefixes)| std::cmp::Reverse(prefixes[0].length()));
        let paths = Self { fabric: fabric.clone(), ends, slow: Mutex::default() };
        plan.paths().filter(|(_, path)| *path != PathPlan::default()).try_for_each(|(id, path)| paths.set(id, path))?;
        Ok(paths)
    }

    /// Changes a path for packets that arrive from now on.
    ///
    /// # Errors
    /// If the kernel refuses a queue or the rules, or different rules are read back.
    pub fn set(&self, id: PathId, path: PathPlan) -> Result<()> {
        let mut slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        if path == PathPlan::default() {
            // The lines are dropped after their rules.
            let ended = slow.lines.remove(&id);
            return if ended.is_some() { self.rules(&slow).refill(&self.fabric) } else { Ok(()) };
        }
        let shape = Shape { delay: path.delay, jitter: path.jitter, loss: f64::from(path.loss) / 1e6, rate: path.rate };
        if let Some(there) = slow.lines.get_mut(&id) {
            there.lines.iter().try_for_each(|line| line.set(shape))?;
            there.path = path;
            return Ok(());
        }
        let queues = [slow.next, slow.next.wrapping_add(1)];
        slow.next = slow.next.wrapping_add(2);
        let line = |queue| Line::open(&self.fabric, queue, shape);
        slow.lines.insert(id, Lines { path, queues, lines: [line(queues[0])?, line(queues[1])?] });
        self.rules(&slow).refill(&self.fabric)
    }

    /// The current state of a path.
    #[must_use]
    pub fn get(&self, id: PathId) -> PathPlan {
        let slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        slow.lines.get(&id).map_or_else(PathPlan::default, |lines| lines.path)
    }

    /// The current state of a path in words, with the number of its rules in the kernel.
    ///
    /// # Errors
    /// If the rules cannot be read.
    pub fn read_back(&self, id: PathId) -> Result<String> {
        let path = self.get(id);
        let Some((_, name, _)) = self.ends.iter().find(|(end, ..)| *end == id) else { return Ok(path.to_string()) };
        let comments = [format!("from {name}: "), format!("to {name}: ")];
        let rules = nft::read(&self.fabric, TABLE)?.into_iter().filter_map(|rule| rule.comment);
        let own = rules.filter(|rule| comments.iter().any(|comment| rule.starts_with(comment))).count();
        Ok(format!("{path}; {own} rules queue its packets"))
    }

    fn rules(&self, slow: &Slow) -> Table {
        let mut table = Table::new(TABLE);
        for (place, name) in (1..).zip(CHAINS) {
            table = table.chain(Chain::filter(name, Hook::Forward, place, Policy::Accept));
        }
        for (id, name, prefixes) in &self.ends {
            let Some(Lines { queues: [to, from], .. }) = slow.lines.get(id) else { continue };
            let is_prefix = matches!(id, PathId::Prefix(_));
            let [first, last] = if is_prefix { [CHAINS[1], CHAINS[2]] } else { [CHAINS[0], CHAINS[3]] };
            for prefix in prefixes {
                let own = (prefix.address(), prefix.length());
                table = table
                    .rule(first, Rule::new().ip_saddr(own).queue(*from).comment(format!("from {name}: {prefix}")))
                    .rule(last, Rule::new().ip_daddr(own).queue(*to).comment(format!("to {name}: {prefix}")));
            }
        }
        table
    }
}
