//! The sentences on invented figures, with opposite outcomes.

use super::*;
use crate::bench::{BenchOptions, Costed, Spread, ThreadsRow};
use crate::drive::{Costs, Counts, TimeModel};
use crate::workload::SyntheticOptions;

/// What is invented: the cost of an invalidation and of a fault, and the whole time of a fault, by tracker.
struct Invented {
    invalidation: fn(Variant, u64) -> f64,
    fault: fn(Variant) -> f64,
    total: fn(Variant, u64) -> u64,
    each_since: f64,
    missed: fn(Variant) -> u64,
}

const RANGES: [u64; 3] = [1, 100, MANY_RANGES];
const RATES: [u64; 3] = [0, 100, 10_000];

fn costed(ns: f64, count: f64, log: f64) -> Costed {
    let exactly = |value| Spread { low: value, median: value, high: value, samples: 1 };
    Costed { ns: exactly(ns), to_count: Some(exactly(ns / count)), to_log: Some(exactly(ns / log)) }
}

fn figures(invented: &Invented) -> BenchFigures {
    let options = BenchOptions { ranges: RANGES.to_vec(), ..BenchOptions::quick() };
    let mut costs = Vec::new();
    for ranges in RANGES {
        for &variant in &options.variants {
            let of = |variant| (invented.invalidation)(variant, ranges);
            let invalidation = costed(of(variant), of(COUNT), of(LOG));
            let fault = costed((invented.fault)(variant), (invented.fault)(COUNT), (invented.fault)(LOG));
            costs.push(CostRow {
                variant,
                ranges,
                unrelated: invalidation,
                related: invalidation,
                unrelated_on_device: invalidation,
                related_on_device: invalidation,
                fault,
                fault_on_device: fault,
                each_since_ns: if variant == LOG { invented.each_since } else { 0.0 },
                costs: Costs::default(),
            });
        }
    }
    let mut sweeps = Vec::new();
    for kind in Kind::ALL {
        for value in if kind == Kind::Ranges { RANGES } else { RATES } {
            for &variant in &options.variants {
                let counts =
                    Counts { served: 10, missed: (invented.missed)(variant), starved_ns: 1, ..Counts::default() };
                let costed = Counts { latency_ns: 10 * (invented.total)(variant, value), ..counts };
                let work = SyntheticOptions::default();
                sweeps.push(SweepRow {
                    kind,
                    value,
                    variant,
                    work,
                    device_threads: 4,
                    virtual_ns: 1,
                    counts,
                    costed,
                    costs_at_ranges: 1,
                });
            }
        }
    }
    BenchFigures { options, time: TimeModel::default(), costs, threads: Vec::<ThreadsRow>::new(), sweeps }
}

fn is(variant: Variant, tracker: TrackerName) -> bool {
    variant.tracker == tracker
}

/// The count is cheap and collides; what tracks ranges is dear to invalidate; the log is exact.
const COLLISIONS_ARE_DEAR: Invented = Invented {
    invalidation: |variant, ranges| if is(variant, TrackerName::RangeValid) { 10.0 + ranges as f64 } else { 10.0 },
    fault: |_| 5.0,
    total: |variant, value| if is(variant, TrackerName::NotifierCount) && value > 0 { 5000 } else { 1000 },
    each_since: 0.0,
    missed: |variant| u64::from(is(variant, TrackerName::RangeValid)),
};

/// Nothing collides, and everything but the count is dear.
const ONLY_THE_COUNT_IS_CHEAP: Invented = Invented {
    invalidation: |variant, _| if is(variant, TrackerName::NotifierCount) { 10.0 } else { 1000.0 },
    fault: |variant| if is(variant, TrackerName::NotifierCount) { 5.0 } else { 50.0 },
    total: |variant, _| if is(variant, TrackerName::NotifierCount) { 1000 } else { 2000 },
    each_since: 4.0,
    missed: |_| 0,
};

fn said(invented: &Invented) -> String {
    answer(&figures(invented)).join("\n")
}

#[test]
fn where_collisions_are_dear_tracking_pays() {
    let text = said(&COLLISIONS_ARE_DEAR);
    for wanted in [
        "In short: the notifier count is as good up to 0 unrelated invalidations a second; from 100 on",
        "a fault on the count takes 5.00 times as long",
        "becomes dearer: 910 times on range-valid, 1.00 times on interval-seq",
        "collision-log is behind no tracker",
        "as range-valid does it pays against the notifier count",
        "as interval-seq does it pays against the notifier count",
        "alike at 0 and less at 100 to 10,000 (at best 0.20 times)",
        "range-valid 11.0 with 1 to 10,010 with 10,000 ranges",
        "cost on collision-log: 1/1,001 times and 1.00 times what they cost on range-valid",
        "loses nowhere",
        "range-valid 21 of 210",
        "the cost of a wrong answer",
    ] {
        assert!(text.contains(wanted), "no {wanted:?} in {text}");
    }
    assert!(!text.contains("does not pay"), "{text}");
}

