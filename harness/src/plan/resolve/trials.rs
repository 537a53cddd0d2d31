//! Injections, effects, findings and controls.

use std::net::SocketAddr;
use std::time::Duration;

use relapse_detectors::finding::{Level, Subject, SubjectKind};
use relapse_detectors::prefix::Prefix;
use relapse_detectors::registry::DetectorSet;
use relapse_lab::fault::Planned;
use relapse_lab::faults::Injection;
use relapse_model::diagnostics::{did_you_mean, nearest, quoted};
use relapse_model::spanned::Spanned;
use relapse_reports::event::{Expectation, TriageExpected};
use relapse_reports::words;

use super::Planner;
use super::steps::{Both, Chain};
use crate::effect::EffectPlanner;
use crate::effects::Observation;
use crate::plan::{ClusterPlan, EffectPlan, FlowId, StepPlan, TrialPlan};
use crate::scenario::Scenario;
use crate::scenario::trial::{Armed, Control, Detect, Effect, Risk, Triage};

const DEFAULT_EFFECT: Duration = Duration::from_secs(3);
/// Triage must be right so soon after the end of the first failed or slow request.
const TRIAGE: Duration = Duration::from_secs(5);
const SHORTEST_WATCH: Duration = Duration::from_secs(2);

impl Planner<'_> {
    pub(super) fn plan_incident(&mut self, scenario: &Scenario) -> TrialPlan {
        let (steps, both) = match &scenario.steps {
            Some(steps) => {
                if let Some(triage) = &scenario.triage {
                    self.error(triage.span, "a chain has `triage` in each of its steps", "move it there");
                }
                self.plan_chain(steps, scenario)
            }
            None => self.plan_only_step(scenario),
        };
        let (detect, detect_in_real_cluster): (Vec<Expectation>, Vec<Expectation>) = both.into_iter().unzip();
        let healed = scenario.healed.as_ref().map(|healed| self.plan_effect(healed)).unwrap_or_default();
        let watch = longest(&detect).max(SHORTEST_WATCH);
        let (control, why, cluster) = (None, String::new(), None);
        let (unseen, risks) = (false, None);
        let also = self.plan_also(scenario, &detect);
        let lasted = self.lasted(scenario.lasted.as_ref());
        TrialPlan {
            control,
            why,
            cluster,
            steps,
            healed,
            detect,
            detect_in_real_cluster,
            also,
            risks,
            unseen,
            watch,
            lasted,
        }
    }

    /// When detectors are armed. What is then not judged must not be stated.
    pub(super) fn plan_armed(&mut self, scenario: &Scenario) -> Armed {
        let armed = scenario.observe.armed;
        if armed == Armed::Before {
            return armed;
        }
        let steps = scenario.steps.iter().flat_map(|steps| steps.iter()).map(|step| &step.triage);
        let controls = scenario.controls.iter().map(|control| &control.triage);
        for triage in [&scenario.triage].into_iter().chain(steps).chain(controls).flatten() {
            let message = format!("`triage` is not judged where detectors are armed `{}`", armed.name());
            self.error(triage.span, message, "it compares with what was before: remove it");
        }
        if let Some(risk) = scenario.risks.first().filter(|_| armed == Armed::AfterInjection) {
            let message = "no risk can stand in the baseline before detectors are armed";
            self.error(risk.detector.span, message, "remove `risks`, or arm detectors `restarted`");
        }
        armed
    }

    /// An incident that is no chain.
    fn plan_only_step(&mut self, scenario: &Scenario) -> (Vec<StepPlan>, Vec<Both>) {
        let (Some(inject), Some(effect), Some(detect)) = (&scenario.inject, &scenario.effect, &scenario.detect) else {
            for (key, is_there, help) in [
                ("inject", scenario.inject.is_some(), "Faults to inject, in this order."),
                ("effect", scenario.effect.is_some(), "Effect on the workload."),
                ("detect", scenario.detect.is_some(), "Findings that detectors must report, and by when."),
            ] {
                if !is_there {
                    let message = format!("the scenario lacks `{key}`");
                    self.error(scenario.metadata.name.span, message, format!("{help} A chain has `steps` instead."));
                }
            }
            return (Vec::new(), Vec::new());
        };
        let step = StepPlan {
            name: None,
            inject: self.plan_inject(inject),
            meanwhile: Vec::new(),
            heal: Vec::new(),
            effect: self.plan_incident_effect(effect),
            triage: scenario.triage.as_ref().and_then(|triage| self.plan_triage(triage)),
        };
        self.no_finding_twice(&detect.iter().collect::<Vec<_>>());
        (vec![step], self.plan_detections(detect, None))
    }

    /// The effect of a fault, which must have one.
    pub(super) fn plan_incident_effect(&mut self, effect: &Spanned<Effect>) -> EffectPlan {
        if effect.all.is_empty() {
            self.error(
                effect.span,
                "the incident has no effect, so nothing shows that it happened",
                "add `all: [ fails: { flow: NAME } ]`",
            );
        }
        self.plan_effect(effect)
    }

    /// The findings of an incident, or of one step of a chain.
    pub(super) fn plan_detections(&mut self, detect: &Spanned<Vec<Detect>>, chain: Option<&Chain<'_>>) -> Vec<Both> {
        if detect.is_empty() {
            self.error(
                detect.span,
                "no detector is expected to report the incident",
                "add `{ detector: NAME, level: cause, subject: ..., within: 1s }`",
            );
        }
        detect.iter().filter_map(|d| self.plan_detect(d, chain)).collect()
    }

    /// Plans the twins on the cluster as it was before any fault added to it.
    pub(super) fn plan_controls(
        &mut self,
        scenario: &Scenario,
        cluster: &ClusterPlan,
        detect: &[Expectation],
        baseline: Duration,
    ) -> Vec<TrialPlan> {
        let controls = &scenario.controls;
        if controls.is_empty() {
            self.error(
                controls.span,
                "there are no controls, so a detector that always fires would pass",
                "add a benign change that looks like the incident",
            );
        }
        self.unique("controls", controls.iter().map(|c| (&*c.name.0, c.name.span)));
        controls
            .iter()
            .map(|control| self.plan_control(control, scenario, cluster, (longest(detect), baseline)))
            .collect()
    }

    fn plan_control(
        &mut self,
        control: &Control,
        scenario: &Scenario,
        cluster: &ClusterPlan,
        (deadline, baseline): (Duration, Duration),
    ) -> TrialPlan {
        if control.why.trim().is_empty() {
            self.error(control.why.span, "`why` is empty", "explain in a sentence why this change is benign");
        }
        let kept = std::mem::replace(&mut self.cluster, cluster.clone());
        // Names in the control are those of its own cluster.
        if let Some(own) = control.dns.as_ref().and_then(|dns| self.with_other_dns(dns, scenario.cluster.dns.as_ref()))
        {
            self.cluster = own;
        }
        let step = StepPlan {
            name: None,
            inject: self.plan_inject(&control.inject),
            meanwhile: Vec::new(),
            heal: Vec::new(),
            effect: self.plan_benign_effect(&control.effect),
            triage: control.triage.as_ref().and_then(|triage| self.plan_triage(triage)),
        };
        self.keeps_limits(control.inject.span, &step.inject);
        let risks = control.risks.as_ref().map(|risks| self.plan_risks(risks, None, baseline));
        // A fault may have added to it what it will need.
        let cluster = Some(std::mem::replace(&mut self.cluster, kept));
        let watch = self.duration_or("watch", control.watch.as_ref(), deadline.max(SHORTEST_WATCH));
        if let Some(at) = control.watch.as_ref().filter(|_| watch < deadline) {
            let message = format!("`watch` is shorter than {deadline:?}, the incident's longest deadline");
            self.error(at.span, message, format!("write at least `{deadline:?}`, or leave it out"));
        }
        let lasted = self.lasted(control.lasted.as_ref());
        TrialPlan {
            control: Some(control.name.0.clone()),
            why: control.why.value.clone(),
            cluster,
            steps: vec![step],
            healed: EffectPlan::default(),
            detect: Vec::new(),
            detect_in_real_cluster: Vec::new(),
            also: Default::default(),
            risks,
            unseen: control.triage.is_none() && control.effect.all.iter().all(|effect| effect.affected().is_none()),
            watch,
            lasted,
        }
    }

    pub(super) fn plan_inject(&mut self, inject: &Spanned<Vec<Injection>>) -> Vec<Planned> {
        if inject.is_empty() {
            let help = format!("add one of: {}", Injection::NAMES.join(", "));
            self.error(inject.span, "nothing is injected", help);
        }
        let mut changed: Vec<(&'static str, String)> = Vec::new();
        let mut planned = Vec::new();
        for fault in inject.iter() {
            let Some(plan) = fault.plan(self) else { continue };
            let changes: Vec<_> = plan.changes(&self.cluster).into_iter().map(|what| (plan.name, what)).collect();
            if let Some((name, what)) = changes.iter().find(|change| changed.contains(change)) {
                let message = format!("another `{name}` of this list changes {what} already");
                self.error(fault.span(), message, "the second would replace the first: remove one");
            }
            changed.extend(changes);
            planned.push(plan);
        }
        planned
    }

    fn plan_effect(&mut self, effect: &Effect) -> EffectPlan {
        let within = self.duration_or("within", effect.within.as_ref(), DEFAULT_EFFECT);
        let mut planner = EffectPlanner::new(&mut self.known, within);
        let all = effect.all.iter().filter_map(|observation| observation.plan(&mut planner)).collect();
        let named = effect.all.iter().filter_map(Observation::affected).map(|name| name.value.as_str());
        let position = |name: &str| self.workload.iter().position(|flow| flow.name == name).map(FlowId);
        let affected = named.filter_map(position).collect();
        EffectPlan { all, within, affected }
    }

    /// The effect of a twin. Where users see nothing, those of the flows that work must not complain.
    fn plan_benign_effect(&mut self, effect: &Effect) -> EffectPlan {
        let mut plan = self.plan_effect(effect);
        if plan.affected.is_empty() {
            let named = effect.all.iter().filter_map(Observation::working).map(|name| name.value.as_str());
            let position = |name: &str| self.workload.iter().position(|flow| flow.name == name).map(FlowId);
            plan.affected = named.filter_map(position).collect();
        }
        plan
    }

    fn plan_detect(&mut self, detect: &Detect, chain: Option<&Chain<'_>>) -> Option<Both> {
        let level = detect.level.value;
        self.level_of(&detect.detector, &detect.level, |actual| match actual {
            Level::Risk => "a risk exists before the fault: move it to `risks`".to_owned(),
            _ => format!("write `{}`", words::level(actual)),
        });
        let subject = self.about(&detect.detector, &detect.subject);
        let within = self.duration("within", &detect.within);
        let real = detect.in_real_cluster.as_ref().map(|within| self.duration("inRealCluster", within));
        let of = self.plan_place(chain, detect.after.as_ref(), detect.clears.as_ref());
        let expectation = Expectation {
            detector: detect.detector.value.clone(),
            level,
            subject: Some(subject?),
            within: within?,
            of,
            expected_miss: None,
            outside: false,
        };
        let within = match real {
            Some(real) => real?,
            None => expectation.within,
        };
        Some((expectation.clone(), Expectation { within, ..expectation }))
    }

    pub(super) fn plan_risks(
        &mut self,
        risks: &[Risk],
        chain: Option<&Chain<'_>>,
        baseline: Duration,
    ) -> Vec<Expectation> {
        let mut plan = Vec::new();
        for risk in risks {
            let of = self.plan_place(chain, None, risk.clears.as_ref());
            let known = self.detector(&risk.detector);
            if let Some(actual) = known.filter(|level| *level != Level::Risk) {
                let finds = words::level(actual);
                let message = format!("detector {} finds a {finds}, not a risk", quoted(&risk.detector));
                self.error(risk.detector.span, message, format!("move it to `detect`, with `level: {finds}`"));
            }
            plan.extend(self.about(&risk.detector, &risk.subject).map(|subject| Expectation {
                detector: risk.detector.value.clone(),
                level: Level::Risk,
                subject: Some(subject),
                within: baseline,
                of,
                expected_miss: None,
                outside: false,
            }));
        }
        plan
    }

    /// Where triage must lead.
    pub(super) fn plan_triage(&mut self, triage: &Spanned<Triage>) -> Option<TriageExpected> {
        let at = self.subject(&triage.at)?;
        let contributing = triage.contributing.iter().map(|step| step.value).collect();
        Some(TriageExpected { step: triage.step.value, at, contributing, within: TRIAGE })
    }

    fn detector(&mut self, name: &Spanned<String>) -> Option<Level> {
        let found = DetectorSet::info().iter().find(|info| info.name == name.value);
        if found.is_none() {
            let help = did_you_mean(name, "detectors", DetectorSet::names());
            self.error(name.span, format!("there is no detector {}", quoted(name)), help);
        }
        found.map(|info| info.level)
    }

    /// Reports a level that is not the detector's.
    pub(super) fn level_of(
        &mut self,
        name: &Spanned<String>,
        level: &Spanned<Level>,
        help: impl FnOnce(Level) -> String,
    ) {
        let known = self.detector(name);
        if let Some(actual) = known.filter(|actual| *actual != level.value) {
            let (finds, wanted) = (words::level(actual), words::level(level.value));
            let message = format!("detector {} finds a {finds}, not a {wanted}", quoted(name));
            self.error(level.span, message, help(actual));
        }
    }

    /// Resolves the subject of a detector's finding.
    pub(super) fn about(&mut self, name: &Spanned<String>, text: &Spanned<String>) -> Option<Subject> {
        let subject = self.subject(text)?;
        let info = DetectorSet::info().iter().find(|info| info.name == name.value);
        if let Some(info) = info.filter(|info| !info.subjects.contains(&subject.kind)) {
            let message = format!("{} never names a {}", quoted(name), subject.kind.as_str());
            let kinds: Vec<_> = info.subjects.iter().map(|kind| format!("`{}/...`", kind.as_str())).collect();
            self.error(text.span, message, format!("its findings are about {}", kinds.join(", ")));
            return None;
        }
        Some(subject)
    }

    /// Resolves a subject.
    pub(super) fn subject(&mut self, text: &Spanned<String>) -> Option<Subject> {
        let Ok(subject) = text.parse::<Subject>() else {
            let kind = text.split_once('/').map_or(text.as_str(), |(kind, _)| kind);
            let meant = nearest(kind, SubjectKind::ALL.map(SubjectKind::as_str));
            let help = match (meant, text.split_once('/')) {
                (Some(meant), Some((_, name))) if !name.is_empty() => format!("did you mean `{meant}/{name}`?"),
                _ => "write node/NAME, pod/NAME, service/NAME, path/PREFIX, name/DOMAIN or server/ADDRESS:PORT"
                    .to_owned(),
            };
            self.error(text.span, format!("{} is not a subject", quoted(text)), help);
            return None;
        };
        match subject.kind {
            SubjectKind::Node | SubjectKind::Pod | SubjectKind::Service => self.target(text).map(|_| subject),
            SubjectKind::Path => match subject.name.parse::<Prefix>() {
                Ok(prefix) if prefix.to_string() == subject.name => Some(subject),
                Ok(prefix) => {
                    self.error(
                        text.span,
                        format!("{} has bits set beyond its length", quoted(&subject.name)),
                        format!("write `path/{prefix}`"),
                    );
                    None
                }
                Err(_) => {
                    let office = self.cluster.offices.iter().find(|o| o.name == subject.name).map(|o| o.prefix);
                    let help = match office {
                        Some(prefix) => format!("write `path/{prefix}`"),
                        None => "write `path/PREFIX`, such as path/192.168.40.0/24".to_owned(),
                    };
                    self.error(text.span, format!("{} is not a prefix", quoted(&subject.name)), help);
                    None
                }
            },
            SubjectKind::Name => {
                let is_known = self.cluster.knows(&subject.name);
                if !is_known {
                    let records = self.cluster.outside.iter().flat_map(|host| &host.records);
                    let names: Vec<String> = records.map(|(name, _)| name.clone()).collect();
                    let message = format!("no resolver has a record for {}", quoted(&subject.name));
                    let help = did_you_mean(&subject.name, "names", names.iter().map(String::as_str));
                    self.error(text.span, message, help);
                }
                is_known.then_some(subject)
            }
            SubjectKind::Server => self.server(text, subject),
            SubjectKind::Flow => {
                let help = "a flow's ports are not known in advance: name its node, or leave `subject` out";
                self.error(text.span, format!("{} is not a flow that can be expected", quoted(text)), help);
                None
            }
        }
    }

    /// A server by the name that was declared for it, else by its address and port.
    fn server(&mut self, text: &Spanned<String>, subject: Subject) -> Option<Subject> {
        let declared = &self.cluster.declared_servers;
        if declared.iter().any(|server| server.name == subject.name) {
            return Some(subject);
        }
        let Ok(address) = subject.name.parse::<SocketAddr>() else {
            let names: Vec<_> = declared.iter().map(|server| server.name.clone()).collect();
            let help = match names.is_empty() {
                true => "write `server/ADDRESS:PORT`, such as server/10.176.46.4:3306, or declare the name".to_owned(),
                false => did_you_mean(&subject.name, "servers", names.iter().map(String::as_str)),
            };
            self.error(text.span, format!("there is no server {}", quoted(&subject.name)), help);
            return None;
        };
        let name = declared.iter().find(|server| server.address == address).map(|server| server.name.clone());
        if let Some(name) = name {
            let message = format!("{address} was declared as {}, and findings say so", quoted(&name));
            self.error(text.span, message, format!("write `server/{name}`"));
            return None;
        }
        let cluster = &self.cluster;
        let known = cluster.places().any(|place| cluster.address(place) == address.ip())
            || cluster.outside.iter().any(|host| host.also_at.contains(&address.ip()));
        if !known {
            let message = format!("nothing in this scenario has the address {}", address.ip());
            self.error(text.span, message, "write the address of a pod, a node or a host outside");
        }
        known.then(|| Subject::server(address))
    }
}

fn longest(detect: &[Expectation]) -> Duration {
    detect.iter().map(|e| e.within).max().unwrap_or_default()
}
