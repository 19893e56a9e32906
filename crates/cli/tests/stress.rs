//! The program as a user runs it.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The exit code for a machine that lacks something.
const ENVIRONMENT: i32 = 2;

/// Says that a run was skipped, and why. Not by `println`, which the test harness keeps to itself.
fn skipped(why: &str) {
    let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("SKIPPED: stress: {}\n", why.trim()));
}

fn pagemirror(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pagemirror")).args(arguments).output().unwrap()
}

/// The output of a run as JSON; nothing where the machine cannot run it, and then it says why.
fn stress(arguments: &[&str]) -> Option<(i32, Value)> {
    let output = pagemirror(&[&["stress", "--json"], arguments].concat());
    let code = output.status.code().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    if code == ENVIRONMENT {
        assert!(complaint.contains("this machine cannot run the stress test"), "{complaint}");
        skipped(&complaint);
        return None;
    }
    assert_eq!(complaint, "", "nothing is printed beside the JSON in a pipe");
    Some((code, serde_json::from_slice(&output.stdout).unwrap()))
}

fn row<'r>(run: &'r Value, name: &str) -> &'r Value {
    run["rows"].as_array().unwrap().iter().find(|row| row["row"] == name).unwrap()
}

#[test]
fn a_coherent_row_shows_no_stale_byte_and_the_naive_control_does() {
    let Some((code, run)) = stress(&["--seconds", "3", "--row", "naive", "--row", "reuse", "--seed", "7"]) else {
        return;
    };
    assert_eq!(code, 0, "{run:#}");
    assert_eq!((run["seed"].as_u64(), run["rows"].as_array().unwrap().len()), (Some(7), 2));
    let (reuse, naive) = (row(&run, "reuse"), row(&run, "naive"));
    assert_eq!((&reuse["verdict"], &reuse["report"]["stale_bytes"]), (&"fine".into(), &0.into()));
    assert!(reuse["report"]["uses"].as_u64().unwrap() > 0);
    assert_eq!(naive["verdict"], "shown");
    assert!(naive["report"]["stale_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn the_mix_meets_every_kind_of_invalidation() {
    let Some((code, run)) = stress(&["--seconds", "2", "--row", "mix", "--threads", "4"]) else { return };
    assert_eq!(code, 0, "{run:#}");
    let report = &row(&run, "mix")["report"];
    for kind in ["munmap", "map_fixed", "mremap", "dontneed", "remove", "allocator"] {
        assert!(report["invalidations"][kind].as_u64().unwrap() > 0, "no {kind}: {report:#}");
    }
}

#[test]
fn tables_name_their_units_and_stand_behind_the_machine() {
    let output = pagemirror(&["stress", "--seconds", "1", "--row", "naive"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("pagemirror "), "{text}");
    if output.status.code() == Some(ENVIRONMENT) {
        skipped(&String::from_utf8_lossy(&output.stderr));
        return;
    }
    for wanted in ["Linux ", "bytes a page", "checked (MiB)", "stale bytes", "shown"] {
        assert!(text.contains(wanted), "no {wanted:?} in {text}");
    }
}

#[test]
fn every_kind_of_memory_runs_or_says_what_is_missing() {
    let Some((code, run)) = stress(&["--seconds", "5", "--kind", "all", "--threads", "4"]) else { return };
    assert_eq!(code, 0, "{run:#}");
    let rows = run["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 13);
    for row in rows {
        match row["verdict"]["skipped"].as_str() {
            Some(lacking) => skipped(&format!("{}: {lacking}", row["row"])),
            None => assert_eq!((&row["verdict"], &row["report"]["stale_bytes"]), (&"fine".into(), &0.into())),
        }
    }
}

#[test]
fn an_ordinary_user_is_told_what_is_missing_and_loses_nothing() {
    let Some((code, run)) = stress(&["--seconds", "2", "--row", "mix", "--unprivileged"]) else { return };
    assert_eq!(code, 0, "{run:#}");
    let note = row(&run, "mix")["report"]["note"].as_str().unwrap();
    assert!(note.contains("as an ordinary user") && note.contains("KiB of locked memory"), "{note}");
}

#[test]
fn help_says_what_the_exit_codes_mean() {
    let output = pagemirror(&["stress", "--help"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    for wanted in [
        "--seconds",
        "--threads",
        "--seed",
        "--json",
        "--row",
        "--kind",
        "--unprivileged",
        "Exit code",
        "first-absence",
    ] {
        assert!(text.contains(wanted), "no {wanted:?} in {text}");
    }
    assert!(!text.contains("stress-row"), "an inner command is shown");
}

#[test]
fn wrong_arguments_are_an_error_of_usage() {
    for wrong in [
        &["stress", "--row", "nothing"][..],
        &["stress", "--kind", "mud"],
        &["stress", "--seconds", "0"],
        &["stress", "--threads", "1"],
        &[],
    ] {
        assert_eq!(pagemirror(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn a_row_whose_parent_has_gone_ends() {
    // A parent that is not ours has gone, as far as the row can tell.
    let since = Instant::now();
    let arguments = "stress-row --row naive --milliseconds 60000 --threads 2 --seed 1 --parent 1".split(' ');
    let output = Command::new(env!("CARGO_BIN_EXE_pagemirror")).args(arguments).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    assert!(since.elapsed() < Duration::from_secs(10));
}
