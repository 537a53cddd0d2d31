//! The reverse proxy that stands in for an ingress controller, with the defaults of nginx.
//!
//! If the cluster has DNS, the back end's Service is looked up there when a request arrives, at most once a second
//! (`resolver ... valid=1s`). The status is 502 if the look-up, the connect or the exchange fails, 504 if the connect
//! takes too long (ngx_http_upstream.c). Each request is logged.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use relapse_detectors::signal::IngressLog;
use relapse_model::{Failure, PodId, ServiceId};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::http::{self, Answer, Connection, answer};
use crate::cluster::Cluster;
use crate::workload::{sockets, stub};

/// How long an address of the Service is used (`valid`).
const VALID: Duration = Duration::from_secs(1);
/// `resolver_timeout`.
const RESOLVER_TIMEOUT: Duration = Duration::from_secs(1);
/// `proxy_connect_timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Passes every request on to a Service.
pub async fn serve(listener: TcpListener, cluster: Arc<dyn Cluster>, pod: PodId, backend: ServiceId) {
    let proxy = Arc::new(Proxy { cluster, pod, backend, known: Mutex::default() });
    http::serve_with(listener, move |request| {
        let proxy = Arc::clone(&proxy);
        async move { proxy.logged(request).await }
    })
    .await;
}

struct Proxy {
    cluster: Arc<dyn Cluster>,
    pod: PodId,
    backend: ServiceId,
    /// The last address of the Service, and when it was looked up.
    known: Mutex<Option<(Instant, IpAddr)>>,
}

impl Proxy {
    async fn logged(&self, request: Request<Incoming>) -> Answer {
        let begin = Instant::now();
        let mut upstream = None;
        let passed_on = self.pass_on(request, &mut upstream).await;
        let upstream_status = passed_on.as_ref().ok().map(|response| response.status().as_u16());
        let answer = match passed_on {
            Ok(response) => response.map(Full::new),
            Err(Failure::Timeout) => answer(StatusCode::GATEWAY_TIMEOUT, Bytes::new(), None),
            Err(_) => answer(StatusCode::BAD_GATEWAY, Bytes::new(), None),
        };
        self.cluster.ingress_log().add(IngressLog {
            pod: self.cluster.plan().pods[self.pod.0].name.clone(),
            status: answer.status().as_u16(),
            upstream,
            upstream_status,
            took_us: u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX),
        });
        answer
    }

    /// The back end's response. `upstream` is set to its address, once it is known.
    async fn pass_on(
        &self,
        request: Request<Incoming>,
        upstream: &mut Option<SocketAddr>,
    ) -> Result<Response<Bytes>, Failure> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| Failure::Any)?.to_bytes();
        let port = self.cluster.ingress_port(self.pod).map_err(|_| Failure::Any)?;
        let peer = SocketAddr::new(self.look_up().await?, port);
        *upstream = Some(peer);
        let ns = self.cluster.pod(self.pod).ns;
        let stream = timeout(CONNECT_TIMEOUT, sockets::connect(&ns, peer)).await.unwrap_or(Err(Failure::Timeout))?;
        // The client's own timeout bounds the exchange.
        let exchange = async { Connection::open(stream).await?.send(head.method, head.uri.path(), body).await };
        exchange.await.map_err(|_: Failure| Failure::Any)
    }

    /// The address of the Service: by its name, if the cluster has DNS.
    async fn look_up(&self) -> Result<IpAddr, Failure> {
        let plan = self.cluster.plan();
        let Some(dns) = &plan.dns else { return Ok(plan.services[self.backend.0].address) };
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, address)) = known.filter(|(since, _)| since.elapsed() < VALID) {
            return Ok(address);
        }
        let ns = self.cluster.pod(self.pod).ns;
        let (server, name) = (plan.services[dns.service.0].address, plan.service_domain(self.backend));
        let found = timeout(RESOLVER_TIMEOUT, stub::lookup(&ns, server, &name, &[])).await;
        let addresses = found.unwrap_or(Err(Failure::NameError))?;
        let address = *addresses.first().ok_or(Failure::NameError)?;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), address));
        Ok(address)
    }
}