#[test]
fn where_nothing_collides_the_count_is_as_good_and_the_log_says_that_it_loses() {
    let text = said(&ONLY_THE_COUNT_IS_CHEAP);
    for wanted in [
        "In short: the notifier count is as good or better at every rate of unrelated invalidations",
        "collision-log is behind another tracker at 21 points",
        "as range-valid does it does not pay: the notifier count is as good or better everywhere, and simpler",
        "more at 0 to 10,000 (at worst 2.00 times)",
        "1,000 ns for an invalidation, 100 times what the count takes",
        "in the cost of an invalidation, behind notifier-count (everywhere, at worst 100 times it)",
        "in the cost of an undisturbed fault, behind notifier-count (everywhere, at worst 10.0 times it)",
        "looks at each that has started since: 4.00 ns each",
        "in the whole time of a fault, behind notifier-count",
        "No tracker let a fault install",
    ] {
        assert!(text.contains(wanted), "no {wanted:?} in {text}");
    }
    assert!(!text.contains("pays against") && !text.contains("loses nowhere"), "{text}");
}

#[test]
fn where_all_are_alike_nothing_makes_a_difference() {
    let alike = Invented { total: |_, _| 1000, ..COLLISIONS_ARE_DEAR };
    let text = said(&alike);
    assert!(text.contains("as interval-seq does it makes no difference"), "{text}");
}

#[test]
fn a_single_loss_is_one_point() {
    let mut figures = figures(&COLLISIONS_ARE_DEAR);
    let hull =
        |row: &&mut SweepRow| row.kind == Kind::Size && is(row.variant, TrackerName::HullSeq) && row.value == 100;
    figures.sweeps.iter_mut().filter(hull).for_each(|row| row.costed.latency_ns = 10);
    let text = answer(&figures).join("\n");
    assert!(text.contains("at one point, named below") && text.contains("behind hull-seq at 100 pages"), "{text}");
}

#[test]
fn whoever_is_ahead_because_it_is_wrong_is_said_to_be() {
    let wrong = Invented {
        total: |variant, _| if is(variant, TrackerName::RangeValid) { 500 } else { 1000 },
        ..COLLISIONS_ARE_DEAR
    };
    let text = said(&wrong);
    assert!(text.contains("(2.00 times it, which missed 1 invalidations there)"), "{text}");
}

#[test]
fn two_threads_that_were_never_left_alone_say_nothing_about_the_trackers() {
    let with = |samples| {
        let mut figures = figures(&COLLISIONS_ARE_DEAR);
        let spread = |value| Spread { low: value, median: value, high: value, samples };
        let row = |&variant: &Variant| ThreadsRow {
            variant,
            together: Together::FaultsBesideMany,
            ns: spread(11_000.0),
            to_count: None,
            to_log: None,
            attempts: spread(1.25),
        };
        figures.threads = figures.options.variants.iter().map(row).collect();
        answer(&figures).join("\n")
    };
    let measured = with(3);
    assert!(
        measured.contains("hull-seq 1.25 attempts and 11.0 us") && measured.contains("loses nowhere"),
        "{measured}"
    );
    let disturbed = with(0);
    assert!(disturbed.contains("did not let two threads run") && !disturbed.contains("1.25 attempts"), "{disturbed}");
}

#[test]
fn two_threads_on_which_the_log_is_slower_are_a_loss() {
    let mut figures = figures(&COLLISIONS_ARE_DEAR);
    let row = |&variant: &Variant| {
        let value = if variant == LOG { 200.0 } else { 50.0 };
        let spread = Spread { low: value, median: value, high: value, samples: 3 };
        let together = Together::Invalidations;
        ThreadsRow { variant, together, ns: spread, to_count: None, to_log: None, attempts: spread }
    };
    figures.threads = figures.options.variants.iter().map(row).collect();
    let text = answer(&figures).join("\n");
    assert!(text.contains("where both invalidate unrelated memory, behind range-valid (4.00 times it)"), "{text}");
}

#[test]
fn where_it_depends_both_sides_are_told() {
    let mixed = Invented {
        total: |variant, value| match variant.tracker {
            TrackerName::RangeValid if value >= 10_000 => 9000,
            TrackerName::NotifierCount if value > 0 => 3000,
            _ => 1000,
        },
        ..COLLISIONS_ARE_DEAR
    };
    let text = said(&mixed);
    assert!(text.contains("as range-valid does it pays in some places and costs in others"), "{text}");
    assert!(text.contains("less at 100 (at best 0.33 times), and more at 10,000 (at worst 3.00 times)"), "{text}");
}

#[test]
fn what_was_not_measured_is_not_spoken_of() {
    let mut only = figures(&COLLISIONS_ARE_DEAR);
    only.options.variants = vec![Variant::kept(TrackerName::HullSeq)];
    only.costs.retain(|row| is(row.variant, TrackerName::HullSeq));
    only.sweeps.retain(|row| is(row.variant, TrackerName::HullSeq));
    let text = answer(&only).join("\n");
    assert!(!text.contains("collision-log") && !text.contains("range-valid") && !text.contains("the count"), "{text}");
}
