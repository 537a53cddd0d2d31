//! The lab's namespaces, and whose ids exist in them. Runs before there is a second thread.

use std::io;

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

use super::fork::{exit, fork, wait_for};
use crate::error::{Context, Result};

/// One `unshare` for all: the network namespace then belongs to the new user namespace.
pub(super) fn make() -> Result<()> {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    let all = UnshareFlags::NEWUSER | UnshareFlags::NEWPID | UnshareFlags::NEWNS | UnshareFlags::NEWNET;
    let mapper = if user.is_root() { Some(Mapper::fork()?) } else { None };
    // SAFETY: there is a single thread; nothing it shares is affected.
    unsafe { rustix::thread::unshare_unsafe(all) }.context(|| "make the lab's namespaces".into())?;
    if mapper.is_some_and(Mapper::map) {
        return Ok(());
    }
    // user_namespaces(7): who is not root outside may map itself only, and only without setgroups.
    for (file, line) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{user} {user} 1")),
        ("gid_map", format!("{group} {group} 1")),
    ] {
        std::fs::write(format!("/proc/self/{file}"), line).context(|| format!("write the user namespace's {file}"))?;
    }
    Ok(())
}

/// A child that stays in the parent's user namespace, from which alone more than one id can be
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
        let go = io::copy(&mut started, &mut io::sink());
        let mapped = go.and_then(|_| {
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

    /// False where even root may not (a container without `CAP_SETUID`).
    fn map(self) -> bool {
        drop(self.start);
        wait_for(self.child) == 0
    }
}
