//! `pagemirror sim` as a program.

use std::process::{Command, Output};

fn sim(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pagemirror")).arg("sim").args(args).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn seed_and_options_are_printed_first_and_nothing_is_found() {
    let output = sim(&["--seed", "7", "--options", "calls=5,requests=5"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.starts_with("pagemirror "), "{said}");
    assert!(said.lines().next().unwrap().ends_with("sim: seed 7, tracker collision-log"), "{said}");
    assert!(said.lines().nth(1).unwrap().starts_with("options: devices="), "{said}");
    assert!(
        said.contains(",calls=5,") && said.contains(" steps a second, ") && said.contains("Nothing was found."),
        "{said}"
    );
    assert!(output.stderr.is_empty(), "a pipe shows no progress");
}

#[test]
fn the_trace_of_a_seed_is_the_same_each_time() {
    let trace = || said(&sim(&["--seed", "3", "--trace", "--options", "calls=3,requests=3"]));
    let steps = |text: &str| text.lines().filter(|line| line.contains(" us  ")).map(str::to_owned).collect::<Vec<_>>();
    let (once, again) = (steps(&trace()), steps(&trace()));
    assert!(once.len() > 10);
    assert_eq!(once, again);
}

#[test]
fn the_flaw_of_range_valid_is_found_made_smaller_and_seen_again() {
    let output = sim(&["--tracker", "range-valid", "--seeds", "20"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("FINDING by seed") && text.contains("FOUND: an invalidation is lost: "), "{text}");
    let again: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("again: pagemirror sim ")).collect();
    assert_eq!(again.len(), 2, "the run that failed, and the smaller one: {text}");
    for command in again {
        let output = sim(&command.split(' ').collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(1), "{command}");
    }
}

#[test]
fn json_is_one_object_and_names_what_was_found() {
    let output = sim(&["--tracker", "range-valid", "--seeds", "5", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(report["steps"].as_u64().unwrap() > 0 && report["nanoseconds_per_step"].as_u64().is_some());
    assert!(report["counts"]["invalidations"].as_u64().is_some());
    let finding = &report["finding"];
    assert!(finding["finding"].as_str().unwrap().starts_with("an invalidation is lost"), "{finding}");
    assert!(!finding["steps"].as_array().unwrap().is_empty());
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("pagemirror "), "the seed is said first, beside it");
}

#[test]
fn wrong_arguments_are_refused_with_what_is_right() {
    for (args, says) in [
        (&["--options", "rings=1"][..], "the options are: devices, workers"),
        (&["--tracker", "hull"], "use one of range-valid"),
        (&["--seed", "1", "--seeds", "2"], "cannot be used with"),
        (&["--planted", "no-such-bug"], "no-such-bug cannot be found by simulation"),
        (&["--planted", "token-relaxed"], "sequentially consistent"),
    ] {
        let output = sim(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let complained = String::from_utf8(output.stderr).unwrap();
        assert!(complained.contains(says), "{args:?}: {complained}");
    }
}
