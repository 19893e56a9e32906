//! `record` and `import` as a user runs them.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use pagemirror_lab::trace::{Operation, SpaceId, Trace};

/// Says that a test was skipped, and why. Not by `println`, which the test harness keeps to itself.
fn skipped(why: &str) {
    let _ = writeln!(std::io::stdout(), "SKIPPED: record: {}", why.trim());
}

fn pagemirror() -> Command {
    Command::new(env!("CARGO_BIN_EXE_pagemirror"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder for one test, and a trace in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("t.trace");
    (folder, trace)
}

/// Records a shell command; nothing where this machine cannot trace, and then it says why.
fn record(script: &str, input: &str) -> Option<(Output, Trace)> {
    let (_folder, path) = place();
    let mut child = pagemirror()
        .args(["record", "-o"])
        .arg(&path)
        .args(["--", "sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let complaint = said(&output);
    if complaint.contains("strace is not installed") || complaint.contains("not allowed to trace") {
        assert_eq!(output.status.code(), Some(2), "{complaint}");
        skipped(&complaint);
        return None;
    }
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{error}: {complaint}"));
    Some((output, Trace::read(&bytes[..]).unwrap()))
}

#[test]
fn the_command_has_our_streams_and_we_have_its_exit_code() {
    let Some((output, trace)) = record("cat; echo to stderr >&2; exit 7", "from stdin") else { return };
    let complaint = said(&output);
    assert_eq!(output.status.code(), Some(7), "{complaint}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "from stdin");
    for wanted in ["to stderr", "address spaces", "invalidated ranges", "did not succeed"] {
        assert!(complaint.contains(wanted), "no {wanted:?} in {complaint}");
    }
    assert_eq!(trace.header().command, "sh -c 'cat; echo to stderr >&2; exit 7'");
    assert!(trace.header().tool.starts_with("strace "));
    assert!(trace.header().kernel.starts_with("Linux "));
    assert!(trace.header().attribution.starts_with("every task"), "{}", trace.header().attribution);
}

#[test]
fn a_command_that_a_signal_ended_is_recorded_too() {
    let Some((output, trace)) = record("kill -9 $$", "") else { return };
    assert_eq!(output.status.code(), Some(128 + 9), "{}", said(&output));
    assert!(matches!(trace.events().last().unwrap().operation, Operation::Exit { last: true }));
}

#[test]
fn what_is_mapped_by_the_trace_is_what_the_kernel_says() {
    // The child that prints its own mappings is made by fork and exec, so that only what exec maps is not in the trace.
    let Some((output, trace)) = record("cat /proc/self/maps & wait", "") else { return };
    let maps = String::from_utf8(output.stdout).unwrap();
    let child = trace.events().iter().find_map(|event| match event.operation {
        Operation::Exec { into, .. } => Some(into),
        _ => None,
    });
    let child = child.unwrap_or_else(|| panic!("nobody execs in {trace}"));
    let by_trace = mapped(&trace, child);
    let libraries = |line: &&str| line.contains(".so") && !line.contains("/ld-") && !line.contains("/ld.so");
    let mut compared = 0;
    for line in maps.lines().filter(libraries) {
        for page in pages(line) {
            assert!(by_trace.contains(&page), "page {page:#x} of {line} is not in the trace");
            compared += 1;
        }
    }
    assert!(compared > 50, "{compared} pages of\n{maps}");
    let by_kernel: BTreeSet<u64> = maps.lines().flat_map(pages).collect();
    let gone: Vec<u64> = by_trace.difference(&by_kernel).copied().collect();
    assert!(gone.is_empty(), "{} pages of the trace are not there: {gone:#x?}", gone.len());
}

/// The pages of a line of `/proc/PID/maps`.
fn pages(line: &str) -> std::ops::Range<u64> {
    let (start, rest) = line.split_once('-').unwrap();
    let end = rest.split(' ').next().unwrap();
    let page = |address| u64::from_str_radix(address, 16).unwrap() >> 12;
    page(start)..page(end)
}

/// Every page that an address space has at the end of the trace.
fn mapped(trace: &Trace, space: SpaceId) -> BTreeSet<u64> {
    let page = trace.header().page;
    let pages = |range: pagemirror::PageRange| range.start().get() / page..range.end().get() / page;
    let mut mapped = BTreeSet::new();
    for event in trace.events().iter().filter(|event| event.space == space) {
        match event.operation {
            Operation::Map(range) | Operation::Replace(range) | Operation::Grow(range) => mapped.extend(pages(range)),
            Operation::Unmap(range) | Operation::Shrink(range) => {
                mapped.retain(|page| !pages(range).contains(page));
            }
            Operation::Remap { old, new, keeps_old, .. } => {
                if !keeps_old {
                    mapped.retain(|page| !pages(old).contains(page));
                }
                mapped.extend(pages(new));
            }
            Operation::Protect(..)
            | Operation::Discard(..)
            | Operation::Appear
            | Operation::Fork { .. }
            | Operation::Thread(_)
            | Operation::Exec { .. }
            | Operation::Exit { .. } => {}
        }
    }
    mapped
}

#[test]
fn asked_to_end_it_asks_the_command_and_writes_what_there_is() {
    let (folder, path) = place();
    let ready = folder.path().join("ready");
    let script = format!("trap 'exit 5' TERM; : > {}; while :; do sleep 0.05; done", ready.display());
    let mut child = pagemirror()
        .args(["record", "-o"])
        .arg(&path)
        .args(["--", "sh", "-c", &script])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !ready.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let id = child.id().to_string();
    assert!(
        child.try_wait().unwrap().is_some() || Command::new("kill").args(["-TERM", &id]).status().unwrap().success()
    );
    let output = child.wait_with_output().unwrap();
    if output.status.code() == Some(2) {
        return skipped(&said(&output));
    }
    assert_eq!(output.status.code(), Some(5), "{}", said(&output));
    let trace = Trace::read(&fs::read(&path).unwrap()[..]).unwrap();
    assert!(trace.spaces() > 1 && said(&output).contains("events in"));
}

#[test]
fn without_strace_it_says_what_to_do() {
    let (folder, path) = place();
    let output = pagemirror()
        .args(["record", "-o"])
        .arg(&path)
        .args(["--", "true"])
        .env("PATH", folder.path())
        .output()
        .unwrap();
    let complaint = said(&output);
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    for wanted in ["strace is not installed", "apt install strace", "strace -f -ttt", "pagemirror import"] {
        assert!(complaint.contains(wanted), "no {wanted:?} in {complaint}");
    }
    assert!(!path.exists(), "an empty file is no trace");
}

/// A program of the name of strace that refuses as the real one does where it may not trace.
const REFUSING: &str = "#!/bin/sh\n[ \"$1\" = -V ] && echo 'strace -- version 6.1' && exit\n\
    echo 'strace: ptrace(PTRACE_TRACEME, ...): Operation not permitted' >&2; exit 1\n";

#[test]
fn where_tracing_is_refused_it_says_what_to_do() {
    let (folder, path) = place();
    let strace = folder.path().join("strace");
    fs::write(&strace, REFUSING).unwrap();
    fs::set_permissions(&strace, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(&path, "an older trace").unwrap();
    let output = pagemirror()
        .args(["record", "-o"])
        .arg(&path)
        .args(["--", "true"])
        .env("PATH", folder.path())
        .output()
        .unwrap();
    let complaint = said(&output);
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    for wanted in ["not allowed to trace", "SYS_PTRACE", "yama", "pagemirror import"] {
        assert!(complaint.contains(wanted), "no {wanted:?} in {complaint}");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "an older trace");
}

#[test]
fn a_command_that_is_not_there_is_told_from_tracing_that_is_refused() {
    let (_folder, path) = place();
    let output = pagemirror().args(["record", "-o"]).arg(&path).args(["--", "/nowhere/program"]).output().unwrap();
    let complaint = said(&output);
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    if complaint.contains("strace is not installed") || complaint.contains("not allowed to trace") {
        return skipped(&complaint);
    }
    assert!(complaint.contains("command could not be started"), "{complaint}");
    assert!(!path.exists());
}

#[test]
fn what_cannot_be_written_is_said_before_the_command_runs() {
    let (folder, _) = place();
    let ran = folder.path().join("ran");
    let output = pagemirror().args(["record", "-o", "/nowhere/t.trace", "--", "touch"]).arg(&ran).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("/nowhere/t.trace cannot be written"), "{}", said(&output));
    assert!(!ran.exists());
}

/// Imports from standard input to standard output.
fn import(log: &[u8]) -> Output {
    let mut child =
        pagemirror().arg("import").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(log).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_log_goes_through_in_a_pipe() {
    let output = import(b"7 5.0 munmap(0x10000, 4096) = 0\n7 5.1 mlock(0x20000, 4096) = 0\n");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let trace = Trace::read(&output.stdout[..]).unwrap();
    assert_eq!(trace.events().len(), 2);
    assert!(said(&output).contains("not among the events: 1 other-call"), "{}", said(&output));
}

#[test]
fn a_log_that_is_not_understood_is_a_finding_and_a_missing_one_is_not() {
    let output = import(b"7 5.0 munmap(0x10000, 4096) = 0\nhello\n");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(said(&output).contains("line 2: ") && said(&output).contains("hello"), "{}", said(&output));
    let output = pagemirror().args(["import", "/nowhere/log"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("/nowhere/log cannot be read"), "{}", said(&output));
    assert_eq!(pagemirror().args(["import", "--page", "5000", "/dev/null"]).output().unwrap().status.code(), Some(2));
    assert_eq!(pagemirror().args(["record", "-o", "x"]).output().unwrap().status.code(), Some(2));
}
