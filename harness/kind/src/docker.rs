//! The programs `docker` and `kind`, each call with a time limit.
//!
//! kind itself uses Docker's command line, and this module does the same for the few calls it needs. (Servers outside
//! are started by testcontainers, which uses the engine's socket.)

use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use relapse_kernel::host::is_root;

use super::until::until;

/// Time limit of an ordinary call.
const SOON: Duration = Duration::from_secs(30);

/// Runs a short Docker command and returns its output without the trailing newline.
///
/// # Errors
/// Docker's error, or a timeout.
pub fn docker(arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("docker");
    command.args(arguments);
    within(&mut command, SOON, &|| false)
}

/// The first process of a container, in the host's PID namespace.
///
/// # Errors
/// If Docker does not answer, or the container does not run.
pub fn pid_of(container: &str) -> Result<u32, String> {
    let pid = docker(&["inspect", "--format", "{{.State.Pid}}", container])?;
    pid.parse().ok().filter(|pid| *pid > 0).ok_or_else(|| format!("{container} does not run"))
}

/// Runs a program to completion and returns its standard output.
///
/// # Errors
/// If the program fails, times out, or `stop` becomes true ("stopped").
pub fn within(command: &mut Command, limit: Duration, stop: &dyn Fn() -> bool) -> Result<String, String> {
    let name = format!("{} {}", Path::new(command.get_program()).display(), words(command));
    // In a process group of its own, so that Ctrl-C reaches only relapse, which then stops the program.
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn();
    let mut child = child.map_err(|e| format!("`{name}` could not be started: {e}"))?;
    let (out, err) = (gather(child.stdout.take()), gather(child.stderr.take()));
    let text = |pipe: std::thread::JoinHandle<String>| pipe.join().unwrap_or_default();
    let late = || format!("`{name}` did not end");
    let ended = until(limit, stop, late, || child.try_wait().map_err(|e| format!("`{name}`: {e}")));
    let status = ended.inspect_err(|_| end(&mut child))?;
    let (out, err) = (text(out), text(err));
    if status.success() {
        return Ok(out.trim_end().to_owned());
    }
    let output = if err.trim().is_empty() { out } else { err };
    let why = if output.trim().is_empty() { status.to_string() } else { essence(&output) };
    Err(format!("`{name}` failed: {why}"))
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn gather(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    })
}

fn words(command: &Command) -> String {
    let all: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    all.join(" ")
}

/// Maximum length of a line in an error. kind quotes whole command lines, with the reason at the end.
const LONGEST: usize = 280;

/// The relevant lines of an error output: those that contain "error", otherwise the last three.
fn essence(output: &str) -> String {
    let lines: Vec<&str> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let errors: Vec<&str> = lines.iter().copied().filter(|line| line.to_lowercase().contains("error")).collect();
    let chosen = if errors.is_empty() { &lines[lines.len().saturating_sub(3)..] } else { &errors[..] };
    chosen.iter().take(3).map(|line| shortened(line)).collect::<Vec<_>>().join("; ")
}

/// Shortens a long line by cutting its middle.
fn shortened(line: &str) -> String {
    let all: Vec<char> = line.chars().collect();
    if all.len() <= LONGEST {
        return line.to_owned();
    }
    let end = |half: &[char]| half.iter().collect::<String>();
    format!("{} ... {}", end(&all[..LONGEST / 2]), end(&all[all.len() - LONGEST / 2..]))
}

/// Folders where `make kind` stores its choices (the kind program, the image names): in the cache of the current user,
/// then in the cache of the user who invoked sudo.
fn caches() -> impl Iterator<Item = PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let own = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    let before_sudo = || home_of(&std::env::var("SUDO_UID").ok().filter(|_| is_root())?);
    own.into_iter()
        .chain(std::iter::once_with(before_sudo).flatten().map(|home| home.join(".cache")))
        .map(|cache| cache.join("relapse/kind-node"))
}

