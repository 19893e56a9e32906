//! Two real threads on one tracker. What the cost model leaves out is in here: cache lines that travel, sleepers that are
//! woken by the kernel. Samples are short, and one during which the kernel took the processor away from either thread is
//! thrown away: it would show what else runs on the machine.

use std::fs;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pagemirror_core::collision::{CollisionTracker, Reader, Verdict};
use pagemirror_core::gate::Gate;
use pagemirror_core::wait::{Deadline, Wait};
use pagemirror_trackers::catalogue::TrackerName;
use pagemirror_trackers::with_tracker;
use serde::Serialize;

use super::sample::Spread;
use super::{BenchOptions, RANGE_PAGES};
use crate::drive::{Keeping, TimeModel};
use crate::variant::Variant;
use crate::workload::{Ground, Random};

/// What the two threads do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Together {
    /// Both fault, each its own ranges, with nothing invalidated.
    Faults,
    /// Both invalidate what touches no range.
    Invalidations,
    /// One faults, one invalidates 10,000 times in a second what touches no range.
    FaultsBesideFew,
    /// As before, 50,000 times.
    FaultsBesideMany,
}

impl Together {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Faults, Self::Invalidations, Self::FaultsBesideFew, Self::FaultsBesideMany];

    /// In words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Faults => "both fault",
            Self::Invalidations => "both invalidate unrelated memory",
            Self::FaultsBesideFew => "one faults, one makes 10,000 unrelated invalidations a second",
            Self::FaultsBesideMany => "one faults, one makes 50,000 unrelated invalidations a second",
        }
    }

    /// The time between two invalidations, for those who make them at a rate.
    const fn period(self) -> Option<Duration> {
        match self {
            Self::Faults | Self::Invalidations => None,
            Self::FaultsBesideFew => Some(Duration::from_micros(100)),
            Self::FaultsBesideMany => Some(Duration::from_micros(20)),
        }
    }
}

/// What two threads did on one tracker.
#[derive(Debug, Clone, Serialize)]
pub struct ThreadsRow {
    /// Which.
    pub variant: Variant,
    /// What they did.
    pub together: Together,
    /// Nanoseconds for each operation of a thread: a fault until it is served, with the time that it reads the page table
    /// where something is invalidated beside it; or an invalidation.
    pub ns: Spread,
    /// The quotient to `notifier-count`, sample by sample.
    pub to_count: Option<Spread>,
    /// The quotient to `collision-log`.
    pub to_log: Option<Spread>,
    /// Attempts for each fault that was served; 1 when nothing collided.
    pub attempts: Spread,
}

/// Ranges of the two: enough for a tracker that tracks them to have something to track.
const RANGES: u64 = 1000;

/// How often a sample is tried that is disturbed, and for how long all of them together: so many times what they would take.
const TRIES: usize = 50;
const PATIENCE: u32 = 25;

/// Measures all variants, one sample of each in turn.
pub(super) fn measure(options: &BenchOptions, together: Together, time: &TimeModel) -> Vec<ThreadsRow> {
    let count = options.variants.len();
    let patience = Duration::from_millis(options.threads_ms) * (options.samples * count) as u32 * PATIENCE;
    let begun = Instant::now();
    let mut samples: Vec<(Vec<f64>, Vec<f64>)> = vec![Default::default(); count];
    for round in 0..options.samples {
        for turn in 0..count {
            let nth = (round + turn) % count;
            let mut tries = (0..TRIES)
                .take_while(|_| begun.elapsed() < patience)
                .map(|_| sample(options.variants[nth], together, options, time));
            let (ns, attempts) = tries.find_map(|sample| sample).unwrap_or((f64::NAN, f64::NAN));
            samples[nth].0.push(ns);
            samples[nth].1.push(attempts);
        }
    }
    let place = |tracker| options.variants.iter().position(|variant| *variant == Variant::kept(tracker));
    let ratio = |nth: usize, to: Option<usize>| to.map(|to| Spread::of_ratios(&samples[nth].0, &samples[to].0));
    let row = |(nth, variant): (usize, &Variant)| ThreadsRow {
        variant: *variant,
        together,
        ns: Spread::of(&samples[nth].0),
        to_count: ratio(nth, place(TrackerName::NotifierCount)),
        to_log: ratio(nth, place(TrackerName::CollisionLog)),
        attempts: Spread::of(&samples[nth].1),
    };
    options.variants.iter().enumerate().map(row).collect()
}

/// Nanoseconds and attempts for each operation of one sample. None if it was disturbed.
fn sample(variant: Variant, together: Together, options: &BenchOptions, time: &TimeModel) -> Option<(f64, f64)> {
    with_tracker!(variant.tracker, |tracker| Pair::new(tracker, variant.keeping, options, time).run(together))
}

/// How often the kernel has taken the processor away from this thread.
fn interruptions() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"));
    // Where the kernel does not say, nothing is thrown away.
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// One tracker and what both threads need.
struct Pair<T> {
    tracker: T,
    readers: Vec<Reader>,
    ground: Ground,
    gate: Gate,
    stop: AtomicBool,
    arrived: AtomicUsize,
    limit: Duration,
    time: TimeModel,
    seed: u64,
}

/// What one thread did.
#[derive(Debug, Clone, Copy)]
struct Done {
    operations: u64,
    attempts: u64,
    took: Duration,
}

