//! Every operation that changes memory, or looks as if it did, with what is expected of it.
//!
//! The table is a claim about Linux, not about this machine: `doctor --coverage` and `tests/coverage.rs` fire each row on
//! the running kernel and compare. A row that comes out otherwise is a finding in either direction.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What is done to a registered range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Operation {
    Munmap,
    MunmapRaw,
    MunmapUnrounded,
    MunmapOneOf64,
    MunmapNeighbour,
    MunmapVforkChild,
    MunmapSpan,
    FreeLarge,
    ReallocMoves,
    MapFixedOver,
    MremapAway,
    MremapDontunmap,
    MremapShrink,
    MremapGrow,
    MremapGrowMove,
    MremapOnto,
    BrkShrink,
    Shmdt,
    ShmatOver,
    RemapFilePages,
    Dontneed,
    DontneedLocked,
    Free,
    Remove,
    RemoveWatchedAlias,
    RemoveOtherAlias,
    ProcessMadvise,
    UringMadvise,
    DontneedVforkChild,
    GuardInstall,
    Pageout,
    Cold,
    Collapse,
    Populate,
    PunchHole,
    Truncate,
    OpenTruncate,
    UringPunchHole,
    UringTruncate,
    WriteOtherMapping,
    WriteFile,
    WriteFromKernel,
    ProtectNone,
    ProtectRead,
    PkeyProtectNone,
    Mlock,
    Mseal,
    Msync,
    NoHugePages,
    ForkParentWrites,
}

/// What the range is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Memory {
    /// Private anonymous memory.
    Anonymous,
    /// A shared mapping of a memfd.
    Memfd,
    /// A System V segment.
    Shm,
    /// The heap behind the program break.
    Heap,
    /// Memory that the library owns and seals.
    Arena,
}

/// Whether the pinned pages are still those that the processor sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Pages {
    /// They are.
    Same,
    /// The device holds other pages than the processor sees, or pages that it does not see at all.
    Diverged,
}

/// When the registration was made stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Noticed {
    /// The pages had not changed when the event was there to be read.
    Before,
    /// They had, and the caller had not returned.
    After,
    /// Though the pages stayed the same: the event does not tell.
    Needless,
    /// Never.
    No,
}

/// What helps where the kernel says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cover {
    /// Nothing else is needed.
    Watching,
    /// A wrapped call in its place, or `invalidate` by who knows.
    Call,
    /// A wrapped call, or a check before the use.
    CallOrCheck,
    /// A check before the use: the mapping is another one.
    Check,
    /// `invalidate` by who knows of it, or an arena, whose file nobody else has.
    Invalidate,
}

impl Cover {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Watching => "",
            Self::Call => "wrapped call, arena",
            Self::CallOrCheck => "wrapped call, check, arena",
            Self::Check => "check, arena",
            Self::Invalidate => "invalidate, arena",
        }
    }
}

/// One row of the matrix.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) operation: Operation,
    pub(crate) memory: Memory,
    pub(crate) pages: Pages,
    pub(crate) noticed: Noticed,
    pub(crate) cover: Cover,
}

use Cover::{Call, CallOrCheck, Check, Invalidate, Watching};
use Memory::{Anonymous, Arena, Heap, Memfd, Shm};
use Noticed::{After, Before, Needless, No};
use Operation as Op;
use Pages::{Diverged, Same};

