//! Sweeps in virtual time: one thing varies, everything else stands at its usual value.

use pagemirror_trackers::with_tracker;
use serde::Serialize;

use super::costs::CostRow;
use super::{BenchOptions, RANGE_PAGES};
use crate::drive::{Costs, Counts, Plan, Time, TimeModel, drive};
use crate::variant::Variant;
use crate::workload::{Synthetic, SyntheticOptions, WorkingSet};

/// What varies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The number of mirrored ranges.
    Ranges,
    /// The rate of invalidations that touch no range.
    UnrelatedRate,
    /// The rate of invalidations that overlap a range that is faulted much.
    RelatedRate,
    /// The share of invalidations that overlap a range.
    Overlap,
    /// The size of each invalidation.
    Size,
    /// How many invalidators are preempted between start and end.
    Preempted,
    /// The rate of unrelated invalidations, with 64 device threads.
    ManyThreads,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Ranges,
        Self::UnrelatedRate,
        Self::RelatedRate,
        Self::Overlap,
        Self::Size,
        Self::Preempted,
        Self::ManyThreads,
    ];

    /// In words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Ranges => "number of ranges",
            Self::UnrelatedRate => "rate of unrelated invalidations",
            Self::RelatedRate => "rate of related invalidations",
            Self::Overlap => "share of related invalidations",
            Self::Size => "size of invalidations",
            Self::Preempted => "preempted invalidators",
            Self::ManyThreads => "rate of unrelated invalidations, 64 device threads",
        }
    }

    /// What its value is.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Ranges => "ranges",
            Self::UnrelatedRate | Self::RelatedRate | Self::ManyThreads => "invalidations a second",
            Self::Overlap => "of 1000 invalidations overlap a range",
            Self::Size => "pages an invalidation",
            Self::Preempted => "of 1000 invalidators preempted",
        }
    }

    const fn values(self) -> &'static [u64] {
        match self {
            Self::Ranges => &[],
            Self::UnrelatedRate | Self::RelatedRate | Self::ManyThreads => &[0, 100, 1000, 10_000, 100_000, 300_000],
            Self::Overlap => &[0, 10, 100, 500, 1000],
            Self::Size => &[1, 16, 256, 4096],
            Self::Preempted => &[0, 1, 10, 50],
        }
    }

    /// How long a run lasts: longer where what is looked for is rare, shorter where much happens at once.
    const fn lasts(self, usual: Time) -> Time {
        match self {
            Self::Preempted => usual * 5,
            Self::ManyThreads => usual / 4,
            _ => usual,
        }
    }

    const fn device_threads(self) -> usize {
        match self {
            Self::ManyThreads => 64,
            _ => 4,
        }
    }
}

/// One tracker at one value of what varies.
#[derive(Debug, Clone, Serialize)]
pub struct SweepRow {
    /// What varies.
    pub kind: Kind,
    /// Its value, in [`Kind::unit`].
    pub value: u64,
    /// Which tracker.
    pub variant: Variant,
    /// The work.
    pub work: SyntheticOptions,
    /// Threads of the device.
    pub device_threads: usize,
    /// How long the run lasts, in virtual nanoseconds.
    pub virtual_ns: Time,
    /// What is decided when the trackers cost nothing: the same on every machine.
    pub counts: Counts,
    /// What the run is with the costs that were measured on this machine.
    pub costed: Counts,
    /// The number of ranges with which those were measured.
    pub costs_at_ranges: u64,
}

impl SweepRow {
    /// Nanoseconds for each fault that was served: from its first attempt to its installation, with every wait and retry,
    /// and its share of the time that invalidators spent in the tracker. Infinite when nothing was served.
    #[must_use]
    pub fn total_ns(&self) -> f64 {
        let counts = &self.costed;
        if counts.served == 0 {
            return f64::INFINITY;
        }
        (counts.latency_ns + counts.invalidators_ns) as f64 / counts.served as f64
    }
}

/// The number of ranges where nothing else is said.
const RANGES: u64 = 10_000;
/// The rate of invalidations where nothing else is said, of which one in twenty is related.
const RATE: u64 = 10_000;
const RELATED: u64 = 50;
/// Ranges that related invalidations and faults meet on, where those are what varies: few enough that they do meet.
const FEW_RANGES: u64 = 100;

/// The rate of invalidations where their size varies: with the largest, one of them runs nearly half of the time.
const SIZE_RATE: u64 = 1000;

fn work(kind: Kind, value: u64, seed: u64) -> SyntheticOptions {
    let usual = SyntheticOptions {
        ranges: RANGES,
        range_pages: RANGE_PAGES,
        working_set: WorkingSet::Hot,
        invalidators: 4,
        rate: RATE,
        invalidated_pages: 4,
        related_per_mille: RELATED,
        pause: 10_000,
        seed,
    };
    match kind {
        Kind::Ranges => SyntheticOptions { ranges: value, ..usual },
        Kind::UnrelatedRate | Kind::ManyThreads => SyntheticOptions { rate: value, related_per_mille: 0, ..usual },
        Kind::RelatedRate => SyntheticOptions { rate: value, related_per_mille: 1000, ranges: FEW_RANGES, ..usual },
        Kind::Overlap => SyntheticOptions { related_per_mille: value, ranges: FEW_RANGES, ..usual },
        Kind::Size => SyntheticOptions { invalidated_pages: value, rate: SIZE_RATE, ..usual },
        Kind::Preempted => usual,
    }
}

fn time_of(kind: Kind, value: u64, time: &TimeModel) -> TimeModel {
    match kind {
        Kind::Preempted if value > 0 => TimeModel { preempted_one_in: 1000 / value, ..*time },
        _ => *time,
    }
}

/// Runs one sweep over all variants.
pub(super) fn run(options: &BenchOptions, kind: Kind, time: &TimeModel, costs: &[CostRow]) -> Vec<SweepRow> {
    let values = if kind == Kind::Ranges { &options.ranges[..] } else { kind.values() };
    let row = |value: u64, variant: Variant| {
        let work = work(kind, value, options.seed);
        let (costs, costs_at_ranges) = nearest(costs, variant, work.ranges);
        let time = time_of(kind, value, time);
        let until = kind.lasts(options.virtual_ns);
        let plan = |costs| Plan { until, device_threads: kind.device_threads(), time, costs, keeping: variant.keeping };
        SweepRow {
            kind,
            value,
            variant,
            work,
            device_threads: kind.device_threads(),
            virtual_ns: until,
            counts: driven(variant, work, &plan(Costs::default())),
            costed: driven(variant, work, &plan(costs)),
            costs_at_ranges,
        }
    };
    values.iter().flat_map(|&value| options.variants.iter().map(move |&variant| row(value, variant))).collect()
}

fn driven(variant: Variant, work: SyntheticOptions, plan: &Plan) -> Counts {
    let mut workload = Synthetic::new(work, plan.time);
    with_tracker!(variant.tracker, |tracker| drive(&tracker, &mut workload, plan))
}

/// The costs of `variant` at the measured number of ranges that is nearest to this one.
fn nearest(costs: &[CostRow], variant: Variant, ranges: u64) -> (Costs, u64) {
    let distance = |row: &&CostRow| row.ranges.abs_diff(ranges);
    let row = costs.iter().filter(|row| row.variant == variant).min_by_key(distance);
    row.map_or((Costs::default(), 0), |row| (row.costs, row.ranges))
}
