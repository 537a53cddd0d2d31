//! The folder of a run's reports.
//!
//! Job: `runs/<run-id>/` with `events.jsonl`, written during the run, and the reports made from it at the end; `latest`
//! points to the newest run. Invariants: an earlier run's folder is never written to (a second run of the same id gets
//! `-2`); `latest` is replaced atomically; so is each report. Left out: removing old runs.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::event::RunEvent;
use crate::html;
use crate::jsonl;
use crate::junit;
use crate::markdown;
use crate::merge;
use crate::summary::RunSummary;
use crate::text;

pub const EVENTS: &str = "events.jsonl";
pub const JUNIT: &str = "junit.xml";
pub const MARKDOWN: &str = "summary.md";
pub const HTML: &str = "report.html";
pub const MATRIX: &str = "matrix.txt";

/// Why reports could not be written.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("use {run_id:?} as the name of a folder")]
    RunId { run_id: String },
    #[error("{doing} {}", path.display())]
    Io {
        /// "write", "create folder".
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("point {} to the newest run", path.display())]
    Latest {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("record an event in {}", path.display())]
    Record {
        path: PathBuf,
        #[source]
        source: jsonl::WriteError,
    },
    #[error("read events of {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: jsonl::ReadError,
    },
    #[error("create {JUNIT}")]
    Junit(#[source] junit::JunitError),
}

/// Builds the error of a file operation.
fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { doing, path, source }
}

/// The folder of a running run.
#[derive(Debug)]
#[must_use = "events are only kept if they are recorded, and reports only made by `finish`"]
pub struct RunFolder {
    path: PathBuf,
    events: File,
    run: RunSummary,
}

impl RunFolder {
    /// Creates `root/runs/<run_id>/` with an empty event file and points `root/latest` to it.
    ///
    /// # Errors
    /// The id is not a valid folder name, or a file operation fails.
    pub fn create(root: &Path, run_id: &str) -> Result<Self, FolderError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if run_id.is_empty() || run_id.starts_with('.') || !run_id.chars().all(plain) {
            return Err(FolderError::RunId { run_id: run_id.to_owned() });
        }
        let runs = root.join("runs");
        fs::create_dir_all(&runs).map_err(failed("create folder", &runs))?;
        let name = claim(&runs, run_id)?;
        let path = runs.join(&name);
        let file = path.join(EVENTS);
        let events = File::create_new(&file).map_err(failed("create folder", &file))?;
        point_latest(root, &name)?;
        Ok(Self { path, events, run: RunSummary::default() })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one event to the file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn record(&mut self, event: &RunEvent) -> Result<(), FolderError> {
        self.run.push(event);
        jsonl::append(&mut self.events, event)
            .map_err(|source| FolderError::Record { path: self.path.join(EVENTS), source })
    }

    /// Writes all reports of the recorded events; returns the folder.
    ///
    /// # Errors
    /// A report cannot be created or written.
    pub fn finish(self) -> Result<PathBuf, FolderError> {
        write_summary(&self.path, &self.run)?;
        Ok(self.path)
    }
}

/// Takes the first free name. Creating a folder is atomic, so two runs never get the same name.
fn claim(runs: &Path, run_id: &str) -> Result<String, FolderError> {
    let mut n = 1_u32;
    loop {
        let name = if n == 1 { run_id.to_owned() } else { format!("{run_id}-{n}") };
        let path = runs.join(&name);
        match fs::create_dir(&path) {
            Ok(()) => return Ok(name),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => n += 1,
            Err(error) => return Err(failed("create folder", &path)(error)),
        }
    }
}

fn point_latest(root: &Path, name: &str) -> Result<(), FolderError> {
    let latest = root.join("latest");
    // Named after the run, so that two runs never share the temporary link.
    let fresh = root.join(format!(".latest-{name}"));
    let made = symlink(Path::new("runs").join(name), &fresh).and_then(|()| fs::rename(&fresh, &latest));
    made.map_err(|source| {
        let _ = fs::remove_file(&fresh);
        FolderError::Latest { path: latest, source }
    })
}

fn write_summary(folder: &Path, run: &RunSummary) -> Result<(), FolderError> {
    replace(&folder.join(MATRIX), &text::file(run))?;
    replace(&folder.join(MARKDOWN), &markdown::markdown(run))?;
    replace(&folder.join(HTML), &html::html(run))?;
    replace(&folder.join(JUNIT), &junit::junit(run).map_err(FolderError::Junit)?)
}

fn replace(path: &Path, text: &str) -> Result<(), FolderError> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, path)).map_err(failed("write", path))
}

/// Recreates all reports from an event file (or its folder), next to it. Returns the folder and the run.
///
/// # Errors
/// The events cannot be read, or a report cannot be written.
pub fn from_events(path: &Path) -> Result<(PathBuf, RunSummary), FolderError> {
    let (path, events) = read(path)?;
    let run = RunSummary::of(&events);
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    write_summary(&folder, &run)?;
    Ok((folder, run))
}

