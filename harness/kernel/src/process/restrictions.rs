//! Diagnoses why an ordinary user may not create namespaces, and finds the command that allows it.

use rustix::io::Errno;
use rustix::thread::UnshareFlags;

use super::fork;
use crate::error::Error;

/// Setting, the value that forbids namespaces, the value that allows them, and the meaning of the former. The second
/// exists on Debian and Ubuntu, the third on Ubuntu since 23.10; other kernels do not have them.
const SETTINGS: [(&str, &str, &str, &str); 4] = [
    ("user.max_user_namespaces", "0", "15000", "user namespaces are disabled"),
    ("kernel.unprivileged_userns_clone", "0", "1", "user namespaces are allowed only for root"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0", APPARMOR),
    ("user.max_net_namespaces", "0", "15000", "network namespaces are disabled"),
];
const APPARMOR: &str = "AppArmor denies all capabilities in user namespaces of ordinary users";

/// Tries in a child process whether a lab's namespaces can be created.
///
/// # Errors
/// The restriction, and the exact command that lifts it if there is one.
pub fn diagnose_user_namespaces() -> Result<(), String> {
    // SAFETY: `attempt` makes system calls only.
    match unsafe { fork::run("try user namespaces", attempt) } {
        Ok(0) => Ok(()),
        Ok(code) => Err(reason(Errno::from_raw_os_error(i32::from(code)))),
        Err(error) => Err(error.to_string()),
    }
}

/// Creates a user namespace, and in it something that needs its capabilities: AppArmor may allow the former
/// without the latter.
fn attempt() -> u8 {
    let made = [
        UnshareFlags::NEWUSER | UnshareFlags::NEWPID | UnshareFlags::NEWNS | UnshareFlags::NEWNET,
        UnshareFlags::NEWNET,
    ]
    .into_iter()
    // SAFETY: this process has one thread and shares nothing.
    .try_for_each(|flags| unsafe { rustix::thread::unshare_unsafe(flags) });
    made.map_or_else(|errno| u8::try_from(errno.raw_os_error()).unwrap_or(1), |()| 0)
}

fn reason(errno: Errno) -> String {
    for (key, forbids, allows, why) in SETTINGS {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        if std::fs::read_to_string(&path).is_ok_and(|value| value.trim() == forbids) {
            return format!("{why} ({path} is {forbids}); to allow it: sudo sysctl -w {key}={allows}");
        }
    }
    match errno {
        Errno::NOSPC => "the number of namespaces is exhausted; to raise it: \
             sudo sysctl -w user.max_user_namespaces=15000 user.max_net_namespaces=15000"
            .into(),
        Errno::PERM | Errno::ACCESS => {
            "something confines this process (a container runtime's seccomp filter or a security module); \
             in a container: docker run --privileged"
                .into()
        }
        other => format!("kernel error: {}", std::io::Error::from(other)),
    }
}

/// Adds the reason to an error that a restriction may have caused.
pub(super) fn explain(error: Error) -> Error {
    let restricted = matches!(error.errno(), Some(libc::EPERM | libc::EACCES | libc::ENOSPC | libc::EUSERS));
    match (error, restricted.then(diagnose_user_namespaces)) {
        (Error::Kernel { what, source }, Some(Err(reason))) => {
            Error::Kernel { what: format!("{what} ({reason})"), source }
        }
        (error, _) => error,
    }
}
