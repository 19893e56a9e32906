//! `pagemirror check` as a user runs it.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The exit code for wrong arguments, or for a build that lacks something.
const USAGE: i32 = 2;

/// What the lost invalidation of the 2019 design may take, from a cold start.
const LIMIT: Duration = Duration::from_secs(10);

fn pagemirror(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pagemirror")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_lost_invalidation_of_the_2019_design_is_found_and_drawn() {
    let since = Instant::now();
    let output = pagemirror(&["check", "--tracker", "range-valid", "--scenario", "aba"]);
    assert!(since.elapsed() < LIMIT, "{:?}", since.elapsed());
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(text(&output.stderr), "", "nothing is shown beside the table in a pipe");
    for engine in ["loom", "shuttle"] {
        assert!(said.contains(&format!("range-valid, aba, {engine}: found, as expected")), "{said}");
    }
    let drawn = said.split("fault side").nth(1).unwrap();
    assert!(drawn.lines().next().unwrap().trim_start().starts_with("invalidate side"), "{said}");
    let at = |what: &str| drawn.find(what).unwrap_or_else(|| panic!("no {what:?} in {said}"));
    let story =
        ["snapshot: page 0", "valid = false", "notifiers = 0", ">>> Valid: install page 0, but page 1 is there"];
    assert!(story.map(at).is_sorted(), "{said}");
}

#[test]
fn the_steps_of_a_finding_are_there_for_machines() {
    let output = pagemirror(&["check", "--json", "--tracker", "range-valid", "--scenario", "aba", "--engine", "loom"]);
    let run: Value = serde_json::from_slice(&output.stdout).unwrap();
    let case = &run["cases"][0];
    assert_eq!((&run["exit"], &case["expected"], &case["as_expected"]), (&0.into(), &"found".into(), &true.into()));
    let steps = case["steps"].as_array().unwrap();
    let wrong: Vec<&Value> = steps.iter().filter(|step| step["wrong"] == true).collect();
    assert_eq!((wrong.len(), &wrong[0]["side"]), (1, &"fault".into()), "{run:#}");
    assert!(steps.iter().any(|step| step["side"] == "invalidate"), "{run:#}");
}

#[test]
fn our_own_tracker_passes_where_the_2019_design_fails() {
    let output = pagemirror(&["check", "--tracker", "collision-log", "--scenario", "aba", "--engine", "loom"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("ok ") && said.contains("all 1 cases are as expected"), "{said}");
}

#[test]
fn unknown_names_are_answered_with_the_known_ones() {
    for (option, known) in [("--tracker", "range-valid"), ("--scenario", "aba"), ("--engine", "shuttle")] {
        let output = pagemirror(&["check", option, "nothing"]);
        assert_eq!(output.status.code(), Some(USAGE));
        assert!(text(&output.stderr).contains(known), "{}", text(&output.stderr));
    }
}

#[test]
fn a_choice_without_a_case_is_an_error_of_usage() {
    // The count as a global lock promises nothing to readers elsewhere.
    let output = pagemirror(&["check", "--tracker", "notifier-count", "--scenario", "neighbours"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(USAGE), String::new()));
    assert!(text(&output.stderr).contains("choose others"));
}

#[test]
#[cfg(not(pagemirror_planted))]
fn a_build_without_planted_bugs_says_so() {
    let output = pagemirror(&["check", "--planted"]);
    assert_eq!(output.status.code(), Some(USAGE));
    assert!(text(&output.stderr).contains("--cfg pagemirror_planted"), "{}", text(&output.stderr));
}

#[test]
fn an_unknown_bug_is_an_error_of_usage() {
    assert_eq!(pagemirror(&["check", "--planted", "nothing"]).status.code(), Some(USAGE));
    assert_eq!(pagemirror(&["check", "--markdown", "table.md"]).status.code(), Some(USAGE), "a table of what?");
}

#[test]
fn help_says_what_the_exit_codes_mean_and_hides_the_inner_command() {
    let help = text(&pagemirror(&["check", "--help"]).stdout);
    for wanted in ["--tracker", "--scenario", "--engine", "--planted", "--json", "Exit code", "woken-into-the-next"] {
        assert!(help.contains(wanted), "no {wanted:?} in {help}");
    }
    assert!(!text(&pagemirror(&["--help"]).stdout).contains("check-child"), "an inner command is shown");
}

#[test]
fn the_inner_command_refuses_what_is_not_there() {
    let child = |tracker, scenario| {
        pagemirror(&["check-child", "--tracker", tracker, "--scenario", scenario, "--engine", "loom"]).status.code()
    };
    assert_eq!(child("nothing", "aba"), Some(USAGE));
    assert_eq!(child("range-valid", "nothing"), Some(USAGE));
}