impl<T: CollisionTracker> Pair<T> {
    fn new(tracker: T, keeping: Keeping, options: &BenchOptions, time: &TimeModel) -> Self {
        let ground = Ground { ranges: RANGES, pages: RANGE_PAGES };
        let reader = |number| {
            let range = ground.range(number);
            let subscription = if keeping == Keeping::Kept { tracker.subscribe(range) } else { None };
            Reader { subscription, ..Reader::of(range) }
        };
        Self {
            readers: (0..RANGES).map(reader).collect(),
            tracker,
            ground,
            gate: Gate::in_ordinary_memory(),
            stop: AtomicBool::new(false),
            arrived: AtomicUsize::new(0),
            limit: Duration::from_millis(options.threads_ms),
            time: *time,
            seed: options.seed,
        }
    }

    fn run(&self, together: Together) -> Option<(f64, f64)> {
        let first = || match together {
            Together::Invalidations => self.invalidations(0, None),
            Together::Faults => self.faults(0, Duration::ZERO),
            _ => self.faults(0, Duration::from_nanos(self.time.snapshot)),
        };
        let second = || match together {
            Together::Faults => self.faults(1, Duration::ZERO),
            _ => self.invalidations(1, together.period()),
        };
        let (one, two) = std::thread::scope(|scope| {
            let other = scope.spawn(|| self.undisturbed(second));
            let one = self.undisturbed(first);
            // ORDERING: Relaxed; it only ends a loop.
            self.stop.store(true, Ordering::Relaxed);
            (one, other.join().ok().flatten())
        });
        let (one, two) = (one?, two?);
        // A host may take a processor away without telling anybody.
        if one.took.abs_diff(two.took) > self.limit / 10 {
            return None;
        }
        let alike = together.period().is_none();
        let operations = one.operations + if alike { two.operations } else { 0 };
        let took = one.took + if alike { two.took } else { Duration::ZERO };
        let attempts = one.attempts + if alike { two.attempts } else { 0 };
        let each = |sum: f64| sum / operations.max(1) as f64;
        Some((each(took.as_nanos() as f64), each(attempts as f64)))
    }

    /// Runs one thread's part once both threads are running. None if it lost its processor meanwhile.
    fn undisturbed(&self, part: impl FnOnce() -> Done) -> Option<Done> {
        // Counted from before the meeting: who loses the processor between the two would otherwise seem undisturbed, while the
        // other one ran alone.
        let before = interruptions();
        // ORDERING: Relaxed; the two only have to be running at the same time.
        self.arrived.fetch_add(1, Ordering::Relaxed);
        while self.arrived.load(Ordering::Relaxed) < 2 {
            spin_loop();
        }
        let done = part();
        (interruptions() == before).then_some(done)
    }

    /// Repeats until the time is over, or the other thread has ended.
    fn until_over(&self, mut operation: impl FnMut() -> u64) -> Done {
        let begun = Instant::now();
        let (mut operations, mut attempts) = (0, 0);
        // ORDERING: Relaxed; it only ends a loop.
        while begun.elapsed() < self.limit && !self.stop.load(Ordering::Relaxed) {
            for _ in 0..self.at_once() {
                attempts += operation();
                operations += 1;
            }
        }
        Done { operations, attempts, took: begun.elapsed() }
    }

    /// Operations between two looks at the clock.
    const fn at_once(&self) -> u64 {
        16
    }

    fn faults(&self, thread: u64, snapshot: Duration) -> Done {
        let deadline = Deadline::after(self.limit * 100);
        let wait = Wait::new(&deadline, &self.gate);
        let mut random = Random::new(self.seed, thread);
        // Each thread has its half of the ranges.
        self.until_over(|| {
            let number = random.below(RANGES / 2) * 2 + thread % 2;
            self.fault(&self.readers[number as usize], &wait, snapshot)
        })
    }

    /// One fault until it is served: the attempts that it took.
    fn fault(&self, reader: &Reader, wait: &Wait<'_>, snapshot: Duration) -> u64 {
        let mut reader = *reader;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let Ok(token) = self.tracker.read_begin(&reader, wait) else { return attempts };
            spin(snapshot);
            let verdict = self.tracker.read_retry(&token);
            self.tracker.read_end(token);
            if verdict == Verdict::Valid {
                return attempts;
            }
            reader.previous = Some(verdict);
        }
    }

    fn invalidations(&self, thread: u64, period: Option<Duration>) -> Done {
        let mut random = Random::new(self.seed, 2 + thread);
        let change = period.map_or(Duration::ZERO, |_| Duration::from_nanos(self.time.change_of(RANGE_PAGES, false)));
        let mut due = Instant::now();
        self.until_over(|| {
            let id = self.tracker.start(self.ground.beside(random.next(), RANGE_PAGES));
            spin(change);
            self.tracker.end(id);
            if let Some(period) = period {
                due += period;
                // ORDERING: Relaxed; it only ends a loop.
                while Instant::now() < due && !self.stop.load(Ordering::Relaxed) {
                    spin_loop();
                }
            }
            1
        })
    }
}

fn spin(time: Duration) {
    if time.is_zero() {
        return;
    }
    let begun = Instant::now();
    while begun.elapsed() < time {
        spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_collides_with_unrelated_invalidations_on_real_threads_and_the_log_does_not() {
        let options = BenchOptions {
            samples: 3,
            variants: Variant::of(&[TrackerName::NotifierCount, TrackerName::CollisionLog]),
            ..BenchOptions::quick()
        };
        let rows = measure(&options, Together::FaultsBesideMany, &TimeModel::default());
        if rows.iter().any(|row| row.ns.samples == 0) {
            // Not by `println`, which the test harness keeps to itself.
            let why = format_args!("SKIPPED: bench: the machine never left two threads alone for 2 ms\n");
            let _ = std::io::Write::write_fmt(&mut std::io::stdout(), why);
            return;
        }
        assert_eq!(rows[1].attempts.high, 1.0, "{rows:?}");
        assert!(rows[0].attempts.high > 1.0, "{rows:?}");
    }
}
