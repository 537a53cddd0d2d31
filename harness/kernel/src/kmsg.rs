//! Follows the kernel log through `/dev/kmsg`.
//!
//! A record is one line, `priority,sequence,microseconds,flags;text`, followed by continuation lines with
//! properties (Documentation/ABI/testing/dev-kmsg). A reader overrun by the ring buffer gets `EPIPE` once and
//! continues with the oldest remaining record; the number of missed records follows from the sequence numbers
//! ([`KernelLog::lost`]).
//!
//! Timestamps come from the log's own clock, which NTP does not adjust as it does `CLOCK_MONOTONIC`: the two
//! drift apart by up to a second a day. The smallest delay seen so far between a timestamp and its reading is used
//! as the offset.
//!
//! Not readable by ordinary users (`kernel.dmesg_restrict`) nor from any user namespace.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::clock;
use crate::error::{Context, Result};
use crate::watched::watched;

const PATH: &str = "/dev/kmsg";
/// `PRINTK_MESSAGE_MAX` in kernel/printk/internal.h: a shorter buffer makes the read fail.
const LONGEST: usize = 2048 + 64;

fn what() -> String {
    format!("read the kernel log {PATH} (it needs root, or kernel.dmesg_restrict=0 and a readable {PATH})")
}

/// One line of the kernel log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub at: u64,
    pub text: String,
}

/// Reads what the kernel logs from now on.
#[derive(Debug)]
pub struct KernelLog {
    file: AsyncFd<File>,
    next_sequence: Option<u64>,
    lost: u64,
    /// Added to a timestamp, nanoseconds.
    difference: Option<i64>,
}

impl KernelLog {
    /// Opens the log. The file can be passed on and read elsewhere: permissions are checked when it is opened.
    ///
    /// # Errors
    /// `EPERM` or `EACCES` if this user may not read the log; `ENOENT` in most containers.
    pub fn file() -> Result<File> {
        File::options().read(true).custom_flags(libc::O_NONBLOCK).open(PATH).context(what)
    }

    /// Reads a log opened by [`Self::file`], starting after its last record. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the file is not a kernel log.
    pub fn from_file(mut file: File) -> Result<Self> {
        file.seek(SeekFrom::End(0)).context(what)?;
        let file = watched(file, Interest::READABLE).context(what)?;
        Ok(Self { file, next_sequence: None, lost: 0, difference: None })
    }

    /// Waits for the next line. Cancel safe.
    ///
    /// # Errors
    /// When the log can no longer be read.
    pub async fn next(&mut self) -> io::Result<Line> {
        loop {
            let mut buffer = [0; LONGEST];
            let mut ready = self.file.readable().await?;
            let length = match ready.try_io(|file| file.get_ref().read(&mut buffer)) {
                Err(_would_block) => continue,
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EPIPE) => {
                    // The next record accounts for the gap; if none follows, at least one record is missing.
                    if self.next_sequence.is_none() {
                        self.lost += 1;
                    }
                    continue;
                }
                Ok(result) => result?,
            };
            let record = String::from_utf8_lossy(&buffer[..length]);
            if let Some((sequence, microseconds, text)) = parse(&record) {
                let expected = self.next_sequence.replace(sequence + 1).unwrap_or(sequence);
                self.lost += sequence.saturating_sub(expected);
                let stamp = microseconds * 1000;
                let delay = clock::now().cast_signed() - stamp.cast_signed();
                let difference = self.difference.map_or(delay, |known| known.min(delay));
                self.difference = Some(difference);
                return Ok(Line { at: stamp.saturating_add_signed(difference), text: text.to_owned() });
            }
        }
    }

    /// The number of records overwritten before they could be read.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }
}

/// Sequence number, time and text of a record.
fn parse(record: &str) -> Option<(u64, u64, &str)> {
    let (prefix, text) = record.split_once(';')?;
    let mut fields = prefix.split(',').skip(1);
    let sequence = fields.next()?.parse().ok()?;
    let microseconds = fields.next()?.parse().ok()?;
    Some((sequence, microseconds, text.lines().next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_record_is_taken_apart() {
        let record = "4,1234,56789012,-,caller=T1;nf_conntrack: table full, dropping packet\n SUBSYSTEM=x\n";
        assert_eq!(super::parse(record), Some((1234, 56_789_012, "nf_conntrack: table full, dropping packet")));
        assert_eq!(super::parse("6,1,2,-;a;b"), Some((1, 2, "a;b")));
        assert_eq!(super::parse("nonsense"), None);
    }
}
