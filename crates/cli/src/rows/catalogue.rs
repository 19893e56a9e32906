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
    /// Anonymous pages
    #[value(name = "kind-anonymous")]
    #[serde(rename = "kind-anonymous")]
    KindAnonymous,
    /// Transparent huge pages of 2 MiB
    #[value(name = "kind-thp")]
    #[serde(rename = "kind-thp")]
    KindThp,
    /// Transparent huge pages of 64 KiB
    #[value(name = "kind-mthp")]
    #[serde(rename = "kind-mthp")]
    KindMthp,
    /// Private pages of hugetlbfs
    #[value(name = "kind-hugetlb")]
    #[serde(rename = "kind-hugetlb")]
    KindHugetlb,
    /// Shared pages of hugetlbfs
    #[value(name = "kind-hugetlb-shared")]
    #[serde(rename = "kind-hugetlb-shared")]
    KindHugetlbShared,
    /// Shared mappings of a memfd
    #[value(name = "kind-memfd")]
    #[serde(rename = "kind-memfd")]
    KindMemfd,
    /// Shared mappings of a file on tmpfs
    #[value(name = "kind-tmpfs")]
    #[serde(rename = "kind-tmpfs")]
    KindTmpfs,
    /// Shared anonymous memory
    #[value(name = "kind-shared-anonymous")]
    #[serde(rename = "kind-shared-anonymous")]
    KindSharedAnonymous,
    /// System V segments: served, never cached
    #[value(name = "kind-system-v")]
    #[serde(rename = "kind-system-v")]
    KindSystemV,
    /// Private mappings of a file on a disk
    #[value(name = "kind-private-file")]
    #[serde(rename = "kind-private-file")]
    KindPrivateFile,
    /// Shared mappings of a file on a disk: refused, and sent by address
    #[value(name = "kind-shared-file")]
    #[serde(rename = "kind-shared-file")]
    KindSharedFile,
    /// Buffers on the stacks of threads that come and go
    #[value(name = "kind-stack")]
    #[serde(rename = "kind-stack")]
    KindStack,
    /// The heap behind the break
    #[value(name = "kind-brk")]
    #[serde(rename = "kind-brk")]
    KindBreak,
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
    /// Every row of a run of everything, in the order in which they run. Those of single kinds of memory are asked for.
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

    /// One row for each kind of memory: what `--kind all` runs.
    pub(crate) const KINDS: [Self; 13] = [
        Self::KindAnonymous,
        Self::KindThp,
        Self::KindMthp,
        Self::KindHugetlb,
        Self::KindHugetlbShared,
        Self::KindMemfd,
        Self::KindTmpfs,
        Self::KindSharedAnonymous,
        Self::KindSystemV,
        Self::KindPrivateFile,
        Self::KindSharedFile,
        Self::KindStack,
        Self::KindBreak,
    ];

    /// What the name of every row of a kind of memory begins with.
    pub(crate) const KIND: &str = "kind-";

    /// Whether this is the row of a kind of memory: one that this machine may not have.
    pub(crate) fn is_kind(self) -> bool {
        self.text().starts_with(Self::KIND)
    }

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
            Self::KindAnonymous => "kind-anonymous",
            Self::KindThp => "kind-thp",
            Self::KindMthp => "kind-mthp",
            Self::KindHugetlb => "kind-hugetlb",
            Self::KindHugetlbShared => "kind-hugetlb-shared",
            Self::KindMemfd => "kind-memfd",
            Self::KindTmpfs => "kind-tmpfs",
            Self::KindSharedAnonymous => "kind-shared-anonymous",
            Self::KindSystemV => "kind-system-v",
            Self::KindPrivateFile => "kind-private-file",
            Self::KindSharedFile => "kind-shared-file",
            Self::KindStack => "kind-stack",
            Self::KindBreak => "kind-brk",
        }
    }

    /// What the row is expected to show. `naive` shows it in its first round; the other controls need a thread to run, or
    /// not to run, at the right moment.
    pub(crate) fn expected(self) -> Expected {
        match self {
            Self::Mix | Self::Reuse | Self::Discard | Self::Discard2 | Self::Link | Self::Bystander => Expected::Zero,
            Self::Naive => Expected::Stale,
            Self::ReadThenInvalidate | Self::NoProbe | Self::NoDoubt | Self::FirstAbsence => Expected::StaleByLuck,
            _ => Expected::Zero,
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
            // Not part of a run of everything; among themselves they are equal.
            _ => 5,
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
