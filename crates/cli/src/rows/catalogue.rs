//! The rows: their names, what is expected of each, and its share of the time.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A row of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[value(rename_all = "kebab-case")]
pub(crate) enum RowName {
    /// Every mutator against every device thread
    Mix,
    /// Another thread takes the address before munmap has returned
    Reuse,
    /// A use inside a large discard, after it was announced and before it is over
    Discard,
    /// A small discard ends inside a large one that overlaps it
    Discard2,
    /// A linked request whose slot is looked up long after it was submitted
    Link,
    /// Mutators that never touch what the devices hold
    Bystander,
    /// Control: a cache that registers once and never invalidates
    Naive,
    /// Control: events are read first, and the gate is raised afterwards
    ReadThenInvalidate,
    /// Control: the adversary of `reuse`, and nobody asks the kernel before a use
    NoProbe,
    /// Control: the adversary of `discard`, and announced discards put nothing in doubt
    NoDoubt,
    /// Control: the adversary of `discard2`, and a doubt ends when a page is seen absent
    FirstAbsence,
}

/// What a row is expected to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Expected {
    /// No stale byte: the library is whole.
    Zero,
    /// Stale bytes, whatever the schedule.
    Stale,
    /// Stale bytes if the schedule allows it within the row's time.
    StaleByLuck,
}

impl Expected {
    /// As the output says it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Zero => "0",
            Self::Stale => "stale > 0, certain",
            Self::StaleByLuck => "stale > 0 within its time, by luck",
        }
    }
}

impl RowName {
    /// Every row, in the order in which they run.
    pub(crate) const ALL: [Self; 11] = [
        Self::Mix,
        Self::Reuse,
        Self::Discard,
        Self::Discard2,
        Self::Link,
        Self::Bystander,
        Self::Naive,
        Self::ReadThenInvalidate,
        Self::NoProbe,
        Self::NoDoubt,
        Self::FirstAbsence,
    ];

    /// The name that `--row` takes.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Mix => "mix",
            Self::Reuse => "reuse",
            Self::Discard => "discard",
            Self::Discard2 => "discard2",
            Self::Link => "link",
            Self::Bystander => "bystander",
            Self::Naive => "naive",
            Self::ReadThenInvalidate => "read-then-invalidate",
            Self::NoProbe => "no-probe",
            Self::NoDoubt => "no-doubt",
            Self::FirstAbsence => "first-absence",
        }
    }

    /// What the row is expected to show. `naive` shows it in its first round; the other controls need a thread to run, or
    /// not to run, at the right moment.
    pub(crate) fn expected(self) -> Expected {
        match self {
            Self::Mix | Self::Reuse | Self::Discard | Self::Discard2 | Self::Link | Self::Bystander => Expected::Zero,
            Self::Naive => Expected::Stale,
            Self::ReadThenInvalidate | Self::NoProbe | Self::NoDoubt | Self::FirstAbsence => Expected::StaleByLuck,
        }
    }

    /// Parts of a hundred of the whole time. `mix` has most: it has to see many invalidations of every kind.
    pub(crate) fn share(self) -> u64 {
        match self {
            Self::Mix => 55,
            Self::Reuse | Self::Discard | Self::Discard2 | Self::Link | Self::Bystander => 5,
            Self::Naive => 2,
            Self::ReadThenInvalidate | Self::NoProbe | Self::NoDoubt => 4,
            Self::FirstAbsence => 6,
        }
    }

    /// The least time of a row, in seconds, however little there is to share out. A control ends once it has shown enough.
    pub(crate) fn least_seconds(self) -> u64 {
        match self.expected() {
            Expected::StaleByLuck => 6,
            Expected::Zero | Expected::Stale => 1,
        }
    }
}
