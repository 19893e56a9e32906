//! The child's side of the stress run: one row in one process, because a process has one source.
//!
//! - `catalogue` names the rows; `mix`, `bystander`, `reuse`, `discard`, `overlap`, `link` and the controls are theirs.
//! - `kinds` are the rows of single kinds of memory, over `patch` and `segment`; `stacks` is that of stacks.
//! - `unprivileged` makes a row run as an ordinary user.
//! - `oracle` says which bytes are stale; `generations`, `region`, `expanse` and `churn` are memory that changes under it.
//! - `rig` holds what a row stands on; `device` is a device thread, `ring` its hardware; `tally` counts.

mod bystander;
pub(crate) mod catalogue;
mod churn;
mod cpus;
mod device;
mod discard;
mod expanse;
mod generations;
mod hog;
mod huge;
mod kinds;
mod late_gate;
mod link;
mod memory;
mod mix;
mod naive;
mod oracle;
mod overlap;
mod park;
mod patch;
pub(crate) mod process;
mod region;
mod reuse;
mod rig;
mod ring;
mod rng;
mod segment;
mod stacks;
mod tally;
mod unprivileged;

use std::time::Duration;

use crate::stress::report::Outcome;

use catalogue::RowName;

/// How a row runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) time: Duration,
    /// Mutators and device threads, in the rows that leave it open.
    pub(crate) threads: usize,
    pub(crate) seed: u64,
    /// The process has given up what root has.
    pub(crate) unprivileged: bool,
}

/// Runs a row in this process.
pub(crate) fn run(row: RowName, settings: &Settings) -> Outcome {
    let outcome = match row {
        RowName::Mix => mix::run(settings),
        RowName::Reuse => reuse::strict(settings),
        RowName::Discard => discard::strict(settings),
        RowName::Discard2 => overlap::strict(settings),
        RowName::Link => link::run(settings),
        RowName::Bystander => bystander::run(settings),
        RowName::Naive => naive::run(settings),
        RowName::ReadThenInvalidate => late_gate::run(settings),
        RowName::NoProbe => reuse::without_probe(settings),
        RowName::NoDoubt => discard::without_doubt(settings),
        RowName::FirstAbsence => overlap::with_first_absence(settings),
        RowName::KindStack => stacks::run(settings),
        kind => kinds::run(kind, settings),
    };
    outcome.unwrap_or_else(|unsupported| Outcome::Unsupported(unsupported.0))
}
