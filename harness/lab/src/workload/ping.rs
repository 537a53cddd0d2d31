//! ICMP echo (RFC 792).

use std::net::IpAddr;
use std::time::Duration;

use relapse_kernel::NetNs;
use relapse_kernel::socket::Icmp;
use relapse_model::Failure;

/// One echo request and its reply.
///
/// # Errors
/// `Timeout` when no reply came.
pub async fn echo(ns: &NetNs, to: IpAddr, timeout: Duration) -> Result<(), Failure> {
    let icmp = Icmp::open(ns, None).map_err(|_| Failure::Any)?;
    match icmp.echo(to, timeout).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(Failure::Timeout),
        Err(e) => Err(super::failure_of(&e)),
    }
}
