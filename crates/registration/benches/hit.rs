//! A hit under criterion, for comparing one version with the next. The table of all figures is `summary`.
#![cfg(not(any(loom, shuttle)))]
#![allow(missing_docs, reason = "criterion's macro makes a public function")]

mod bench;

use std::hint::black_box;

use bench::{deadline, filled, hit, hit_at, order};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pagemirror_registration::Freshness;

fn hits(criterion: &mut Criterion) {
    let until = deadline();
    let mut group = criterion.benchmark_group("hit");
    for regions in [1, 1_000, 100_000] {
        let cache = filled(regions, Freshness::Ordered);
        let order = order(regions);
        let mut regions_in_order = order.iter().cycle();
        let mut next = || regions_in_order.next().map_or(0, |region| u64::from(*region));
        group.bench_function(BenchmarkId::new("get, begin, give back", regions), |bencher| {
            bencher.iter(|| black_box(hit(&cache, next(), &until)));
        });
        group.bench_function(BenchmarkId::new("begin_at, give back", regions), |bencher| {
            bencher.iter(|| black_box(hit_at(&cache, next(), &until)));
        });
    }
    group.finish();
}

criterion_group!(benches, hits);
criterion_main!(benches);