/// Writes one report of several runs, in this order, with their merged events. Returns the folder and the run.
///
/// # Errors
/// Events cannot be read, or the folder cannot be written.
pub fn from_runs(paths: &[PathBuf], folder: &Path) -> Result<(PathBuf, RunSummary), FolderError> {
    let runs = paths.iter().map(|path| Ok(read(path)?.1)).collect::<Result<Vec<_>, FolderError>>()?;
    let events = merge::merge(runs);
    fs::create_dir_all(folder).map_err(failed("create folder", folder))?;
    let path = folder.join(EVENTS);
    let mut text = Vec::new();
    for event in &events {
        jsonl::append(&mut text, event).map_err(|source| FolderError::Record { path: path.clone(), source })?;
    }
    fs::write(&path, text).map_err(failed("write", &path))?;
    let run = RunSummary::of(&events);
    write_summary(folder, &run)?;
    Ok((folder.to_owned(), run))
}

/// The path and the events of an event file, or of the one in a folder.
fn read(path: &Path) -> Result<(PathBuf, Vec<RunEvent>), FolderError> {
    let path = if path.is_dir() { path.join(EVENTS) } else { path.to_owned() };
    let file = File::open(&path).map_err(failed("open", &path))?;
    match jsonl::read(BufReader::new(file)) {
        Ok(events) => Ok((path, events)),
        Err(source) => Err(FolderError::Read { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    /// A folder that is removed when the test ends.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("relapse-reports-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("a scratch folder");
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn keep(root: &Path, events: &[RunEvent]) -> PathBuf {
        let mut folder = RunFolder::create(root, "20261121-114200-7f3a").expect("a folder");
        for event in events {
            folder.record(event).expect("recorded");
        }
        folder.finish().expect("reports")
    }

    #[test]
    fn an_earlier_run_is_never_overwritten_and_latest_is_the_newest() {
        let scratch = Scratch::new("again");
        let first = keep(&scratch.0, &sample::run());
        let before = fs::read(first.join(EVENTS)).expect("events");
        let second = keep(&scratch.0, &sample::alone("kind"));
        assert!(second.ends_with("runs/20261121-114200-7f3a-2"), "{}", second.display());
        assert_eq!(fs::read(first.join(EVENTS)).expect("events"), before);
        let latest = fs::canonicalize(scratch.0.join("latest")).expect("latest");
        assert_eq!(latest, fs::canonicalize(&second).expect("second"));
        let left: Vec<_> = fs::read_dir(&scratch.0).expect("root").map(|e| e.expect("entry").file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }

    #[test]
    fn reports_can_be_made_again_from_the_event_file() {
        let scratch = Scratch::new("remade");
        let folder = keep(&scratch.0, &sample::run());
        let names = [JUNIT, MARKDOWN, HTML, MATRIX];
        let read = || names.map(|name| fs::read_to_string(folder.join(name)).expect(name));
        let before = read();
        for name in names {
            fs::remove_file(folder.join(name)).expect(name);
        }
        from_events(&folder).expect("recreated");
        assert!(read() == before, "recreated reports differ");
    }

    #[test]
    fn a_killed_run_has_reports_too() {
        let scratch = Scratch::new("killed");
        let mut folder = RunFolder::create(&scratch.0, "killed").expect("a folder");
        for event in &sample::run()[..60] {
            folder.record(event).expect("recorded");
        }
        let path = folder.path().to_owned();
        drop(folder);
        let file = File::options().append(true).open(path.join(EVENTS)).expect("events");
        io::Write::write_all(&mut &file, b"{\"at\":48").expect("half a line");
        let (_, run) = from_events(&path.join(EVENTS)).expect("recreated");
        assert_eq!(run.outcome(), crate::event::Outcome::Inconclusive);
        assert!(fs::read_to_string(path.join(MARKDOWN)).expect("summary").contains("breaks off"));
    }

    /// Reports of a run on kind only differ from those of a lab in one place.
    #[test]
    fn kind_is_reported_once() {
        let [lab, kind] = ["netns", "kind"].map(|backend| RunSummary::of(&sample::alone(backend)));
        assert_eq!(text::file(&kind), format!("on kind\n{}", text::file(&lab)));
        assert_eq!(markdown::markdown(&kind), markdown::markdown(&lab).replace("7f3a` of", "7f3a` on kind of"));
        let of_the_lab = html::html(&lab).replace("-netns-", "-kind-");
        assert_eq!(html::html(&kind), of_the_lab.replace("7f3a</b> ·", "7f3a</b> on kind ·"));
    }

    #[test]
    fn an_id_cannot_leave_the_folder() {
        let scratch = Scratch::new("id");
        for id in ["", "..", "a/b", ".hidden", "a b"] {
            assert!(matches!(RunFolder::create(&scratch.0, id), Err(FolderError::RunId { .. })), "{id}");
        }
    }

    /// For manual inspection: `cargo test -p relapse-reports -- --ignored look`.
    #[test]
    #[ignore = "leaves sample reports in the temporary folder, for manual inspection"]
    fn look() {
        let root = std::env::temp_dir().join("relapse-sample");
        for events in [sample::run(), sample::alone("kind"), sample::both(|_| true)] {
            println!("{}", keep(&root, &events).display());
        }
    }
}
