//! What a hit and an invalidation cost, as one table and one JSON file: medians of the threads' own time, with the 10th and
//! the 90th percentile of the samples, everything in turns in one run.
//!
//! `cargo bench -p pagemirror-registration --bench summary [-- FILE]` writes the JSON to FILE.
#![cfg(not(any(loom, shuttle)))]

mod bench;

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use bench::{
    Cache, CoreTable, GlobalSequence, MutexMap, Samples, between, deadline, filled, hit, hit_at, nanos, order,
    spanning, thread_time, ucx,
};
use pagemirror_core::addr::PageRange;
use pagemirror_core::notify::Event;
use pagemirror_core::space::AddressSpace;
use pagemirror_registration::Freshness;
use serde_json::{Value, json};

const ROUNDS: usize = 11;

/// A figure's name, the registrations there are, and its samples in nanoseconds for one call.
struct Row {
    name: &'static str,
    regions: u64,
    samples: Samples,
}

fn main() {
    let mut rows = Vec::new();
    for regions in [1, 1_000, 100_000] {
        one_thread(regions, &mut rows);
        two_threads(regions, &mut rows);
        of_ucx(regions, &mut rows);
    }
    for regions in [1_000, 100_000] {
        invalidations_that_hit_nothing(regions, &mut rows);
        invalidations_that_hit(regions, &mut rows);
    }
    print(&rows);
    let file = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    if let Some(file) = file {
        let rows: Vec<Value> = rows.iter().map(Row::json).collect();
        std::fs::write(&file, json!({ "unit": "ns", "rows": rows }).to_string()).expect("the file can be written");
    }
}

fn one_thread(regions: u64, rows: &mut Vec<Row>) {
    let (ordered, strict) = (filled(regions, Freshness::Ordered), filled(regions, Freshness::Strict));
    let (map, sequence) = (MutexMap::filled(regions), GlobalSequence::filled(regions));
    let (order, until) = (order(regions), deadline());
    type Case<'c> = (&'static str, Box<dyn FnMut() -> f64 + 'c>);
    let mut cases: Vec<Case<'_>> = vec![
        ("hit, ordered", Box::new(|| nanos(&order, |region| keep(hit(&ordered, region, &until))))),
        ("hit by begin_at, ordered", Box::new(|| nanos(&order, |region| keep(hit_at(&ordered, region, &until))))),
        ("hit, strict, probe free", Box::new(|| nanos(&order, |region| keep(hit(&strict, region, &until))))),
        ("baseline: mutex and map", Box::new(|| nanos(&order, |region| keep(map.hit(region))))),
        ("baseline: global sequence", Box::new(|| nanos(&order, |region| keep(sequence.hit(region))))),
    ];
    let mut samples = vec![Samples::default(); cases.len()];
    for _ in 0..ROUNDS {
        for (at, (_, run)) in cases.iter_mut().enumerate() {
            samples[at].0.push(run());
        }
    }
    let names: Vec<_> = cases.iter().map(|(name, _)| *name).collect();
    rows.extend(names.into_iter().zip(samples).map(|(name, samples)| Row { name, regions, samples }));
}

/// The same on two threads that use one cache, against two that have one each.
fn two_threads(regions: u64, rows: &mut Vec<Row>) {
    let caches = [filled(regions, Freshness::Ordered), filled(regions, Freshness::Ordered)];
    let map = MutexMap::filled(regions);
    let order = order(regions);
    let (mut shared, mut private, mut mutex) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..ROUNDS {
        shared.0.push(on_both(&order, |_| &caches[0], hit_region));
        private.0.push(on_both(&order, |thread| &caches[thread], hit_region));
        mutex.0.push(on_both(&order, |_| &map, |map, region| keep(map.hit(region))));
    }
    rows.push(Row { name: "hit, two threads, one cache", regions, samples: shared });
    rows.push(Row { name: "hit, two threads, one cache each", regions, samples: private });
    rows.push(Row { name: "baseline: mutex and map, two threads", regions, samples: mutex });
}

/// The same in the cache of UCX, where it is installed.
fn of_ucx(regions: u64, rows: &mut Vec<Row>) {
    for (threads, name) in [(1, "baseline: ucs_rcache of UCX"), (2, "baseline: ucs_rcache of UCX, two threads")] {
        match ucx::hits(regions, threads, ROUNDS) {
            Ok(samples) => rows.push(Row { name, regions, samples }),
            Err(why) => eprintln!("SKIPPED: {name}, {regions}: {why}"),
        }
    }
}

