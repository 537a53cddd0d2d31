//! The lab process in its own namespaces, and verification that they are released.
//!
//! ```text
//! relapse ──spawn──> outer ──fork──> init (pid 1) ──fork──> lab
//!                    └ waits         └ reaps, watches       └ `enter_lab` returns here
//! ```
//!
//! [`LabCommand::spawn`] re-executes the running program; its `main` calls [`enter_lab`] before
//! anything else. *Outer* creates user, pid, mount and network namespaces in one call, forks, and then only
//! waits to pass on the exit status. *Init* is pid 1 of the pid namespace: it reaps orphaned
//! children, and exits with its parent or the lab. *Lab* is an ordinary process with the usual
//! semantics of signals and children; when it exits, init exits, and the kernel kills everything else.
//!
//! Invariants:
//! - The lab does not outlive its parent. Three mechanisms, each sufficient, ensure that: outer is killed
//!   with the thread that spawned it and init with outer (`PR_SET_PDEATHSIG`), and init watches a pipe
//!   whose other end only the parent holds. **The first follows the thread, not the process**: spawn
//!   from a thread that lives as long as the lab should, such as the main thread.
//! - Users are mapped to themselves, with all capabilities in the namespace, ambient ones too, so that
//!   shells keep them; if uid 0 were faked, programs that drop root (tcpdump) would fail. Root keeps all
//!   its ids, otherwise it could not write to the directories of other users.
//! - Release is verified, not assumed: [`LabProcess::proof_of_release`]. Network namespaces outlive their
//!   processes by some 50 ms, or by minutes if TCP has unacknowledged data.
//!
//! Without the user namespace ([`LabCommand::user_namespace`]; kind's containers belong to the
//! machine's own) no other namespaces are created either: outer, init and lab are one process, tied
//! to its parent in the same ways; processes it started are not killed with it.
//!
//! Left out: uts, ipc and cgroup namespaces, and a private `/run` (it holds the lab's locks).

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
pub use self::signal::{ask_to_end, end, reload, resume, suspend};
pub use self::spawn::{LabCommand, LabProcess};
