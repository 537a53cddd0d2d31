//! Ingress controllers: the configuration and the log of their nginx.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::{AsyncBufReadExt, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, LogParams};
use relapse_detectors::signal::IngressLog;
use relapse_kernel::process;
use relapse_lab::cluster::ingress::IngressLogs;
use relapse_lab::workload::stub;
use relapse_model::{PodId, PodRole, ServiceId};
use tokio::time::timeout;

use super::super::objects::{self, INGRESS_FOLDER, NAMESPACE};
use super::super::watch::PATIENCE;
use super::super::{api, failed, pods};
use super::KindCluster;

/// Time after which a query is sent again, while the rules for cluster DNS are being written.
const ANSWERED: Duration = Duration::from_millis(500);
/// Polling interval while nginx replaces its workers or names are not resolved yet.
const LOOK: Duration = Duration::from_millis(10);

/// Polls until it holds; `late` is the error after [`PATIENCE`].
async fn until(holds: impl Fn() -> bool, late: impl FnOnce() -> String) -> Result<(), String> {
    let polled = async {
        while !holds() {
            tokio::time::sleep(LOOK).await;
        }
    };
    timeout(PATIENCE, polled).await.map_err(|_| late())
}

impl KindCluster {
    /// Gives each ingress its configuration, unless it has it from an earlier trial, and follows its log. Returns when
    /// each one can resolve and reach its back end: what it answers before would look like a fault.
    pub(super) async fn start_ingresses(&self) -> Result<(), String> {
        if self.plan.pods.iter().any(|pod| matches!(pod.role, PodRole::Ingress { .. })) {
            self.until_rules_follow().await?;
        }
        for (number, pod) in self.plan.pods.iter().enumerate() {
            let PodRole::Ingress { backend, port } = pod.role else { continue };
            let id = PodId(number);
            self.until_nginx_runs(id).await?;
            let wanted = objects::ingress_configuration(&self.plan, id, port);
            if fs::read_to_string(self.configuration(id)?).ok() != wanted {
                self.configure(id, port).await?;
            }
            self.until_resolved(id, backend).await?;
            tokio::spawn(follow(self.client.clone(), pod.name.clone(), self.ingress_log.clone()));
        }
        Ok(())
    }

    /// Waits until cluster DNS, if there is one, answers an ingress for the name of its back end.
    async fn until_resolved(&self, id: PodId, backend: ServiceId) -> Result<(), String> {
        let (spec, name) = (&self.plan.pods[id.0], self.plan.service_domain(backend));
        let Some(dns) = &self.plan.dns else { return Ok(()) };
        let server = self.plan.services[dns.service.0].address;
        let ns = match spec.host_network {
            true => self.nodes[spec.node.0].node().ns.clone(),
            false => self.lock_pods()[id.0].ns.clone(),
        };
        let resolved = async {
            while !matches!(timeout(ANSWERED, stub::lookup(&ns, server, &name, &[])).await, Ok(Ok(_))) {
                tokio::time::sleep(LOOK).await;
            }
        };
        timeout(PATIENCE, resolved).await.map_err(|_| format!("cluster DNS does not answer {} for {name}", spec.name))
    }

    /// Waits until nginx has workers: before, it does not handle SIGHUP.
    async fn until_nginx_runs(&self, id: PodId) -> Result<(), String> {
        until(|| !self.workers(id).is_empty(), || format!("nginx of {} did not start", self.plan.pods[id.0].name)).await
    }

    /// The port to which its configuration file sends.
    pub(super) fn configured_port(&self, id: PodId) -> Result<u16, String> {
        let text = fs::read_to_string(self.configuration(id)?).map_err(failed)?;
        let target = text.lines().find_map(|line| line.trim().strip_prefix("proxy_pass "));
        let port = target.and_then(|target| target.trim_end_matches(';').rsplit_once(':')?.1.parse().ok());
        port.ok_or_else(|| format!("the configuration of {} has no back end", self.plan.pods[id.0].name))
    }

