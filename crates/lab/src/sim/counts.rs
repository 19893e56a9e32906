//! What happened in a run, counted.

use serde::ser::{Serialize, SerializeMap, Serializer};

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Something that is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Count {
            $($(#[$doc])* $name,)*
        }

        impl Count {
            /// All of them, in the order in which they are printed.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What it is called.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

counts! {
    /// munmap.
    Unmaps = "munmap",
    /// mmap of a free address.
    Maps = "mmap",
    /// mmap of an address whose former mapping is still being unmapped.
    Reuses = "mmap of an address before its munmap returned",
    /// mmap(MAP_FIXED) over a mapping.
    Replacements = "MAP_FIXED",
    /// mremap.
    Moves = "mremap",
    /// madvise(MADV_DONTNEED).
    Discards = "MADV_DONTNEED",
    /// madvise(MADV_FREE).
    Frees = "MADV_FREE",
    /// mprotect.
    Protections = "mprotect",
    /// Huge pages that a change of a part split.
    HugeSplits = "huge pages split",
    /// Pages that a write after a fork copied.
    CopiesOnWrite = "pages copied on write",
    /// Turns of the pump.
    Turns = "turns of the pump",
    /// Events that it read.
    Events = "events read",
    /// Events that were read in another order than that of the changes.
    OutOfOrder = "events in another order than their changes",
    /// Batches that were full and became everything.
    FullBatches = "full batches",
    /// Invalidations that started.
    Invalidations = "invalidations",
    /// Requests that were made.
    Requests = "requests",
    /// Served by a cached registration.
    Cached = "served from the cache",
    /// Served by a new registration that was kept.
    Installed = "registered and kept",
    /// Served by a registration for one use, in doubt.
    OneShotsInDoubt = "one-shots in doubt",
    /// Served by a registration for one use, after too many collisions.
    OneShotsContended = "one-shots after collisions",
    /// Leases that were stale in the section.
    Stale = "stale leases",
    /// Requests that ended at their deadline.
    TimedOut = "requests timed out",
    /// Requests for memory that was not there.
    Refusals = "requests refused",
    /// Requests that were told that coherence is lost.
    ToldLost = "requests told that coherence is lost",
    /// Attempts that collided.
    Retries = "retries",
    /// Of them with an overlapping invalidation.
    Collisions = "collisions",
    /// Of them without.
    FalseRetries = "false retries",
    /// Answers of range-valid that its known flaw made wrong, and that were mended.
    Mended = "known flaw of range-valid, mended",
    /// Attempts that were outrun.
    Outrun = "conservative: outrun",
    /// Invalidations without a running slot.
    Overflows = "conservative: no running slot",
    /// Doubts without a slot.
    DoubtOverflows = "conservative: no doubt slot",
    /// Attempts that had to wait for a running invalidation.
    Waits = "waits for an invalidation",
    /// Of them without an overlapping one.
    FalseWaits = "waits without an overlap",
    /// Probes that said that something is changing.
    Changing = "probes: changing",
    /// Uses that found the gate raised.
    Raised = "uses that found the gate raised",
    /// Proofs of the prover.
    Proofs = "proofs",
    /// Fault: a start was refused and cancelled.
    FaultRefused = "fault: refused start",
    /// Fault: a callback took long.
    FaultSlowCallback = "fault: slow callback",
    /// Fault: a released caller got no processor.
    FaultLateCaller = "fault: late caller",
    /// Fault: a long time between start and change.
    FaultSlowInvalidation = "fault: slow invalidation",
    /// Fault: a section was not left in time.
    FaultOverdue = "fault: overdue section",
    /// Fault: a fork.
    FaultFork = "fault: fork",
    /// Fault: the pump stood still.
    FaultStalledPump = "fault: stalled pump",
    /// Fault: a callback panicked.
    FaultPanicking = "fault: panicking callback",
    /// Fault: the descriptor was closed.
    FaultClosed = "fault: closed descriptor",
    /// Fault: coherence was declared lost.
    FaultLost = "fault: declared lost",
    /// Runs that ended with coherence lost.
    LostRuns = "runs that lost coherence",
}

/// All counts of one run or of many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts([u64; Count::ALL.len()]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; Count::ALL.len()])
    }
}

impl Counts {
    /// Adds to one of them.
    pub fn add(&mut self, what: Count, times: u64) {
        self.0[what as usize] += times;
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, what: Count) -> u64 {
        self.0[what as usize]
    }

    /// Adds those of another run.
    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(Count::ALL.len()))?;
        for count in Count::ALL {
            map.serialize_entry(count.text(), &self.get(*count))?;
        }
        map.end()
    }
}
