//! `relapse init`: the first files of a repository of scenarios.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::{Refused, out};

/// Start a repository of scenarios.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  relapse init
  relapse init incidents && cd incidents && relapse run

Existing files are left alone. Exit status: 0 written, 64 a file was there or could not be written.")]
pub struct InitArguments {
    /// Folder to write to; created if it does not exist.
    #[arg(default_value = ".")]
    folder: PathBuf,
}

macro_rules! files {
    ($($path:literal $mode:literal $purpose:literal,)*) => {
        [$(File { path: $path, mode: $mode, purpose: $purpose, text: include_str!(concat!("../../../examples/init/", $path)) }),*]
    };
}

struct File {
    path: &'static str,
    mode: u32,
    purpose: &'static str,
    text: &'static str,
}

const FILES: [File; 5] = files! {
    "scenarios/route-lost.yaml" 0o644 "a first scenario, with its benign twin",
    "relapse.yaml" 0o644 "your detectors, and what each must find",
    "detectors/route-watch.sh" 0o755 "a detector that runs",
    ".github/workflows/relapse.yml" 0o644 "the nightly gate; comments show what to fill in",
    ".gitignore" 0o644 "reports are not committed",
};

pub fn main(arguments: &InitArguments) -> Result<ExitCode, Refused> {
    let folder = &arguments.folder;
    let existing: Vec<PathBuf> = FILES.iter().map(|file| folder.join(file.path)).filter(|path| path.exists()).collect();
    if !existing.is_empty() {
        let existing: Vec<String> = existing.iter().map(|path| format!("  {}", path.display())).collect();
        return Err(format!("these files already exist; nothing was written:\n{}", existing.join("\n")).into());
    }
    for file in FILES {
        let path = folder.join(file.path);
        write(&path, &file).map_err(|e| format!("failed to write {}: {e}", path.display()))?;
        out::line(format_args!("wrote {:<40} {}", path.display(), file.purpose));
    }
    let enter = if folder == Path::new(".") { String::new() } else { format!("cd {} && ", folder.display()) };
    out::line(format_args!("next: {enter}relapse run"));
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, file: &File) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut opened = fs::OpenOptions::new().write(true).create_new(true).mode(file.mode).open(path)?;
    opened.write_all(file.text.as_bytes()).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}
