//! Delay, jitter, loss and rate of the paths to outside hosts, offices and prefixes.

use std::fmt;
use std::time::Duration;

use relapse_detectors::prefix::Prefix;
use relapse_detectors::time::limit;

use super::{ClusterPlan, OfficeId, OutsideId};

/// What a path does to packets, in each direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathPlan {
    /// One-way delay; the RTT grows by twice as much.
    pub delay: Duration,
    /// Variation of the delay. Packets stay in order.
    pub jitter: Duration,
    /// Lost packets per million.
    pub loss: u32,
    /// Bits per second, if limited.
    pub rate: Option<u64>,
}

/// Addresses outside the cluster that share a path.
#[derive(Debug, Clone)]
pub struct PrefixPlan {
    pub prefix: Prefix,
    pub path: PathPlan,
}

/// A path by its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathId {
    Outside(OutsideId),
    Office(OfficeId),
    /// Index into [`ClusterPlan::prefixes`].
    Prefix(usize),
}

impl fmt::Display for PathPlan {
    /// One line, such as `59 ms each way, 1% lost`, or `no delay`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.delay.is_zero() {
            let jitter = if self.jitter.is_zero() { String::new() } else { format!(" +-{}", limit(self.jitter)) };
            parts.push(format!("{}{jitter} each way", limit(self.delay)));
        }
        if self.loss > 0 {
            parts.push(format!("{}% lost", f64::from(self.loss) / 10_000.0));
        }
        parts.extend(self.rate.map(|rate| format!("{} kbit/s", rate as f64 / 1e3)));
        f.write_str(if parts.is_empty() { "no delay" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

impl ClusterPlan {
    /// All paths, including those without delay.
    pub fn paths(&self) -> impl Iterator<Item = (PathId, PathPlan)> {
        let hosts = (0..self.outside.len()).map(|id| PathId::Outside(OutsideId(id)));
        let offices = (0..self.offices.len()).map(|id| PathId::Office(OfficeId(id)));
        let all = hosts.chain(offices).chain((0..self.prefixes.len()).map(PathId::Prefix));
        all.map(|id| (id, self.path(id)))
    }

    /// The plan of a path.
    #[must_use]
    pub fn path(&self, id: PathId) -> PathPlan {
        match id {
            PathId::Outside(id) => self.outside[id.0].path,
            PathId::Office(id) => self.offices[id.0].path,
            PathId::Prefix(id) => self.prefixes[id].path,
        }
    }

    /// The end of a path as scenarios write it.
    #[must_use]
    pub fn path_name(&self, id: PathId) -> String {
        match id {
            PathId::Outside(id) => format!("outside/{}", self.outside[id.0].name),
            PathId::Office(id) => format!("office/{}", self.offices[id.0].name),
            PathId::Prefix(id) => format!("prefix/{}", self.prefixes[id].prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_words() {
        let delay = Duration::from_millis(59);
        assert_eq!(PathPlan { delay, ..PathPlan::default() }.to_string(), "59 ms each way");
        let all = PathPlan { delay, jitter: Duration::from_millis(5), loss: 5_000, rate: Some(2_500_000) };
        assert_eq!(PathPlan::default().to_string(), "no delay");
        assert_eq!(all.to_string(), "59 ms +-5 ms each way, 0.5% lost, 2500 kbit/s");
    }
}
