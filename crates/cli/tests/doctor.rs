//! `pagemirror doctor` as a user runs it.
#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "installs a seccomp filter in a child"))]

use std::process::{Command, Output};

use serde_json::Value;

const ENVIRONMENT: i32 = 2;

fn doctor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pagemirror")).arg("doctor").args(arguments).output().unwrap()
}

fn standing<'s>(survey: &'s Value, name: &str) -> &'s str {
    let checks = survey["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).map_or("not asked", |check| check["standing"].as_str().unwrap())
}

#[test]
fn what_is_said_agrees_with_the_exit_code_and_with_itself() {
    let output = doctor(&["--json"]);
    let survey: Value = serde_json::from_slice(&output.stdout).unwrap();
    let missing = survey["checks"].as_array().unwrap().iter().any(|check| check["standing"] == "missing");
    let code = output.status.code().unwrap();
    assert_eq!(code == ENVIRONMENT, missing, "{survey:#}");
    assert_eq!(survey["exit"], code);
    let guarantees = survey["guarantees"].as_array().unwrap();
    let names: Vec<&str> = guarantees.iter().map(|guarantee| guarantee["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["G1", "G2", "G3", "G4", "G5", "G6"]);
    if standing(&survey, "source") == "missing" {
        assert!(guarantees.iter().all(|guarantee| guarantee["holds"] == "no"), "{survey:#}");
    } else {
        assert_eq!(guarantees[1]["holds"] == "yes", standing(&survey, "probe") == "fine");
    }
    assert!(survey["coverage"].is_null(), "nothing was asked to be fired");
}

#[test]
fn whatever_is_lacking_has_advice() {
    let survey: Value = serde_json::from_slice(&doctor(&["--json"]).stdout).unwrap();
    for check in survey["checks"].as_array().unwrap() {
        let lacks = matches!(check["standing"].as_str(), Some("lacks" | "missing"));
        assert_eq!(lacks, check["advice"].is_string(), "{check}");
    }
}

/// In a process that has no descriptor left, what is missing is said and nothing is promised.
#[test]
fn a_process_without_descriptors_is_told_what_to_do() {
    let program = env!("CARGO_BIN_EXE_pagemirror");
    // The shell itself and the loader need a few.
    let output =
        Command::new("sh").arg("-c").arg(format!("ulimit -n 4 && exec {program} doctor --json")).output().unwrap();
    assert_eq!(output.status.code(), Some(ENVIRONMENT), "{}", String::from_utf8_lossy(&output.stderr));
    let survey: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(standing(&survey, "source"), "missing");
    assert!(survey["guarantees"].as_array().unwrap().iter().all(|guarantee| guarantee["holds"] == "no"));
}

#[test]
fn the_table_names_tiers_and_guarantees() {
    let output = doctor(&[]);
    let text = String::from_utf8(output.stdout).unwrap();
    for wanted in ["Linux ", "userfaultfd", "G6", "tier", "RLIMIT_MEMLOCK", "doctor --coverage"] {
        assert!(text.contains(wanted), "no {wanted:?} in {text}");
    }
}

/// A container that refuses userfaultfd and io_uring, as their default profiles do.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_seccomp_filter_that_refuses_is_said() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pagemirror"));
    command.args(["doctor", "--json"]);
    // SAFETY: the function makes two system calls and allocates nothing.
    unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, refuse) };
    let output = command.output().unwrap();
    let survey: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (standing(&survey, "userfaultfd-call"), standing(&survey, "io_uring")),
        ("lacks", "lacks"),
        "{survey:#}"
    );
    // Root can still open the device file; everybody else has no source then.
    let by_device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/userfaultfd").is_ok();
    assert_eq!(standing(&survey, "source"), if by_device { "fine" } else { "missing" });
    assert_eq!(output.status.code(), Some(if by_device { 0 } else { ENVIRONMENT }));
    let guarantees = survey["guarantees"].as_array().unwrap();
    assert!(guarantees.iter().all(|guarantee| (guarantee["holds"] == "no") != by_device), "{survey:#}");
}

/// Installs a filter by which userfaultfd and io_uring_setup fail with EPERM.
#[cfg(target_arch = "x86_64")]
fn refuse() -> std::io::Result<()> {
    const NUMBER: u32 = 0; // the offset of the call's number in what a filter looks at
    let (load, jump, answer) =
        (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, libc::BPF_JMP | libc::BPF_JEQ, libc::BPF_RET);
    let op = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        op(load, 0, 0, NUMBER),
        op(jump, 1, 0, libc::SYS_userfaultfd as u32),
        op(jump, 0, 1, libc::SYS_io_uring_setup as u32),
        op(answer, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        op(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: asks for no new privileges, as an ordinary user must before a filter.
    let prepared = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the program and its filter live until the call has returned.
    let installed = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if prepared == 0 && installed == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
