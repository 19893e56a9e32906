//! A tracker, and the way it is used.

use std::fmt;

use pagemirror_trackers::catalogue::TrackerName;
use serde::{Serialize, Serializer};

use crate::drive::Keeping;

/// A tracker as it is compared: those that track ranges are used in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant {
    /// Which tracker.
    pub tracker: TrackerName,
    /// How long a range is known to it.
    pub keeping: Keeping,
}

/// The steps of a tracker that are taken under one lock that all its callers share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Locks {
    /// `start`
    pub start: bool,
    /// `end`
    pub end: bool,
    /// `read_begin` and `read_end`
    pub begin: bool,
    /// The same in words, with the name of the lock.
    pub text: &'static str,
}

impl Variant {
    /// Every tracker with ranges that it knows for long, and those that track ranges also with a range for each fault.
    #[must_use]
    pub fn all() -> Vec<Self> {
        Self::of(&TrackerName::ALL)
    }

    /// The variants of these trackers, in the order of the catalogue; of all, if none is named.
    #[must_use]
    pub fn of(trackers: &[TrackerName]) -> Vec<Self> {
        let wanted = |name: &TrackerName| trackers.is_empty() || trackers.contains(name);
        let ways = |tracker: TrackerName| {
            let per_fault = tracks_ranges(tracker).then_some(Keeping::PerFault);
            [Some(Keeping::Kept), per_fault].into_iter().flatten().map(move |keeping| Self { tracker, keeping })
        };
        TrackerName::ALL.into_iter().filter(wanted).flat_map(ways).collect()
    }

    /// The variant with ranges that are known for long.
    #[must_use]
    pub const fn kept(tracker: TrackerName) -> Self {
        Self { tracker, keeping: Keeping::Kept }
    }

    /// Its name in tables.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match (self.tracker, self.keeping) {
            (TrackerName::RangeValid, Keeping::PerFault) => "range-valid, per fault",
            (TrackerName::IntervalSeq, Keeping::PerFault) => "interval-seq, per fault",
            (tracker, _) => tracker.text(),
        }
    }

    /// What it is, in a line.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match (self.tracker, self.keeping) {
            (TrackerName::RangeValid, Keeping::Kept) => {
                "the design of 2019: a flag for each range, cleared by what overlaps, all set when everything is quiet"
            }
            (TrackerName::RangeValid, Keeping::PerFault) => "the same, with a range registered for each fault only",
            (TrackerName::NotifierCount, _) => "the count of running invalidations as one global lock, with a sequence",
            (TrackerName::HullSeq, _) => "KVM's: a sequence, and one range around all that is in progress",
            (TrackerName::IntervalSeq, Keeping::Kept) => {
                "the kernel's of today: an interval tree of subscriptions, odd and even sequence"
            }
            (TrackerName::IntervalSeq, Keeping::PerFault) => "the same, with a subscription for each fault only",
            (TrackerName::CollisionLog, _) => {
                "pagemirror's: invalidations leave their ranges in a log, readers nothing"
            }
        }
    }

    /// Whether it keeps the ranges of its readers.
    #[must_use]
    pub const fn tracks_ranges(self) -> bool {
        tracks_ranges(self.tracker)
    }

    /// Which of its steps exclude one another. `read_retry` takes no lock in any of them: it is asked under the device lock.
    #[must_use]
    pub const fn locks(self) -> Locks {
        match (self.tracker, self.keeping) {
            (TrackerName::RangeValid, Keeping::Kept) => Locks {
                start: true,
                end: true,
                begin: false,
                text: "start and end walk all ranges under ranges_lock; read_begin and read_retry look at a flag",
            },
            (TrackerName::RangeValid, Keeping::PerFault) => Locks {
                start: true,
                end: true,
                begin: true,
                text: "start and end walk the ranges, read_begin registers one and read_end unregisters it, under ranges_lock",
            },
            (TrackerName::NotifierCount, _) => Locks {
                start: false,
                end: false,
                begin: false,
                text: "no lock: start and end each add to an atomic counter, readers load both",
            },
            (TrackerName::HullSeq, _) => Locks {
                start: true,
                end: true,
                begin: false,
                text: "start and end hold the writers' lock; readers load four words",
            },
            (TrackerName::IntervalSeq, _) => Locks {
                start: true,
                end: true,
                begin: true,
                text: "start, end and read_begin hold the lock of the tree; read_retry loads one word",
            },
            (TrackerName::CollisionLog, _) => Locks {
                start: true,
                end: false,
                begin: false,
                text: "start holds the writers' lock; end clears its slot without it; readers load the head, the running slots and the new entries",
            },
        }
    }
}

const fn tracks_ranges(tracker: TrackerName) -> bool {
    matches!(tracker, TrackerName::RangeValid | TrackerName::IntervalSeq)
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

impl Serialize for Variant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trackers_that_track_ranges_are_used_in_two_ways_and_names_differ() {
        let names: Vec<_> = Variant::all().iter().map(|variant| variant.text()).collect();
        assert_eq!(
            names,
            [
                "range-valid",
                "range-valid, per fault",
                "notifier-count",
                "hull-seq",
                "interval-seq",
                "interval-seq, per fault",
                "collision-log"
            ]
        );
        assert_eq!(Variant::of(&[TrackerName::HullSeq]), [Variant::kept(TrackerName::HullSeq)]);
    }
}