    /// Writes a configuration, has nginx read it, and waits until only workers with it accept connections.
    pub(super) async fn configure(&self, id: PodId, port: u16) -> Result<(), String> {
        let name = &self.plan.pods[id.0].name;
        let text =
            objects::ingress_configuration(&self.plan, id, port).ok_or_else(|| format!("{name} is no ingress"))?;
        fs::write(self.configuration(id)?, text).map_err(failed)?;
        let before = self.workers(id);
        process::reload(self.master(id)?).map_err(failed)?;
        let are_replaced = || {
            let now = self.workers(id);
            !now.is_empty() && !now.iter().any(|pid| before.contains(pid))
        };
        until(are_replaced, || format!("nginx of {name} did not reload")).await
    }

    /// Its configuration file, seen from this machine.
    fn configuration(&self, id: PodId) -> Result<PathBuf, String> {
        Ok(format!("/proc/{}/root{INGRESS_FOLDER}/relapse.conf", self.master(id)?).into())
    }

    fn master(&self, id: PodId) -> Result<u32, String> {
        let master = self.titled(id, "nginx: master").into_iter().next();
        master.ok_or_else(|| format!("nginx of {} does not run", self.plan.pods[id.0].name))
    }

    /// The workers that accept connections; others are `shutting down`.
    fn workers(&self, id: PodId) -> Vec<u32> {
        let mut workers = self.titled(id, "nginx: worker process");
        let leaving = self.titled(id, "nginx: worker process is shutting down");
        workers.retain(|pid| !leaving.contains(pid));
        workers
    }

    /// Processes of a pod whose title begins so.
    fn titled(&self, id: PodId, title: &str) -> Vec<u32> {
        let is_titled =
            |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().starts_with(title);
        let uid = self.lock_pods()[id.0].uid.clone();
        pods::processes(&uid).into_iter().filter(is_titled).collect()
    }
}

/// Passes on what nginx logs until the trial ends.
async fn follow(client: Client, pod: String, log: IngressLogs) {
    let pods: Api<Pod> = Api::namespaced(client, NAMESPACE);
    let parameters = LogParams { follow: true, tail_lines: Some(0), ..LogParams::default() };
    let lines = match pods.log_stream(&pod, &parameters).await {
        Ok(lines) => lines,
        Err(e) => {
            eprintln!("the log of {pod}: {}", api::failed(e));
            return;
        }
    };
    let mut lines = std::pin::pin!(lines.lines());
    while let Some(Ok(line)) = lines.next().await {
        if let Some(entry) = read(&pod, &line) {
            log.add(entry);
        }
    }
}

/// A line of nginx's access log, in the format of [`objects::ingress_configuration`].
fn read(pod: &str, line: &str) -> Option<IngressLog> {
    let fields: Vec<&str> = line.split('|').collect();
    let [status, upstream, upstream_status, received, took] = fields.try_into().ok()?;
    // Without a response, nginx logs the status that it made up itself.
    let answered = received.parse::<u64>().is_ok_and(|bytes| bytes > 0);
    Some(IngressLog {
        pod: pod.to_owned(),
        status: status.parse().ok()?,
        upstream: upstream.parse().ok(),
        upstream_status: upstream_status.parse().ok().filter(|_| answered),
        took_us: u64::try_from(Duration::try_from_secs_f64(took.parse().ok()?).ok()?.as_micros()).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn lines_of_nginx_are_read_and_others_ignored() {
        let passed = read("ingress", "200|192.168.0.20:80|200|1234|0.003").unwrap();
        assert_eq!((passed.status, passed.upstream_status, passed.took_us), (200, Some(200), 3000));
        assert_eq!(passed.upstream, Some("192.168.0.20:80".parse().unwrap()));
        let refused = read("ingress", "502|192.168.0.20:8081|502|0|0.000").unwrap();
        assert_eq!((refused.status, refused.upstream_status), (502, None));
        let unresolved = read("ingress", "502||-|-|1.001").unwrap();
        assert_eq!((unresolved.upstream, unresolved.took_us), (None, 1_001_000));
        assert_eq!(read("ingress", "2026/11/26 10:00:00 [error] 31#31: *1 upstream timed out"), None);
    }
}
