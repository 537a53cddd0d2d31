//! What a trial needs in the API is made, unless it is there from the trial before; what it does not want goes.

use std::net::SocketAddr;

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::api::Api;
use relapse_lab::cluster::ServiceEntry;
use relapse_model::{PodId, PodRole};

use super::super::build::keep_or_make;
use super::super::dns;
use super::super::objects::{self, DNS_NAMESPACE, NAMESPACE};
use super::super::pods::{self, Plugged, until};
use super::super::watch::{PodState, Seen};
use super::KindCluster;

/// Pods of the trial before that this one does not want.
pub(super) type Strangers = Vec<(String, PodState)>;

impl KindCluster {
    /// Services and the Corefile, unless they are there from the trial before.
    pub(super) async fn make_objects(&self) -> Result<(), String> {
        let run = self.run();
        let dns = self.plan.dns.as_ref().map(|dns| dns.service.0);
        let services = self.plan.services.iter().enumerate().filter(|(number, _)| Some(*number) != dns);
        let services: Vec<Service> = services.map(|(_, plan)| objects::service(plan, &run)).collect();
        let maps: Vec<ConfigMap> =
            dns::corefile(&self.plan).map(|text| objects::corefile(&text, &run)).into_iter().collect();
        let ingresses = self.plan.pods.iter().filter_map(|pod| match pod.role {
            PodRole::Ingress { backend, port } => {
                let to = SocketAddr::new(self.plan.services[backend.0].address, port);
                Some(objects::ingress_configuration(&pod.name, port, to, &run))
            }
            PodRole::Plain | PodRole::Dns => None,
        });
        keep_or_make(&Api::namespaced(self.client.clone(), NAMESPACE), &run, ingresses.collect::<Vec<_>>()).await?;
        keep_or_make(&Api::namespaced(self.client.clone(), NAMESPACE), &run, services).await?;
        keep_or_make(&Api::namespaced(self.client.clone(), DNS_NAMESPACE), &run, maps).await
    }

    fn run(&self) -> objects::Run {
        objects::Run { id: self.ground.run_id.clone(), scenario: self.ground.scenario.clone() }
    }

    /// Sends away what no pod of this plan is, and says what that was.
    pub(super) async fn send_strangers_away(&self) -> Result<Strangers, String> {
        let wanted: Vec<_> = (0..self.plan.pods.len()).map(|number| self.object(PodId(number))).collect();
        let stays = |name: &str, pod: &PodState| {
            let same = |object: &objects::PodObject| {
                object.metadata.name.as_deref() == Some(name) && pod.content == objects::content(object)
            };
            pod.serves() && wanted.iter().any(same)
        };
        let mut seen = self.seen.clone();
        let all =
            until(&mut seen, || "the API server told of pods".into(), |seen| seen.whole.then(|| seen.pods.clone()))
                .await?;
        let leave: Strangers = all.into_iter().filter(|(name, pod)| !stays(name, pod)).collect();
        for (name, pod) in &leave {
            pods::send_away(&self.client, name, &pod.namespace).await?;
        }
        Ok(leave)
    }

    /// Waits until they are gone, or the one of this name is.
    pub(super) async fn gone(&self, strangers: &Strangers, name: Option<&str>) -> Result<(), String> {
        let gone = |seen: &Seen| {
            let still = |(one, pod): &(String, PodState)| {
                name.is_none_or(|name| name == one) && seen.pods.get(one).is_some_and(|now| now.uid == pod.uid)
            };
            (!strangers.iter().any(still)).then_some(())
        };
        until(&mut self.seen.clone(), || "pods of other trials were gone".into(), gone).await
    }

    /// All pods at once.
    pub(super) async fn make_all_pods(&self, strangers: &Strangers) -> Result<Vec<Plugged>, String> {
        let jobs = (0..self.plan.pods.len()).map(|number| async move {
            self.gone(strangers, Some(&self.plan.pods[number].name)).await?;
            self.make_pod(PodId(number)).await
        });
        futures_util::future::join_all(jobs).await.into_iter().collect()
    }

    pub(super) async fn make_pod(&self, id: PodId) -> Result<Plugged, String> {
        let spec = &self.plan.pods[id.0];
        let there = self.seen.borrow().pods.get(&spec.name).cloned();
        let state = match there {
            Some(state) => state,
            None => pods::make(&self.client, &mut self.seen.clone(), &self.object(id), spec.role).await?,
        };
        pods::plug(&self.plan, id, &state, &self.nodes[spec.node.0].node().ns).await
    }

    fn object(&self, id: PodId) -> objects::PodObject {
        let spec = &self.plan.pods[id.0];
        let node = &self.ground.cluster.nodes[spec.node.0].name;
        match (&self.replica, spec.role) {
            (_, PodRole::Ingress { .. }) if self.ground.nginx.is_some() => {
                let image = self.ground.nginx.as_deref().unwrap_or_default();
                objects::ingress(&spec.name, node, image, &self.run())
            }
            (Some(template), PodRole::Dns) => objects::replica(&spec.name, node, template, &self.run()),
            _ => objects::plain(&self.plan, id, node, &self.pause_image, &self.run()),
        }
    }

    /// Every Service has its endpoints.
    pub(super) async fn endpoints_there(&self) -> Result<(), String> {
        let all = |seen: &Seen| {
            let whole = |entry: &ServiceEntry, wanted: usize| entry.ready.len() >= wanted;
            let entries = self.services(seen);
            entries.iter().zip(&self.plan.services).all(|(entry, plan)| whole(entry, plan.pods.len())).then_some(())
        };
        until(&mut self.seen.clone(), || "all Services had their endpoints".into(), all).await
    }
}
