//! A real kube-proxy writes the limit: journalled before it is started, watched until it has.

use std::time::{Duration, Instant};

use relapse_kernel::host;

use crate::cluster::KubeProxy;
use crate::fault::{FaultError, InForce, World, now};

/// What it did.
pub enum KubeProxyWrite {
    Done(InForce),
    /// It came up and left the limit alone; which one it is.
    LeftAlone(String),
}

/// A kube-proxy that has not written by then does not (kubernetes#142035).
const WRITES_WITHIN: Duration = Duration::from_secs(15);

/// How closely its write is watched for: the uncertainty of t0.
const LOOK: Duration = Duration::from_micros(200);

/// Starts it and ends it again once it has written; t0 is the last look before.
///
/// # Errors
/// The guardian's refusal; that it cannot be started.
pub async fn write(
    mut kube_proxy: KubeProxy,
    value: u64,
    formula: &str,
    world: &World,
) -> Result<KubeProxyWrite, FaultError> {
    let limit = world.host_limit.clone();
    let before = tokio::task::spawn_blocking(move || limit.expect(value)).await.map_err(|_| not_asked())??;
    if before == value {
        let read_back = format!("{before} before anything was written");
        return Err(FaultError::NotInForce { what: "let kube-proxy write nf_conntrack_max".into(), read_back });
    }
    kube_proxy.start()?;
    let begin = Instant::now();
    let mut t0 = now();
    while begin.elapsed() < WRITES_WITHIN {
        let look = now();
        let read_back = host::conntrack_max()?;
        if read_back == value {
            let what = format!("nf_conntrack_max {before} -> {value} by {} ({})", kube_proxy.what, formula);
            let read_back = read_back.to_string();
            return Ok(KubeProxyWrite::Done(InForce { t0, t1: now(), what, read_back, reduced: None }));
        }
        t0 = look;
        tokio::time::sleep(LOOK).await;
    }
    Ok(KubeProxyWrite::LeftAlone(format!("{} left it at {before}: written as it would have", kube_proxy.what)))
}

/// The guardian did not answer.
pub fn not_asked() -> FaultError {
    FaultError::NotInForce { what: "write nf_conntrack_max".into(), read_back: "the guardian was not asked".into() }
}
