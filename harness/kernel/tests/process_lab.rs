//! The lab process on a real kernel: this program is test, parent or lab, depending on its first argument.
//!
//! Runs as any user; as root all tests are repeated as an ordinary user.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use relapse_kernel::process::{
    Inside, LabCommand, LabProcess, LabSide, diagnose_user_namespaces, enter_lab, interactive, take_terminal,
};
use relapse_kernel::{NetNs, link, sockdiag};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::needs::{tests, trial};

tests! {
    diagnose_user_namespaces => [
        exit_status_is_handed_on,
        programs_in_the_lab_have_what_they_need,
        nothing_stays_a_zombie,
        both_pipes_carry,
        closing_control_ends_the_lab,
        orderly_end_leaves_nothing,
        a_held_namespace_is_no_release,
        without_namespaces_it_goes_with_its_parent,
        restrictions_are_explained,
        a_shell_has_the_terminal,
    ],
}

/// All tests once more as an ordinary user, if run by root.
pub fn repeated() -> Vec<Trial> {
    let again = || trial(module_path!(), "as_an_ordinary_user", other_users, as_an_ordinary_user);
    rustix::process::geteuid().is_root().then(again).into_iter().collect()
}

fn as_an_ordinary_user() {
    let mut all = Command::new("/proc/self/exe");
    let output = all.arg("process_lab::").uid(OTHER_USER).gid(OTHER_USER).output().expect("started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

const OTHER_USER: u32 = 64321;

/// The requirement that other users exist here; in most user namespaces they do not.
fn other_users() -> Result<(), String> {
    let map = fs::read_to_string("/proc/self/uid_map").map_err(|e| e.to_string())?;
    let maps_other_user = |line: &str| {
        let mut words = line.split_whitespace().map_while(|word| word.parse::<u32>().ok());
        words.next().zip(words.nth(1)).is_some_and(|(first, count)| first <= OTHER_USER && OTHER_USER - first < count)
    };
    if map.lines().any(maps_other_user) {
        Ok(())
    } else {
        Err(format!("there is no user {OTHER_USER} in this namespace"))
    }
}

/// The maximum time for release that the design guarantees, however a run ends.
const GONE: Duration = Duration::from_secs(3);

/// Runs this program as a lab, terminal or parent if its arguments select one, and does not return then.
pub fn run_as_child() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["lab", job] => lab(job),
        ["terminal"] => terminal(),
        ["parent"] => parent(),
        _ => return,
    }
    std::process::exit(0);
}

fn start(job: &str) -> (LabProcess, BufReader<File>, File) {
    let mut lab = LabCommand::new(["lab", job]).spawn().expect("a lab");
    let events = BufReader::new(lab.take_events().expect("events"));
    let control = lab.take_control().expect("control");
    (lab, events, control)
}

/// Everything the lab reported until it ended.
fn output_of(job: &str) -> String {
    let (mut lab, mut events, _control) = start(job);
    let mut text = String::new();
    events.read_to_string(&mut text).expect("events");
    assert!(lab.wait().expect("it ends").success(), "{text}");
    lab.proof_of_release(GONE).expect("nothing is left");
    text
}

fn exit_status_is_handed_on() {
    for (job, code) in [("exit-7", 7), ("abort", 128 + 6)] {
        let (mut lab, _events, _control) = start(job);
        assert_eq!(lab.wait().expect("it ends").code(), Some(code), "{job}");
    }
}

fn programs_in_the_lab_have_what_they_need() {
    let text = output_of("look");
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name} in {text}")).trim()
    };
    // All capabilities of this kernel, after an exec.
    let last: u32 =
        fs::read_to_string("/proc/sys/kernel/cap_last_cap").expect("a number").trim().parse().expect("a number");
    assert_eq!(u64::from_str_radix(field("CapEff:"), 16).expect("a mask"), (1 << (last + 1)) - 1);
    assert_eq!(field("uid"), rustix::process::getuid().as_raw().to_string(), "users are mapped to themselves");
    let (open, pipes) = (field("open"), field("pipes"));
    assert!(
        pipes.split(' ').all(|pipe| pipe.starts_with("pipe:") && !open.contains(pipe)),
        "{pipes} passed on: {open}"
    );
    assert_eq!(field("links"), "lo", "/sys shows the namespace's own links");
    assert_eq!(field("bound"), "nameserver 10.0.0.10", "a file is bound over another");
    assert!(matches!(field("table"), "1024" | "none"), "a separate table: {text}");
    assert_eq!(field("group"), "1", "the lab's parent is pid 1");
    // Files of other users keep their owner if root maps every id; others map only their own.
    assert_eq!(
        field("owner"),
        if rustix::process::getuid().is_root() && other_users().is_ok() { "12345" } else { "65534" }
    );
}