fn hit_region(cache: &Cache, region: u64) {
    keep(hit(cache, region, &deadline_of_thread()));
}

/// Invalidations between registrations, at random places: of the core alone, and with the cache subscribed.
fn invalidations_that_hit_nothing(regions: u64, rows: &mut Vec<Row>) {
    let (cache, table) = (filled(regions, Freshness::Ordered), CoreTable::filled(regions));
    let order = order(regions);
    let (mut alone, mut with_cache, mut log) = (Samples::default(), Samples::default(), Samples::default());
    let space = AddressSpace::default();
    for _ in 0..ROUNDS {
        log.0.push(nanos(&order, |region| drop(space.invalidate_start(between(region), Event::Unmap))));
        alone.0.push(nanos(&order, |region| table.invalidate(between(region))));
        with_cache.0.push(nanos(&order, |region| evict(&cache, between(region))));
    }
    rows.push(Row { name: "invalidation, log alone", regions, samples: log });
    rows.push(Row { name: "invalidation of nothing, log and index", regions, samples: alone });
    rows.push(Row { name: "invalidation of nothing, cache", regions, samples: with_cache });
}

/// Invalidations of a part of what is registered. For one registration: the time of the whole invalidation over how many it
/// hit. What was hit is let go and put back before the next one, outside the measure.
fn invalidations_that_hit(regions: u64, rows: &mut Vec<Row>) {
    for (name, hit) in
        [("invalidation of 10, log and index, each", 10), ("invalidation of 1000, log and index, each", 1_000)]
    {
        let table = CoreTable::filled(regions);
        let clock = nanos_of_the_clock();
        let (mut samples, mut first) = (Samples::default(), 0);
        for _ in 0..ROUNDS {
            let (mut spent, mut count) = (Duration::ZERO, 0);
            for _ in 0..5_000 / hit {
                // Another part each time, far from the last one.
                first = (first + regions / 3 + 7) % (regions - hit + 1);
                let range = spanning(first, hit);
                let begun = thread_time();
                table.invalidate(range);
                spent += thread_time() - begun;
                count += hit;
                table.refill(first, hit);
            }
            samples.0.push((spent.as_nanos() as f64 - clock * (5_000 / hit) as f64) / count as f64);
        }
        rows.push(Row { name, regions, samples });
    }
}

/// What reading the clock around nothing says: a system call, which would be most of what a small invalidation seems to take.
fn nanos_of_the_clock() -> f64 {
    const TIMES: u32 = 10_000;
    let around_nothing = |_| {
        let begun = thread_time();
        thread_time() - begun
    };
    (0..TIMES).map(around_nothing).sum::<Duration>().as_nanos() as f64 / f64::from(TIMES)
}

/// Uses a key, so that the call that gave it is made.
fn keep(key: u32) {
    black_box(key);
}

fn evict(cache: &Cache, range: PageRange) {
    cache.evict(range.start(), range.len()).expect("it is a range");
}

fn deadline_of_thread() -> pagemirror_core::wait::Deadline<'static> {
    thread_local! { static UNTIL: pagemirror_core::wait::Deadline<'static> = deadline(); }
    UNTIL.with(|until| *until)
}

/// Runs `each` on two threads at once, each over the whole order; the slower one's time for a call.
fn on_both<'c, C: Sync + 'c>(order: &[u32], of: impl Fn(usize) -> &'c C + Sync, each: impl Fn(&C, u64) + Sync) -> f64 {
    let barrier = Barrier::new(2);
    let run = |thread: usize| {
        let cache = of(thread);
        barrier.wait();
        nanos(order, |region| each(cache, region))
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| run(1));
        let own = run(0);
        own.max(other.join().expect("the other thread ends"))
    })
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "name": self.name, "registrations": self.regions, "median": self.samples.median(),
            "p10": self.samples.at(0.1), "p90": self.samples.at(0.9), "samples": self.samples.0,
        })
    }
}

fn print(rows: &[Row]) {
    println!("{:<40} {:>14}   ns: median (10 % to 90 % of {ROUNDS} samples)", "", "registrations");
    for row in rows {
        println!("{:<40} {:>14}   {}", row.name, row.regions, row.samples);
    }
}
