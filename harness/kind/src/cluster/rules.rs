//! Services and kube-proxy during a trial: which pods are endpoints, the rules of a node, and whether kube-proxy runs.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use relapse_kernel::{NetNs, process};
use relapse_lab::cluster::ServiceRules;
use relapse_model::{NodeId, PodId, ServiceId};
use serde_json::{Map, Value, json};

use super::super::objects::{self, DNS_NAMESPACE, NAMESPACE};
use super::super::service_rules::Rules;
use super::super::watch::{PATIENCE, Seen};
use super::super::{failed, kube_proxy};
use super::KindCluster;

/// Polling interval of the rules of a node.
const LOOK: std::time::Duration = std::time::Duration::from_millis(50);

impl KindCluster {
    /// Selects a pod by its Services, or no longer: its labels decide.
    pub(super) async fn select(&self, id: PodId, selected: bool) -> Result<(), String> {
        let name = &self.plan.pods[id.0].name;
        let value = if selected { json!("true") } else { Value::Null };
        let services = self.plan.services.iter().filter(|service| service.pods.contains(&id));
        let labels: Map<String, Value> = services.map(|service| (objects::behind(service), value.clone())).collect();
        {
            let mut unselected = self.unselected.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if selected {
                unselected.remove(&id)
            } else {
                unselected.insert(id)
            };
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
        pods.patch(name, &PatchParams::default(), &patch).await.map_err(super::super::api::failed)?;
        let is_endpoint = |seen: &Seen| seen.endpoints().iter().any(|endpoint| endpoint.pod == *name);
        let what = format!("{name} to {} the endpoints", if selected { "join" } else { "leave" });
        self.seen.until(&what, |seen| (is_endpoint(seen) == selected).then_some(())).await?;
        self.update_inventory();
        self.until_rules_follow().await
    }

    /// Waits until the rules of every node whose kube-proxy runs lead to the current endpoints.
    pub(super) async fn until_rules_follow(&self) -> Result<(), String> {
        let begin = tokio::time::Instant::now();
        for node in &self.nodes {
            let ns = &node.node().ns;
            while kube_proxy::is_running(ns) && !self.follows(ns).await? {
                if begin.elapsed() > PATIENCE {
                    return Err(format!("the rules of {} still lead to other endpoints", ns.name()));
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    async fn follows(&self, ns: &NetNs) -> Result<bool, String> {
        for (number, service) in self.services().into_iter().enumerate() {
            let ready: BTreeSet<_> = service.ready.iter().map(|endpoint| endpoint.address).collect();
            let rules = self.read(ns, ServiceId(number)).await?;
            let led_to = rules.destinations().into_iter().filter_map(|to| Some(to.parse::<SocketAddr>().ok()?.ip()));
            if led_to.collect::<BTreeSet<_>>() != ready {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The addresses that a node's rules for a Service lead to.
    pub(super) async fn rules_of(&self, node: NodeId, service: ServiceId) -> Result<Vec<String>, String> {
        let rules = self.read(&self.nodes[node.0].node().ns, service).await?;
        Ok(rules.destinations())
    }

    async fn read(&self, ns: &NetNs, service: ServiceId) -> Result<Rules, String> {
        let is_dns = self.plan.dns.as_ref().is_some_and(|dns| dns.service == service);
        let namespace = if is_dns { DNS_NAMESPACE } else { NAMESPACE };
        let (ns, name) = (ns.clone(), format!("{namespace}/{}", self.plan.services[service.0].name));
        blocking(move || Rules::read(&ns, &name)).await
    }

    pub(super) async fn write_rules(&self, node: NodeId, service: ServiceId, to: ServiceRules) -> Result<(), String> {
        let ns = self.nodes[node.0].node().ns.clone();
        let current = self.read(&ns, service).await?;
        let original = {
            let mut originals = self.originals.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let original = originals.get(&(node, service)).cloned().unwrap_or(current);
            match to {
                ServiceRules::Whole => originals.remove(&(node, service)),
                _ => originals.insert((node, service), original.clone()),
            };
            original
        };
        blocking(move || original.write(&ns, to)).await
    }

    /// Suspends a node's kube-proxy, or lets it continue. A process that is killed instead would be started again by
    /// the kubelet, with a longer pause each time.
    pub(super) async fn run_proxy(&self, node: NodeId, running: bool) -> Result<(), String> {
        let ns = &self.nodes[node.0].node().ns;
        let pid = kube_proxy::running_in(ns).ok_or_else(|| format!("{} has no kube-proxy", ns.name()))?;
        if running { process::resume(pid) } else { process::suspend(pid) }.map_err(failed)?;
        let begin = tokio::time::Instant::now();
        while kube_proxy::is_running(ns) != running {
            if begin.elapsed() > PATIENCE {
                return Err(format!("kube-proxy of {} ignores a signal", ns.name()));
            }
            tokio::time::sleep(LOOK).await;
        }
        if running { self.until_rules_follow().await } else { Ok(()) }
    }
}

/// Runs a program without blocking other tasks.
async fn blocking<T: Send + 'static>(job: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(job).await.unwrap_or_else(|e| Err(e.to_string()))
}