fn nothing_stays_a_zombie() {
    assert_eq!(output_of("orphans"), "left 0\n");
}

fn both_pipes_carry() {
    let (mut lab, mut events, mut control) = start("echo");
    control.write_all(b"hello\n").expect("written");
    let mut line = String::new();
    events.read_line(&mut line).expect("read");
    assert_eq!(line, "hello\n");
    assert!(lab.wait().expect("it ends").success());
}

fn closing_control_ends_the_lab() {
    let (mut lab, mut events, control) = start("tcp");
    up(&mut events);
    drop(control);
    assert_eq!(lab.wait().expect("it ends").code(), Some(128 + 9));
    lab.proof_of_release(GONE).expect("nothing is left");
}

fn up(events: &mut impl BufRead) {
    let mut line = String::new();
    events.read_line(&mut line).expect("an event");
    assert_eq!(line, "up\n");
}

/// Waits for the end of a process that is not a child of this one.
fn wait_for_end(handle: &impl std::os::fd::AsFd) {
    let mut watched = [rustix::event::PollFd::new(handle, rustix::event::PollFlags::IN)];
    let deadline = rustix::event::Timespec { tv_sec: 3, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut watched, Some(&deadline)), Ok(1), "it still exists");
}

/// The process that this thread has started and not yet waited for.
fn child() -> u32 {
    let children = fs::read_to_string("/proc/thread-self/children").expect("listed");
    children.trim().parse().expect("one child")
}

fn orderly_end_leaves_nothing() {
    let (mut lab, mut events, mut control) = start("tcp");
    up(&mut events);
    control.write_all(b"end\n").expect("written");
    assert!(lab.wait().expect("it ends").success());
    lab.proof_of_release(GONE).expect("nothing is left");
}

fn a_held_namespace_is_no_release() {
    let (mut lab, mut events, _control) = start("tcp");
    up(&mut events);
    let held = File::open(format!("/proc/{}/ns/net", child())).expect("a namespace");
    lab.kill().expect("killed");
    assert_eq!(lab.wait().expect("it ends").code(), Some(128 + 9));
    // Longer than the other namespaces take with their orphans, so that only this one is still held.
    let error = lab.proof_of_release(Duration::from_millis(2500)).expect_err("one is held").to_string();
    assert!(error.contains("still held"), "{error}");
    drop(held);
    lab.proof_of_release(GONE).expect("nothing is left");
}

