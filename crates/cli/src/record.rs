//! `pagemirror record`: a program under strace, and the trace of it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pagemirror_lab::trace::Trace;
use pagemirror_lab::trace::strace::Origin;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use crate::args::RecordArgs;
use crate::import::{ENVIRONMENT, summary, try_output, write};

/// The calls to trace. Those with a question mark do not exist on every machine.
const CALLS: &str =
    "trace=memory,execve,?execveat,?fork,?vfork,clone,?clone3,?shmget,?process_madvise,?remap_file_pages";
/// How often it is looked whether the command has ended.
const LOOK: Duration = Duration::from_millis(20);
/// What a shell adds to the number of the signal that ended a command.
const SIGNALLED: u8 = 128;

/// Runs `pagemirror record`.
pub(crate) fn run(args: &RecordArgs) -> ExitCode {
    let existed = match try_output(&args.output) {
        Ok(existed) => existed,
        Err(why) => return fail(&why),
    };
    match record(args) {
        Ok(status) => report(status),
        Err(why) => {
            if !existed {
                // Made above to see that it can be; an empty file is no trace.
                let _ = fs::remove_file(&args.output);
            }
            fail(&why)
        }
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("pagemirror: {why}");
    ExitCode::from(ENVIRONMENT)
}

/// Says how the command ended, if not well, and ends as it did.
fn report(status: ExitStatus) -> ExitCode {
    if !status.success() {
        eprintln!("pagemirror: the command did not succeed ({status}); the trace is written all the same");
    }
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitCode::from(code as u8),
        (None, Some(signal)) => ExitCode::from(SIGNALLED.wrapping_add(signal as u8)),
        (None, None) => ExitCode::from(ENVIRONMENT),
    }
}

fn record(args: &RecordArgs) -> Result<ExitStatus, String> {
    let tool = version()?;
    let log = tempfile::Builder::new().prefix("pagemirror-").suffix(".strace").tempfile();
    let log =
        log.map_err(|error| format!("there is no room for strace's log: {error}; set TMPDIR to where there is"))?;
    let status = trace(&args.command, log.path())?;
    let reader =
        || File::open(log.path()).map(BufReader::new).map_err(|error| format!("strace's log is gone: {error}"));
    if !has_started(reader()?) {
        return Err(explain_refusal(status));
    }
    let system = rustix::system::uname();
    let origin = Origin {
        command: Some(quoted(&args.command)),
        page: rustix::param::page_size() as u64,
        machine: system.machine().to_string_lossy().into_owned(),
        kernel: format!("{} {}", system.sysname().to_string_lossy(), system.release().to_string_lossy()),
        tool,
    };
    let imported = Trace::import(reader()?, &origin);
    let imported = imported.map_err(|error| format!("the log of this strace is not understood: {error}"));
    match imported.and_then(|trace| Ok((write(&trace, Some(&args.output))?, trace))) {
        Ok((bytes, trace)) => {
            eprint!("{}", summary(&trace, bytes));
            Ok(status)
        }
        // The command may have run for long: what it did is not thrown away.
        Err(why) => Err(match log.keep() {
            Ok((_, path)) => format!("the command ran, but {why}\n  the log is kept: {}", path.display()),
            Err(_) => format!("the command ran, but {why}"),
        }),
    }
}

/// The name and version of strace.
fn version() -> Result<String, String> {
    let output = Command::new("strace").arg("-V").stdin(Stdio::null()).output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!(
            "strace is not installed, and nothing is recorded without it. Install it (Debian and Ubuntu: apt install strace; \
             Fedora: dnf install strace; Alpine: apk add strace){ELSEWHERE}"
        ),
        _ => format!("strace cannot be started: {error}"),
    })?;
    let said = String::from_utf8_lossy(&output.stdout);
    let version = said.lines().next().and_then(|line| line.split_whitespace().next_back()).unwrap_or("of no version");
    Ok(format!("strace {version}"))
}

