//! The planted bugs of this crate's trackers, and how each shows itself.
//!
//! A check that has never failed proves nothing: built with `--cfg pagemirror_planted`, each of these can be chosen by
//! name, and a scenario must fail. All show under sequentially consistent interleavings, but those that end in
//! `-relaxed`: they are of orderings, for loom. A test compares this table with
//! the sources.

use crate::catalogue::TrackerName::{self, HullSeq, IntervalSeq, NotifierCount, RangeValid};

/// A wrong branch that a build with `--cfg pagemirror_planted` can take.
#[derive(Debug, Clone, Copy)]
pub struct PlantedBug {
    /// Its name; it begins with the name of the tracker.
    pub name: &'static str,
    /// Where it is.
    pub tracker: TrackerName,
    /// What is wrong.
    pub breaks: &'static str,
    /// How a scenario of two or three threads notices. *Here* is what the reader reads.
    pub noticed: &'static str,
}

const fn bug(tracker: TrackerName, name: &'static str, breaks: &'static str, noticed: &'static str) -> PlantedBug {
    PlantedBug { name, tracker, breaks, noticed }
}

/// Every one of them.
pub const PLANTED: [PlantedBug; 39] = [
    bug(
        RangeValid,
        "range-valid-refused-start-leaks",
        "a refused start leaves its count behind, as in v5.2",
        "start, cancel; then start here, end: whoever begins here sleeps for ever",
    ),
    bug(
        RangeValid,
        "range-valid-end-of-one-marks-all",
        "each end marks every range valid, not only the last",
        "A runs here, B starts and ends; a reader begins here and installs while A changes the page",
    ),
    bug(
        RangeValid,
        "range-valid-end-without-wake",
        "the last end wakes nobody",
        "a reader waits here while the only invalidation ends: it sleeps for ever",
    ),
    bug(
        RangeValid,
        "range-valid-registered-valid",
        "a range is valid when it is registered, whatever runs",
        "A runs here; a reader without a subscription begins here and installs before A changes the page",
    ),
    bug(
        RangeValid,
        "range-valid-counted-after-marks",
        "start marks the ranges first and counts in a second step",
        "a reader without a subscription begins here between the two steps and installs before the page is changed",
    ),
    bug(
        RangeValid,
        "range-valid-only-inside",
        "start marks only ranges that lie wholly inside the invalidation",
        "a subscription reaches beyond an invalidation that runs here: its reader installs before the page is changed",
    ),
    bug(
        RangeValid,
        "range-valid-release-without-wake",
        "the end of the address space wakes nobody",
        "a reader waits here while the space is released: it sleeps for ever",
    ),
    bug(
        RangeValid,
        "range-valid-look-relaxed",
        "a reader looks at the flag without Acquire",
        "A runs here; a subscribed reader goes on when it has ended, and reads the page as it was before",
    ),
    bug(
        NotifierCount,
        "notifier-count-no-wait",
        "a reader begins beside running invalidations",
        "A runs here; a reader begins and installs before A changes the page",
    ),
    bug(
        NotifierCount,
        "notifier-count-token-after-look",
        "the token is taken after the look at the count",
        "A starts here between the two; the reader counts it in, and installs before A changes the page",
    ),
    bug(
        NotifierCount,
        "notifier-count-ends-forgotten",
        "the commit looks at the count alone",
        "A starts and ends here between snapshot and commit",
    ),
    bug(
        NotifierCount,
        "notifier-count-only-ends-compared",
        "the commit compares ends and not starts",
        "A starts here after the reader began, and has not ended at the commit",
    ),
    bug(
        NotifierCount,
        "notifier-count-compared-by-order",
        "the commit asks whether the sequence is larger, not whether it is another",
        "built near its wrap: A starts and ends here between snapshot and commit, at the number that goes round",
    ),
    bug(
        NotifierCount,
        "notifier-count-end-without-wake",
        "an end wakes nobody",
        "a reader waits while the only invalidation ends: it sleeps for ever",
    ),
    bug(
        NotifierCount,
        "notifier-count-refused-start-leaks",
        "a refused start counts as running for ever",
        "start, cancel: whoever begins sleeps for ever",
    ),
    bug(
        NotifierCount,
        "notifier-count-end-relaxed",
        "an end is counted without Release",
        "A runs here; a reader begins when it has ended, and reads the page as it was before",
    ),
    bug(
        HullSeq,
        "hull-seq-replaced",
        "a second start replaces the hull instead of widening it",
        "A runs here, B starts elsewhere; a reader begins here and installs before A changes the page",
    ),
    bug(
        HullSeq,
        "hull-seq-shrunk-early",
        "an end empties the hull though others are in progress",
        "A runs here, B starts and ends; a reader begins here after that and installs before A changes the page",
    ),
    bug(
        HullSeq,
        "hull-seq-moved-at-start",
        "the sequence moves at the start, not at the end",
        "a reader takes its token between the move and the count, and commits after A has ended",
    ),
    bug(
        HullSeq,
        "hull-seq-counted-before-moved",
        "an end counts down before it moves the sequence",
        "a reader from before A commits between the two",
    ),
    bug(
        HullSeq,
        "hull-seq-sequence-first",
        "the commit looks at the sequence before the count",
        "a reader from before A commits while A ends between its two looks",
    ),
    bug(
        HullSeq,
        "hull-seq-ends-forgotten",
        "the commit looks at the hull alone",
        "A starts and ends here between snapshot and commit",
    ),
    bug(
        HullSeq,
        "hull-seq-compared-by-order",
        "the commit asks whether the sequence is larger, not whether it is another",
        "built near its wrap: A starts and ends here between snapshot and commit, at the number that goes round",
    ),
    bug(
        HullSeq,
        "hull-seq-end-without-wake",
        "an end wakes nobody",
        "a reader waits here while the only invalidation ends: it sleeps for ever",
    ),
    bug(
        HullSeq,
        "hull-seq-refused-start-leaks",
        "a refused start is in progress for ever",
        "start here, cancel: whoever begins here sleeps for ever",
    ),
    bug(
        HullSeq,
        "hull-seq-token-relaxed",
        "the sequence is taken without Acquire",
        "A has ended here, as the token says; the reader reads the page as it was before",
    ),
    bug(
        HullSeq,
        "hull-seq-count-relaxed",
        "an end counts down without Release",
        "a reader from before A commits: it sees the count down, and the sequence not moved",
    ),
    bug(
        HullSeq,
        "hull-seq-hull-relaxed",
        "the next hull is set without Release",
        "a reader from before A commits: it sees the hull of B elsewhere, and not the sequence that A has moved",
    ),
    bug(
        IntervalSeq,
        "interval-seq-refused-start-leaks",
        "a refused start stays active, so the odd period never ends",
        "a subscription here; start here, cancel: its reader sleeps for ever",
    ),
    bug(
        IntervalSeq,
        "interval-seq-inserted-as-idle",
        "what is inserted while something runs elsewhere gets the number of an idle tree",
        "A runs here and nothing is subscribed; a reader inserts, begins and installs before A changes the page",
    ),
    bug(
        IntervalSeq,
        "interval-seq-deferred-as-idle",
        "a deferred insertion gets the number of an idle tree",
        "A runs here and over a subscription; a reader inserts, begins and installs before A changes the page",
    ),
    bug(
        IntervalSeq,
        "interval-seq-deferred-insert-dropped",
        "the last end forgets the deferred insertions",
        "subscribe here while A runs over another subscription; A ends; B starts and ends between snapshot and commit",
    ),
    bug(
        IntervalSeq,
        "interval-seq-sequence-not-set",
        "start makes the period odd and tells no subscription",
        "A starts here between snapshot and commit",
    ),
    bug(
        IntervalSeq,
        "interval-seq-ends-with-first",
        "the first end closes the odd period, though others run",
        "A and B run here; B ends; a reader begins and installs before A changes the page",
    ),
    bug(
        IntervalSeq,
        "interval-seq-goes-back",
        "the last end goes back to the even number before",
        "A starts and ends here; a subscribed reader begins; B starts and ends between its snapshot and its commit",
    ),
    bug(
        IntervalSeq,
        "interval-seq-end-without-wake",
        "the last end wakes nobody",
        "a subscribed reader waits here while the only invalidation ends: it sleeps for ever",
    ),
    bug(
        IntervalSeq,
        "interval-seq-released-relaxed",
        "the last end opens the period without Release",
        "A runs here; a subscribed reader goes on when it has ended, and reads the page as it was before",
    ),
    bug(
        IntervalSeq,
        "interval-seq-next-period-relaxed",
        "the next start closes the period without Release",
        "a reader waits here for A; A ends and B starts: it notices B's period first, and reads the page as before A",
    ),
    bug(
        IntervalSeq,
        "interval-seq-removed-without-waiting",
        "a subscription is forgotten while an invalidation that hit it runs",
        "unsubscribe without a bound while A runs here: it returns before A has ended",
    ),
];
