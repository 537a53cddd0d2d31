//! The workload. Flows are planned by their kind ([`relapse_lab::workload`]).

use relapse_lab::workload::client::Client;
use relapse_lab::workload::{Flow, servers};
use relapse_model::FlowPlan;
use relapse_model::spanned::Spanned;

use super::Planner;

const MOST_FLOWS: usize = 128;

impl Planner<'_> {
    pub(super) fn plan_workload(&mut self, flows: &[Flow]) {
        let names = || flows.iter().map(Flow::name);
        self.unique("flows", names().map(|name| (&*name.value.0, name.span)));
        if let Some(name) = names().nth(MOST_FLOWS) {
            self.error(name.span, format!("there are {} flows", flows.len()), format!("at most {MOST_FLOWS} fit"));
        }
        for flow in flows {
            let (plan, client) = flow.plan(self);
            self.workload.push(plan);
            self.clients.push(client);
            self.one_protocol_per_port(flow);
        }
    }

    /// Reports that the newest flow needs another server on a port than an earlier one.
    fn one_protocol_per_port(&mut self, flow: &Flow) {
        // A target that is unknown has a stand-in.
        if !self.wrong.is_empty() {
            return;
        }
        let planned = self.workload.iter().zip(&self.clients).map(|(flow, client)| (flow, client.as_ref()));
        let planned: Vec<(&FlowPlan, &dyn Client)> = planned.collect();
        if let Some((place, port, there, whose)) = servers::other_protocol(&self.cluster, &planned) {
            let (name, at) = (flow.name(), self.cluster.place_name(place));
            let message =
                format!("{at} answers `{there}` on port {port} for {whose}, which `{}` does not speak", name.0);
            self.error(name.span, message, "use another port for one of them: one server listens on each");
        }
    }

    /// The number of held connections required by the steady state. Reports a workload that opens fewer.
    pub(super) fn plan_held(&mut self, held: Option<&Spanned<u32>>) -> u32 {
        let Some(held) = held else { return 0 };
        let opened: u64 = self.workload.iter().map(|flow| u64::from(flow.keeps)).sum();
        if u64::from(held.value) > opened {
            let message = format!("{} connections cannot be held: the workload opens {opened}", held.value);
            self.error(held.span, message, "write fewer, or give a `hold` flow more `connections`");
        }
        held.value
    }
}
