//! The child process of one row: ends with its parent, prints one JSON object.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::args::RowArgs;
use crate::stress::report::Outcome;

use super::{Settings, run as run_row, unprivileged};

/// The parent has gone, or the answer could not be delivered.
const NOBODY_LISTENS: i32 = 2;

/// Runs the row and ends the process. Threads of the library may still run then; they hold nothing that outlives it.
pub(crate) fn run(args: &RowArgs) -> ExitCode {
    if args.unprivileged
        && let Err(error) = unprivileged::become_nobody()
    {
        let lacking = format!("this process could not become an ordinary user: {error}");
        std::process::exit(deliver(&Outcome::Unsupported(lacking)));
    }
    if let Some(parent) = args.parent {
        let armed = set_parent_process_death_signal(Some(Signal::KILL));
        // It may have gone before the signal was armed.
        let is_there = getppid().is_some_and(|pid| u32::try_from(pid.as_raw_nonzero().get()) == Ok(parent));
        if armed.is_err() || !is_there {
            std::process::exit(NOBODY_LISTENS);
        }
    }
    let time = Duration::from_millis(args.milliseconds);
    let settings = Settings { time, threads: args.threads, seed: args.seed, unprivileged: args.unprivileged };
    let outcome = run_row(args.row, &settings);
    std::process::exit(deliver(&outcome))
}

fn deliver(outcome: &Outcome) -> i32 {
    let Ok(text) = serde_json::to_string(outcome) else { return NOBODY_LISTENS };
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => 0,
        Err(_) => NOBODY_LISTENS,
    }
}