/// The home directory of a user id, from passwd(5).
fn home_of(uid: &str) -> Option<PathBuf> {
    let all = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut lines = all.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.find_map(|fields| (fields.get(2) == Some(&uid)).then(|| fields.get(5).map(PathBuf::from))?)
}

/// A kind command that uses the same Docker engine.
///
/// # Errors
/// If kind is not installed.
pub fn kind() -> Result<Command, String> {
    let mut command = Command::new(kind_program().ok_or("kind is not installed: run `make kind`")?);
    command.env("KIND_EXPERIMENTAL_PROVIDER", "docker").env_remove("KUBECONFIG");
    Ok(command)
}

/// The `kind` program: the one chosen by `make kind`, otherwise the one on the path.
#[must_use]
pub fn kind_program() -> Option<PathBuf> {
    if let Some(chosen) = noted("kind").map(PathBuf::from).filter(|file| file.is_file()) {
        return Some(chosen);
    }
    on_path("kind")
}

/// Finds a program on the path.
#[must_use]
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// A value stored by `make kind`: `kind`, `image`, `nginx-image` or `mariadb-image`.
#[must_use]
pub fn noted(name: &str) -> Option<String> {
    caches().find_map(|cache| {
        let text = std::fs::read_to_string(cache.join(name)).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    })
}

/// The node image: the requested one, the one in `RELAPSE_KIND_IMAGE`, the one `make kind` found or built, or `None`
/// for kind's default.
#[must_use]
pub fn node_image(requested: Option<&str>) -> Option<String> {
    let variable = || std::env::var("RELAPSE_KIND_IMAGE").ok().filter(|image| !image.is_empty());
    requested.map(str::to_owned).or_else(variable).or_else(|| noted("image")).filter(|image| !image.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_found_by_the_number_of_its_user() {
        assert_eq!(home_of("0"), Some("/root".into()));
        assert_eq!(home_of("no such number"), None);
    }

    #[test]
    fn a_complaint_is_reduced_to_its_errors() {
        let text = "Creating cluster ...\n ✗ Preparing nodes\nERROR: failed to create cluster: no space left on device\nStack Trace:\n";
        assert_eq!(essence(text), "ERROR: failed to create cluster: no space left on device");
        assert_eq!(essence("a\nb\nc\nd\n"), "b; c; d");
    }

    /// Real output of kind, with the command line shortened.
    #[test]
    fn a_long_complaint_keeps_its_reason() {
        let run = format!(
            "ERROR: failed to create cluster: command \"docker run --name one {}\" failed with error: exit status 125",
            "--label x ".repeat(60)
        );
        let output = format!(
            "Command Output: docker: Error response from daemon: failed to copy files: userspace copy failed: write /data/volumes/{}/_data/blobs/sha256/5d07: no space left on device",
            "a7d4".repeat(40)
        );
        let text = essence(&format!(
            "Creating cluster \"one\" ...\n{run}\n\n{output}\n\nRun 'docker run --help' for more information\n"
        ));
        assert!(text.starts_with("ERROR: failed to create cluster: command \"docker run --name one"), "{text}");
        assert!(text.contains("exit status 125; Command Output: docker: Error response from daemon"), "{text}");
        assert!(text.ends_with("no space left on device") && text.len() < 600, "{text}");
    }

    #[test]
    fn a_program_that_hangs_is_ended_and_one_that_fails_is_quoted() {
        let hangs = within(Command::new("sleep").arg("60"), Duration::from_millis(50), &|| false).unwrap_err();
        assert_eq!(hangs, "`sleep 60` did not end within 0 s");
        let fails = within(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"]), SOON, &|| false);
        assert_eq!(fails.unwrap_err(), "`sh -c echo no such thing >&2; exit 3` failed: no such thing");
        assert_eq!(within(Command::new("sleep").arg("60"), SOON, &|| true).unwrap_err(), "stopped");
    }
}
