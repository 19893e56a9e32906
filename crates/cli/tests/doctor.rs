//! `pagemirror doctor` as a user runs it.

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