/// What can be done where tracing is possible.
const ELSEWHERE: &str = ", or make a log where it is and import it:\n  \
    strace -f -ttt -o LOG -e trace=memory,execve,fork,vfork,clone,clone3,shmget COMMAND\n  \
    pagemirror import -o TRACE LOG";

/// Runs the command under strace until it has ended.
fn trace(command: &[OsString], log: &Path) -> Result<ExitStatus, String> {
    let broken = |error: io::Error| format!("strace cannot be run: {error}");
    let asked_to_end = Arc::new(AtomicBool::new(false));
    // The keyboard's signals reach the command by themselves, and it decides what they mean; we go on until it has
    // ended. A handler, and not "ignore": what is ignored stays ignored in the command.
    for signal in [SIGINT, SIGQUIT] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false))).map_err(broken)?;
    }
    for signal in [SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&asked_to_end)).map_err(broken)?;
    }
    let mut strace = Command::new("strace")
        .args(["-f", "-ttt", "-q", "-s", "0", "-e", CALLS, "-o"])
        .arg(log)
        .arg("--")
        .args(command)
        .spawn()
        .map_err(broken)?;
    loop {
        if let Some(status) = strace.try_wait().map_err(broken)? {
            return Ok(status);
        }
        // ORDERING: Relaxed; the flag carries nothing but itself.
        if asked_to_end.swap(false, Ordering::Relaxed) {
            pass_on(&strace);
        }
        std::thread::sleep(LOOK);
    }
}

/// We were asked to end: asks the command, which is strace's only child. strace itself ignores such signals, writes what
/// is left, and ends when the command has.
fn pass_on(strace: &Child) {
    let id = strace.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    for child in children.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)) {
        // It may have ended by itself meanwhile.
        let _ = kill_process(child, Signal::TERM);
    }
}

/// Whether the command was ever started: strace writes its execve first.
fn has_started(log: impl BufRead) -> bool {
    let mut first = Vec::new();
    let read = log.take(1 << 16).read_until(b'\n', &mut first);
    let begins = |line: &str| line.contains(" execve(") && line.trim_end().ends_with(" = 0");
    read.is_ok() && begins(&String::from_utf8_lossy(&first))
}

/// Why strace traced nothing: because it may not, or because of the command. A program that certainly is there tells.
fn explain_refusal(status: ExitStatus) -> String {
    let itself = std::env::current_exe().unwrap_or_else(|_| "/bin/true".into());
    let probe = Command::new("strace")
        .args(["-o", "/dev/null", "-e", "trace=execve", "--"])
        .arg(itself)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if probe.is_ok_and(|probe| probe.success()) {
        return format!("the command could not be started ({status}): what strace said about it stands above");
    }
    format!(
        "strace is not allowed to trace here ({status}; what it said stands above). In a container, add \
         --cap-add=SYS_PTRACE, or a seccomp profile that allows ptrace; otherwise look at \
         /proc/sys/kernel/yama/ptrace_scope, where 3 forbids it{ELSEWHERE}"
    )
}

/// The command as one would type it.
fn quoted(command: &[OsString]) -> String {
    let word = |word: &OsString| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    command.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_they_would_be_typed() {
        let words = |words: &[&str]| quoted(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(words(&["gcc", "-O2", "a.c"]), "gcc -O2 a.c");
        assert_eq!(words(&["sh", "-c", "echo 'a b'", ""]), r"sh -c 'echo '\''a b'\''' ''");
    }

    #[test]
    fn a_command_has_started_when_its_execve_succeeded() {
        assert!(has_started(&b"7 1.5 execve(\"/bin/ls\"..., [\"\"...], 0x7f) = 0\n7 1.6 brk(NULL) = 0\n"[..]));
        assert!(!has_started(&b"7 1.5 execve(\"/bin/ls\"..., [\"\"...], 0x7f) = -1 EACCES (Permission denied)\n"[..]));
        assert!(!has_started(&b"7 1.5 +++ exited with 1 +++\n"[..]));
        assert!(!has_started(&b""[..]));
    }
}
