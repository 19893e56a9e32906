//! `replay` and `bench` as a user runs them.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

fn pagemirror(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pagemirror")).args(arguments).output().unwrap()
}

/// The run's JSON. Nothing is printed beside it in a pipe.
fn json(arguments: &[&str]) -> Value {
    let output = pagemirror(arguments);
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), complaint.as_str()), (Some(0), ""));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Asserts that this is refused, and that the message holds `wanted`.
fn refused(arguments: &[&str], wanted: &str) {
    let output = pagemirror(arguments);
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}: {complaint}");
    assert!(complaint.contains(wanted), "{arguments:?}: no {wanted:?} in {complaint}");
}

#[test]
fn what_cannot_be_replayed_is_refused_with_a_reason() {
    let names = "use one of range-valid, notifier-count, hull-seq, interval-seq, collision-log";
    refused(&["replay", "--tracker", "nothing"], names);
    refused(&["replay", "/nowhere/at-all.trace"], "the trace /nowhere/at-all.trace cannot be read");
    refused(&["replay", "Cargo.toml"], "the trace Cargo.toml cannot be read");
    refused(&["replay", "--ranges", "0"], "--ranges");
    refused(&["replay", "--range-pages", "0"], "--range-pages");
    refused(&["replay", "--threads", "0"], "--threads");
    refused(&["replay", "--rate", "0"], "--rate");
    refused(&["replay", "--working-set", "cold"], "uniform, hot, recent");
    refused(&["replay", "--report", "/nowhere/out.html"], "/nowhere/out.html cannot be written");
}

#[test]
fn what_cannot_be_measured_is_refused_before_anything_is() {
    refused(&["bench", "--tracker", "nothing"], "use one of range-valid");
    refused(&["bench", "--ranges", "10,0"], "--ranges");
    refused(&["bench", "--ranges", "many"], "--ranges");
    refused(&["bench", "--report", "/nowhere/out.html"], "/nowhere/out.html cannot be written");
    refused(&["bench", "--report", "out.json"], "let it end in .html");
}

#[test]
fn a_replay_has_the_same_counts_again_and_others_with_another_seed() {
    let run = |seed| json(&["replay", "--json", "--rate", "2000", "--working-set", "recent", "--seed", seed]);
    let (one, same, other) = (run("5"), run("5"), run("6"));
    assert_eq!(one, same);
    assert_ne!(one["traces"], other["traces"]);
    let traces = one["traces"].as_array().unwrap();
    assert_eq!(traces.len(), 3);
    assert!(traces.iter().all(|trace| trace["rows"].as_array().unwrap().len() == 7), "{one:#}");
}

#[test]
fn a_report_of_a_replay_is_written_with_its_figures_beside_it() {
    let place = tempfile::tempdir().unwrap();
    let report = place.path().join("out.html");
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/../../traces/compiler.trace");
    let arguments =
        ["replay", trace, "--rate", "2000", "--tracker", "collision-log", "--report", report.to_str().unwrap()];
    let output = pagemirror(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("compiler: rustc") && table.contains("collision-log"), "{table}");
    let page = fs::read_to_string(&report).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("rustc"), "{page}");
    let figures: Value = serde_json::from_slice(&fs::read(report.with_extension("json")).unwrap()).unwrap();
    assert_eq!(figures["traces"][0]["rows"][0]["counts"]["missed"], 0);
}

#[test]
fn a_measurement_has_costs_threads_sweeps_and_an_answer() {
    let place = tempfile::tempdir().unwrap();
    let report = place.path().join("out.html");
    let trackers = ["--tracker", "notifier-count", "--tracker", "collision-log"];
    let run = json(
        &[&["bench", "--quick", "--json", "--ranges", "10,1", "--report", report.to_str().unwrap()], &trackers[..]]
            .concat(),
    );
    let rows = |name: &str| run[name].as_array().unwrap().len();
    assert_eq!((rows("costs"), rows("threads")), (2 * 2, 4 * 2), "ranges, and ways of two threads");
    assert!(run["sweeps"].as_array().unwrap().iter().all(|row| row["counts"]["missed"] == 0), "{run:#}");
    let said = run["answer"].to_string();
    assert!(said.contains("collision-log") && !said.contains("range-valid"), "{said}");
    assert_eq!(fs::read_to_string(&report).unwrap().matches("<svg").count(), 11);
    let beside: Value = serde_json::from_slice(&fs::read(report.with_extension("json")).unwrap()).unwrap();
    assert_eq!(beside, run);
}
