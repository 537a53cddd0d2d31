//! Whose turn it is: trials in labs side by side; then those on real clusters, as many as there are clusters.
//!
//! Threads take trials in the order of the list, those in labs first. So who comes here for a cluster knows
//! that all others have begun, and waits for them here, not at the machine-wide lock: there nobody keeps the
//! order, and whoever needs the limit would wait behind a cluster.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

static STATE: Mutex<State> =
    Mutex::new(State { beside: 0, next: 0, waiting: vec![], running: vec![], at_rest: vec![] });
static CHANGED: Condvar = Condvar::new();

struct State {
    /// Trials side by side.
    beside: usize,
    /// The next ticket for a cluster.
    next: usize,
    waiting: Vec<Wish>,
    running: Vec<Wish>,
    /// Who was last on clusters that nobody uses: their pods are there.
    at_rest: Vec<Wish>,
}

/// A trial on a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    scenario: String,
    config: Option<PathBuf>,
    /// Nobody else on other clusters meanwhile.
    alone: bool,
    ticket: usize,
}

/// A turn; over when dropped.
pub enum Turn {
    Beside,
    OnCluster(Wish),
}

/// Takes part at once.
pub fn beside() -> Turn {
    state().beside += 1;
    Turn::Beside
}

/// Waits for one of so many clusters: the one where the scenario's pods are first, then in the order of
/// arrival.
pub fn on_cluster(scenario: &str, config: Option<&Path>, alone: bool, clusters: usize) -> Turn {
    let mut state = state();
    let wish = Wish { scenario: scenario.to_owned(), config: config.map(Path::to_owned), alone, ticket: state.next };
    state.next += 1;
    state.waiting.push(wish.clone());
    while state.beside > 0 || state.first(clusters) != Some(&wish) {
        state = CHANGED.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    state.waiting.retain(|other| *other != wish);
    if !state.at_rest.is_empty() {
        let at = |is: &dyn Fn(&Wish) -> bool| state.at_rest.iter().position(is);
        let fits =
            at(&|at_rest| at_rest.scenario == scenario).or_else(|| at(&|at_rest| at_rest.config.as_deref() == config));
        let fits = fits.unwrap_or_default();
        state.at_rest.remove(fits);
    }
    state.running.push(wish.clone());
    CHANGED.notify_all();
    Turn::OnCluster(wish)
}

impl State {
    fn first(&self, clusters: usize) -> Option<&Wish> {
        let fits = |wish: &&Wish| {
            let room = if wish.alone { self.running.is_empty() } else { self.running.len() < clusters };
            room && !self.running.iter().any(|running| running.alone)
        };
        // As in a run: a scenario's next trial where its pods are; not on another cluster made for it alone.
        let effort = |wish: &Wish| {
            if self.at_rest.iter().any(|at_rest| at_rest.scenario == wish.scenario) {
                return Some(0);
            }
            if !self.running.iter().any(|running| running.scenario == wish.scenario) {
                return Some(1);
            }
            let there = self.at_rest.iter().any(|at_rest| at_rest.config == wish.config);
            (there || self.at_rest.is_empty()).then_some(2)
        };
        let all = self.waiting.iter().filter(fits).filter_map(|wish| Some(((effort(wish)?, wish.ticket), wish)));
        all.min_by_key(|(effort, _)| *effort).map(|(_, wish)| wish)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = state();
        match self {
            Self::Beside => state.beside -= 1,
            Self::OnCluster(wish) => {
                state.running.retain(|running| running != wish);
                state.at_rest.push(wish.clone());
            }
        }
        drop(state);
        CHANGED.notify_all();
    }
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}
