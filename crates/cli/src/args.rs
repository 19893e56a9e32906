//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Parser, Subcommand};

pub(crate) mod check;
pub(crate) mod doctor;
pub(crate) mod sim;

use crate::rows::catalogue::RowName;

/// The most threads that a row can be asked for.
const MOST_THREADS: u64 = 64;
/// Threads where nothing is said: at least this many, at most that many, two for each processor in between.
const DEFAULT_THREADS: (usize, usize) = (4, 16);

/// Keep what a device believes about process memory true.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Stress(StressArgs),
    Check(check::CheckArgs),
    Doctor(doctor::DoctorArgs),
    Record(RecordArgs),
    Import(ImportArgs),
    Sim(sim::SimArgs),
    Replay(crate::replay::ReplayArgs),
    Bench(crate::bench::BenchArgs),
    #[command(hide = true)]
    StressRow(RowArgs),
    #[command(hide = true)]
    CheckChild(check::CheckChildArgs),
    #[command(hide = true)]
    SimChild(sim::SimChildArgs),
    #[command(hide = true)]
    CoverageCase(doctor::CaseArgs),
}

/// Try to make io_uring fixed buffers send a stale byte, on real memory.
///
/// Threads unmap, replace, move and discard memory while device threads write it through registered buffers of io_uring and
/// check every byte. A stale byte is one that matches no state which its address had between the begin of the use and its
/// completion. The coherent rows must show none. The control rows leave one part of the protocol out and show what it
/// prevents. Nothing outside this program's own memory is touched, and no privilege is needed.
///
/// Exit code: 0 when all is as expected; 1 for a finding (a stale byte in a coherent row, a control that shows nothing
/// though it is certain to, a row that crashed or hung); 2 when this machine lacks something (a message says what), or for
/// wrong arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct StressArgs {
    /// Seconds for the whole run, shared out among the rows. Every row has at least 1 second, a control row that needs
    /// luck up to 6: it ends as soon as it has shown enough
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
    /// Mutators and device threads together, half of each. The rows that need an exact schedule have threads of their own
    /// [default: two for each processor, 4 to 16]
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..=MOST_THREADS))]
    threads: Option<u64>,
    /// Seed of every random choice. The same seed makes the same choices; the schedule is the kernel's [default: the time]
    #[arg(long)]
    seed: Option<u64>,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// Run only this row; may be given more than once [default: all but the kinds of memory]
    #[arg(long = "row", value_name = "NAME", value_enum)]
    rows: Vec<RowName>,
    /// Run the row of this kind of memory (the name without "kind-"), or of "all"; may be given more than once. A kind that
    /// this machine does not have is skipped, and the reason is said
    #[arg(long = "kind", value_name = "KIND", value_parser = kind)]
    kinds: Vec<Kinds>,
    /// Run as an ordinary user does, also when started by root: as nobody, with the usual limit on locked memory (8 MiB)
    #[arg(long)]
    pub(crate) unprivileged: bool,
}

/// One kind of memory, or all of them.
#[derive(Debug, Clone)]
struct Kinds(Vec<RowName>);

fn kind(text: &str) -> Result<Kinds, String> {
    let named = |row: &RowName| text == "all" || row.text().strip_prefix(RowName::KIND) == Some(text);
    let rows: Vec<RowName> = RowName::KINDS.into_iter().filter(named).collect();
    if rows.is_empty() {
        let all = RowName::KINDS.map(|row| &row.text()[RowName::KIND.len()..]).join(", ");
        return Err(format!("there are: all, {all}"));
    }
    Ok(Kinds(rows))
}

impl StressArgs {
    /// The rows that were asked for by either name; none for the usual ones.
    pub(crate) fn rows(&self) -> Vec<RowName> {
        let kinds = self.kinds.iter().flat_map(|kinds| &kinds.0);
        self.rows.iter().chain(kinds).copied().collect()
    }

    pub(crate) fn threads(&self) -> usize {
        let (least, most) = DEFAULT_THREADS;
        self.threads.map_or_else(|| (2 * crate::stress::machine::cpus()).clamp(least, most), |threads| threads as usize)
    }

    pub(crate) fn seed(&self) -> u64 {
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64);
        // Short enough to be typed again.
        self.seed.unwrap_or_else(|| clock() / 1000 % 1_000_000_000)
    }
}

/// Record what a program does to its address spaces: its own and those of all its children.
///
/// Runs the command, unmodified, under strace, which must be installed. The command has this program's standard input,
/// output and error; an interrupt from the keyboard reaches it as always, and what was recorded until then is written. A
/// summary goes to standard error. The trace is text: docs/trace-format.md. A log that strace made elsewhere becomes a trace by
/// `pagemirror import`.
///
/// Exit code: the command's own, once it ran (128 and the signal's number, if one ended it); the trace is written whatever
/// that is. 2 when nothing was recorded (a message says why), or for wrong arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct RecordArgs {
    /// The file to write
    #[arg(short, long, value_name = "TRACE")]
    pub(crate) output: PathBuf,
    /// The command and its arguments, behind `--`
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// Make a trace of a log that strace saved.
///
/// Such a log is made by
///
///   strace -f -ttt -o LOG -e trace=memory,execve,fork,vfork,clone,clone3,shmget COMMAND
///
/// Only `memory` is needed; without the others, who shares memory with whom is guessed, and the trace says so. Other calls
/// may be in the log, and are counted. A summary goes to standard error.
///
/// Exit code: 0 when the trace was written; 1 when a line of the log is not understood (a message says which and why); 2
/// when a file cannot be read or written, or for wrong arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// The file to write [default: standard output]
    #[arg(short, long, value_name = "TRACE")]
    pub(crate) output: Option<PathBuf>,
    /// Bytes of a page of the machine on which the log was made
    #[arg(long, default_value_t = 4096, value_name = "BYTES", value_parser = page_size)]
    pub(crate) page: u64,
    /// The log; `-` is standard input
    #[arg(default_value = "-", value_name = "LOG")]
    pub(crate) log: PathBuf,
}

/// A page size of some machine that Linux runs on.
fn page_size(text: &str) -> Result<u64, String> {
    let size = text.parse().ok().filter(|size: &u64| size.is_power_of_two() && (1 << 12..=1 << 24).contains(size));
    size.ok_or_else(|| "a page is a power of two from 4096 to 16777216 bytes".to_owned())
}

/// Runs one row in this process and prints its report as JSON. Used by `stress` itself.
#[derive(Debug, clap::Args)]
pub(crate) struct RowArgs {
    #[arg(long, value_enum)]
    pub(crate) row: RowName,
    #[arg(long)]
    pub(crate) milliseconds: u64,
    #[arg(long)]
    pub(crate) threads: usize,
    #[arg(long)]
    pub(crate) seed: u64,
    /// Become an ordinary user first.
    #[arg(long)]
    pub(crate) unprivileged: bool,
    /// The process that waits for the report: without it this one ends.
    #[arg(long)]
    pub(crate) parent: Option<u32>,
}
