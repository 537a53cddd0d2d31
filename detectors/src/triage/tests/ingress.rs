use super::scene::{Scene, by_ingress};
use crate::signal::IngressLog;
use crate::triage::Outcome;

#[test]
fn an_ingress_sends_requests_where_nobody_listens() {
    let log = |status, port: u16, upstream_status| IngressLog {
        pod: "ingress".to_owned(),
        status,
        upstream: Some(std::net::SocketAddr::new("192.168.0.20".parse().unwrap(), port)),
        upstream_status,
        took_us: 900,
    };
    let mut scene = Scene::new(by_ingress(), Outcome::Status(502));
    scene.answers(500, "10.176.98.40:8080", 8, 1, Some(200));
    scene.see(600, "worker-1", log(200, 8080, Some(200)));
    scene.leads(700, "nothing");
    for at in [1_000, 1_100] {
        scene.see(at, "worker-1", log(502, 8081, None));
    }
    scene.leads(1_200, "5 pod/ingress");
    // Its own back end failing is not its fault.
    let mut twin = Scene::new(by_ingress(), Outcome::Status(502));
    for at in [1_000, 1_100] {
        twin.see(at, "worker-1", log(502, 8080, None));
    }
    twin.leads(1_200, "nothing");
}
