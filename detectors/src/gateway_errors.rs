//! `gateway-errors`: an ingress answers 502, 503 or 504 by itself, while its back end has ready endpoints.
//!
//! What it sees: in the log of an ingress, three requests in a row to one back end without a response from it. A back
//! end that is a Service without ready endpoints is not well, and does not count; one whose name was not resolved does.
//! Why it matters: users see an error of the ingress, and the fault is on the way from it to the back end.
//! Which incident: W3; also I3 and I4 where they are met through an ingress.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::capped::Capped;
use crate::claims::{Claim, want};
use crate::detector::{Context, Detector, DetectorInfo, Scope, State, new};
use crate::finding::{Level, Severity, Subject, SubjectKind};
use crate::signal::{CollectorKind, IngressLog, Observed, Signal};
use crate::time::Time;

pub const INFO: DetectorInfo = DetectorInfo {
    name: "gateway-errors",
    incident: "W3",
    level: Level::Symptom,
    subjects: &[SubjectKind::Pod],
    what: "An ingress answers 502, 503 or 504 while its back end has ready endpoints.",
    facts: "It finds the same with none and with stale facts.",
    wants: &[CollectorKind::IngressLog, CollectorKind::Inventory],
    needs: &[&[CollectorKind::IngressLog]],
    scope: Scope::Cluster,
    state: State::Cluster(new::<GatewayErrors>),
};

/// Errors in a row that are enough.
const SEVERAL: u32 = 3;
/// An ingress that answered nothing for this long is no longer known to fail.
const FORGET: Duration = Duration::from_mins(1);
const CAP: usize = 1024;

#[derive(Default)]
struct GatewayErrors {
    ingresses: Capped<String, Errors, CAP>,
    /// Ready endpoints of each Service, by its address.
    ready: Capped<IpAddr, usize, CAP>,
}

/// Errors in a row.
#[derive(Default)]
struct Errors {
    count: u32,
    since: Time,
    /// The last one.
    last: Option<(Time, IngressLog)>,
}

impl GatewayErrors {
    fn request(&mut self, at: Time, log: &IngressLog) {
        let Some(errors) = self.ingresses.entry(log.pod.clone()) else { return };
        if !matches!(log.status, 502..=504) || log.upstream_status.is_some() {
            *errors = Errors::default();
            return;
        }
        if errors.count == 0 {
            errors.since = at;
        }
        errors.count += 1;
        errors.last = Some((at, log.clone()));
    }

    fn judge(&self, cx: &mut Context<'_>) {
        let mut wanted = BTreeMap::new();
        for (pod, errors) in self.ingresses.iter().filter(|(_, errors)| errors.count >= SEVERAL) {
            let Some((_, log)) = &errors.last else { continue };
            let state = match log.upstream.map(|to| (to, self.ready.get(&to.ip()))) {
                Some((_, Some(0))) => continue,
                Some((to, Some(ready))) => format!("{to} gave no response, and {ready} endpoints behind it are ready"),
                Some((to, None)) => format!("{to} gave no response"),
                None => "the name of its back end was not resolved".to_owned(),
            };
            let evidence = format!(
                "{pod} answered {} requests in a row by itself, the last {}: {state}",
                errors.count, log.status
            );
            want(&mut wanted, Subject::pod(pod), Claim { severity: Severity::Warning, since: errors.since, evidence });
        }
        cx.claims.settle(wanted, "the ingress passes on responses again, or its back end is not ready");
    }
}

impl Detector for GatewayErrors {
    fn observe(&mut self, cx: &mut Context<'_>, signal: &Signal) {
        match &signal.observed {
            Observed::IngressLog(log) => self.request(signal.at, log),
            Observed::Endpoints(service) => self.ready.insert(service.address, service.ready.len()),
            _ => return,
        }
        self.judge(cx);
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        self.ingresses.retain(|_, errors| errors.last.as_ref().is_none_or(|(at, _)| cx.now.since(*at) < FORGET));
        self.judge(cx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Scene, play, scene};

    const NAME: &str = INFO.name;

    fn armed() -> Scene {
        scene!(NAME, "0 ingress 200 192.168.0.20:80 200")
    }

    #[test]
    fn incident_three_errors_of_its_own_in_a_row() {
        for (status, upstream) in [(502, "192.168.0.20:8081"), (504, "192.168.0.20:80"), (502, "-")] {
            let mut scene = armed();
            play!(scene, "1000 ingress {status} {upstream} -; 1100 ingress {status} {upstream} - ? nothing");
            play!(scene, "1200 ingress {status} {upstream} - ? warning 1200 pod/ingress");
            play!(scene, "3000 ingress 200 192.168.0.20:80 200 ? over");
        }
    }

    #[test]
    fn errors_between_responses_and_errors_of_the_back_end() {
        let mut scene = armed();
        for at in (1_000..3_000).step_by(100) {
            play!(scene, "{at} ingress 502 192.168.0.20:80 502; {at} ingress 502 192.168.0.20:80 -");
        }
        play!(scene, "4000 ? silence");
    }

    #[test]
    fn a_service_without_ready_endpoints_is_not_well() {
        let mut scene = armed();
        // The Service of the scene is cluster DNS.
        play!(scene, "500 endpoints");
        for at in [1_000, 1_100, 1_200, 1_300] {
            play!(scene, "{at} ingress 502 192.168.0.10:80 -");
        }
        play!(scene, "2000 ? nothing");
    }
}
