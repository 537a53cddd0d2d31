//! One setting as a file, of the namespace that the thread is in.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::error::{Context, Error, Result};

/// Most settings of a lab are as they are to be already: one look, and no write, is enough for them.
pub(super) fn put(place: &str, key: &str, value: &str) -> Result<()> {
    let what = || format!("set {key} to {value} in {place}");
    let file = File::options().read(true).write(true).open(path(key)?).context(what)?;
    let wanted = normal(value);
    if shown(&file).context(what)? == wanted {
        return Ok(());
    }
    file.write_all_at(value.as_bytes(), 0).context(what)?;
    let read_back = shown(&file).context(what)?;
    if read_back == wanted { Ok(()) } else { Err(Error::NotInForce { what: what(), read_back }) }
}

fn shown(file: &File) -> io::Result<String> {
    let mut bytes = vec![0; 4096];
    let length = file.read_at(&mut bytes, 0)?;
    bytes.truncate(length);
    Ok(normal(&String::from_utf8_lossy(&bytes)))
}

/// Lists are shown with tabs and may be written with blanks.
pub(super) fn normal(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(super) fn path(key: &str) -> Result<PathBuf> {
    let relative = if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
    if relative.split('/').any(|part| matches!(part, "" | "." | "..")) {
        let reason = io::Error::new(io::ErrorKind::InvalidInput, "not the name of a setting");
        return Err(Error::kernel(format!("find {key} under /proc/sys"), reason));
    }
    Ok(PathBuf::from("/proc/sys").join(relative))
}

#[cfg(test)]
mod tests {
    use super::{normal, path};

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

    #[test]
    fn lists_compare_whatever_separates_them() {
        assert_eq!(normal("32768\t60999\n"), normal("32768 60999"));
    }
}
