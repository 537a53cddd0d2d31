//! Deletes and restores pods during a trial; stops and replaces replicas of cluster DNS; kills containers.

use std::fs;

use relapse_kernel::process;
use relapse_model::{PodId, PodPlan, PodRole};

use super::super::pods;
use super::super::watch::{Seen, is_leaving};
use super::super::{cni, failed, objects};
use super::KindCluster;

impl KindCluster {
    pub(super) async fn delete(&self, id: PodId) -> Result<(), String> {
        let spec = &self.plan.pods[id.0];
        let plugged = self.lock_pods()[id.0].clone();
        pods::delete(&self.client, &spec.name, objects::namespace(spec.role)).await?;
        let here = |seen: &Seen| seen.same_pod(&spec.name, &plugged.uid);
        let deleted = |seen: &Seen| here(seen).is_none_or(|pod| is_leaving(&pod)).then_some(());
        self.seen.until(&format!("pod {} to be deleted", spec.name), deleted).await?;
        self.lock_pods()[id.0].leaving = true;
        self.update_inventory();
        let gone = |seen: &Seen| here(seen).is_none().then_some(());
        self.seen.until(&format!("pod {} to be gone", spec.name), gone).await?;
        // The rules go with the veth once the pod's processes have ended, as with a real CNI.
        let node = &self.nodes[spec.node.0].node().ns;
        pods::link_gone(node, &plugged.link).await?;
        pods::unplug(&self.plan, plugged.address, node).map_err(failed)
    }

    pub(super) async fn restore(&self, id: PodId) -> Result<(), String> {
        let spec = &self.plan.pods[id.0];
        if !self.lock_pods()[id.0].leaving {
            return Ok(());
        }
        // The plugin allocates the address after the last one it allocated, so restore one pod at a time.
        let one = self.coming_back.lock().await;
        let node = &self.ground.cluster.nodes[spec.node.0];
        cni::next_address(node, spec.address).map_err(|e| format!("{}: {e}", node.name))?;
        let made = self.make_pod(id).await?;
        drop(one);
        if made.address != spec.address {
            return Err(format!("pod {} came back as {}, not as {}", spec.name, made.address, spec.address));
        }
        self.lock_pods()[id.0] = made;
        self.update_inventory();
        // A replica answers clients of a node once that node's rules lead to it.
        if spec.role == PodRole::Dns {
            let served = |seen: &Seen| serves(seen, &spec.name).then_some(());
            self.seen.until(&format!("{} to become an endpoint", spec.name), served).await?;
            self.update_inventory();
            self.until_rules_follow().await?;
        }
        Ok(())
    }

    /// Removes a replica from the endpoints before stopping it, so queries in flight are still answered.
    pub(super) async fn stop_replica(&self, id: PodId) -> Result<(), String> {
        self.gate(id, false).await?;
        let uid = {
            let pod = &mut self.lock_pods()[id.0];
            pod.stopped = true;
            pod.uid.clone()
        };
        for pid in pods::processes(&uid) {
            let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if !["", "pause"].contains(&command.trim()) {
                process::ask_to_end(pid).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Makes a pod ready or not, if a fault replaces the pods of its Service. Other pods are ready while their container
    /// runs.
    pub(super) async fn set_ready(&self, id: PodId, ready: bool) -> Result<(), String> {
        let spec = &self.plan.pods[id.0];
        match (spec.role, ready) {
            (PodRole::Plain, _) if self.plan.is_replaced(id) => self.gate(id, ready).await,
            (_, true) => Ok(()),
            (_, false) => Err(format!("pod {} has no readiness gate", spec.name)),
        }
    }

    /// Opens or closes the readiness gate of a pod, and waits for its endpoints.
    async fn gate(&self, id: PodId, open: bool) -> Result<(), String> {
        let PodPlan { name, role, .. } = &self.plan.pods[id.0];
        pods::gate(&self.client, name, *role, open).await?;
        let followed = |seen: &Seen| (serves(seen, name) == open).then_some(());
        let what = if open { "become an endpoint" } else { "leave the endpoints" };
        self.seen.until(&format!("{name} to {what}"), followed).await?;
        self.update_inventory();
        Ok(())
    }

    /// Kills the container of a pod. Its sandbox keeps the pod's namespace and address.
    pub(super) fn kill(&self, id: PodId) -> Result<(), String> {
        let missing = || format!("no container of pod {} runs", self.plan.pods[id.0].name);
        let container = self.running_container(id).ok_or_else(missing)?;
        for pid in pods::processes(&container) {
            process::end(pid).map_err(failed)?;
        }
        self.lock_pods()[id.0].killed = Some(container);
        Ok(())
    }

    /// Waits, however long that takes, until the kubelet has started another container in place of a killed one.
    pub(super) async fn until_restarted(&self, id: PodId) -> Result<(), String> {
        let mut seen = self.seen.clone();
        loop {
            let runs = self.running_container(id);
            if runs.is_some() && runs != self.lock_pods()[id.0].killed {
                return Ok(());
            }
            if !seen.changed().await {
                return Err("the watch on the API server has ended".to_owned());
            }
        }
    }

    /// The id of a pod's running container, as the API reports it.
    fn running_container(&self, id: PodId) -> Option<String> {
        let uid = self.lock_pods()[id.0].uid.clone();
        let pod = self.seen.same_pod(&self.plan.pods[id.0].name, &uid)?;
        let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
        status.state.as_ref()?.running.as_ref()?;
        // Such as "containerd://5d07...".
        status.container_id.as_ref()?.rsplit('/').next().map(str::to_owned)
    }

    pub(super) async fn start_replica(&self, id: PodId) -> Result<(), String> {
        // Its process has ended: replace the pod, with the same name and address.
        if self.lock_pods()[id.0].stopped {
            self.delete(id).await?;
        }
        self.restore(id).await
    }
}

/// Whether a pod is a ready endpoint of some Service.
fn serves(seen: &Seen, pod: &str) -> bool {
    seen.endpoints().iter().any(|endpoint| endpoint.pod == pod)
}
