//! The ready endpoints of cluster DNS, as the agents of all nodes tell them.

use crate::operator::Operator;
use crate::signal::{Endpoint, Observed, Signal};
use crate::time::Time;

/// When they were told last.
#[derive(Debug, Default)]
pub(crate) struct DnsEndpoints(Time);

impl DnsEndpoints {
    /// Those that a signal tells of, unless it is older than what was told: some agents are late.
    pub fn news<'a>(&mut self, operator: &Operator, signal: &'a Signal) -> Option<&'a [Endpoint]> {
        let Observed::Endpoints(list) = &signal.observed else { return None };
        if list.service != operator.dns_service || signal.at < self.0 {
            return None;
        }
        self.0 = signal.at;
        Some(&list.ready)
    }
}
