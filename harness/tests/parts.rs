//! Machines without a required part: `relapse doctor` names it, and a trial that needs it is refused or skipped with
//! that line before anything is built.
//!
//! Parts are removed with common tools (`ulimit`, `unshare`, `setpriv`) and, if tests may use Docker (see
//! `tests/kind.rs`), with containers: with Docker's default confinement, and gradually less. Kernels that lack more are
//! tested with `make kernels`.

mod support {
    pub mod opt_in;
    pub mod skips;
}

use std::path::Path;
use std::process::{Command, ExitCode, Output, Stdio};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use support::{opt_in, skips};

type Tested = Result<Completion, Failed>;

const RELAPSE: &str = env!("CARGO_BIN_EXE_relapse");
const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const BAD_INPUT: i32 = 64;
const NOTHING_PROVED: i32 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = vec![
        Trial::ignorable_test("few_open_files_skip_what_holds_many_connections", few_open_files),
        Trial::ignorable_test("without_user_namespaces_runs_are_refused", no_user_namespaces),
    ];
    type InContainer = fn(&Container) -> Tested;
    let in_containers: [(&str, InContainer); 5] = [
        ("a_container_as_docker_confines_it_is_refused", confined),
        ("a_container_without_seccomp_alone_is_refused_for_its_masked_proc", masked_proc),
        ("a_container_with_what_labs_need_runs_them", unconfined),
        ("a_privileged_container_runs_labs_and_leaves_the_limit_alone", privileged),
        ("without_af_packet_what_packets_decide_is_skipped", no_af_packet),
    ];
    let container = std::sync::Arc::new(std::sync::OnceLock::new());
    for (name, test) in in_containers {
        let container = std::sync::Arc::clone(&container);
        trials.push(Trial::ignorable_test(name, move || {
            if !opt_in::for_clusters() {
                let why = "only where RELAPSE_REQUIRE or RELAPSE_BACKEND names kind";
                skips::note("tests in containers", why);
                return Ok(Completion::ignored_with(why));
            }
            match container.get_or_init(Container::new) {
                Ok(container) => test(container),
                Err(why) => skips::skip("kind", name, why),
            }
        }));
    }
    let conclusion = skips::run(&arguments, trials);
    if let Some(Ok(container)) = container.get() {
        container.remove();
    }
    conclusion.exit_code()
}

/// Exit status and output of `doctor` and then of `run SCENARIOS`.
struct Outputs {
    doctor: (i32, String),
    run: (i32, String),
}

impl Outputs {
    /// `doctor` prints this line, and the run is refused with it.
    fn refused(&self, line: &str) -> Tested {
        let (status, run) = &self.run;
        let at_once = *status == NOTHING_PROVED && run.contains("cannot run labs: ") && !run.contains("INCONCLUSIVE");
        self.holds(self.doctor.0 == 1 && self.doctor.1.contains(line) && at_once && run.contains(line), line)
    }

    /// `doctor` prints this line, and this many trials are skipped with it; the rest pass.
    fn skipped(&self, line: &str, trials: usize) -> Tested {
        let (status, run) = &self.run;
        let skipped = run.lines().filter(|l| l.starts_with("SKIP  I")).count();
        self.holds(*status == 0 && self.doctor.1.contains(line) && run.contains(line) && skipped == trials, line)
    }

    fn holds(&self, holds: bool, line: &str) -> Tested {
        if holds {
            return Ok(Completion::Completed);
        }
        let Self { doctor, run } = self;
        Err(format!("{line:?}\ndoctor, status {}:\n{}run, status {}:\n{}", doctor.0, doctor.1, run.0, run.1).into())
    }
}

fn output(mut command: Command) -> Result<(i32, String), Failed> {
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    let text = [stdout, stderr].concat();
    Ok((status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned()))
}

fn in_shell(line: String) -> Result<(i32, String), Failed> {
    let mut command = Command::new("sh");
    command.args(["-c", &line]).current_dir(PROJECT).env_remove("RELAPSE_REQUIRE");
    output(command)
}

/// Runs `relapse` in an environment prepared by a shell: `before` is the prefix of the command line.
fn prepared(before: &str, run: &str) -> Result<Outputs, Failed> {
    let reports = tempfile::tempdir()?;
    let doctor = in_shell(format!("{before} {RELAPSE} doctor"))?;
    Ok(Outputs {
        doctor,
        run: in_shell(format!("{before} {RELAPSE} run {run} --reports {}", reports.path().display()))?,
    })
}

/// Without the capability to raise the limit again, which root may have.
fn few_open_files() -> Tested {
    let drop = if relapse_kernel::host::is_root() { "setpriv --bounding-set=-sys_resource" } else { "" };
    let run = "conntrack-cap-reset policy-route-lost --only incident";
    let outputs = prepared(&format!("ulimit -n 4096 && exec {drop}"), run)?;
    outputs.skipped("open files: failed to raise the limit of open files from 4096 to ", 1)?;
    let check = format!("ulimit -n 4096 && exec {drop} {RELAPSE} check conntrack-cap-reset");
    let (status, output) = in_shell(check)?;
    let refused = status == BAD_INPUT
        && output.contains("(hard limit 4096")
        && output.contains("hold fewer connections, or raise");
    if refused { Ok(Completion::Completed) } else { Err(format!("status {status}:\n{output}").into()) }
}

