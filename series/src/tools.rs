//! Prometheus's own programs: in `PATH`, or where `scripts/prometheus.sh` unpacks Debian's packages.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The first of these names in `PATH`, else in the [`folder`] of tools.
#[must_use]
pub fn find(names: &[&str]) -> Option<PathBuf> {
    let path = set("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(folder());
    folders.flat_map(|folder| names.iter().map(move |name| folder.join(name))).find(|file| file.is_file())
}

/// `$XDG_CACHE_HOME/relapse/tools/prometheus/usr/bin`.
#[must_use]
pub fn folder() -> Option<PathBuf> {
    Some(cache()?.join("tools/prometheus/usr/bin"))
}

/// What relapse keeps for later runs, and may be deleted at any time: `$XDG_CACHE_HOME/relapse`, `~/.cache/relapse`.
#[must_use]
pub fn cache() -> Option<PathBuf> {
    cache_in(set("XDG_CACHE_HOME"), set("HOME"))
}

fn set(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn cache_in(cache: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let cache = cache.map(PathBuf::from).or_else(|| Some(Path::new(&home?).join(".cache")))?;
    Some(cache.join("relapse"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_the_users() {
        let at = |cache: Option<&str>, home: Option<&str>| cache_in(cache.map(Into::into), home.map(Into::into));
        assert_eq!(at(Some("/c"), Some("/home/a")), Some("/c/relapse".into()));
        assert_eq!(at(None, Some("/home/a")), Some("/home/a/.cache/relapse".into()));
        assert_eq!(at(None, None), None);
    }
}
