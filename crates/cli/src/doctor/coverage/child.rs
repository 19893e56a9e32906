//! A case in a process of its own: both sides of it.

use std::io::Write;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal};

use super::case::{Outcome, observe};
use super::catalogue::{Case, name_of};
use crate::args::doctor::CaseArgs;

/// What a case may take. Every wait inside it is shorter; after it the process ends itself.
const LIMIT: Duration = Duration::from_secs(30);
const TOO_LATE: i32 = 3;

/// The parent's side: runs the case and hears what it says.
pub(crate) fn run(case: &Case) -> Outcome {
    let started = std::env::current_exe().and_then(|program| {
        Command::new(program)
            .arg("coverage-case")
            .args(["--operation", &name_of(case.operation)])
            .args(["--memory", &name_of(case.memory)])
            .stdin(Stdio::null())
            .output()
    });
    let output = match started {
        Ok(output) => output,
        Err(error) => return Outcome::Unsupported(format!("this program could not start itself: {error}")),
    };
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        let words = String::from_utf8_lossy(&output.stderr);
        Outcome::Broken(format!("it ended without a report ({}) {}", output.status, words.trim()))
    })
}

/// The child's side.
pub(crate) fn serve(args: &CaseArgs) -> ExitCode {
    // A child without a parent that hears it has nothing to do; where the signal cannot be armed, the time limit is left.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    std::thread::spawn(|| {
        std::thread::sleep(LIMIT);
        std::process::exit(TOO_LATE);
    });
    let outcome = observe(args.operation, args.memory);
    let text = serde_json::to_string(&outcome).unwrap_or_default();
    let delivered = writeln!(std::io::stdout().lock(), "{text}");
    // At once: the scratch stays as the operation left it.
    std::process::exit(if delivered.is_ok() { 0 } else { TOO_LATE })
}
