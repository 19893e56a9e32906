//! What `sim` says to people.

use std::fmt::Write as _;

use pagemirror_lab::sim::{Count, Run, Shrunk, Simulator, Totals};

use crate::args::sim::SimArgs;
use pagemirror_lab::report::{Table, number};

/// The last steps of a run that are shown: a shrunk run has fewer.
const LAST_STEPS: usize = 200;

/// What is printed before anything runs.
pub(crate) fn heading(args: &SimArgs, simulator: &Simulator) -> String {
    let (seeds, tracker) = (args.range(), args.tracker);
    let which = match args.seed {
        Some(seed) => format!("seed {seed}"),
        None => format!("seeds {} to {}", seeds.start, seeds.end - 1),
    };
    let options = match args.seed {
        Some(seed) => simulator.options(seed).to_string(),
        None if args.options.is_empty() => "chosen by each seed".to_owned(),
        None => format!("chosen by each seed, but as in {}", simulator.options(seeds.start)),
    };
    format!("pagemirror {} sim: {which}, tracker {tracker}\noptions: {options}\n", env!("CARGO_PKG_VERSION"))
}

/// What was counted.
pub(crate) fn totals(totals: &Totals) -> String {
    let mut table = Table::untitled(&["what happened", "times"], &[0]);
    for count in Count::ALL.iter().filter(|count| totals.counts.get(**count) > 0) {
        table.row(vec![count.text().into(), number(totals.counts.get(*count))]);
    }
    let mut text = String::new();
    let _ = write!(
        text,
        "\n{}\n{} seeds, {} steps in {:.1} s: {} steps a second, {} ns each on one processor; {:.1} s of virtual time\n",
        table.lines(),
        number(totals.seeds),
        number(totals.steps),
        totals.elapsed.as_secs_f64(),
        number(steps_per_second(totals)),
        totals.per_step().as_nanos(),
        totals.virtual_time.as_secs_f64()
    );
    if totals.failed.is_none() {
        text.push_str("Nothing was found.\n");
    }
    text
}

pub(crate) fn steps_per_second(totals: &Totals) -> u64 {
    (totals.steps as f64 / totals.elapsed.as_secs_f64().max(f64::EPSILON)) as u64
}

/// The failing run, the smaller one, and how to see either again.
pub(crate) fn finding(args: &SimArgs, failed: &Run, shrunk: &Shrunk) -> String {
    let small = &shrunk.run;
    let tracker = args.tracker;
    let again = |run: &Run| {
        format!("pagemirror sim --tracker {tracker} --seed {} --options {}", run.seed, run.options.differences())
    };
    format!(
        "\nFINDING by seed {}: {}\n  again: {}\n\nMade smaller in {} runs: {}\n{}\n  again: {}\n",
        failed.seed,
        failed.finding.as_deref().unwrap_or_default(),
        again(failed),
        number(shrunk.tried),
        small.finding.as_deref().unwrap_or_default(),
        steps(small),
        again(small)
    )
}

/// The last steps of a run, one a line: when, who, what.
pub(crate) fn steps(run: &Run) -> String {
    let skipped = run.trace.len().saturating_sub(LAST_STEPS);
    let mut text = String::new();
    if skipped > 0 {
        let _ = writeln!(text, "  ({} steps before)", number(skipped as u64));
    }
    let width = run.actors.iter().map(String::len).max().unwrap_or(0);
    for step in &run.trace[skipped..] {
        let microseconds = step.at.as_nanos() as f64 / 1000.0;
        let _ = writeln!(text, "  {microseconds:>12.3} us  {:<width$}  {}", actor(run, step.actor), step.what);
    }
    text
}

/// The name of an actor.
pub(crate) fn actor(run: &Run, number: usize) -> &str {
    run.actors.get(number).map_or("?", String::as_str)
}