fn without_namespaces_it_goes_with_its_parent() {
    let mut lab = LabCommand::new(["lab", "sleep"]).user_namespace(false).spawn().expect("a lab");
    drop(lab.take_control());
    assert_eq!(lab.wait().expect("it ends").code(), Some(128 + 9));
    let mut parent = Command::new("/proc/self/exe").arg("parent").stdout(Stdio::piped()).spawn().expect("started");
    let mut line = String::new();
    BufReader::new(parent.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
    let lab = Pid::from_raw(line.trim().parse().expect("a number")).expect("a pid");
    let handle = pidfd_open(lab, PidfdFlags::empty()).expect("it is running");
    parent.kill().expect("killed");
    wait_for_end(&handle);
    parent.wait().expect("it ends");
}

fn restrictions_are_explained() {
    let text = output_of("restricted");
    let line = "sudo sysctl -w user.max_user_namespaces=15000";
    assert!(text.starts_with(&format!("failed to make the lab's namespaces (user namespaces are disabled (/proc/sys/user/max_user_namespaces is 0); to allow it: {line})")), "{text}");
}

/// A shell in the lab receives typed input and Ctrl-C; afterwards the parent has the terminal.
fn a_shell_has_the_terminal() {
    let (mut ours, theirs) = pseudo_terminal();
    let mut parent = Command::new("/proc/self/exe");
    parent
        .arg("terminal")
        .stdin(theirs.try_clone().expect("a copy"))
        .stdout(theirs.try_clone().expect("a copy"))
        .stderr(theirs);
    // SAFETY: system calls only.
    unsafe {
        parent.pre_exec(|| {
            rustix::process::setsid()?;
            rustix::process::ioctl_tiocsctty(std::io::stdin())?;
            // If these tests run in the background such signals may be ignored, and this is inherited.
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
                libc::signal(signal, libc::SIG_DFL);
            }
            Ok(())
        });
    }
    let started = parent.spawn().expect("started");
    // The command holds the other end of the terminal; while that is open, reading would not end with the parent.
    drop(parent);
    let mut parent = started;
    let mut seen = String::new();
    let mut expect = |what: &str| {
        let mut buffer = [0; 256];
        while !seen.contains(what) {
            let mut watched = [rustix::event::PollFd::new(&ours, rustix::event::PollFlags::IN)];
            let ready = rustix::event::poll(&mut watched, Some(&rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 }));
            assert_eq!(ready, Ok(1), "timed out waiting for {what} after {seen:?}");
            let length = ours.read(&mut buffer).unwrap_or_else(|error| panic!("{what}: {error} after {seen:?}"));
            seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        let end = seen.find(what).expect("just seen") + what.len();
        seen.drain(..end);
        ours.try_clone().expect("a copy")
    };
    expect("shell ready").write_all(b"first\n").expect("typed");
    // Only once the shell's child runs: a shell interrupted while forking would wait for the child first.
    expect("shell got first lo").write_all(b"again\n").expect("typed");
    expect("again\r\nagain").write_all(b"\x03").expect("typed");
    expect("shell ended by 2").write_all(b"second\n").expect("typed");
    expect("parent got second");
    assert!(parent.wait().expect("it ends").success());
}

fn pseudo_terminal() -> (File, std::os::fd::OwnedFd) {
    use std::os::fd::{FromRawFd, OwnedFd};
    let (mut ours, mut theirs) = (-1, -1);
    let none: *mut u8 = std::ptr::null_mut();
    // SAFETY: both numbers are live and filled with new descriptors that have no other owner.
    unsafe {
        assert_eq!(libc::openpty(&raw mut ours, &raw mut theirs, none.cast(), none.cast(), none.cast()), 0);
        // Ctrl-C flushes the terminal's queues, which may discard output written right after it
        // (`isig` in drivers/tty/n_tty.c).
        let mut settings: libc::termios = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(theirs, &raw mut settings), 0);
        settings.c_lflag |= libc::NOFLSH;
        assert_eq!(libc::tcsetattr(theirs, libc::TCSANOW, &raw const settings), 0);
        for fd in [ours, theirs] {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
        (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs))
    }
}

/// A parent with a terminal.
fn terminal() {
    let (mut lab, mut events, _control) = start("shell");
    let mut line = String::new();
    events.read_line(&mut line).expect("an event");
    take_terminal().expect("taken");
    println!("{}", line.trim());
    line.clear();
    std::io::stdin().read_line(&mut line).expect("typed");
    println!("parent got {line}");
    assert!(lab.wait().expect("it ends").success());
}

/// A parent that gets killed.
fn parent() {
    let _lab = LabCommand::new(["lab", "sleep"]).user_namespace(false).spawn().expect("a lab");
    println!("{}", child());
    std::thread::sleep(Duration::from_secs(60));
}

fn lab(job: &str) {
    let LabSide { mut events, control } = enter_lab().expect("started as a lab");
    let mut control = BufReader::new(control);
    let mut line = String::new();
    match job {
        "sleep" => std::thread::sleep(Duration::from_secs(60)),
        "exit-7" => std::process::exit(7),
        "abort" => {
            let _ = rustix::process::setrlimit(
                rustix::process::Resource::Core,
                rustix::process::Rlimit { current: Some(0), maximum: Some(0) },
            );
            std::process::abort()
        }
        "shell" => {
            let ns = NetNs::create("shell").expect("a namespace");
            let script = "echo shell ready; read line; echo shell got $line $(ls /sys/class/net); cat";
            let mut shell = Inside::new(&ns).command("sh");
            let signal = interactive(shell.args(["-c", script])).status().expect("it runs").signal();
            writeln!(events, "shell ended by {}", signal.unwrap_or(0)).expect("written");
        }
        "look" => {
            let pipes = [events.as_raw_fd(), control.get_ref().as_raw_fd()];
            let pipes =
                pipes.map(|fd| fs::read_link(format!("/proc/self/fd/{fd}")).expect("a pipe").display().to_string());
            writeln!(events, "pipes {}", pipes.join(" ")).expect("written");
            look(&mut events);
        }
        "orphans" => orphans(&mut events),
        "echo" => {
            control.read_line(&mut line).expect("a line");
            events.write_all(line.as_bytes()).expect("written");
        }
        "tcp" => {
            let held: Vec<_> = (0..20).map(|number| stuck_connection(&format!("n{number}"))).collect();
            events.write_all(b"up\n").expect("written");
            control.read_line(&mut line).expect("a line");
            for (ns, _) in &held {
                assert!(sockdiag::destroy_all(ns).expect("ended") >= 2);
            }
        }
        "restricted" => {
            fs::write("/proc/sys/user/max_user_namespaces", "0").expect("written");
            let error = LabCommand::new(["lab", "echo"]).spawn().expect_err("no namespaces");
            write!(events, "failed to {error}").expect("written");
        }
        other => panic!("{other}"),
    }
}

