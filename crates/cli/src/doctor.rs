//! `pagemirror doctor`: what this kernel, this process and its limits permit, asked there and then.
//!
//! - `coverage` fires the matrix of operations.

pub(crate) mod coverage;

use std::io::Write;
use std::process::ExitCode;

use crate::args::DoctorArgs;

const FINDING: u8 = 1;
const ENVIRONMENT: u8 = 2;

/// Runs `pagemirror doctor`.
pub(crate) fn run(args: &DoctorArgs) -> ExitCode {
    match coverage::run(|_, _| {}) {
        Err(missing) => {
            eprintln!("pagemirror: the matrix cannot be fired on this machine: {missing}");
            ENVIRONMENT.into()
        }
        Ok(results) => {
            if args.json {
                show(&serde_json::to_string_pretty(&serde_json::json!({ "coverage": results })).unwrap_or_default());
                show("\n");
            } else {
                show(&coverage::table(&results));
                show(&coverage::conclusion(&results));
            }
            if coverage::differing(&results).next().is_some() { FINDING.into() } else { ExitCode::SUCCESS }
        }
    }
}

/// Writes to standard output. Whoever closed it does not want to know.
fn show(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
