//! Whose turn it is: trials in labs side by side; then those that want the machine, one after the other.
//!
//! Threads take trials in the order of the list, those in labs first. So who comes here and wants the
//! machine knows that all others have begun, and waits for them here, not at the machine-wide lock: there
//! nobody keeps the order, and whoever needs the limit would wait behind a cluster.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

static STATE: Mutex<State> = Mutex::new(State { beside: 0, next: 0, served: 0 });
static CHANGED: Condvar = Condvar::new();

struct State {
    /// Trials side by side.
    beside: usize,
    /// Tickets for the machine: the next one, and how many have had their turn.
    next: usize,
    served: usize,
}

/// A turn; over when dropped.
pub enum Turn {
    Beside,
    Alone,
}

/// Takes part at once.
pub fn beside() -> Turn {
    state().beside += 1;
    Turn::Beside
}

/// Waits until nobody else has a turn, in the order of arrival.
pub fn alone() -> Turn {
    let mut state = state();
    let ticket = state.next;
    state.next += 1;
    while state.beside > 0 || state.served < ticket {
        state = CHANGED.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    Turn::Alone
}

impl Drop for Turn {
    fn drop(&mut self) {
        match self {
            Self::Beside => state().beside -= 1,
            Self::Alone => state().served += 1,
        }
        CHANGED.notify_all();
    }
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}
