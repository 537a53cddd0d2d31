//! The lab process, in namespaces of its own, and the proof that it is gone.
//!
//! ```text
//! relapse ──spawn──> outer ──fork──> init (pid 1) ──fork──> lab
//!                    └ waits         └ reaps, watches       └ where `enter_lab` returns
//! ```
//!
//! [`LabCommand::spawn`] executes the running program again; its `main` calls [`enter_lab`] before
//! anything else. *Outer* makes user, pid, mount and network namespaces at once, forks, and then only
//! waits to hand on the exit status. *Init* is pid 1 of the pid namespace: it collects the children
//! that nobody waits for, and dies with whoever it serves. *Lab* is an ordinary process in which
//! signals and children behave as everywhere; when it ends init ends, and with init all others.
//!
//! Invariants:
//! - The lab does not outlive its parent. Three ways lead there, each enough by itself: outer is killed
//!   with the thread that spawned it and init with outer (`PR_SET_PDEATHSIG`), and init watches a pipe
//!   whose other end only the parent holds. **The first follows the thread, not the process**: spawn
//!   from a thread that lives as long as the lab is wanted, `main`'s for instance.
//! - Users are mapped to themselves. With all capabilities in the namespace, ambient too, so that
//!   shells keep them; with uid 0 pretended, programs that give up root (tcpdump) fail. Root keeps all
//!   its ids, else it could not write into other users' directories.
//! - Gone is proved, not assumed: [`LabProcess::proof_of_release`]. Network namespaces outlive the
//!   processes, by some 50 ms, or by minutes where TCP has unacknowledged data.
//!
//! Without the user namespace ([`LabCommand::user_namespace`]; kind's containers belong to the
//! machine's own) there are no other namespaces either: outer, init and lab are then one process, tied
//! to its parent in the same ways; what it started is not ended with it.
//!
//! Left out: uts, ipc and cgroup namespaces, and a private `/run` (the lab's locks lie there).

mod enter;
mod fork;
mod inside;
mod namespaces;
mod release;
mod restrictions;
mod signal;
mod spawn;

pub use self::enter::{LabSide, enter_lab};
pub use self::inside::{Inside, interactive, take_terminal};
pub use self::release::UserNs;
pub use self::restrictions::diagnose_user_namespaces;
pub use self::signal::{ask_to_end, end};
pub use self::spawn::{LabCommand, LabProcess};
