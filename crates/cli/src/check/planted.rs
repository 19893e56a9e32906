//! `check --planted`: the hunt for planted bugs, shown.

use std::path::Path;

use pagemirror_lab::check::{self, Bug, HAS_PLANTED_BUGS, Hunted};
use serde::Serialize;

use crate::args::check::CheckArgs;
use pagemirror_lab::report::Table;

use super::progress::Bar;
use super::{FINDING, FINE, USAGE, show};

/// The whole hunt, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Hunt<'a> {
    pagemirror: &'static str,
    bugs: &'a [Hunted],
    exit: u8,
}

/// Hunts the bugs, prints who caught them, and says how the process ends.
pub(super) fn run(bugs: &[Bug], args: &CheckArgs) -> u8 {
    if !HAS_PLANTED_BUGS {
        eprintln!(
            "pagemirror: there are no planted bugs in this build. Make one that has them with\n\
             RUSTFLAGS=\"--cfg pagemirror_planted\" CARGO_TARGET_DIR=target-planted cargo build --release"
        );
        return USAGE;
    }
    let bar = Bar::over(bugs.len());
    let hunted = check::hunt(bugs, &|bug| bar.one_more(bug.name));
    bar.end();
    let missed: Vec<&str> = hunted.iter().filter(|one| !one.is_caught()).map(|one| one.bug).collect();
    let exit = if missed.is_empty() { FINE } else { FINDING };
    if args.json {
        let hunt = Hunt { pagemirror: env!("CARGO_PKG_VERSION"), bugs: &hunted, exit };
        show(&serde_json::to_string_pretty(&hunt).unwrap_or_default());
        show("\n");
    } else {
        show(&table(&hunted).lines());
        show(&summary(hunted.len(), &missed));
    }
    args.markdown.as_deref().and_then(|file| write(file, &hunted)).unwrap_or(exit)
}

/// Writes the table; says how the process ends if it cannot.
fn write(file: &Path, hunted: &[Hunted]) -> Option<u8> {
    let error = std::fs::write(file, check::markdown(hunted)).err()?;
    eprintln!("pagemirror: the table cannot be written to {}: {error}", file.display());
    Some(USAGE)
}

fn table(hunted: &[Hunted]) -> Table {
    let mut table =
        Table::untitled(&["bug", "tracker", "loom", "shuttle", "simulator", "what it breaks"], &[0, 1, 2, 3, 4, 5]);
    for one in hunted {
        let by = |scenario: Option<&str>| scenario.unwrap_or("-").to_owned();
        let (loom, shuttle) = (by(one.loom), by(one.shuttle));
        let simulator = if one.simulator { "found" } else { "-" }.to_owned();
        table.row(vec![one.bug.to_owned(), one.tracker.to_owned(), loom, shuttle, simulator, one.breaks.to_owned()]);
    }
    table
}

fn summary(count: usize, missed: &[&str]) -> String {
    if missed.is_empty() {
        return format!("\nall {count} planted bugs are caught\n");
    }
    format!("\n{} of {count} planted bugs are caught; MISSED: {}\n", count - missed.len(), missed.join(", "))
}
