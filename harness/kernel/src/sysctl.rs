//! Settings under `/proc/sys`, per namespace or machine-wide.
//!
//! `/proc/sys/net` shows the namespace of the thread that opens it, so these settings are accessed by
//! a thread inside it. Every write is read back: the kernel accepts some values without applying them.
//!
//! A key is written with dots (`net.ipv4.ip_forward`), or with slashes if a name contains dots
//! (`net/ipv4/conf/eth0.1/rp_filter`).
//!
//! The settings of a lab are in [`lab`].

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::error::{Context, Error, Result};
use crate::netns::NetNs;

pub mod lab;

pub use self::lab::{Setting, all_of, apply, lab_settings};

/// Reads a setting of a namespace.
///
/// # Errors
/// `ENOENT` if this kernel, or this namespace, has no such setting.
pub fn read(ns: &NetNs, key: &str) -> Result<String> {
    let path = path(key)?;
    ns.run(|| fs::read_to_string(path))?.map(|value| normal(&value)).context(|| format!("read {key} in {}", ns.name()))
}

/// Writes a setting of a namespace and reads it back.
///
/// # Errors
/// The error reported by the kernel; [`Error::NotInForce`] if another value is read back.
pub fn write(ns: &NetNs, key: &str, value: &str) -> Result<()> {
    ns.run(|| put(ns.name(), key, value))?
}

/// Writes several settings in order, entering the namespace once, and reads each back. Stops at the first that
/// fails.
///
/// # Errors
/// See [`write`].
pub fn write_all<S: AsRef<str>>(ns: &NetNs, settings: &[(S, S)]) -> Result<()> {
    ns.run(|| settings.iter().try_for_each(|(key, value)| put(ns.name(), key.as_ref(), value.as_ref())))?
}

/// Reads a setting of the machine, or of the calling thread's namespace.
///
/// # Errors
/// See [`read`].
pub fn read_host(key: &str) -> Result<String> {
    fs::read_to_string(path(key)?).map(|value| normal(&value)).context(|| format!("read {key}"))
}

/// Writes a setting of the machine, or of the calling thread's namespace, and reads it back.
///
/// # Errors
/// See [`write`].
pub fn write_host(key: &str, value: &str) -> Result<()> {
    put("this machine", key, value)
}

/// Reads before writing: most settings of a lab have the wanted value already.
fn put(place: &str, key: &str, value: &str) -> Result<()> {
    let what = || format!("set {key} to {value} in {place}");
    let file = File::options().read(true).write(true).open(path(key)?).context(what)?;
    let shown = || -> Result<String> {
        let mut bytes = [0; 4096];
        let length = file.read_at(&mut bytes, 0).context(what)?;
        Ok(normal(&String::from_utf8_lossy(&bytes[..length])))
    };
    let wanted = normal(value);
    if shown()? == wanted {
        return Ok(());
    }
    file.write_all_at(value.as_bytes(), 0).context(what)?;
    let read_back = shown()?;
    if read_back == wanted { Ok(()) } else { Err(Error::NotInForce { what: what(), read_back }) }
}

/// The kernel separates list elements with tabs, and accepts spaces.
fn normal(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn path(key: &str) -> Result<PathBuf> {
    let relative = if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
    if relative.split('/').any(|part| matches!(part, "" | "." | "..")) {
        let why = "not the name of a setting".into();
        return Err(Error::Refused { what: format!("find {key} under /proc/sys"), why });
    }
    Ok(PathBuf::from("/proc/sys").join(relative))
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn keys_become_paths() {
        let shown = |key| path(key).map(|p| p.display().to_string()).ok();
        assert_eq!(shown("net.ipv4.ip_forward").as_deref(), Some("/proc/sys/net/ipv4/ip_forward"));
        assert_eq!(
            shown("net/ipv4/conf/eth0.1/rp_filter").as_deref(),
            Some("/proc/sys/net/ipv4/conf/eth0.1/rp_filter")
        );
        for wrong in ["", "/etc/passwd", "net/../../etc/passwd", "net..ipv4", "net/ipv4/"] {
            assert_eq!(shown(wrong), None, "{wrong}");
        }
    }
}
