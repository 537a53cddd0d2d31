//! Creates the lab's namespaces and maps its ids. Runs while the process is single-threaded.

use std::io;

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

use super::fork::{exit, fork, wait_for};
use crate::error::{Context, Result};

/// A single `unshare` for all, so that the network namespace belongs to the new user namespace.
pub(super) fn make() -> Result<()> {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    let all = UnshareFlags::NEWUSER | UnshareFlags::NEWPID | UnshareFlags::NEWNS | UnshareFlags::NEWNET;
    let mapper = if user.is_root() { Some(Mapper::fork()?) } else { None };
    // SAFETY: the process has a single thread; nothing it shares is affected.
    unsafe { rustix::thread::unshare_unsafe(all) }.context(|| "make the lab's namespaces".into())?;
    if mapper.is_some_and(Mapper::map) {
        return Ok(());
    }
    // user_namespaces(7): an unprivileged user may map only itself, and only with setgroups denied.
    for (file, line) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{user} {user} 1")),
        ("gid_map", format!("{group} {group} 1")),
    ] {
        std::fs::write(format!("/proc/self/{file}"), line).context(|| format!("write the user namespace's {file}"))?;
    }
    Ok(())
}

/// A child that stays in the parent's user namespace, the only place from which more than one id can be
/// mapped, and maps every id that exists there to itself.
struct Mapper {
    child: Pid,
    start: io::PipeWriter,
}

impl Mapper {
    fn fork() -> Result<Self> {
        let (mut started, start) = io::pipe().context(|| "make a pipe".into())?;
        let lab = rustix::process::getpid();
        if let Some(child) = fork("mapper")? {
            return Ok(Self { child, start });
        }
        drop(start);
        let released = io::copy(&mut started, &mut io::sink());
        let mapped = released.and_then(|_| {
            for map in ["uid_map", "gid_map"] {
                let ids = std::fs::read_to_string(format!("/proc/self/{map}"))?;
                let lines = ids.lines().filter_map(|line| {
                    let mut words = line.split_whitespace();
                    let (inside, _, count) = (words.next()?, words.next()?, words.next()?);
                    Some(format!("{inside} {inside} {count}\n"))
                });
                std::fs::write(format!("/proc/{lab}/{map}"), lines.collect::<String>())?;
            }
            Ok(())
        });
        exit(i32::from(mapped.is_err()))
    }

    /// False if root lacks the permission (a container without `CAP_SETUID`).
    fn map(self) -> bool {
        drop(self.start);
        wait_for(self.child) == 0
    }
}
