//! Standard output: a closed pipe is no error and causes no panic.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use relapse_reports::paint::Page;

/// Writes a line. Returns false if the reader has gone.
pub fn line(text: impl Display) -> bool {
    writeln!(io::stdout().lock(), "{text}").is_ok()
}

/// Writes lines until the end or until the reader has gone.
pub fn lines<T: Display>(all: impl IntoIterator<Item = T>) {
    let _ = all.into_iter().all(line);
}

/// The format of standard output: coloured on a terminal, unless `NO_COLOR` is set.
pub fn page() -> Page {
    page_of(&io::stdout())
}

/// The format of standard error.
pub fn error_page() -> Page {
    page_of(&io::stderr())
}

fn page_of(stream: &impl IsTerminal) -> Page {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    Page { color: wanted && !dumb && stream.is_terminal(), width: None }
}
