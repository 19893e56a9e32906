//! What a row reports: the JSON that a child prints and that `--json` shows.

use serde::{Deserialize, Serialize};

use crate::rows::catalogue::RowName;

/// What a child says when it ends.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// The row ran.
    Ran(Box<RowReport>),
    /// This machine cannot run it; what is missing and how to get it.
    Unsupported(String),
}

/// One row. Every figure is since the row began.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RowReport {
    pub(crate) row: RowName,
    /// How long it ran.
    pub(crate) milliseconds: u64,
    /// Submissions that completed and were checked.
    pub(crate) uses: u64,
    pub(crate) checked_bytes: u64,
    pub(crate) stale_uses: u64,
    pub(crate) stale_bytes: u64,
    /// Answers "nothing is mapped there" while a change was under way.
    pub(crate) unmapped_answers: u64,
    /// Changes of memory that a device had used, by what was called.
    pub(crate) invalidations: Invalidations,
    /// What reached the cache.
    pub(crate) told: Told,
    pub(crate) cache: CacheFigures,
    pub(crate) waits: Vec<WaitFigures>,
    /// What the row is about in one more figure.
    pub(crate) note: Option<String>,
    /// What was sent that should not have been: the first few.
    pub(crate) examples: Vec<String>,
    /// Everything else that must not happen.
    pub(crate) findings: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Invalidations {
    pub(crate) munmap: u64,
    pub(crate) map_fixed: u64,
    pub(crate) mremap: u64,
    pub(crate) dontneed: u64,
    pub(crate) remove: u64,
    pub(crate) allocator: u64,
}

impl Invalidations {
    pub(crate) fn total(&self) -> u64 {
        self.munmap + self.map_fixed + self.mremap + self.dontneed + self.remove + self.allocator
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) unmap: u64,
    pub(crate) remap: u64,
    pub(crate) remove: u64,
    pub(crate) requested: u64,
    /// Registrations that were revoked by all of them.
    pub(crate) revoked: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CacheFigures {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) collisions: u64,
    pub(crate) retries: u64,
    pub(crate) false_retries: u64,
    /// Answers of the tracker that were safe but not exact.
    pub(crate) outrun: u64,
    pub(crate) overflow: u64,
    pub(crate) doubt_overflows: u64,
    pub(crate) one_shots_in_doubt: u64,
    pub(crate) one_shots_contended: u64,
    /// Uses that were refused because their lease was stale.
    pub(crate) stale_leases: u64,
    pub(crate) evictions: u64,
    pub(crate) register_failures: u64,
    pub(crate) deregister_failures: u64,
    /// Times that every thread was seen to have returned from a discard.
    pub(crate) proofs: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WaitFigures {
    pub(crate) cause: String,
    pub(crate) count: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
}
