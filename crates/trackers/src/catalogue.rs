//! The trackers by name.

use std::fmt;
use std::str::FromStr;

pub use pagemirror_core::log::CollisionLog;

use pagemirror_core::collision::CollisionTracker;
use pagemirror_core::memory::LogSize;

pub use crate::hull_seq::HullSeq;
pub use crate::interval_seq::IntervalSeq;
pub use crate::notifier_count::NotifierCount;
pub use crate::range_valid::RangeValid;

/// So many invalidations before its sequence wraps round does a tracker of [`TrackerName::build_near_wrap`] start: a few, so
/// that a short scenario gets there, and not at its first step.
const BEFORE_WRAP: u64 = 3;

/// A way to track collisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrackerName {
    /// A flag for each range, as in the kernel of 2019, with its flaw.
    RangeValid,
    /// The count of running invalidations, with a sequence.
    NotifierCount,
    /// A sequence and one range around all that run, as in KVM.
    HullSeq,
    /// An odd and even sequence over an interval tree, as in the kernel today.
    IntervalSeq,
    /// The one that pagemirror ships.
    CollisionLog,
}

impl TrackerName {
    /// Every tracker, from the oldest to ours.
    pub const ALL: [Self; 5] =
        [Self::RangeValid, Self::NotifierCount, Self::HullSeq, Self::IntervalSeq, Self::CollisionLog];

    /// The name in a report or on a command line.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::RangeValid => "range-valid",
            Self::NotifierCount => "notifier-count",
            Self::HullSeq => "hull-seq",
            Self::IntervalSeq => "interval-seq",
            Self::CollisionLog => "collision-log",
        }
    }

    /// A tracker of this name over a quiet address space.
    #[must_use]
    pub fn build(self) -> Box<dyn CollisionTracker> {
        crate::with_tracker!(self, |tracker| Box::new(tracker))
    }

    /// The same, with a sequence that wraps round after a few invalidations.
    ///
    /// `RangeValid` has no sequence, and is what [`Self::build`] makes.
    #[must_use]
    pub fn build_near_wrap(self) -> Box<dyn CollisionTracker> {
        let before = u64::MAX - BEFORE_WRAP;
        match self {
            Self::RangeValid => self.build(),
            Self::CollisionLog => Box::new(CollisionLog::starting_after(log_size(), before)),
            Self::NotifierCount => Box::new(NotifierCount::starting_at(before)),
            Self::HullSeq => Box::new(HullSeq::starting_at(before)),
            // Two numbers for each period.
            Self::IntervalSeq => Box::new(IntervalSeq::starting_at(before - BEFORE_WRAP)),
        }
    }
}

/// The size of the log: what the library ships, or, under a model checker, which counts every word, room for what a
/// scenario has.
#[must_use]
pub fn log_size() -> LogSize {
    if cfg!(any(loom, shuttle)) { LogSize { ring: 4, running: 2, readers: 1 } } else { LogSize::default() }
}

/// Runs generic code with the tracker of a name, made once for each type: nothing is called through a pointer.
///
/// ```
/// use pagemirror_core::addr::PageRange;
/// use pagemirror_core::collision::CollisionTracker;
/// use pagemirror_trackers::catalogue::TrackerName;
///
/// fn one_invalidation(tracker: &impl CollisionTracker) {
///     tracker.end(tracker.start(PageRange::ALL));
/// }
/// for name in TrackerName::ALL {
///     pagemirror_trackers::with_tracker!(name, |tracker| one_invalidation(&tracker));
/// }
/// ```
#[macro_export]
macro_rules! with_tracker {
    ($name:expr, |$tracker:ident| $body:expr) => {
        match $name {
            $crate::catalogue::TrackerName::RangeValid => {
                let $tracker = <$crate::catalogue::RangeValid as ::core::default::Default>::default();
                $body
            }
            $crate::catalogue::TrackerName::NotifierCount => {
                let $tracker = <$crate::catalogue::NotifierCount as ::core::default::Default>::default();
                $body
            }
            $crate::catalogue::TrackerName::HullSeq => {
                let $tracker = <$crate::catalogue::HullSeq as ::core::default::Default>::default();
                $body
            }
            $crate::catalogue::TrackerName::IntervalSeq => {
                let $tracker = <$crate::catalogue::IntervalSeq as ::core::default::Default>::default();
                $body
            }
            $crate::catalogue::TrackerName::CollisionLog => {
                let $tracker = $crate::catalogue::CollisionLog::new($crate::catalogue::log_size());
                $body
            }
        }
    };
}

impl fmt::Display for TrackerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

/// A name that no tracker has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownTracker(String);

impl fmt::Display for UnknownTracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = TrackerName::ALL.map(TrackerName::text).join(", ");
        write!(f, "there is no tracker '{}': use one of {names}", self.0)
    }
}

impl std::error::Error for UnknownTracker {}

impl FromStr for TrackerName {
    type Err = UnknownTracker;

    fn from_str(text: &str) -> Result<Self, UnknownTracker> {
        Self::ALL.into_iter().find(|name| name.text() == text).ok_or_else(|| UnknownTracker(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back_and_no_other_is() {
        for name in TrackerName::ALL {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        let error = "range_valid".parse::<TrackerName>().unwrap_err();
        assert!(error.to_string().contains("'range_valid': use one of range-valid, "), "{error}");
    }
}
