//! The engine on histories that were worked out by hand, and on many that were made up.

use pagemirror_core::addr::{MIN_PAGE, PageRange, VirtAddr};
use pagemirror_core::collision::{CollisionTracker, Conservative, InvalidationId, Reader, Token, Verdict};
use pagemirror_core::wait::Interrupted;
use pagemirror_trackers::catalogue::TrackerName;
use pagemirror_trackers::with_tracker;

use super::*;
use crate::variant::Variant;
use crate::workload::{Fault, Job, Synthetic, SyntheticOptions, WorkingSet};

/// Work that is written down: times and ranges.
struct Script {
    /// Of each invalidator, in order.
    jobs: Vec<Vec<(Time, PageRange)>>,
    /// Of each device thread, in order.
    faults: Vec<Vec<(Time, PageRange)>>,
}

impl Workload for Script {
    fn known(&self) -> Vec<PageRange> {
        vec![a(), b()]
    }

    fn invalidators(&self) -> usize {
        self.jobs.len()
    }

    fn next_job(&mut self, invalidator: usize, _now: Time) -> Option<(Time, Job)> {
        let jobs = &mut self.jobs[invalidator];
        let (at, range) = (!jobs.is_empty()).then(|| jobs.remove(0))?;
        Some((at, Job { ranges: vec![range], change: 50, number: 0 }))
    }

    fn next_fault(&mut self, device: usize, _now: Time) -> Option<Fault> {
        let faults = &mut self.faults[device];
        let (at, range) = (!faults.is_empty()).then(|| faults.remove(0))?;
        Some(Fault { at, range: Some(range) })
    }
}

fn pages(first: u64) -> PageRange {
    PageRange::covering(VirtAddr::new(first * MIN_PAGE), 4 * MIN_PAGE, MIN_PAGE).unwrap()
}

fn a() -> PageRange {
    pages(16)
}

fn b() -> PageRange {
    pages(32)
}

const TIME: TimeModel = TimeModel {
    snapshot: 100,
    change: 0,
    change_per_page: 0,
    callback: 10,
    wake: 5,
    preempted_one_in: 0,
    preempted: 0,
};

fn plan(variant: Variant, device_threads: usize) -> Plan {
    Plan { until: 1000, device_threads, time: TIME, costs: Costs::default(), keeping: variant.keeping }
}

/// ```text
/// invalidator   B from 20 to 80, A from 172 to 232
/// thread 0      faults A at 0, and again at 170
/// thread 1      faults B at 30
/// ```
fn script() -> Script {
    Script { jobs: vec![vec![(20, b()), (172, a())]], faults: vec![vec![(0, a()), (170, a())], vec![(30, b())]] }
}

fn on(variant: Variant, mut work: Script) -> Counts {
    let plan = plan(variant, work.faults.len());
    with_tracker!(variant.tracker, |tracker| drive(&tracker, &mut work, &plan))
}

#[test]
fn an_exact_tracker_retries_once_and_waits_once() {
    // Thread 0: 0 to 100, served. 170 to 270, hit by A; 270 to 370, served.
    // Thread 1: refused at 30, B runs; woken at 85, read until 185, served.
    let expected = Counts {
        served: 3,
        attempts: 4,
        collisions: 1,
        true_retries: 1,
        waits: 1,
        waited_ns: 55,
        starved_ns: 200,
        latency_ns: 100 + 200 + 155,
        reading_ns: 400,
        invalidations: 2,
        ..Counts::default()
    };
    for variant in Variant::of(&[TrackerName::IntervalSeq, TrackerName::CollisionLog]) {
        assert_eq!(on(variant, script()), expected, "{variant}");
    }
}

#[test]
fn a_flag_for_each_range_misses_what_starts_and_ends_between_two_looks() {
    // As above, but the commit at 270 finds the flag of A set again: A ended at 232.
    let expected = Counts {
        served: 3,
        attempts: 3,
        missed: 1,
        waits: 1,
        waited_ns: 55,
        starved_ns: 155,
        latency_ns: 100 + 100 + 155,
        reading_ns: 300,
        invalidations: 2,
        ..Counts::default()
    };
    for variant in Variant::of(&[TrackerName::RangeValid]) {
        assert_eq!(on(variant, script()), expected, "{variant}");
    }
}

#[test]
fn the_count_is_hit_by_everything() {
    // Thread 0: 0 to 100, hit by B for nothing; 100 to 200, hit by A; refused at 200, woken at 237, read until 337, served;
    // its second fault from 337 to 437.
    // Thread 1: refused at 30, woken at 85, read until 185, hit by A for nothing; refused for nothing at 185, woken at 237,
    // read until 337.
    let expected = Counts {
        served: 3,
        attempts: 6,
        collisions: 3,
        true_retries: 1,
        false_retries: 2,
        waits: 3,
        needless_waits: 1,
        waited_ns: 37 + 55 + 52,
        needless_ns: 52,
        starved_ns: 337,
        latency_ns: 337 + 100 + 307,
        reading_ns: 600,
        invalidations: 2,
        ..Counts::default()
    };
    assert_eq!(on(Variant::kept(TrackerName::NotifierCount), script()), expected);
}

#[test]
fn the_hull_is_hit_by_every_end() {
    // Thread 0: as with the count. Thread 1: A is not in its hull, and has not ended at 185, so it is served then.
    let expected = Counts {
        served: 3,
        attempts: 5,
        collisions: 2,
        true_retries: 1,
        false_retries: 1,
        waits: 2,
        waited_ns: 37 + 55,
        starved_ns: 337,
        latency_ns: 337 + 100 + 155,
        reading_ns: 500,
        invalidations: 2,
        ..Counts::default()
    };
    assert_eq!(on(Variant::kept(TrackerName::HullSeq), script()), expected);
}

