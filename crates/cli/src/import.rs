//! `pagemirror import`: a trace from a saved log; and what `record` shares with it, writing a trace and summing it up.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use pagemirror_lab::trace::strace::Origin;
use pagemirror_lab::trace::{Trace, TraceError};

use crate::args::ImportArgs;
use pagemirror_lab::report::{Table, number};

/// A line of the log is not understood.
const FINDING: u8 = 1;
/// A file cannot be read or written.
pub(crate) const ENVIRONMENT: u8 = 2;

/// Runs `pagemirror import`.
pub(crate) fn run(args: &ImportArgs) -> ExitCode {
    let fail = |code: u8, why: String| {
        eprintln!("pagemirror: {why}");
        ExitCode::from(code)
    };
    let log = match open(&args.log) {
        Ok(log) => log,
        Err(error) => return fail(ENVIRONMENT, format!("the log {} cannot be read: {error}", args.log.display())),
    };
    let trace = match Trace::import(log, &Origin { page: args.page, ..Origin::default() }) {
        Ok(trace) => trace,
        Err(error @ TraceError::Io { .. }) => return fail(ENVIRONMENT, format!("{}: {error}", args.log.display())),
        Err(error) => return fail(FINDING, format!("{}: {error}", args.log.display())),
    };
    match write(&trace, args.output.as_deref()) {
        Ok(bytes) => {
            eprint!("{}", summary(&trace, bytes));
            ExitCode::SUCCESS
        }
        Err(why) => fail(ENVIRONMENT, why),
    }
}

fn open(log: &Path) -> io::Result<Box<dyn BufRead>> {
    if log == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    Ok(Box::new(BufReader::new(File::open(log)?)))
}

/// Says early whether the file can be written, before a command has run for long, and without touching what is in it.
/// Says also whether it was there.
pub(crate) fn try_output(path: &Path) -> Result<bool, String> {
    let existed = path.exists();
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    opened.map(|_| existed).map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

/// Writes the trace to the file, or to standard output; says how many bytes it has.
pub(crate) fn write(trace: &Trace, path: Option<&Path>) -> Result<u64, String> {
    let written = match path {
        Some(path) => File::create(path).and_then(|file| counted(trace, file)),
        None => counted(trace, io::stdout().lock()),
    };
    let name = path.map_or_else(|| "standard output".into(), |path| path.display().to_string());
    written.map_err(|error| format!("{name} cannot be written: {error}"))
}

fn counted(trace: &Trace, to: impl Write) -> io::Result<u64> {
    let mut counting = Counting { to: BufWriter::new(to), bytes: 0 };
    trace.write(&mut counting)?;
    Ok(counting.bytes)
}

struct Counting<W> {
    to: W,
    bytes: u64,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// What is in a trace of so many bytes.
pub(crate) fn summary(trace: &Trace, bytes: u64) -> String {
    let mut kinds: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for event in trace.events() {
        let (events, invalidations) = kinds.entry(event.operation.kind()).or_default();
        *events += 1;
        *invalidations += event.operation.invalidates().len() as u64;
    }
    let mut table = Table::untitled(&["event", "count", "invalidated ranges"], &[0]);
    for (kind, (events, invalidations)) in &kinds {
        table.row(vec![(*kind).to_owned(), number(*events), number(*invalidations)]);
    }
    let mut text = format!(
        "pagemirror: {} events in {:.3} s, {} address spaces, {} threads, {} bytes\n",
        number(trace.events().len() as u64),
        trace.span_us() as f64 / 1e6,
        number(trace.spaces() as u64),
        number(trace.threads() as u64),
        number(bytes)
    );
    if !table.is_empty() {
        text.push_str(&table.lines());
    }
    let dropped: Vec<String> =
        trace.header().dropped.iter().map(|(kind, count)| format!("{} {kind}", number(*count))).collect();
    if !dropped.is_empty() {
        let _ = writeln!(text, "not among the events: {}", dropped.join(", "));
    }
    let _ = writeln!(text, "who shares memory with whom is known: {}", trace.header().attribution);
    text
}
