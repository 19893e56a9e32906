//! Which tracker a scenario runs on, and what that tracker promises.

use super::world::AnyTracker;
use crate::catalogue::TrackerName;

/// Makes the tracker of one execution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Make {
    pub(crate) tracker: TrackerName,
    /// Whether its numbers are about to wrap.
    pub(crate) near_wrap: bool,
}

impl Make {
    pub(crate) fn tracker(&self) -> AnyTracker {
        if self.near_wrap { self.tracker.build_near_wrap() } else { self.tracker.build() }
    }

    pub(crate) fn is_exact(&self) -> bool {
        is_exact(self.tracker)
    }
}

/// Only an invalidation that overlaps the reader's range makes it go round.
pub(crate) fn is_exact(tracker: TrackerName) -> bool {
    match tracker {
        TrackerName::RangeValid | TrackerName::IntervalSeq | TrackerName::CollisionLog => true,
        // Whatever has ended anywhere counts.
        TrackerName::HullSeq => false,
        // Whatever has started anywhere counts.
        TrackerName::NotifierCount => false,
    }
}

/// A reader of another range does not wait for a running invalidation.
pub(crate) fn lets_others_read(tracker: TrackerName) -> bool {
    tracker != TrackerName::NotifierCount
}

/// Forgetting a range waits for the invalidations that have hit it.
pub(crate) fn removal_waits(tracker: TrackerName) -> bool {
    tracker == TrackerName::IntervalSeq
}

/// Has a number that grows with invalidations, so that it wraps one day.
pub(crate) fn counts(tracker: TrackerName) -> bool {
    tracker != TrackerName::RangeValid
}