/// A namespace with a connection whose data is never acknowledged: a filter on the server's socket
/// drops everything that arrives for it.
fn stuck_connection(name: &str) -> (NetNs, (TcpStream, TcpStream)) {
    let ns = NetNs::create(name).expect("a namespace");
    link::set_up(&ns, link::LOOPBACK, true).expect("lo up");
    let pair = ns
        .run(|| {
            fs::write("/proc/sys/net/ipv4/tcp_orphan_retries", "1")?;
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let mut client = TcpStream::connect(listener.local_addr()?)?;
            let (server, _) = listener.accept()?;
            socket2::SockRef::from(&server).attach_filter(&[socket2::SockFilter::new(0x06, 0, 0, 0)])?;
            client.write_all(&[0; 1000])?;
            std::io::Result::Ok((client, server))
        })
        .expect("entered")
        .expect("a connection");
    (ns, pair)
}

fn look(events: &mut File) {
    let ns = NetNs::create("look").expect("a namespace");
    let dir =
        std::env::temp_dir().join(format!("relapse-process-{}-{}", rustix::process::getuid(), std::process::id()));
    fs::create_dir_all(&dir).expect("made");
    let resolver = dir.join("resolv.conf");
    fs::write(&resolver, "nameserver 10.0.0.10\n").expect("written");
    let owned = dir.join("owned");
    fs::write(&owned, "").expect("written");
    let theirs = std::os::unix::fs::chown(&owned, Some(12345), None).is_ok();
    let script = format!(
        "grep CapEff /proc/self/status; echo uid $(id -u); echo open $(readlink /proc/$$/fd/*); echo links $(ls /sys/class/net); \
         echo bound $(cat /etc/hostname); echo group $PPID_OF_LAB; echo owner $({})",
        if theirs { format!("stat -c %u {}", owned.display()) } else { "stat -c %u /etc/passwd".into() }
    );
    let inside = Inside::new(&ns).bind(&resolver, "/etc/hostname").expect("paths");
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    let mut command = inside.command("sh");
    command.args(["-c", &script]).env("PPID_OF_LAB", parent.to_string()).stdin(Stdio::null());
    let output = command.output().expect("it runs");
    let _ = fs::remove_dir_all(&dir);
    // A table shared with the machine shows as a negative number; before Linux 6.1 there is none.
    let table = ns.run(|| fs::read_to_string("/proc/sys/net/ipv4/tcp_ehash_entries")).expect("entered");
    writeln!(events, "table {}", table.as_deref().unwrap_or("none").trim()).expect("written");
    events.write_all(&output.stdout).expect("written");
    events.write_all(&output.stderr).expect("written");
}

/// Orphaned children are adopted and reaped by init.
fn orphans(events: &mut File) {
    let status = Command::new("sh").args(["-c", "for i in 1 2 3 4 5; do sleep 0.05 & done"]).status().expect("it runs");
    assert!(status.success(), "the lab reaps its own children");
    let deadline = Instant::now() + GONE;
    let others = || {
        let all = fs::read_dir("/proc").expect("mounted");
        let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|&pid| pid != 1 && pid != std::process::id())
            .filter(|pid| Path::new(&format!("/proc/{pid}")).exists())
            .count()
    };
    while others() > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    writeln!(events, "left {}", others()).expect("written");
}
