//! `pagemirror sim`: seeds of the simulator, what they gave, and a failing one made smaller.
//!
//! `text` says it to people; `planted` hunts the planted bugs.

mod planted;
mod text;

use std::io::Write;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use pagemirror_lab::sim::{Counts, Run, Shrunk, Simulator, Totals, child};
use serde::Serialize;

use crate::args::sim::{SimArgs, SimChildArgs};

/// A finding, or a planted bug that was not found.
pub(crate) const FINDING: u8 = 1;
/// Arguments or the build are not what is needed.
pub(crate) const ENVIRONMENT: u8 = 2;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'r> {
    pagemirror: &'static str,
    tracker: &'static str,
    first_seed: u64,
    seeds: u64,
    steps: u64,
    steps_per_second: u64,
    nanoseconds_per_step: u64,
    virtual_seconds: f64,
    seconds: f64,
    counts: &'r Counts,
    finding: Option<Finding<'r>>,
}

#[derive(Debug, Serialize)]
struct Finding<'r> {
    seed: u64,
    options: String,
    finding: &'r str,
    shrunk_seed: u64,
    shrunk_options: String,
    shrunk_finding: &'r str,
    steps: Vec<Step<'r>>,
}

#[derive(Debug, Serialize)]
struct Step<'r> {
    virtual_nanoseconds: u64,
    actor: &'r str,
    what: &'r str,
}

/// Runs `pagemirror sim`.
pub(crate) fn run(args: &SimArgs) -> ExitCode {
    if let Some(bug) = &args.planted {
        return planted::run(args, bug.as_deref());
    }
    let simulator = Simulator::new(args.tracker, args.options.clone());
    // First of all, so that it is known whatever happens; where JSON is asked for, beside it.
    let heading = text::heading(args, &simulator);
    if args.json {
        eprint!("{heading}");
    } else {
        show(&heading);
    }
    let bar = progress(args.count(args.range().count() as u64));
    let totals = simulator.run_many(args.range(), &|_| bar.inc(1));
    bar.finish_and_clear();
    let shrunk = totals.failed.as_ref().map(|failed| {
        eprintln!("pagemirror: seed {} failed; it is being made smaller", failed.seed);
        simulator.shrink(failed)
    });
    if args.json {
        let report = report(args, &totals, shrunk.as_ref());
        show(&format!("{}\n", serde_json::to_string_pretty(&report).unwrap_or_default()));
    } else {
        if args.trace && totals.failed.is_none() {
            show(&text::steps(&simulator.trace(args.range().start)));
        }
        show(&text::totals(&totals));
        if let (Some(failed), Some(shrunk)) = (&totals.failed, &shrunk) {
            show(&text::finding(args, failed, shrunk));
        }
    }
    if totals.failed.is_some() { FINDING.into() } else { ExitCode::SUCCESS }
}

/// Runs the hidden command that hunts one planted bug.
pub(crate) fn run_child(args: &SimChildArgs) -> ExitCode {
    show(&child(args.tracker, args.seeds));
    ExitCode::SUCCESS
}

fn report<'r>(args: &SimArgs, totals: &'r Totals, shrunk: Option<&'r Shrunk>) -> Report<'r> {
    let finding = totals.failed.as_ref().zip(shrunk).map(|(failed, shrunk)| Finding {
        seed: failed.seed,
        options: failed.options.differences(),
        finding: failed.finding.as_deref().unwrap_or_default(),
        shrunk_seed: shrunk.run.seed,
        shrunk_options: shrunk.run.options.differences(),
        shrunk_finding: shrunk.run.finding.as_deref().unwrap_or_default(),
        steps: steps(&shrunk.run),
    });
    Report {
        pagemirror: env!("CARGO_PKG_VERSION"),
        tracker: args.tracker.text(),
        first_seed: args.range().start,
        seeds: totals.seeds,
        steps: totals.steps,
        steps_per_second: text::steps_per_second(totals),
        nanoseconds_per_step: totals.per_step().as_nanos() as u64,
        virtual_seconds: totals.virtual_time.as_secs_f64(),
        seconds: totals.elapsed.as_secs_f64(),
        counts: &totals.counts,
        finding,
    }
}

fn steps(run: &Run) -> Vec<Step<'_>> {
    let shown = run.trace.iter().map(|step| Step {
        virtual_nanoseconds: step.at.as_nanos() as u64,
        actor: text::actor(run, step.actor),
        what: &step.what,
    });
    shown.collect()
}

/// A bar over so many things. It hides itself where standard error is no terminal.
fn progress(of: u64) -> ProgressBar {
    let bar = ProgressBar::new(of);
    // Whatever is wrong with the template, the bar has a style of its own.
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3} %  {pos} of {len}  {msg}") {
        bar.set_style(style);
    }
    bar
}

/// Writes to standard output. Whoever closed it does not want to know.
fn show(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
