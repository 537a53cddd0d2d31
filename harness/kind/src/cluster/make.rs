//! Creates the API objects of a trial, reuses those of the previous trial, and deletes the unwanted ones.

use std::sync::{Arc, PoisonError};

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use kube::api::Api;
use relapse_kernel::NetNs;
use relapse_model::{PodId, PodPlan, PodRole};

use super::super::build::keep_or_make;
use super::super::objects::{self, DNS_NAMESPACE, NAMESPACE};
use super::super::pods::{self, Plugged};
use super::super::watch::{Seen, serves};
use super::super::{cni, failed};
use super::KindCluster;

impl KindCluster {
    /// Creates Services and ConfigMaps that do not exist yet.
    pub(super) async fn make_objects(&self) -> Result<(), String> {
        let run = self.run();
        let dns = self.plan.dns.as_ref().map(|dns| dns.service.0);
        let services = self.plan.services.iter().enumerate().filter(|(number, _)| Some(*number) != dns);
        let services: Vec<Service> = services.map(|(_, plan)| objects::service(plan, &run)).collect();
        let corefile = objects::corefile(&self.plan, &run).into_iter().collect();
        keep_or_make(&Api::namespaced(self.client.clone(), NAMESPACE), &run, services).await?;
        keep_or_make(&Api::namespaced(self.client.clone(), DNS_NAMESPACE), &run, corefile).await
    }

    fn run(&self) -> objects::Run {
        objects::Run { id: self.ground.run_id.clone() }
    }

    /// Deletes pods that are not in this plan, and returns them.
    pub(super) async fn delete_unwanted_pods(&self) -> Result<Vec<Arc<Pod>>, String> {
        let all = (0..self.plan.pods.len()).map(PodId);
        let wanted: Vec<_> = all.filter(|id| !self.plan.is_spare(*id)).map(|id| self.object(id)).collect();
        // A trial may have changed the labels that Services select by.
        let labelled =
            |object: &Pod, pod: &Pod| object.labels().iter().all(|label| pod.labels().iter().any(|l| l == label));
        let same = |object: &Pod, pod: &Pod| objects::same(object, pod) && labelled(object, pod);
        let stays = |pod: &Arc<Pod>| serves(pod) && wanted.iter().any(|object| same(object, pod));
        let unwanted: Vec<_> = self.seen.pods().into_iter().filter(|pod| !stays(pod)).collect();
        for pod in &unwanted {
            pods::delete(&self.client, &pod.name_any(), &pod.namespace().unwrap_or_default()).await?;
        }
        Ok(unwanted)
    }

    /// Waits until all of these pods, or the one with this name, are deleted.
    pub(super) async fn until_gone(&self, unwanted: &[Arc<Pod>], name: Option<&str>) -> Result<(), String> {
        let gone = |seen: &Seen| {
            let still = |pod: &Arc<Pod>| {
                let one = pod.name_any();
                name.is_none_or(|name| name == one) && seen.same_pod(&one, &pod.uid().unwrap_or_default()).is_some()
            };
            (!unwanted.iter().any(still)).then_some(())
        };
        self.seen.until("pods of other trials to be gone", gone).await
    }

    /// Creates and attaches all pods concurrently.
    pub(super) async fn make_all_pods(&self, unwanted: &[Arc<Pod>]) -> Result<Vec<Plugged>, String> {
        let jobs = (0..self.plan.pods.len()).map(|number| async move {
            self.until_gone(unwanted, Some(&self.plan.pods[number].name)).await?;
            if self.plan.is_spare(PodId(number)) {
                self.absent(PodId(number))
            } else {
                let made = self.make_pod(PodId(number)).await?;
                if self.plan.pods[number].role == PodRole::Plain && self.plan.is_replaced(PodId(number)) {
                    pods::gate(&self.client, &self.plan.pods[number].name, PodRole::Plain, true).await?;
                }
                Ok(made)
            }
        });
        futures_util::future::join_all(jobs).await.into_iter().collect()
    }

    /// Placeholder for a pod that a fault may add later.
    fn absent(&self, id: PodId) -> Result<Plugged, String> {
        let PodPlan { name, node, .. } = &self.plan.pods[id.0];
        let earlier = (0..id.0).filter(|pod| self.plan.is_spare(PodId(*pod)) && self.plan.pods[*pod].node == *node);
        let address = cni::late_address(&self.ground.cluster.nodes[node.0], earlier.count())
            .map_err(|e| format!("failed to find an address for {name}: {e}"))?;
        let ns = NetNs::create(name).map_err(failed)?;
        Ok(Plugged {
            ns,
            link: String::new(),
            address,
            uid: String::new(),
            leaving: true,
            stopped: false,
            killed: None,
        })
    }

    pub(super) async fn make_pod(&self, id: PodId) -> Result<Plugged, String> {
        let spec = &self.plan.pods[id.0];
        let pod = match self.seen.pod(&spec.name) {
            Some(existing) => existing,
            None => pods::make(&self.client, &self.seen, &self.object(id), spec.role).await?,
        };
        pods::plug(&self.plan, id, &pod, &self.nodes[spec.node.0].node().ns).await
    }

    fn object(&self, id: PodId) -> Pod {
        let spec = &self.plan.pods[id.0];
        let (node, run) = (&self.ground.cluster.nodes[spec.node.0].name, self.run());
        if let (Some(image), PodRole::Ingress { .. }) = (&self.ground.nginx, spec.role) {
            return objects::ingress(&self.plan, id, node, image, &run);
        }
        let corefile = objects::corefile(&self.plan, &run);
        if let (Some(template), Some(corefile), PodRole::Dns) = (&self.replica, corefile, spec.role) {
            return objects::replica(&spec.name, node, template, &corefile, &run);
        }
        let mut pod = objects::plain(&self.plan, id, node, &self.pause_image, &run);
        if self.unselected.lock().unwrap_or_else(PoisonError::into_inner).contains(&id) {
            let services = self.plan.services.iter().map(objects::behind);
            services.for_each(|label| drop(pod.labels_mut().remove(&label)));
        }
        pod
    }

    /// Waits until every Service has all its endpoints.
    pub(super) async fn until_endpoints_are_ready(&self) -> Result<(), String> {
        let all = |_: &Seen| {
            let entries = self.services();
            let mut pairs = entries.iter().zip(&self.plan.services);
            let there = |pods: &[PodId]| pods.iter().filter(|id| !self.plan.is_spare(**id)).count();
            pairs.all(|(entry, plan)| entry.ready.len() >= there(&plan.pods)).then_some(())
        };
        self.seen.until("all Services to have their endpoints", all).await
    }
}
