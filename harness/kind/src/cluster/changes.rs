//! Deletes and restores pods during a trial; stops and replaces replicas of cluster DNS.

use std::fs;

use relapse_kernel::process;
use relapse_model::{PodId, PodRole};

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
        Ok(())
    }

    /// Removes a replica from the endpoints before stopping it, so queries in flight are still answered.
    pub(super) async fn stop_replica(&self, id: PodId) -> Result<(), String> {
        let spec = &self.plan.pods[id.0];
        if spec.role != PodRole::Dns {
            return Err(format!("pod {} runs nothing of its own", spec.name));
        }
        pods::gate(&self.client, &spec.name, false).await?;
        let removed = |seen: &Seen| (!serves(seen, &spec.name)).then_some(());
        self.seen.until(&format!("{} to leave the endpoints", spec.name), removed).await?;
        self.update_inventory();
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

    pub(super) async fn start_replica(&self, id: PodId) -> Result<(), String> {
        // Its process has ended: replace the pod, with the same name and address.
        if !self.lock_pods()[id.0].stopped {
            return self.restore(id).await;
        }
        self.delete(id).await?;
        self.restore(id).await?;
        let spec = &self.plan.pods[id.0];
        let served = |seen: &Seen| serves(seen, &spec.name).then_some(());
        self.seen.until(&format!("{} to become an endpoint", spec.name), served).await?;
        self.update_inventory();
        Ok(())
    }
}

/// Whether a pod is a ready endpoint of some Service.
fn serves(seen: &Seen, pod: &str) -> bool {
    seen.endpoints().iter().any(|endpoint| endpoint.pod == pod)
}