/// A user namespace in which no further one may be created.
fn no_user_namespaces() -> Tested {
    let inside = "exec unshare -r sh -c 'echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"' --";
    let (allowed, _) = output({
        let mut command = Command::new("unshare");
        command.args(["-r", "true"]);
        command
    })?;
    if allowed != 0 {
        return skips::skip("netns", "no_user_namespaces", "unshare -r cannot make a user namespace here");
    }
    prepared(inside, "policy-route-lost")?.refused("user namespaces")
}

/// An image with only `relapse`, a shell, their libraries and the scenarios.
struct Container {
    image: String,
}

const SECCOMP: &str = "seccomp=unconfined";
const WHAT_LABS_NEED: [&str; 6] =
    ["--security-opt", "systempaths=unconfined", "--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN"];

impl Container {
    fn new() -> Result<Self, String> {
        let image = format!("relapse-test-parts-{}", std::process::id());
        let script = format!(
            r#"set -eu
root=$(mktemp -d) && trap 'rm -rf "$root"' EXIT
for file in {RELAPSE} /bin/sh /bin/ls; do
    for needed in $(ldd "$file" | grep -oE '/[^ ]+') "$file"; do
        mkdir -p "$root$(dirname "$needed")" && cp -L "$needed" "$root$needed"
    done
done
mkdir -p "$root"/tmp "$root"/proc "$root"/sys "$root"/dev "$root"/work && chmod 1777 "$root"/tmp
cp -r {PROJECT}/scenarios {PROJECT}/kind-configs "$root"/work/
tar -C "$root" -c . | docker import - {image} >/dev/null"#
        );
        let (status, printed) = output({
            let mut command = Command::new("sh");
            command.args(["-c", &script]);
            command
        })
        .map_err(|_| "no shell".to_owned())?;
        if status == 0 { Ok(Self { image }) } else { Err(format!("no image could be made: {printed}")) }
    }

    fn remove(&self) {
        let _ = output({
            let mut command = Command::new("docker");
            command.args(["image", "rm", &self.image]);
            command
        });
    }

    fn outputs(&self, options: &[&str], run: &[&str]) -> Result<Outputs, Failed> {
        let relapse = |arguments: &[&str]| {
            let mut command = Command::new("docker");
            command.args(["run", "--rm", "--network", "none", "--workdir", "/work", "--entrypoint", RELAPSE]);
            command.args(options).arg(&self.image).args(arguments);
            output(command)
        };
        Ok(Outputs { doctor: relapse(&["doctor"])?, run: relapse(&[&["run", "--reports", "/tmp"], run].concat())? })
    }
}

fn confined(container: &Container) -> Tested {
    container.outputs(&[], &["policy-route-lost"])?.refused("something confines this process")
}

fn masked_proc(container: &Container) -> Tested {
    container.outputs(&["--security-opt", SECCOMP], &["policy-route-lost"])?.refused("mount /proc")
}

fn unconfined(container: &Container) -> Tested {
    let options = [&["--security-opt", SECCOMP], &WHAT_LABS_NEED[..]].concat();
    let outputs = container.outputs(&options, &["policy-route-lost", "--only", "incident"])?;
    outputs.holds(outputs.doctor.0 == 0 && outputs.run.0 == 0 && outputs.run.1.contains("1 pass"), "1 pass")
}

/// The container's root is the machine's root, but with another network namespace.
fn privileged(container: &Container) -> Tested {
    let run = ["conntrack-cap-reset", "--allow-host-writes", "--only", "limit-raised"];
    let outputs = container.outputs(&["--privileged"], &run)?;
    // If all trials are skipped, a run proves nothing.
    let why = "it can be written only in the initial network namespace";
    let skipped = outputs.run.1.contains("SKIP  I2") && outputs.run.1.contains(why);
    outputs.holds(outputs.doctor.0 == 0 && outputs.doctor.1.contains(why) && skipped, why)
}

fn no_af_packet(container: &Container) -> Tested {
    let profile = tempfile::NamedTempFile::new()?;
    let af_packet = r#"{"index": 0, "value": 17, "op": "SCMP_CMP_EQ"}"#;
    let refused = format!(r#"{{"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [{af_packet}]}}"#);
    std::fs::write(profile.path(), format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{refused}]}}"#))?;
    let seccomp = format!("seccomp={}", Path::new(profile.path()).display());
    let options = [&["--security-opt", &seccomp], &WHAT_LABS_NEED[..]].concat();
    // The first needs packets; the second only the table's counters.
    let outputs = container.outputs(&options, &["policy-route-lost", "conntrack-cap-reset", "--only", "incident"])?;
    outputs.skipped("packet capture: failed to capture packets in ", 1)
}
