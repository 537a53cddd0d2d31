//! `hold`: many connections that stay open. They must keep working: once all are open, a small exchange is made over
//! one of them at a time.

use std::sync::Arc;
use std::time::Duration;

use relapse_model::spanned::Spanned;

use super::client::Client;
use super::flow::{Draft, FlowSpec, flow_spec};
use super::tcp::Tcp;

/// Time between two such exchanges.
const REST: Duration = Duration::from_millis(100);

flow_spec! {
    /// Connections opened one after another and then held open.
    pub struct HoldSpec {
        /// Server, such as `outside/database` or `service/shop`.
        to;
        /// Number of connections to open.
        #[schemars(range(min = 1, max = 100_000))]
        pub connections: Spanned<u32>,
    }
}

impl FlowSpec for HoldSpec {
    fn plan(&self, flow: &mut Draft<'_, '_>) -> Arc<dyn Client> {
        flow.set_server(&self.to, self.via.as_ref(), self.resolver.as_ref(), self.port);
        flow.plan.response = 1;
        flow.plan.keeps = self.connections.value;
        Arc::new(Tcp { request: 1, server_closes: false, rest: Some(REST) })
    }
}
