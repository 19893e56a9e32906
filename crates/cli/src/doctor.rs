//! `pagemirror doctor`: what this kernel, this process and its limits permit, asked there and then.
//!
//! - `survey` asks: `kernel` its interfaces, `watching` the library's source, `memory` the kinds of memory, `limits`;
//!   `guarantees` says what follows; `print` shows it.
//! - `coverage` fires the matrix of operations.

pub(crate) mod coverage;
mod guarantees;
mod kernel;
mod limits;
mod memory;
mod print;
mod survey;
mod watching;

use std::io::Write;
use std::process::ExitCode;

use indicatif::ProgressBar;
use serde::Serialize;

use crate::args::doctor::DoctorArgs;
use crate::stress::machine::Machine;

use coverage::CaseResult;
use survey::Survey;

/// How the program ends.
const FINE: u8 = 0;
const FINDING: u8 = 1;
const ENVIRONMENT: u8 = 2;

/// All of it, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Report {
    pagemirror: &'static str,
    machine: Machine,
    #[serde(flatten)]
    survey: Survey,
    /// Only when it was asked for, and could be fired.
    coverage: Option<Vec<CaseResult>>,
    exit: u8,
}

/// Runs `pagemirror doctor`.
pub(crate) fn run(args: &DoctorArgs) -> ExitCode {
    let machine = Machine::look();
    if !args.json {
        show(&print::heading(&machine));
    }
    let survey = Survey::make();
    if !args.json {
        show(&print::survey(&survey));
    }
    let mut exit = if survey.is_missing_something() { ENVIRONMENT } else { FINE };
    let coverage = if args.coverage { fire_all(&mut exit) } else { None };
    if let Some(results) = coverage.as_ref().filter(|_| !args.json) {
        show(&format!("\n{}\n{}", coverage::table(results), coverage::conclusion(results)));
    }
    if args.json {
        let report = Report { pagemirror: env!("CARGO_PKG_VERSION"), machine, survey, coverage, exit };
        show(&serde_json::to_string_pretty(&report).unwrap_or_default());
        show("\n");
    }
    exit.into()
}

/// Fires the matrix, with a bar on a terminal.
fn fire_all(exit: &mut u8) -> Option<Vec<CaseResult>> {
    let bar = ProgressBar::new(0);
    let results = coverage::run(|number, all| {
        bar.set_length(all as u64);
        bar.set_position(number as u64);
    });
    bar.finish_and_clear();
    match results {
        Ok(results) => {
            if coverage::differing(&results).next().is_some() {
                *exit = FINDING;
            }
            Some(results)
        }
        Err(missing) => {
            eprintln!("pagemirror: the matrix cannot be fired on this machine: {missing}");
            *exit = ENVIRONMENT;
            None
        }
    }
}

/// Writes to standard output. Whoever closed it does not want to know.
fn show(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