/// Never waits and never retries.
#[derive(Debug)]
struct Blind;

impl CollisionTracker for Blind {
    fn start(&self, _range: PageRange) -> InvalidationId {
        InvalidationId { number: 0, slot: None }
    }
    fn end(&self, _id: InvalidationId) {}
    fn read_begin(&self, reader: &Reader, _wait: &Wait<'_>) -> Result<Token, Interrupted> {
        Ok(Token { range: reader.range, number: 0, slot: None, subscription: None, waited: false })
    }
    fn read_retry(&self, _token: &Token) -> Verdict {
        Verdict::Valid
    }
    fn read_end(&self, _token: Token) {}
    fn wake(&self) {}
    fn conservative(&self) -> Conservative {
        Conservative::default()
    }
}

#[test]
fn a_tracker_that_lets_everything_through_is_found_out() {
    let counts = drive(&Blind, &mut script(), &plan(Variant::kept(TrackerName::CollisionLog), 2));
    // Both: thread 1 began beside B, which had started before it; A came between begin and commit.
    assert_eq!((counts.served, counts.missed, counts.collisions), (3, 2, 0));
}

#[test]
fn a_fault_that_is_never_served_has_starved_until_the_end() {
    // B runs for longer than the run.
    let mut work = Script { jobs: vec![vec![(990, b())]], faults: vec![vec![(995, b())]] };
    let counts = drive(&Blind, &mut work, &plan(Variant::kept(TrackerName::CollisionLog), 1));
    assert_eq!((counts.served, counts.unfinished, counts.attempts, counts.starved_ns), (0, 1, 1, 5));
}

#[test]
fn steps_under_a_lock_come_one_after_the_other() {
    let work = || Script { jobs: vec![vec![]], faults: vec![vec![(0, a())], vec![(0, b())]] };
    let run = |locked| {
        let costs = Costs { begin: Step { cost: 10, locked }, ..Costs::default() };
        drive(&Blind, &mut work(), &Plan { costs, ..plan(Variant::kept(TrackerName::CollisionLog), 2) })
    };
    let (apart, together) = (run(false), run(true));
    assert_eq!((apart.tracker_ns, apart.lock_wait_ns, apart.latency_ns), (20, 0, 110 + 110));
    assert_eq!((together.tracker_ns, together.lock_wait_ns, together.latency_ns), (20, 10, 110 + 120));
}

#[test]
fn a_commit_waits_for_the_callback_that_holds_the_device_lock() {
    // The callback of B holds the device lock from 95 to 105; the fault of A would commit at 100.
    let mut work = Script { jobs: vec![vec![(95, b())]], faults: vec![vec![(0, a())]] };
    let counts = drive(&Blind, &mut work, &plan(Variant::kept(TrackerName::CollisionLog), 1));
    assert_eq!(counts.latency_ns, 105);
}

/// Made-up work in which much happens: few ranges, many invalidations of several sizes.
fn storm(seed: u64) -> SyntheticOptions {
    SyntheticOptions {
        ranges: 1 + seed % 40,
        range_pages: 4,
        working_set: [WorkingSet::Uniform, WorkingSet::Hot, WorkingSet::Recent][seed as usize % 3],
        invalidators: 1 + seed as usize % 5,
        rate: 20_000 + 30_000 * (seed % 7),
        invalidated_pages: 1 + seed % 30,
        related_per_mille: seed * 97 % 1001,
        pause: 5000,
        seed,
    }
}

fn stormy(variant: Variant, seed: u64) -> Counts {
    let time = TimeModel { preempted_one_in: 50, preempted: 100_000, ..TimeModel::default() };
    let plan = Plan { until: 5_000_000, device_threads: 3, time, costs: Costs::default(), keeping: variant.keeping };
    let mut work = Synthetic::new(storm(seed), time);
    with_tracker!(variant.tracker, |tracker| drive(&tracker, &mut work, &plan))
}

#[test]
fn a_seed_gives_the_same_counts_and_another_gives_others() {
    for variant in Variant::all() {
        assert_eq!(stormy(variant, 7), stormy(variant, 7), "{variant}");
        assert_ne!(stormy(variant, 7), stormy(variant, 8), "{variant}");
    }
}

#[test]
fn every_tracker_is_driven_alike_through_a_table_of_functions() {
    for variant in Variant::all() {
        let plan = plan(variant, 2);
        assert_eq!(drive(variant.tracker.build().as_ref(), &mut script(), &plan), on(variant, script()), "{variant}");
    }
}

#[test]
fn over_many_seeds_the_log_is_exact_only_the_flag_misses_and_the_coarse_ones_retry_for_nothing() {
    let sum = |variant| (0..60).map(|seed| stormy(variant, seed)).fold(Counts::default(), Counts::and);
    for variant in Variant::all() {
        let counts = sum(variant);
        assert!(counts.served > 1000 && counts.true_retries > 100 && counts.waits > 100, "{variant}: {counts:?}");
        let misses = variant.tracker == TrackerName::RangeValid;
        assert_eq!(counts.missed > 0, misses, "{variant}: {counts:?}");
        let coarse = matches!(variant.tracker, TrackerName::NotifierCount | TrackerName::HullSeq);
        assert_eq!(counts.false_retries > 0, coarse, "{variant}: {counts:?}");
        if variant.tracker == TrackerName::CollisionLog {
            let inexact = (counts.conservative, counts.overflow, counts.needless_waits, counts.needless_ns);
            assert_eq!(inexact, (0, 0, 0, 0), "{counts:?}");
        }
    }
}
