//! The coverage matrix on the running kernel: every operation is noticed, or not, as the documentation says.

use std::process::Command;

use serde_json::Value;

/// The exit code for a machine that lacks something.
const ENVIRONMENT: i32 = 2;

fn skipped(what: &str, why: &str) {
    let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("SKIPPED: {what}: {}\n", why.trim()));
}

#[test]
fn every_operation_comes_out_as_the_matrix_says() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_pagemirror")).args(["doctor", "--coverage", "--json"]).output().unwrap();
    if output.status.code() == Some(ENVIRONMENT) {
        skipped("coverage", &String::from_utf8_lossy(&output.stderr));
        return;
    }
    let run: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = run["coverage"].as_array().unwrap();
    assert!(rows.len() > 60, "only {} cases", rows.len());
    let mut fired = 0;
    for row in rows {
        let name = format!("{}, {}", row["operation"].as_str().unwrap(), row["memory"].as_str().unwrap());
        match &row["verdict"] {
            Value::String(fine) => {
                assert_eq!(fine, "as-expected");
                assert_eq!(row["observed"]["pages"], row["expected_pages"], "{name}");
                assert_eq!(row["observed"]["noticed"], row["expected_noticed"], "{name}");
                fired += 1;
            }
            verdict => match verdict.get("skipped") {
                Some(why) => skipped(&name, why.as_str().unwrap()),
                None => panic!("{name}: {verdict}"),
            },
        }
    }
    assert!(fired > 0, "nothing was fired");
    assert_eq!(output.status.code(), Some(0));
}
