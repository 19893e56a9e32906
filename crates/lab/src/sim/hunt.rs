//! Planted bugs: how many seeds it takes until each is found.
//!
//! A bug is chosen by the environment when a program starts, so each is hunted in a process of its own: this program again,
//! with the command [`CHILD`].

use std::process::{Command, Stdio};

use pagemirror_trackers_sim::catalogue::TrackerName;
use pagemirror_trackers_sim::planted::PLANTED;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::options::Setting;
use super::simulator::Simulator;

/// The hidden command of the program that hunts one bug: `CHILD --tracker NAME --seeds NUMBER`.
pub const CHILD: &str = "sim-child";

/// The bugs of the core, and of a device over it, that show under sequentially consistent schedules.
const OF_THE_CORE: &[&str] = &[
    "number-before-slot",
    "slots-before-head",
    "no-wait",
    "ends-forgotten",
    "one-slot-per-thread",
    "hit-against-zero",
    "entry-read-once",
    "gate-before-section",
    "read-before-gate",
    "gate-lowered-before-revoke",
    "lost-after-read",
    "doubt-after-append",
    "doubt-before-token",
    "release-without-wake",
];

/// The bugs of the core that no simulation can find, and why.
const NOT_OF_THE_CORE: &[(&str, &str)] = &[
    ("token-relaxed", ORDERING),
    ("busy-load-relaxed", ORDERING),
    ("free-load-relaxed", ORDERING),
    ("clear-relaxed", ORDERING),
    ("hit-without-fence", ORDERING),
    ("entry-without-fence", ORDERING),
    ("enter-without-fence", ORDERING),
    ("raise-without-fence", ORDERING),
    ("wake-without-fence", ORDERING),
    ("hold-without-fence", ORDERING),
    ("settle-without-fence", ORDERING),
    ("give-back-relaxed", ORDERING),
    ("entry-relaxed", ORDERING),
    ("lock-first-unit-only", NO_MIRROR),
    ("mirror-doubt-after-look", NO_MIRROR),
    ("mirror-walk-before-section", NO_MIRROR),
    ("pages-under-whole-kept", NO_MIRROR),
    ("snapshot-unchecked", NO_MIRROR),
    ("split-clears-first", NO_MIRROR),
    ("table-callback-skips-empty", NO_MIRROR),
    (
        "entry-without-claim",
        "the writers of the log take a lock, so none of them is lapped; the bug is of a log without",
    ),
    (
        "callback-skips-empty",
        "a device table takes its lock in every callback; the bug is planted in a device without one",
    ),
    ("commit-before-lock", "a commit is a method of the held lock; the bug is planted in a device without one"),
];

const NO_MIRROR: &str = "the devices of the simulation stand on an index of registrations, not on a page table";
const ORDERING: &str = "an ordering: every schedule here is sequentially consistent";

/// A bug that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The bug.
    pub bug: String,
    /// The tracker that it was looked for with.
    pub tracker: String,
    /// The first seed that found it; so many were tried before.
    pub seed: u64,
    /// What was found.
    pub finding: String,
}

/// Why nothing can be said of a bug.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HuntError {
    /// The program was not built with the bugs.
    #[error("this build has no planted bugs: build with RUSTFLAGS=\"--cfg pagemirror_planted\"")]
    NotPlanted,
    /// There is none of this name here.
    #[error("there is no bug {0:?} that a simulation can find; `sim --planted` lists them")]
    Unknown(String),
    /// The process that hunts could not be started or did not answer.
    #[error("the process that hunts for {bug:?} failed: {why}")]
    Child {
        /// The bug.
        bug: String,
        /// What happened.
        why: String,
    },
}

/// Every bug that the simulator is expected to find, with the tracker to look for it with.
#[must_use]
pub fn bugs() -> Vec<(&'static str, TrackerName)> {
    let core = OF_THE_CORE.iter().map(|bug| (*bug, TrackerName::CollisionLog));
    let others = PLANTED.iter().filter(|bug| !is_ordering(bug.name)).map(|bug| (bug.name, bug.tracker));
    core.chain(others).collect()
}

/// The planted bugs that no simulation can find, and why.
#[must_use]
pub fn not_hunted() -> Vec<(&'static str, &'static str)> {
    let others = PLANTED.iter().filter(|bug| is_ordering(bug.name)).map(|bug| (bug.name, ORDERING));
    NOT_OF_THE_CORE.iter().copied().chain(others).collect()
}

/// The trackers' bugs of orderings say so at the end of their names.
fn is_ordering(bug: &str) -> bool {
    bug.ends_with("-relaxed")
}

/// Hunts a bug with at most so many seeds, in a process of its own. Nothing when it is not found, or cannot be hunted.
///
/// The process is this program, which must know the command [`CHILD`].
#[must_use]
pub fn hunt(bug: &str, most_seeds: u64) -> Option<Found> {
    try_hunt(bug, most_seeds).ok().flatten()
}

/// As [`hunt`], and says why a bug cannot be hunted.
///
/// # Errors
/// When the build has no bugs, when this is none of them, or when the process fails.
pub fn try_hunt(bug: &str, most_seeds: u64) -> Result<Option<Found>, HuntError> {
    if !cfg!(pagemirror_planted) {
        return Err(HuntError::NotPlanted);
    }
    let known = bugs().into_iter().find(|(name, _)| *name == bug);
    let (_, tracker) = known.ok_or_else(|| HuntError::Unknown(bug.to_owned()))?;
    let failed = |why: String| HuntError::Child { bug: bug.to_owned(), why };
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let output = Command::new(program)
        .args([CHILD, "--tracker", tracker.text(), "--seeds", &most_seeds.to_string()])
        .env("PAGEMIRROR_PLANTED", bug)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&said).map_err(|_| {
        let complained = String::from_utf8_lossy(&output.stderr);
        failed(format!("it ended with {} and said {:?}", output.status, complained.trim()))
    })
}

/// What the child does: hunts whatever bug the environment planted, and says what it found as JSON.
#[must_use]
pub fn child(tracker: TrackerName, most_seeds: u64) -> String {
    // What range-valid loses by design would be found first, whatever is planted.
    let mended = (tracker == TrackerName::RangeValid).then(|| Setting::new("mend", 1));
    let failed = Simulator::new(tracker, mended.into_iter().collect()).run_many(0..most_seeds, &|_| {}).failed;
    let found = failed.and_then(|run| {
        Some(Found {
            bug: std::env::var("PAGEMIRROR_PLANTED").unwrap_or_default(),
            tracker: tracker.text().to_owned(),
            seed: run.seed,
            finding: run.finding?,
        })
    });
    serde_json::to_string(&found).unwrap_or_default()
}
