//! `sim --planted`: each planted bug, and how many seeds it takes to find it.

use std::process::ExitCode;

use pagemirror_lab::sim::{Found, bugs, not_hunted, try_hunt};
use serde::Serialize;

use super::{ENVIRONMENT, FINDING, progress, show};
use crate::args::sim::SimArgs;
use pagemirror_lab::report::{Table, number};

/// Seeds that a bug may take. The one that hides best needs a small part of them.
const MOST_SEEDS: u64 = 20_000;
/// Of a finding, so many characters are shown in the table; the whole is in the JSON.
const SHOWN: usize = 90;

#[derive(Debug, Serialize)]
struct Hunted {
    bug: &'static str,
    tracker: &'static str,
    found: Option<Found>,
}

/// Hunts one bug or all of them.
pub(crate) fn run(args: &SimArgs, only: Option<&str>) -> ExitCode {
    let most = args.count(MOST_SEEDS);
    let chosen: Vec<_> = bugs().into_iter().filter(|(bug, _)| only.is_none_or(|only| only == *bug)).collect();
    if let (Some(only), true) = (only, chosen.is_empty()) {
        let why =
            not_hunted().into_iter().find(|(bug, _)| *bug == only).map_or("there is none of this name", |(_, why)| why);
        eprintln!("pagemirror: {only} cannot be found by simulation: {why}");
        return ENVIRONMENT.into();
    }
    let bar = progress(chosen.len() as u64);
    let mut hunted = Vec::new();
    for (bug, tracker) in chosen {
        bar.set_message(bug);
        match try_hunt(bug, most) {
            Ok(found) => hunted.push(Hunted { bug, tracker: tracker.text(), found }),
            Err(error) => {
                bar.finish_and_clear();
                eprintln!("pagemirror: {error}");
                return ENVIRONMENT.into();
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if args.json {
        show(&format!("{}\n", serde_json::to_string_pretty(&hunted).unwrap_or_default()));
    } else {
        show(&in_words(&hunted, most, only.is_none()));
    }
    if hunted.iter().all(|one| one.found.is_some()) { ExitCode::SUCCESS } else { FINDING.into() }
}

fn in_words(hunted: &[Hunted], most: u64, all: bool) -> String {
    let mut table = Table::untitled(&["planted bug", "tracker", "seeds", "found as"], &[0, 1, 3]);
    for one in hunted {
        let (seeds, what) = one.found.as_ref().map_or_else(
            || (format!("> {}", number(most)), "NOT FOUND".to_owned()),
            |found| (number(found.seed + 1), in_short(&found.finding)),
        );
        table.row(vec![one.bug.into(), one.tracker.into(), seeds, what]);
    }
    let mut text = table.lines();
    if all {
        let mut others = Table::untitled(&["not hunted", "because"], &[0, 1]);
        not_hunted().into_iter().for_each(|(bug, why)| others.row(vec![bug.into(), why.into()]));
        text = format!("{text}\n{}", others.lines());
    }
    text
}

/// A finding without its addresses, which say nothing in a table.
fn in_short(finding: &str) -> String {
    let mut text = String::new();
    let mut rest = finding;
    while let Some((before, (_, after))) =
        rest.split_once("[0x").and_then(|(before, range)| Some((before, range.split_once(')')?)))
    {
        text.push_str(before);
        text.push_str("[..)");
        rest = after;
    }
    text.push_str(rest);
    text.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_left_out_of_a_table() {
        assert_eq!(in_short("lost: [0x1000, 0x2000) by [0x1, 0x2), late"), "lost: [..) by [..), late");
        assert_eq!(in_short("[0x1 has no end"), "[0x1 has no end");
        assert_eq!(in_short(&"x".repeat(200)).len(), SHOWN);
    }
}
