//! Lines of an untrusted stream.
//!
//! Invariant: memory is bounded for any input: a line is kept up to its limit, and the rest is read and dropped.

use std::io::{self, BufRead, Read};

/// Maximum length of a line, bytes.
pub(super) const LONGEST: usize = 64 * 1024;

/// One line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub text: String,
    /// It was longer than the limit.
    pub cut: bool,
}

/// Reads the next line; `None` at the end. The last one may lack its newline.
pub(super) fn next(reader: &mut impl BufRead) -> io::Result<Option<Line>> {
    let mut kept: Vec<u8> = Vec::new();
    if reader.by_ref().take(LONGEST as u64 + 1).read_until(b'\n', &mut kept)? == 0 {
        return Ok(None);
    }
    let cut = kept.len() > LONGEST && !kept.ends_with(b"\n");
    if cut {
        kept.truncate(LONGEST);
        reader.skip_until(b'\n')?;
    }
    let text = String::from_utf8_lossy(&kept).trim_end_matches(['\r', '\n']).to_owned();
    Ok(Some(Line { text, cut }))
}

/// Makes program output safe for a message: on one line, short, without control characters.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 120;
    let mut out: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST).collect();
    if text.trim().chars().nth(MOST).is_some() {
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut bytes: &[u8]) -> Vec<Line> {
        std::iter::from_fn(|| next(&mut bytes).expect("a slice can be read")).collect()
    }

    fn line(text: &str) -> Line {
        Line { text: text.to_owned(), cut: false }
    }

    #[test]
    fn lines_end_in_several_ways() {
        assert_eq!(all(b"a\r\n\nb"), [line("a"), line(""), line("b")]);
        assert_eq!(all(b""), []);
        assert_eq!(all(b"\xff\n"), [line("\u{fffd}")]);
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_is_whole() {
        let mut bytes = vec![b'x'; 3 * LONGEST];
        bytes.extend_from_slice(b"\nnext\n");
        let mut reader = io::BufReader::with_capacity(1000, bytes.as_slice());
        let first = next(&mut reader).expect("readable").expect("a line");
        assert!(first.cut && first.text.len() == LONGEST);
        assert_eq!(next(&mut reader).expect("readable"), Some(line("next")));
        let exact = vec![b'x'; LONGEST];
        assert!(!all(&exact)[0].cut);
    }

    #[test]
    fn shown_is_short_and_harmless() {
        assert_eq!(shown(" a\u{1b}[31mb\n"), "a [31mb");
        assert_eq!(shown(&"x".repeat(1000)).len(), 123);
    }
}
