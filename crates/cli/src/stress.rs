//! The parent's side of the stress run: runs every row in a process of its own, collects, prints, decides.
//!
//! - `plan` shares out the time; `child` runs one row; `progress` shows that it does.
//! - `report` is what a row says, `verdict` what that means; `print` shows it; `machine` is where it ran.

mod child;
pub(crate) mod machine;
mod plan;
mod print;
mod progress;
pub(crate) mod report;
mod verdict;

use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;

use crate::args::StressArgs;

use machine::Machine;
use progress::Progress;
use verdict::{Exit, RowResult};

/// The whole run, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Run {
    pagemirror: &'static str,
    machine: Machine,
    seed: u64,
    seconds: u64,
    threads: usize,
    rows: Vec<RowResult>,
    exit: Exit,
}

/// Runs `pagemirror stress`.
pub(crate) fn run(args: &StressArgs) -> ExitCode {
    let plan = plan::share_out(&args.rows(), args.seconds);
    let (seed, threads, machine) = (args.seed(), args.threads(), Machine::look());
    if !args.json {
        show(&print::heading(&machine, seed, threads, args.seconds));
    }
    let progress = Progress::over(&plan);
    let mut rows = Vec::new();
    for (number, row) in plan.iter().enumerate() {
        let order = child::Order { row: row.name, time: row.time, threads, seed, unprivileged: args.unprivileged };
        match child::run(&order, |elapsed| progress.at(&plan, number, elapsed)) {
            Ok(result) => rows.push(RowResult::judge(result, row.name)),
            Err(lacking) if row.name.is_kind() => rows.push(RowResult::skipped(row.name, lacking)),
            Err(unsupported) => {
                progress.end();
                eprintln!("pagemirror: this machine cannot run the stress test: {unsupported}");
                return Exit::Environment.into();
            }
        }
    }
    progress.end();
    let exit = Exit::of(&rows);
    let run = Run { pagemirror: env!("CARGO_PKG_VERSION"), machine, seed, seconds: args.seconds, threads, rows, exit };
    if args.json {
        show(&serde_json::to_string_pretty(&run).unwrap_or_default());
        show("\n");
    } else {
        show(&print::tables(&run.rows, exit));
    }
    exit.into()
}

/// Writes to standard output. Whoever closed it does not want to know.
fn show(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
