//! A pod's rules, and which of them is missing.

use std::net::IpAddr;

use crate::time::Time;

#[derive(Debug)]
pub(super) struct PodRules {
    pub address: IpAddr,
    pub link: String,
    /// When it was first seen.
    pub since: Time,
    /// Its veth is gone, and the pod will be too.
    pub leaving: bool,
    pub from: Cover,
    pub to: Cover,
}

/// Whether a rule that once covered a pod still does.
#[derive(Debug, Default)]
pub(super) struct Cover {
    pub had: bool,
    pub lost: Option<Time>,
}

impl Cover {
    pub fn update(&mut self, covered: bool, at: Time) {
        self.had |= covered;
        self.lost = (self.had && !covered).then(|| self.lost.unwrap_or(at));
    }

    pub const fn holds(&self) -> bool {
        self.had && self.lost.is_none()
    }

    /// It never did, although it should have since then.
    pub const fn lacks(&mut self, since: Time) {
        (self.had, self.lost) = (true, Some(since));
    }
}

impl PodRules {
    /// The rule that has been missing longest.
    pub fn missing(&self) -> Option<(Time, &'static str)> {
        if self.leaving {
            return None;
        }
        let from = self.from.lost.map(|at| (at, "from"));
        from.into_iter().chain(self.to.lost.map(|at| (at, "to"))).min()
    }

    pub fn routed(&self) -> bool {
        !self.leaving && (self.from.had || self.to.had)
    }
}
