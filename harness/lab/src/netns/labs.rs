//! The lab backend: nothing outlasts a trial.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use relapse_detectors::signal::CollectorKind;
use relapse_kernel::process::LabProcess;
use relapse_model::ClusterPlan;

use super::Lab;
use super::probe::{self, Attempt, GONE_WITHIN, NeededBy};
use crate::cluster::Cluster;
use crate::cluster::backend::{Backend, Ground, Lease, Left, Places, Registered, Rising, Wanted};

const NAME: &str = "netns";

/// The registration of the lab backend.
pub static REGISTERED: Registered = Registered {
    name: NAME,
    help: "Labs of network namespaces: up in milliseconds, nothing to install",
    make: |_| Arc::new(Labs::default()),
    up,
    parts: Vec::new,
    remover: None,
};

fn up<'a>(_: &'a serde_json::Value, plan: &'a ClusterPlan) -> Rising<'a> {
    let plan = plan.clone();
    Box::pin(async move {
        // In a task: a runtime worker receives the kernel's answers directly; this thread would be woken for each.
        let lab = tokio::spawn(async move { Lab::up(&plan).await }).await.map_err(|e| e.to_string())?;
        lab.map(|lab| lab as Arc<dyn Cluster>).map_err(|e| e.to_string())
    })
}

/// The backend of labs.
#[derive(Debug, Default)]
pub struct Labs {
    /// The program to run as a lab, if not the running one.
    program: Option<PathBuf>,
    /// The cached result of the probe.
    attempts: OnceLock<Vec<Attempt>>,
}

impl Labs {
    /// Labs run by another program.
    #[must_use]
    pub fn of_program(program: &Path) -> Self {
        Self { program: Some(program.to_owned()), attempts: OnceLock::new() }
    }

    /// The requirements of labs on this machine, probed in a throw-away lab on the first call.
    pub fn attempts(&self) -> &[Attempt] {
        self.attempts.get_or_init(|| probe::probe(self.program.as_deref()))
    }

    fn failed(&self) -> impl Iterator<Item = (&Attempt, String)> {
        let describe = |attempt: &Attempt, why: &String| format!("{}: {}", attempt.what, why.replace('\n', ": "));
        self.attempts().iter().filter_map(move |a| Some((a, describe(a, a.result.as_ref().err()?))))
    }
}

impl Backend for Labs {
    fn name(&self) -> &'static str {
        NAME
    }

    fn unable(&self) -> Option<String> {
        self.failed().find(|(attempt, _)| attempt.needed_by == NeededBy::Labs).map(|(_, why)| why)
    }

    fn unseen(&self, one_of: &[CollectorKind]) -> Option<String> {
        let why = |kind: &CollectorKind| {
            let is_it = |attempt: &Attempt| matches!(&attempt.needed_by, NeededBy::Collectors(of) if of.contains(kind));
            self.failed().find(|(attempt, _)| is_it(attempt)).map(|(_, why)| why)
        };
        // One working collector is enough.
        one_of.iter().map(why).collect::<Option<Vec<_>>>()?.into_iter().next()
    }

    fn no_slow_paths(&self) -> Option<String> {
        self.failed().find(|(attempt, _)| attempt.needed_by == NeededBy::SlowPaths).map(|(_, why)| why)
    }

    fn is_real_cluster(&self) -> bool {
        false
    }

    fn places(&self) -> Option<&Places> {
        None
    }

    fn lease<'a>(
        &'a self,
        _: &Wanted,
        _: &dyn Fn(String),
        _: &dyn Fn() -> bool,
    ) -> Result<Box<dyn Lease + 'a>, String> {
        Ok(Box::new(LabLease))
    }

    fn close(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A lab needs no ground.
struct LabLease;

impl Lease for LabLease {
    fn ground(&self) -> Ground {
        let what = serde_json::Value::Null;
        Ground { backend: NAME.to_owned(), is_real_cluster: false, is_closed: true, what }
    }

    fn end(&mut self, lab: &LabProcess, _: bool) -> Left {
        match lab.proof_of_release(GONE_WITHIN) {
            Ok(_) => Left::Nothing,
            Err(e) => Left::Something(format!("namespaces of the lab: {e}")),
        }
    }

    fn spoil(&mut self) {}
}
