//! What every tracker has to stand, written once for all trackers and all engines.
//!
//! `world` has what they share, `judge` knows what really happened, `make` says what each tracker promises. The bodies are
//! in `attempts`, `precision`, `ranges` and `waits`; [`SCENARIOS`] names them.
//!
//! # Not covered
//! Deadlines under a model, which has no clock: a cancellation stands for them there.

mod attempts;
mod judge;
mod make;
mod precision;
mod ranges;
mod waits;
mod world;

use std::fmt;

use make::{Make, counts, is_exact, lets_others_read, removal_waits};

use crate::catalogue::TrackerName;
use crate::engine::{self, Budget, Count, Explored};

/// Something that can happen to a tracker.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it shows, in one line.
    pub shows: &'static str,
    /// How many switches that no thread asked for loom explores: as many as about a second allows. `None` is all.
    pub preemptions: Option<usize>,
    /// Whether an invalidation may start *and end* between a reader's snapshot and its commit. There the 2019 design
    /// installs what is stale, and the check must find it.
    pub forgettable: bool,
    applies: fn(TrackerName) -> bool,
    body: fn(&Make),
}

impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scenario").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Scenario {
    /// The scenario of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// Whether the tracker promises what the scenario asks.
    #[must_use]
    pub fn applies_to(&self, tracker: TrackerName) -> bool {
        (self.applies)(tracker)
    }

    /// Runs it on `tracker` under this build's engine.
    ///
    /// # Panics
    /// When there is a finding.
    pub fn explore(&'static self, tracker: TrackerName, budget: Budget, count: &Count) -> Explored {
        let make = Make { tracker, near_wrap: false };
        engine::explore(self.preemptions, budget, count, move || (self.body)(&make))
    }
}

fn all(_tracker: TrackerName) -> bool {
    true
}

/// A forgettable scenario for every tracker.
const fn forgettable(name: &'static str, shows: &'static str, preemptions: usize, body: fn(&Make)) -> Scenario {
    Scenario { name, shows, preemptions: Some(preemptions), forgettable: true, applies: all, body }
}

/// A scenario for every tracker in which no invalidation ends unseen.
const fn lasting(name: &'static str, shows: &'static str, preemptions: usize, body: fn(&Make)) -> Scenario {
    Scenario { forgettable: false, ..forgettable(name, shows, preemptions, body) }
}

impl Scenario {
    /// Only for the trackers that promise it.
    const fn only(self, applies: fn(TrackerName) -> bool) -> Self {
        Self { applies, ..self }
    }
}

/// All of them, the ones that say most first.
#[rustfmt::skip] // one line each
pub static SCENARIOS: &[Scenario] = &[
    forgettable("aba", "an invalidation that starts and ends between snapshot and commit is not forgotten", 5, attempts::aba),
    lasting("start", "an attempt beside the start of an invalidation", 6, attempts::start),
    forgettable("begin-commit", "attempts until one is installed, beside two invalidations", 3, attempts::begin_commit),
    forgettable("chain", "of two overlapping invalidations one ends, and the range is not quiet", 2, attempts::chain),
    lasting("chain-running", "the same, and the other outlives the attempt", 3, attempts::chain_running),
    lasting("nested", "one thread holds two, and the inner one does not end the outer one", 4, attempts::nested),
    forgettable("handed-over", "one invalidation takes the place that another has just left", 3, attempts::handed_over),
    lasting("first-page", "an invalidation that overlaps only the first page", 5, attempts::first_page),
    lasting("last-page", "an invalidation that overlaps only the last page", 5, attempts::last_page),
    lasting("refused-start", "taking back a refused start does not end another invalidation", 3, attempts::refused_start),
    forgettable("two-devices", "two tables with a lock each on one address space", 2, attempts::two_devices),
    forgettable("after-outrun", "a reader that was outrun gets the exact answer", 4, attempts::after_outrun),
    forgettable("wrap", "the number wraps between token and commit", 2, attempts::wrap).only(counts),
    lasting("insert", "a range is made known while an invalidation of it runs", 6, ranges::insert),
    lasting("insert-beside-start", "a range is made known beside the start of one", 5, ranges::insert_beside_start),
    lasting("insert-put-off", "a range that was made known while another was hit is known later", 5, ranges::insert_put_off),
    lasting("remove", "a range is forgotten while an invalidation of it runs", 5, ranges::remove),
    lasting("remove-at-once", "the same without waiting", 6, ranges::remove_at_once),
    lasting("remove-waits", "forgetting a range waits for what has hit it", 6, ranges::remove_waits).only(removal_waits),
    lasting("two-readers", "two readers under one known range", 2, ranges::two_readers),
    lasting("elsewhere-running", "an invalidation elsewhere keeps nobody from reading", 5, precision::elsewhere_running).only(lets_others_read),
    lasting("elsewhere-ended", "invalidations that end elsewhere make nobody go round", 2, precision::elsewhere_ended).only(is_exact),
    lasting("neighbours", "an invalidation that only touches the range is no overlap", 4, precision::neighbours).only(is_exact),
    lasting("woken", "the end wakes everybody who waits; for an exact tracker it is no collision", 3, waits::woken),
    lasting("woken-into-the-next", "who was woken finds the next invalidation", 3, waits::woken_into_the_next),
    forgettable("next-beside-the-end", "the next invalidation starts while the end of the one before is being told", 3, waits::next_beside_the_end),
    lasting("timeout", "a wait ends by its deadline, and leaves nothing behind", 6, waits::timeout),
    lasting("released", "the end of the address space wakes who waits", 6, waits::released),
];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A moment of each on real threads; `pagemirror check` does more, and under the checkers.
    const A_MOMENT: Budget = Budget { time: Duration::from_millis(50), executions: 20 };

    #[test]
    fn every_tracker_stands_what_it_promises_on_real_threads() {
        for tracker in TrackerName::ALL {
            // Where an invalidation can end unseen, the 2019 design may fail.
            let stands = |scenario: &&Scenario| tracker != TrackerName::RangeValid || !scenario.forgettable;
            for scenario in SCENARIOS.iter().filter(stands).filter(|scenario| scenario.applies_to(tracker)) {
                let count = Count::default();
                let explored = scenario.explore(tracker, A_MOMENT, &count);
                assert!(explored.complete && explored.executions > 0, "{tracker} {}", scenario.name);
                assert_eq!(explored.executions, count.executions());
            }
        }
    }

    #[test]
    fn scenarios_are_found_by_name() {
        for scenario in SCENARIOS {
            assert!(Scenario::named(scenario.name).is_some_and(|found| std::ptr::eq(found, scenario)));
        }
        assert!(Scenario::named("nothing").is_none());
    }
}
