//! `pagemirror replay`: every tracker on traces of real programs.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::ProgressBar;
use pagemirror_lab::drive::TimeModel;
use pagemirror_lab::replay::{ReplayOptions, Replayed, replay, shipped};
use pagemirror_lab::report::{Machine, replay_page, replay_tables};
use pagemirror_lab::trace::Trace;
use pagemirror_lab::variant::Variant;
use pagemirror_lab::workload::{DeviceOptions, WorkingSet};
use pagemirror_trackers::catalogue::TrackerName;
use serde::Serialize;

use crate::bench::{Output, broken_promise, fail, show};

/// Compare the collision trackers on what real programs did to their address spaces.
///
/// Each address space of a trace is replayed in virtual time with a tracker and a device of its own: the trace invalidates, the
/// device faults what is mapped at that moment, and every decision of the tracker is compared with an exact list of what
/// started. The counts are the same on every machine. Trackers: range-valid, notifier-count, hull-seq, interval-seq,
/// collision-log; those that track ranges are also used with a range for each fault only.
///
/// Exit code: 0 when the traces were replayed; 1 when a tracker that promises to miss nothing missed something; 2 when a file
/// cannot be read or written, or for wrong arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {
    /// Traces, as `pagemirror record` writes them [default: those that come with the program]
    #[arg(value_name = "TRACE")]
    traces: Vec<PathBuf>,
    /// Also the traces that come with the program
    #[arg(long)]
    shipped: bool,
    /// The most ranges that the device mirrors at once
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    ranges: u64,
    /// Pages of 4096 bytes in each range
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    range_pages: u64,
    /// Faults in a second of the trace's time, all threads of the device together
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    rate: u64,
    /// Threads of the device
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=4096))]
    threads: u64,
    /// What of the mapped memory the device faults
    #[arg(long, value_enum, default_value_t = WorkingSetName::Uniform)]
    working_set: WorkingSetName,
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

/// See [`WorkingSet`].
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum WorkingSetName {
    /// All of it alike
    Uniform,
    /// Nine faults of ten go to a tenth of it
    Hot,
    /// Nine faults of ten go to what was mapped last
    Recent,
}

/// The whole run, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Run<'r> {
    pagemirror: &'static str,
    options: &'r ReplayOptions,
    traces: &'r [Replayed],
}

/// Runs `pagemirror replay`.
pub(crate) fn run(args: &ReplayArgs) -> ExitCode {
    match replay_all(args) {
        Ok(code) => code,
        Err(why) => fail(&why),
    }
}

fn replay_all(args: &ReplayArgs) -> Result<ExitCode, String> {
    let output = Output::prepare(args.report.as_deref())?;
    let (traces, options) = (traces(args)?, options(args));
    let progress = ProgressBar::new((traces.len() * options.variants.len()) as u64);
    let mut replayed = Vec::new();
    for (name, trace) in &traces {
        replayed.push(replay(name, trace, &options, &mut |variant| {
            progress.set_message(format!("{name}: {variant}"));
            progress.inc(1);
        }));
    }
    progress.finish_and_clear();
    let run = Run { pagemirror: env!("CARGO_PKG_VERSION"), options: &options, traces: &replayed };
    let json = serde_json::to_string_pretty(&run).map_err(|error| error.to_string())?;
    output.write(&json, || replay_page(&options, &replayed, &Machine::look()))?;
    if args.json {
        show(&format!("{json}\n"));
    } else {
        for table in replay_tables(&replayed) {
            show(&format!("{}\n", table.lines()));
        }
    }
    let counts = replayed.iter().flat_map(|trace| trace.rows.iter().map(|row| (row.variant, row.counts.missed)));
    Ok(broken_promise(counts))
}

fn traces(args: &ReplayArgs) -> Result<Vec<(String, Trace)>, String> {
    let mut traces = args.traces.iter().map(|path| read(path)).collect::<Result<Vec<_>, String>>()?;
    if args.shipped || traces.is_empty() {
        traces.extend(shipped().map_err(|error| error.to_string())?);
    }
    Ok(traces)
}

fn read(path: &Path) -> Result<(String, Trace), String> {
    let said = |why: &dyn std::fmt::Display| format!("the trace {} cannot be read: {why}", path.display());
    let file = File::open(path).map_err(|error| said(&error))?;
    let trace = Trace::read(BufReader::new(file)).map_err(|error| said(&error))?;
    let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Ok((name, trace))
}

fn options(args: &ReplayArgs) -> ReplayOptions {
    ReplayOptions {
        device: DeviceOptions {
            ranges: args.ranges as usize,
            range_pages: args.range_pages,
            rate: args.rate,
            threads: args.threads as usize,
            working_set: match args.working_set {
                WorkingSetName::Uniform => WorkingSet::Uniform,
                WorkingSetName::Hot => WorkingSet::Hot,
                WorkingSetName::Recent => WorkingSet::Recent,
            },
            seed: args.seed,
        },
        time: TimeModel::default(),
        variants: Variant::of(&args.trackers),
    }
}
