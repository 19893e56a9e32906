//! What the steps of each tracker cost on one thread, by the number of ranges.

use std::sync::Arc;

use pagemirror_core::interval::IntervalIndex;
use pagemirror_trackers::catalogue::TrackerName;
use pagemirror_trackers::with_tracker;
use serde::Serialize;

use super::rig::{Operation, Rig, Sampler, index};
use super::sample::Spread;
use super::{BenchOptions, RANGE_PAGES};
use crate::drive::{Costs, Step};
use crate::variant::Variant;
use crate::workload::Ground;

/// One figure of a tracker, and how it stands to two others of the same run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Costed {
    /// Nanoseconds.
    pub ns: Spread,
    /// The quotient to `notifier-count`, sample by sample; nothing where that was not measured.
    pub to_count: Option<Spread>,
    /// The quotient to `collision-log`.
    pub to_log: Option<Spread>,
}

/// What one tracker costs with this many ranges.
#[derive(Debug, Clone, Serialize)]
pub struct CostRow {
    /// Which.
    pub variant: Variant,
    /// Mirrored ranges.
    pub ranges: u64,
    /// `start` and `end` of what touches no range.
    pub unrelated: Costed,
    /// `start` and `end` of what overlaps a range.
    pub related: Costed,
    /// As `unrelated`, through the address space: with the device lock and the lookup in the device's table.
    pub unrelated_on_device: Costed,
    /// As `related`, through the address space.
    pub related_on_device: Costed,
    /// `read_begin`, `read_retry`, `read_end`, with nothing invalidated.
    pub fault: Costed,
    /// The same through the address space, with the device lock.
    pub fault_on_device: Costed,
    /// What each unrelated invalidation since `read_begin` adds to `read_retry`, in nanoseconds.
    pub each_since_ns: f64,
    /// The steps apart, as the cost model uses them.
    pub costs: Costs,
}

/// Operations that are timed with the clock between them, to tell the parts apart.
const APART: usize = 2000;
/// The most time that a part may take for that, in nanoseconds: walks of a million ranges are told apart in a few.
const APART_NS: f64 = 20e6;

/// Times every variant with this many ranges.
pub(super) fn measure(options: &BenchOptions, ranges: u64) -> Vec<CostRow> {
    let ground = Ground { ranges, pages: RANGE_PAGES };
    let index = index(ground);
    let rigs: Vec<_> = options.variants.iter().map(|variant| sampler(*variant, ground, &index, options.seed)).collect();
    let samples = Samples::take(&rigs, options.samples);
    let place = |tracker| options.variants.iter().position(|variant| *variant == Variant::kept(tracker));
    let (count, log) = (place(TrackerName::NotifierCount), place(TrackerName::CollisionLog));
    let row = |(nth, variant): (usize, &Variant)| {
        let costed = |operation| samples.costed(nth, operation, count, log);
        let (unrelated, fault) = (costed(Operation::Unrelated), costed(Operation::Fault));
        let each_since_ns = rigs[nth].each_since();
        let counted = |ns: f64| ((APART_NS / ns.max(1.0)) as usize).clamp(3, APART);
        let shares = rigs[nth].shares((counted(unrelated.ns.median), counted(fault.ns.median)));
        CostRow {
            variant: *variant,
            ranges,
            unrelated,
            related: costed(Operation::Related),
            unrelated_on_device: costed(Operation::UnrelatedOnDevice),
            related_on_device: costed(Operation::RelatedOnDevice),
            fault,
            fault_on_device: costed(Operation::FaultOnDevice),
            each_since_ns,
            costs: steps(*variant, unrelated.ns.median, fault.ns.median, shares, each_since_ns),
        }
    };
    options.variants.iter().enumerate().map(row).collect()
}

fn sampler(variant: Variant, ground: Ground, index: &Arc<IntervalIndex<u32>>, seed: u64) -> Box<dyn Sampler> {
    with_tracker!(variant.tracker, |tracker| Box::new(Rig::new(tracker, variant.keeping, ground, index, seed)))
}

/// The samples of each variant and operation.
struct Samples(Vec<[Vec<f64>; Operation::ALL.len()]>);

impl Samples {
    /// Takes one sample of each variant in turn, again and again, each time beginning with the next one, and there and back
    /// again, so that none always comes behind the same other.
    fn take(rigs: &[Box<dyn Sampler>], rounds: usize) -> Self {
        let mut samples: Vec<_> = rigs.iter().map(|_| std::array::from_fn(|_| Vec::new())).collect();
        for (place, operation) in Operation::ALL.into_iter().enumerate() {
            let batches: Vec<_> = rigs.iter().map(|rig| rig.batch(operation)).collect();
            for round in 0..rounds {
                for turn in 0..rigs.len() {
                    let turn = if round % 2 == 0 { turn } else { rigs.len() - 1 - turn };
                    let nth = (round + turn) % rigs.len();
                    let of: &mut [Vec<f64>; Operation::ALL.len()] = &mut samples[nth];
                    of[place].push(rigs[nth].sample(operation, batches[nth]));
                }
            }
        }
        Self(samples)
    }

    fn of(&self, nth: usize, operation: Operation) -> &[f64] {
        let place = Operation::ALL.iter().position(|other| *other == operation);
        place.map_or(&[], |place| &self.0[nth][place])
    }

    fn costed(&self, nth: usize, operation: Operation, count: Option<usize>, log: Option<usize>) -> Costed {
        let samples = self.of(nth, operation);
        let ratio = |to: Option<usize>| to.map(|to| Spread::of_ratios(samples, self.of(to, operation)));
        Costed { ns: Spread::of(samples), to_count: ratio(count), to_log: ratio(log) }
    }
}

/// The steps apart: the totals are measured well, and are shared out as the clock says.
fn steps(variant: Variant, invalidation: f64, fault: f64, shares: (f64, f64), each_since_ns: f64) -> Costs {
    let locks = variant.locks();
    let step = |ns: f64, locked| Step { cost: ns.round() as u64, locked };
    Costs {
        start: step(invalidation * shares.0, locks.start),
        end: step(invalidation * (1.0 - shares.0), locks.end),
        begin: step(fault * shares.1, locks.begin),
        retry: step(fault * (1.0 - shares.1), false),
        retry_per_thousand: (each_since_ns * 1000.0).round() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_is_timed_and_compared_with_the_count_and_the_log() {
        let options = BenchOptions { samples: 2, ..BenchOptions::quick() };
        let rows = measure(&options, 10);
        assert_eq!(rows.len(), Variant::all().len());
        for row in &rows {
            for costed in [row.unrelated, row.related, row.unrelated_on_device, row.fault, row.fault_on_device] {
                assert!(costed.ns.median > 0.0 && costed.to_log.is_some_and(|ratio| ratio.median > 0.0), "{row:?}");
            }
            let apart = row.costs.start.cost + row.costs.end.cost;
            assert!(apart.abs_diff(row.unrelated.ns.median as u64) <= 2, "{row:?}");
        }
        let log = rows.last().unwrap();
        assert_eq!(log.unrelated.to_log.map(|ratio| (ratio.low, ratio.high)), Some((1.0, 1.0)));
    }

    #[test]
    fn without_the_others_there_is_nothing_to_compare_with() {
        let options =
            BenchOptions { samples: 1, variants: Variant::of(&[TrackerName::HullSeq]), ..BenchOptions::quick() };
        let rows = measure(&options, 1);
        assert_eq!((rows[0].fault.to_count, rows[0].fault.to_log), (None, None));
    }
}
