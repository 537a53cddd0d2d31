//! The ready endpoints of cluster DNS, as reported by the agents of all nodes.

use crate::operator::Operator;
use crate::signal::{Endpoint, Observed, Signal};
use crate::time::Time;

/// The time of the latest report.
#[derive(Debug, Default)]
pub(crate) struct DnsEndpoints(Time);

impl DnsEndpoints {
    /// The endpoints in a signal, unless it is older than the latest report: agents may lag.
    pub fn update<'a>(&mut self, operator: &Operator, signal: &'a Signal) -> Option<&'a [Endpoint]> {
        let Observed::Endpoints(list) = &signal.observed else { return None };
        if list.service != operator.dns_service || signal.at < self.0 {
            return None;
        }
        self.0 = signal.at;
        Some(&list.ready)
    }
}
