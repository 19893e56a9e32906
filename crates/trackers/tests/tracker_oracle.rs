//! Every tracker on one thread against a list of everything that ever happened.
//!
//! Each answer must be the one that the tracker's module documents (its rule, by naive lists), and the oracle says what that
//! is worth: an invalidation is missed by `RangeValid` alone, and only if it started and ended in between; a retry without
//! need is of the kind that is documented, and `CollisionLog` has none.
#![cfg(not(any(loom, shuttle)))]

mod history;

use history::{Counts, History, scripts, sequences};
use pagemirror_core::collision::CollisionTracker;
use pagemirror_core::memory::LogSize;
use pagemirror_trackers::catalogue::{CollisionLog, HullSeq, IntervalSeq, NotifierCount, RangeValid, TrackerName};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// A tracker, how it is made to begin at a sequence, and how many ranges it says it keeps.
struct Subject<T> {
    name: TrackerName,
    make: fn(u64) -> T,
    kept: fn(&T) -> usize,
}

const RANGE_VALID: Subject<RangeValid> =
    Subject { name: TrackerName::RangeValid, make: |_| RangeValid::default(), kept: |it| it.hmm().registered() };
const NOTIFIER_COUNT: Subject<NotifierCount> =
    Subject { name: TrackerName::NotifierCount, make: NotifierCount::starting_at, kept: |_| 0 };
const HULL_SEQ: Subject<HullSeq> = Subject { name: TrackerName::HullSeq, make: HullSeq::starting_at, kept: |_| 0 };
const INTERVAL_SEQ: Subject<IntervalSeq> =
    Subject { name: TrackerName::IntervalSeq, make: IntervalSeq::starting_at, kept: IntervalSeq::subscribed };
// Room for everything that a history starts: what happens beyond is tested where the log is.
const COLLISION_LOG: Subject<CollisionLog> = Subject {
    name: TrackerName::CollisionLog,
    make: |number| CollisionLog::starting_after(LogSize { ring: 128, running: 128, readers: 1 }, number),
    kept: |_| 0,
};

impl<T: CollisionTracker> Subject<T> {
    fn history(&self, sequence: u64) -> History<T> {
        History::new(self.name, (self.make)(sequence), self.kept)
    }

    /// What the same hundred histories lead to.
    fn counts(&self) -> Counts {
        let mut runner = TestRunner::deterministic();
        let mut sum = Counts::default();
        for _ in 0..100 {
            let (sequence, script) = (sequences(), scripts()).new_tree(&mut runner).unwrap().current();
            let mut history = self.history(sequence);
            history.run(&script);
            let one = history.counts;
            sum.valid += one.valid;
            sum.hits += one.hits;
            sum.exact_hits += one.exact_hits;
            sum.false_retries += one.false_retries;
            sum.missed += one.missed;
            sum.blocked += one.blocked;
            sum.blocked_without_need += one.blocked_without_need;
            sum.removals_deferred += one.removals_deferred;
        }
        assert_eq!(sum.hits, sum.exact_hits + sum.false_retries);
        assert!(
            sum.valid > 100 && sum.exact_hits > 100 && sum.blocked > 100,
            "the histories ask nothing hard: {sum:?}"
        );
        sum
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn range_valid_follows_its_rule(sequence in sequences(), script in scripts()) {
        RANGE_VALID.history(sequence).run(&script);
    }

    #[test]
    fn notifier_count_follows_its_rule(sequence in sequences(), script in scripts()) {
        NOTIFIER_COUNT.history(sequence).run(&script);
    }

    #[test]
    fn hull_seq_follows_its_rule(sequence in sequences(), script in scripts()) {
        HULL_SEQ.history(sequence).run(&script);
    }

    #[test]
    fn interval_seq_follows_its_rule(sequence in sequences(), script in scripts()) {
        INTERVAL_SEQ.history(sequence).run(&script);
    }

    #[test]
    fn collision_log_follows_its_rule(sequence in sequences(), script in scripts()) {
        COLLISION_LOG.history(sequence).run(&script);
    }
}

#[test]
fn what_is_missed_and_what_is_done_without_need_is_as_documented() {
    let (flag, interval, log) = (RANGE_VALID.counts(), INTERVAL_SEQ.counts(), COLLISION_LOG.counts());
    let (count, hull) = (NOTIFIER_COUNT.counts(), HULL_SEQ.counts());
    assert!(flag.missed > 10, "the flaw of the 2019 design was not met: {flag:?}");
    assert_eq!([count, hull, interval, log].map(|counts| counts.missed), [0; 4]);

    assert_eq!((log.false_retries, log.blocked_without_need), (0, 0), "the log hits and stops only whom it overlaps");
    // The others have the unit that their module names, and the rule has shown that it is that one: the registered range, the
    // whole address space, the hull.
    for counts in [flag, count, hull, interval] {
        assert!(counts.false_retries > 10 && counts.blocked_without_need > 10, "{counts:?}");
    }
    assert!(interval.removals_deferred > 10, "{interval:?}");
}
