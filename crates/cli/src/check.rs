//! `pagemirror check`: the model checks of every tracker, shown.

mod planted;
mod print;
mod progress;

use std::io::Write;
use std::process::ExitCode;

use pagemirror_lab::check::{self, Judged};
use serde::Serialize;

use crate::args::check::{CheckArgs, CheckChildArgs};

use progress::Bar;

/// As a process ends when all is as expected.
const FINE: u8 = 0;
/// When something is not.
const FINDING: u8 = 1;
/// When there is nothing to do, or it cannot be done here.
const USAGE: u8 = 2;

/// The whole check, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Run<'a> {
    pagemirror: &'static str,
    cases: &'a [Judged],
    /// Tracker and scenario, where the one does not promise what the other asks.
    not_applicable: &'a [(&'static str, &'static str)],
    exit: u8,
}

/// Runs `pagemirror check`.
pub(crate) fn run(args: &CheckArgs) -> ExitCode {
    if let Some(bugs) = args.planted() {
        return planted::run(&bugs, args).into();
    }
    let selection = args.selection();
    let (cases, not_applicable) = (selection.cases(), selection.not_applicable());
    if cases.is_empty() {
        eprintln!("pagemirror: none of the trackers chosen promises what the scenarios chosen ask: choose others");
        return USAGE.into();
    }
    let bar = Bar::over(cases.len());
    let judged = check::run(&cases, &|progress| bar.at(&progress));
    bar.end();
    let exit = if judged.iter().all(|case| case.as_expected) { FINE } else { FINDING };
    if args.json {
        let run = Run { pagemirror: env!("CARGO_PKG_VERSION"), cases: &judged, not_applicable: &not_applicable, exit };
        show(&serde_json::to_string_pretty(&run).unwrap_or_default());
        show("\n");
    } else {
        show(&print::verdicts(&judged, &not_applicable));
    }
    exit.into()
}

/// Runs `pagemirror check-child`.
pub(crate) fn run_child(args: &CheckChildArgs) -> ExitCode {
    check::run_child(&args.tracker, &args.scenario, args.engine)
}

/// Writes to standard output. Whoever closed it does not want to know.
fn show(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
