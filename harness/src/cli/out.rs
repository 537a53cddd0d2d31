//! Standard output as a command needs it: a reader that went away is no error and no panic.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use relapse_reports::paint::Page;

/// Writes a line; whether anybody still reads.
pub fn line(text: impl Display) -> bool {
    writeln!(io::stdout().lock(), "{text}").is_ok()
}

/// Writes lines until there are no more, or no reader.
pub fn lines<T: Display>(all: impl IntoIterator<Item = T>) {
    let _ = all.into_iter().all(line);
}

/// How text is put on standard output: in colour on a terminal, unless `NO_COLOR` says otherwise.
pub fn page() -> Page {
    page_of(&io::stdout())
}

/// How text is put on standard error.
pub fn error_page() -> Page {
    page_of(&io::stderr())
}

fn page_of(stream: &impl IsTerminal) -> Page {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    Page { color: wanted && !dumb && stream.is_terminal(), width: None }
}
