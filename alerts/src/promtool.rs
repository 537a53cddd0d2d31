//! `promtool test rules`: found, run within a time limit, and its answers read.
//!
//! promtool has no command that evaluates an expression on given series and prints the result. A test whose expected
//! samples are empty fails with what it got, and that is the answer ([`words`]).

mod files;
mod run;
mod words;

use std::ffi::OsStr;
use std::fmt;
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, SystemTime};

use crate::recording::tools;

pub use files::{Ask, File, Test, WrittenRule, quoted};
pub use words::{Answer, OfFile, Samples};

/// A promtool from `go install` prints no version.
const UNKNOWN: Version = Version { major: 0, minor: 0, patch: 0 };

/// The oldest version that has all that is used: `keep_firing_for`, `_xN`, `stale`.
pub const OLDEST: Version = Version { major: 2, minor: 42, patch: 0 };

#[derive(Debug, Clone)]
pub struct Promtool {
    path: PathBuf,
    pub version: Version,
    /// Of one without a version: size, and when it was changed.
    file: Option<(u64, SystemTime)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            UNKNOWN => write!(f, "of unknown version"),
            Self { major, minor, patch } => write!(f, "{major}.{minor}.{patch}"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("find promtool: it is not in PATH or {0}, and PROMTOOL is not set")]
    Missing(PathBuf),
    #[error("start {path}: {source}")]
    Start { path: PathBuf, source: std::io::Error },
    #[error("read the version of {path}: it prints {printed:?}")]
    NotPromtool { path: PathBuf, printed: String },
    #[error("use {path}: it is promtool {version}, and {OLDEST} is the oldest that works")]
    Ancient { path: PathBuf, version: Version },
    #[error("get an answer from promtool within {} s", limit.as_secs())]
    TooSlow { limit: Duration },
    #[error("get an answer from promtool: {how}: {printed}")]
    Crashed { how: String, printed: String },
    #[error("write promtool's files: {0}")]
    Files(#[from] std::io::Error),
}

impl Promtool {
    /// The one that `$PROMTOOL` names, else the first in `$PATH`, else that of the folder of tools.
    ///
    /// # Errors
    /// If there is none, or it is too old.
    pub fn find() -> Result<Self, Error> {
        let set = std::env::var_os("PROMTOOL").filter(|value| !value.is_empty()).map(PathBuf::from);
        let found = set.or_else(|| tools::find(&["promtool"]));
        Self::at(&found.ok_or_else(|| Error::Missing(tools::folder().unwrap_or_default()))?)
    }

    /// # Errors
    /// If it does not start, is not promtool, or is too old.
    pub fn at(path: &Path) -> Result<Self, Error> {
        let (_, printed) = run::output(path, &[OsStr::new("--version")], Path::new("/"), Duration::from_secs(10))?;
        let version = words::version(&printed).ok_or_else(|| Error::NotPromtool {
            path: path.to_owned(),
            printed: printed.lines().next().unwrap_or_default().to_owned(),
        })?;
        if version < OLDEST && version != UNKNOWN {
            return Err(Error::Ancient { path: path.to_owned(), version });
        }
        let file = || {
            let file = path.metadata()?;
            Ok((file.len(), file.modified()?))
        };
        let file = (version == UNKNOWN).then(file).transpose();
        let file = file.map_err(|source| Error::Start { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), version, file })
    }

    /// What tells promtools apart that may answer differently.
    #[must_use]
    pub fn identity(&self) -> impl Hash + use<> {
        (self.version, self.file.map(|file| (self.path.clone(), file)))
    }

    /// One that is never asked.
    #[cfg(test)]
    pub fn of_version(version: Version) -> Self {
        Self { path: PathBuf::new(), version, file: None }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs files of tests in one process. The answers to a test's questions in their order; an error is that of the
    /// whole test, such as a rule that does not parse.
    ///
    /// # Errors
    /// If promtool does not end within `limit`, or crashes.
    pub fn test(&self, files: &[File], limit: Duration) -> Result<Vec<OfFile>, Error> {
        let (status, printed) = self.printed(files, limit)?;
        // 1: a test failed, as all of these do. Go exits with 2 after a panic.
        if status.code() != Some(1) {
            let how = match status.code() {
                Some(code) => format!("it exited with {code}"),
                None => status.to_string(),
            };
            let printed = printed.lines().take(3).collect::<Vec<_>>().join(" ");
            return Err(Error::Crashed { how, printed });
        }
        Ok(words::answers(&printed, files))
    }

    fn printed(&self, files: &[File], limit: Duration) -> Result<(ExitStatus, String), Error> {
        let folder = folder()?;
        let mut args = vec!["test".into(), "rules".into()];
        let mut asked = 0;
        for (number, file) in files.iter().enumerate() {
            args.push(file.write(folder.path(), number, &mut asked)?);
        }
        let args: Vec<&OsStr> = args.iter().map(std::ffi::OsString::as_os_str).collect();
        run::output(&self.path, &args, folder.path(), limit)
    }
}

/// In memory where there is such a place: promtool makes a database for each test and waits until it is on the disk.
fn folder() -> std::io::Result<tempfile::TempDir> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A promtool that runs a line of shell.
    fn script(folder: &Path, line: &str) -> PathBuf {
        let path = folder.join("promtool");
        std::fs::write(&path, format!("#!/bin/sh\n{line}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    const VERSION: &str = "[ \"$1\" = --version ] && echo 'promtool, version 2.53.1 (branch: HEAD)' && exit\n";

    #[test]
    fn what_is_wrong_with_promtool_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let at = |line: &str| Promtool::at(&script(folder.path(), line)).unwrap_err().to_string();
        let path = folder.path().join("promtool").display().to_string();
        assert_eq!(
            at("echo 'promtool, version 2.24.1+ds (branch: debian/sid)'"),
            format!("use {path}: it is promtool 2.24.1, and 2.42.0 is the oldest that works")
        );
        assert_eq!(at("echo hello"), format!("read the version of {path}: it prints \"hello\""));
        assert!(Promtool::at(&folder.path().join("none")).unwrap_err().to_string().starts_with("start "));

        let test = |line: &str, limit| {
            let promtool = Promtool::at(&script(folder.path(), &format!("{VERSION}{line}"))).unwrap();
            promtool.test(&[], Duration::from_millis(limit)).unwrap_err().to_string()
        };
        assert_eq!(
            test("echo 'panic: runtime error' >&2; exit 2", 5000),
            "get an answer from promtool: it exited with 2: panic: runtime error"
        );
        assert!(test("kill -SEGV $$", 5000).contains("signal: 11"));
        assert_eq!(test("exec sleep 60", 100), "get an answer from promtool within 0 s");
    }
}