type Row = (Op, &'static [Memory], Pages, Noticed, Cover);

/// The matrix. In groups: what unmaps, what discards, what acts on the file, what leaves the pages alone.
const ROWS: &[Row] = &[
    (Op::Munmap, &[Anonymous, Memfd, Shm], Diverged, After, Watching),
    (Op::MunmapRaw, &[Anonymous, Memfd], Diverged, After, Watching),
    (Op::MunmapUnrounded, &[Anonymous, Memfd], Diverged, After, Watching),
    (Op::MunmapOneOf64, &[Anonymous, Memfd], Diverged, After, Watching),
    (Op::MunmapNeighbour, &[Anonymous, Memfd], Same, No, Watching),
    (Op::MunmapVforkChild, &[Anonymous, Memfd], Diverged, After, Watching),
    (Op::MunmapSpan, &[Anonymous], Diverged, After, Watching),
    (Op::FreeLarge, &[Anonymous], Diverged, After, Watching),
    (Op::ReallocMoves, &[Anonymous], Diverged, After, Watching),
    (Op::MapFixedOver, &[Anonymous, Memfd, Shm], Diverged, After, Watching),
    (Op::MremapAway, &[Anonymous, Memfd], Diverged, After, Watching),
    (Op::MremapDontunmap, &[Anonymous], Diverged, After, Watching),
    // The old mapping still shows the same pages of the file.
    (Op::MremapDontunmap, &[Memfd], Same, Needless, Watching),
    (Op::MremapShrink, &[Anonymous, Memfd], Diverged, After, Watching),
    (Op::MremapGrow, &[Anonymous], Same, No, Watching),
    (Op::MremapGrowMove, &[Anonymous, Memfd], Diverged, After, Watching),
    (Op::MremapOnto, &[Anonymous, Memfd], Diverged, After, Watching),
    (Op::BrkShrink, &[Heap], Diverged, After, Watching),
    (Op::Shmdt, &[Shm], Diverged, No, Check),
    (Op::ShmatOver, &[Anonymous, Memfd, Shm], Diverged, No, Check),
    (Op::RemapFilePages, &[Memfd], Diverged, No, Check),
    (Op::Dontneed, &[Anonymous], Diverged, Before, Watching),
    // The pages stay in the file, and the pinned ones are those of the file.
    (Op::Dontneed, &[Memfd, Shm], Same, Needless, Watching),
    (Op::DontneedLocked, &[Anonymous], Diverged, Before, Watching),
    (Op::Free, &[Anonymous], Same, Needless, Watching),
    (Op::Remove, &[Memfd, Shm], Diverged, Before, Watching),
    (Op::RemoveWatchedAlias, &[Memfd], Diverged, Before, Watching),
    (Op::RemoveOtherAlias, &[Memfd], Diverged, No, Call),
    (Op::ProcessMadvise, &[Anonymous], Diverged, Before, Watching),
    (Op::UringMadvise, &[Anonymous], Diverged, Before, Watching),
    (Op::DontneedVforkChild, &[Anonymous], Diverged, Before, Watching),
    (Op::GuardInstall, &[Anonymous], Diverged, No, Check),
    (Op::Pageout, &[Anonymous, Memfd], Same, No, Watching),
    (Op::Cold, &[Anonymous, Memfd], Same, No, Watching),
    (Op::Collapse, &[Anonymous], Same, No, Watching),
    (Op::Populate, &[Anonymous, Memfd], Same, No, Watching),
    (Op::PunchHole, &[Memfd], Diverged, No, Call),
    (Op::Truncate, &[Memfd], Diverged, No, Call),
    (Op::OpenTruncate, &[Memfd], Diverged, No, Invalidate),
    (Op::UringPunchHole, &[Memfd], Diverged, No, Invalidate),
    (Op::UringTruncate, &[Memfd], Diverged, No, Invalidate),
    (Op::WriteOtherMapping, &[Memfd], Same, No, Watching),
    (Op::WriteFile, &[Memfd], Same, No, Watching),
    (Op::WriteFromKernel, &[Anonymous, Memfd], Same, No, Watching),
    (Op::ProtectNone, &[Anonymous, Memfd], Same, No, CallOrCheck),
    (Op::ProtectRead, &[Anonymous, Memfd], Same, No, CallOrCheck),
    (Op::PkeyProtectNone, &[Anonymous, Memfd], Same, No, CallOrCheck),
    (Op::Mlock, &[Anonymous, Memfd], Same, No, Watching),
    (Op::Mseal, &[Anonymous, Memfd], Same, No, Watching),
    (Op::NoHugePages, &[Anonymous, Memfd], Same, No, Watching),
    (Op::Msync, &[Memfd], Same, No, Watching),
    (Op::ForkParentWrites, &[Anonymous, Memfd], Same, No, Watching),
    // In an arena the kernel refuses them all, and the one that it permits takes no page out of a file.
    (Op::Munmap, &[Arena], Same, No, Watching),
    (Op::MunmapRaw, &[Arena], Same, No, Watching),
    (Op::MunmapUnrounded, &[Arena], Same, No, Watching),
    (Op::MapFixedOver, &[Arena], Same, No, Watching),
    (Op::MremapAway, &[Arena], Same, No, Watching),
    (Op::MremapDontunmap, &[Arena], Same, No, Watching),
    (Op::MremapShrink, &[Arena], Same, No, Watching),
    (Op::MremapOnto, &[Arena], Same, No, Watching),
    (Op::ShmatOver, &[Arena], Same, No, Watching),
    (Op::RemapFilePages, &[Arena], Same, No, Watching),
    (Op::Dontneed, &[Arena], Same, No, Watching),
    (Op::DontneedLocked, &[Arena], Same, Needless, Watching),
    (Op::Remove, &[Arena], Same, No, Watching),
    (Op::GuardInstall, &[Arena], Same, No, Watching),
    (Op::ProtectNone, &[Arena], Same, No, Watching),
    (Op::ProtectRead, &[Arena], Same, No, Watching),
    (Op::PkeyProtectNone, &[Arena], Same, No, Watching),
];

/// The whole matrix, one case for each kind of memory.
pub(crate) fn cases() -> impl Iterator<Item = Case> {
    let each = |&(operation, kinds, pages, noticed, cover): &Row| {
        kinds.iter().map(move |&memory| Case { operation, memory, pages, noticed, cover })
    };
    ROWS.iter().flat_map(each)
}

impl Operation {
    /// What is called, as a reader of the manual knows it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Op::Munmap => "munmap",
            Op::MunmapRaw => "munmap, raw system call",
            Op::MunmapUnrounded => "munmap of 100 bytes of a page",
            Op::MunmapOneOf64 => "munmap of one page of 64",
            Op::MunmapNeighbour => "munmap of the page next to it",
            Op::MunmapVforkChild => "munmap by a vfork child",
            Op::MunmapSpan => "munmap of two mappings and a hole",
            Op::ReallocMoves => "realloc that moves",
            Op::MremapGrowMove => "mremap, grown and moved",
            Op::DontneedVforkChild => "MADV_DONTNEED by a vfork child",
            Op::UringTruncate => "io_uring FTRUNCATE",
            Op::WriteFromKernel => "process_vm_writev",
            Op::PkeyProtectNone => "pkey_mprotect(PROT_NONE)",
            Op::Mseal => "mseal",
            Op::NoHugePages => "MADV_NOHUGEPAGE",
            Op::FreeLarge => "free of a large block",
            Op::MapFixedOver => "mmap(MAP_FIXED) over it",
            Op::MremapAway => "mremap away",
            Op::MremapDontunmap => "mremap(DONTUNMAP)",
            Op::MremapShrink => "mremap, shrunk",
            Op::MremapGrow => "mremap, grown in place",
            Op::MremapOnto => "mremap(FIXED) onto it",
            Op::BrkShrink => "brk, shrunk",
            Op::Shmdt => "shmdt",
            Op::ShmatOver => "shmat(SHM_REMAP) over it",
            Op::RemapFilePages => "remap_file_pages",
            Op::Dontneed => "MADV_DONTNEED",
            Op::DontneedLocked => "MADV_DONTNEED_LOCKED",
            Op::Free => "MADV_FREE",
            Op::Remove => "MADV_REMOVE",
            Op::RemoveWatchedAlias => "MADV_REMOVE, watched alias",
            Op::RemoveOtherAlias => "MADV_REMOVE, other alias",
            Op::ProcessMadvise => "process_madvise(self, DONTNEED)",
            Op::UringMadvise => "io_uring MADVISE(DONTNEED)",
            Op::GuardInstall => "MADV_GUARD_INSTALL",
            Op::Pageout => "MADV_PAGEOUT",
            Op::Cold => "MADV_COLD",
            Op::Collapse => "MADV_COLLAPSE",
            Op::Populate => "MADV_POPULATE_WRITE",
            Op::PunchHole => "fallocate(PUNCH_HOLE)",
            Op::Truncate => "ftruncate",
            Op::OpenTruncate => "open(O_TRUNC)",
            Op::UringPunchHole => "io_uring FALLOCATE(PUNCH_HOLE)",
            Op::WriteOtherMapping => "write through another mapping",
            Op::WriteFile => "pwrite to the file",
            Op::ProtectNone => "mprotect(PROT_NONE)",
            Op::ProtectRead => "mprotect(PROT_READ)",
            Op::Mlock => "mlock",
            Op::Msync => "msync",
            Op::ForkParentWrites => "fork, parent writes",
        }
    }

    /// How many pages are registered for it.
    pub(crate) fn pages(self) -> usize {
        match self {
            Op::MunmapUnrounded => 1,
            Op::MunmapOneOf64 => 64,
            // Two huge pages hold at least one that is aligned.
            Op::Collapse => 1024,
            _ => 4,
        }
    }
}

/// The name that the command line knows a value by.
pub(crate) fn name_of(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|name| name.get_name().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_in_the_matrix_once_for_each_kind_of_memory() {
        for operation in Operation::value_variants() {
            assert!(cases().any(|case| case.operation == *operation), "{operation:?} is never fired");
        }
        for (index, case) in cases().enumerate() {
            let same = |other: &Case| (other.operation, other.memory) == (case.operation, case.memory);
            assert!(!cases().skip(index + 1).any(|other| same(&other)), "{case:?} is there twice");
        }
    }

    #[test]
    fn what_diverges_unnoticed_has_something_else_that_covers_it() {
        for case in cases().filter(|case| case.pages == Diverged && case.noticed == No) {
            assert_ne!(case.cover, Watching, "{case:?}");
        }
    }
}
