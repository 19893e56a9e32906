//! `pagemirror bench`: what every tracker costs, and what it decides on made-up work. And what `replay` shares with it:
//! reports, exit codes.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use pagemirror_lab::bench::{self, BenchFigures, BenchOptions};
use pagemirror_lab::report::{Machine, answer, bench_page, bench_tables};
use pagemirror_lab::variant::Variant;
use pagemirror_trackers::catalogue::TrackerName;
use serde::Serialize;

use crate::import::try_output;

/// A tracker broke its promise.
const FINDING: u8 = 1;
/// Something cannot be read or written.
const ENVIRONMENT: u8 = 2;

/// Measure what the collision trackers cost on this machine, and what they decide.
///
/// Answers an open question: does it pay to track each range, or is the count of running invalidations as one global lock as
/// good and simpler? One thread and two threads are timed, all trackers side by side; then the trackers are driven through
/// made-up work in virtual time, and every decision is compared with an exact list. Trackers: range-valid, notifier-count,
/// hull-seq, interval-seq, collision-log; those that track ranges are also used with a range for each fault only.
///
/// Takes some minutes, and two processors; with --quick some seconds. What else runs on the machine widens the spreads.
///
/// Exit code: 0 when it was measured; 1 when a tracker that promises to miss nothing missed something; 2 when a file cannot be
/// written, or for wrong arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// Fewer samples, and no more than 10,000 ranges
    #[arg(long)]
    quick: bool,
    /// Numbers of mirrored ranges [default: powers of ten from 1 to 1000000; with --quick 1,100,10000]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..=4_000_000))]
    ranges: Vec<u64>,
    /// Only this tracker; may be given more than once [default: all]
    #[arg(long = "tracker", value_name = "NAME")]
    trackers: Vec<TrackerName>,
    /// Seed of every choice
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
    /// Write a report in HTML, and the figures as JSON beside it
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

/// The whole run, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Run<'r> {
    machine: &'r Machine,
    #[serde(flatten)]
    figures: &'r BenchFigures,
    answer: &'r [String],
}

/// Runs `pagemirror bench`.
pub(crate) fn run(args: &BenchArgs) -> ExitCode {
    match measure(args) {
        Ok(code) => code,
        Err(why) => fail(&why),
    }
}

fn measure(args: &BenchArgs) -> Result<ExitCode, String> {
    let output = Output::prepare(args.report.as_deref())?;
    // What else runs is looked at before this run adds to it.
    let machine = Machine::look();
    let progress = Progress::start();
    let figures = bench::run(&options(args), &mut |what, done, parts| progress.at(what, done, parts));
    progress.end();
    let said = answer(&figures);
    let run = Run { machine: &machine, figures: &figures, answer: &said };
    let json = serde_json::to_string_pretty(&run).map_err(|error| error.to_string())?;
    output.write(&json, || bench_page(&figures, &machine))?;
    if args.json {
        show(&format!("{json}\n"));
    } else {
        show(&format!("{}\n\n", machine.line()));
        for table in bench_tables(&figures) {
            show(&format!("{}\n", table.lines()));
        }
        show(&format!("{}\n", said.join("\n\n")));
    }
    Ok(broken_promise(figures.sweeps.iter().map(|row| (row.variant, row.counts.missed + row.costed.missed))))
}

fn options(args: &BenchArgs) -> BenchOptions {
    let usual = if args.quick { BenchOptions::quick() } else { BenchOptions::full() };
    let mut ranges = if args.ranges.is_empty() { usual.ranges.clone() } else { args.ranges.clone() };
    ranges.sort_unstable();
    ranges.dedup();
    BenchOptions { ranges, variants: Variant::of(&args.trackers), seed: args.seed, ..usual }
}

/// A progress bar on a terminal; nothing in a pipe.
struct Progress(ProgressBar);

impl Progress {
    fn start() -> Self {
        let bar = ProgressBar::new(1);
        // Whatever is wrong with the template, the bar has a style of its own.
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos:>2}/{len}  {wide_msg}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    fn at(&self, what: &str, done: usize, parts: usize) {
        self.0.set_length(parts as u64);
        self.0.set_position(done as u64);
        self.0.set_message(what.to_owned());
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// Where a report goes.
pub(crate) struct Output<'p>(Option<&'p Path>);

impl<'p> Output<'p> {
    /// Says early whether the report can be written.
    pub(crate) fn prepare(report: Option<&'p Path>) -> Result<Self, String> {
        if let Some(path) = report {
            if path.extension().is_none_or(|extension| extension == "json") {
                return Err(format!("{} is no name for a report: let it end in .html", path.display()));
            }
            try_output(path)?;
            try_output(&path.with_extension("json"))?;
        }
        Ok(Self(report))
    }

    /// Writes the report and the figures beside it, if they were asked for.
    pub(crate) fn write(&self, json: &str, page: impl FnOnce() -> String) -> Result<(), String> {
        let Some(path) = self.0 else { return Ok(()) };
        let write = |path: &Path, text: &str| {
            fs::write(path, text).map_err(|error| format!("{} cannot be written: {error}", path.display()))
        };
        write(path, &page())?;
        write(&path.with_extension("json"), json)
    }
}

/// The exit code: 1 when a tracker missed an invalidation that is not the one known for it.
pub(crate) fn broken_promise(missed: impl IntoIterator<Item = (Variant, u64)>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for (variant, missed) in missed {
        if missed > 0 && variant.tracker != TrackerName::RangeValid {
            eprintln!(
                "pagemirror: FINDING: {variant} let {missed} faults through with what an invalidation had made stale"
            );
            code = ExitCode::from(FINDING);
        }
    }
    code
}

/// Says why it cannot be done.
pub(crate) fn fail(why: &str) -> ExitCode {
    eprintln!("pagemirror: {why}");
    ExitCode::from(ENVIRONMENT)
}

/// Writes to standard output. Whoever closed it does not want to know.
pub(crate) fn show(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
