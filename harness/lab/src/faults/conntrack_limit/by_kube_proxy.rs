//! A real kube-proxy writes the limit: journalled before it is started, watched until it has written.

use std::time::{Duration, Instant};

use relapse_kernel::host;

use crate::cluster::KubeProxy;
use crate::fault::{FaultError, InForce, World, now};

/// The result of running kube-proxy.
pub enum KubeProxyWrite {
    Done(InForce),
    /// It started but left the limit alone; the explanation.
    LeftAlone(String),
}

/// A kube-proxy that has not written the limit by then will not (kubernetes#142035).
const WRITES_WITHIN: Duration = Duration::from_secs(15);

/// Polling interval for its write, and so the uncertainty of t0.
const LOOK: Duration = Duration::from_micros(200);

/// Starts it and stops it once it has written; t0 is the last poll before.
///
/// # Errors
/// When the guardian refuses, or kube-proxy cannot be started.
pub async fn write(
    mut kube_proxy: KubeProxy,
    value: u64,
    formula: &str,
    world: &World,
) -> Result<KubeProxyWrite, FaultError> {
    let limit = world.host_limit.clone();
    let before = tokio::task::spawn_blocking(move || limit.expect(value)).await.map_err(|_| guardian_failed())??;
    if before == value {
        let read_back = format!("{before} already");
        return Err(FaultError::NotInForce { what: "let kube-proxy write nf_conntrack_max".into(), read_back });
    }
    kube_proxy.start()?;
    let begin = Instant::now();
    let mut t0 = now();
    while begin.elapsed() < WRITES_WITHIN {
        let poll = now();
        let read_back = host::conntrack_max()?;
        if read_back == value {
            let what = format!("nf_conntrack_max {before} -> {value} by {} ({})", kube_proxy.what, formula);
            let read_back = read_back.to_string();
            return Ok(KubeProxyWrite::Done(InForce { t0, t1: now(), what, read_back, reduced: None }));
        }
        t0 = poll;
        tokio::time::sleep(LOOK).await;
    }
    Ok(KubeProxyWrite::LeftAlone(format!("{} left it at {before}: written in its place", kube_proxy.what)))
}

/// The request to the guardian did not complete.
pub fn guardian_failed() -> FaultError {
    FaultError::NotInForce { what: "write nf_conntrack_max".into(), read_back: "no answer from the guardian".into() }
}
