//! Settings under `/proc/sys`, of a namespace or of the machine.
//!
//! `/proc/sys/net` shows the namespace of the thread that opens it, so those are read and written on
//! a thread that is in it. What is written is read back: the kernel takes some values and keeps others.
//!
//! A key is written with dots (`net.ipv4.ip_forward`), or with slashes where a name has dots in it
//! (`net/ipv4/conf/eth0.1/rp_filter`).
//!
//! What a lab relies on is in [`lab`].

use std::fs;

use crate::error::{Context, Result};
use crate::netns::NetNs;

mod file;
pub mod lab;

use self::file::{normal, path, put};
pub use self::lab::{Setting, all_of, apply, lab_settings};

/// Reads a setting of a namespace.
///
/// # Errors
/// `ENOENT` when this kernel has no such setting, or not in this namespace.
pub fn read(ns: &NetNs, key: &str) -> Result<String> {
    let path = path(key)?;
    ns.run(move || fs::read_to_string(path))?
        .map(|value| normal(&value))
        .context(|| format!("read {key} in {}", ns.name()))
}

/// Writes a setting of a namespace and reads it back.
///
/// # Errors
/// What the kernel said; [`Error::NotInForce`](crate::Error::NotInForce) when another value is read back.
pub fn write(ns: &NetNs, key: &str, value: &str) -> Result<()> {
    write_all(ns, &[(key, value)])
}

/// Writes several settings in order, in one visit to the namespace, and reads each back. Stops at
/// the first that fails.
///
/// # Errors
/// See [`write`].
pub fn write_all<S: AsRef<str>>(ns: &NetNs, settings: &[(S, S)]) -> Result<()> {
    let place = ns.name().to_owned();
    let settings: Vec<(String, String)> =
        settings.iter().map(|(key, value)| (key.as_ref().into(), value.as_ref().into())).collect();
    ns.run(move || settings.iter().try_for_each(|(key, value)| put(&place, key, value)))?
}

/// Writes to a setting that does something instead of keeping a value, and cannot be read.
///
/// # Errors
/// What the kernel said.
pub fn trigger(ns: &NetNs, key: &str, value: &str) -> Result<()> {
    let (path, value) = (path(key)?, value.to_owned());
    ns.run(move || fs::write(path, value))?.context(|| format!("write {key} in {}", ns.name()))
}

/// Reads a setting of the machine, or of the namespace that the calling thread is in.
///
/// # Errors
/// See [`read`].
pub fn read_host(key: &str) -> Result<String> {
    fs::read_to_string(path(key)?).map(|value| normal(&value)).context(|| format!("read {key}"))
}

/// Writes a setting of the machine, or of the namespace that the calling thread is in, and reads it back.
///
/// # Errors
/// See [`write`].
pub fn write_host(key: &str, value: &str) -> Result<()> {
    put("this machine", key, value)
}
