//! The report of `bench`.

use super::answer::answer;
use super::bench_tables::{bench_tables, trackers};
use super::html::Page;
use super::plot::{Curve, Plot};
use super::{Machine, QUESTION};
use crate::bench::{BenchFigures, CostRow, Costed, Kind, RANGE_PAGES, Spread, SweepRow};

/// The page.
#[must_use]
pub fn bench_page(figures: &BenchFigures, machine: &Machine) -> String {
    let mut page = Page::new("Does per-range tracking pay? What collision trackers cost");
    page.paragraph(QUESTION).heading("The answer of this run").answer(&answer(figures));
    page.note(&format!("Made by `pagemirror bench`. {}", machine.line()));
    page.heading("What was compared").raw(&trackers(&figures.options.variants).html());
    page.heading("Costs on this machine, one thread");
    page.paragraph(
        "Medians and quartiles; the trackers take turns, one sample each, and quotients are taken turn by turn, so that drift \
         of the machine hits all alike. The bars are the quartiles.",
    );
    for plot in cost_plots(figures) {
        page.raw(&plot.html());
    }
    page.heading("Collisions and their price, in virtual time");
    page.paragraph(
        "The same work for every tracker, in a deterministic simulation that calls the real trackers. Every decision is \
         compared with an exact list of everything that started. Counts are taken with trackers that cost nothing, times with \
         the costs measured above.",
    );
    page.list(&assumptions(figures));
    for plot in sweep_plots(figures) {
        page.raw(&plot.html());
    }
    page.heading("All figures");
    for table in bench_tables(figures) {
        page.raw(&table.html());
    }
    page.heading("What this does not show").list(&limits());
    page.finish()
}

fn cost_plots(figures: &BenchFigures) -> Vec<Plot> {
    type Of = fn(&CostRow) -> Costed;
    let kinds: [(&str, Of); 4] = [
        ("An invalidation, the tracker alone (memory that touches no range)", |row| row.unrelated),
        ("An invalidation with the device lock and its table's lookup", |row| row.unrelated_on_device),
        ("An undisturbed fault, the tracker alone", |row| row.fault),
        ("An undisturbed fault with the device lock", |row| row.fault_on_device),
    ];
    let curves = |of: Of| {
        let points = |variant| {
            let rows = figures.costs.iter().filter(move |row| row.variant == variant);
            rows.map(|row| (row.ranges as f64, of(row).ns)).collect()
        };
        figures
            .options
            .variants
            .iter()
            .map(|&variant| Curve { name: variant.to_string(), points: points(variant) })
            .collect()
    };
    let plot = |(title, of): (&str, Of)| Plot {
        title: title.to_owned(),
        x: "mirrored ranges".to_owned(),
        y: "ns".to_owned(),
        curves: curves(of),
    };
    kinds.into_iter().map(plot).collect()
}

fn sweep_plots(figures: &BenchFigures) -> Vec<Plot> {
    type Of = fn(&SweepRow) -> f64;
    let total: Of = |row| row.total_ns() / 1000.0;
    let starved: Of = |row| row.counts.starved_ns as f64 / 1000.0;
    let kinds: [(Kind, &str, &str, Of); 7] = [
        (Kind::Ranges, "Whole time of a fault", "us a fault", total),
        (Kind::UnrelatedRate, "Whole time of a fault", "us a fault", total),
        (Kind::RelatedRate, "Whole time of a fault", "us a fault", total),
        (Kind::ManyThreads, "Whole time of a fault", "us a fault", total),
        (Kind::Size, "Whole time of a fault", "us a fault", total),
        (Kind::UnrelatedRate, "Longest that a fault went unserved", "us", starved),
        (Kind::Preempted, "Longest that a fault went unserved", "us", starved),
    ];
    let plot = |(kind, what, unit, of): (Kind, &str, &str, Of)| {
        let points = |variant| {
            let rows = figures.sweeps.iter().filter(move |row| row.kind == kind && row.variant == variant);
            let exact = |value: f64| Spread { low: value, median: value, high: value, samples: 1 };
            rows.filter(|row| of(row).is_finite()).map(|row| (row.value as f64, exact(of(row)))).collect()
        };
        let curve = |&variant: &crate::variant::Variant| Curve { name: variant.to_string(), points: points(variant) };
        Plot {
            title: format!("{what}, by {}", kind.text()),
            x: kind.unit().to_owned(),
            y: unit.to_owned(),
            curves: figures.options.variants.iter().map(curve).collect(),
        }
    };
    kinds.into_iter().map(plot).collect()
}

fn assumptions(figures: &BenchFigures) -> Vec<String> {
    let time = &figures.time;
    vec![
        format!("Reading the page table and pinning takes {} ns; a device thread then pauses 10 us on average.", time.snapshot),
        format!(
            "A change takes {} ns and {} ns a page, between the last callback and the end. A callback holds the device lock \
             for {} ns.",
            time.change, time.change_per_page, time.callback
        ),
        format!("A sleeper looks again {} ns after an end.", time.wake),
        format!(
            "Where nothing else is said: 4 device threads, 4 invalidators, 10,000 ranges of {RANGE_PAGES} pages of which nine \
             faults of ten hit a tenth, 10,000 invalidations a second of 4 pages, one in twenty on a mirrored range."
        ),
        "Related invalidations are swept on 100 ranges, so that they meet faults; sizes at 1,000 invalidations a second; with 64 \
         threads the run is a quarter as long."
            .to_owned(),
        "The device lock is one lock. A tracker's lock is one lock, taken by the steps named above; who waits for it waits in \
         the order of asking."
            .to_owned(),
        format!("A preempted invalidator stays away for {} us between start and end.", time.preempted / 1000),
        "The whole time of a fault runs from its first attempt to its installation, and has its share of what invalidators \
         spend in the tracker."
            .to_owned(),
    ]
}

fn limits() -> Vec<String> {
    vec![
        "The cost model knows locks, not cache lines that travel between many processors; two real threads show what those \
         cost between two."
            .to_owned(),
        "Samples of two real threads in which either lost its processor are thrown away; what a host does with a virtual \
         machine's processors is not seen."
            .to_owned(),
        "Locks are those of the standard library, which sleep; the kernel's spin. What a range that is given back may have \
         to wait for is not counted."
            .to_owned(),
        "Durations outside the trackers are assumptions. They are the same for every tracker, and longer ones make collisions \
         dearer beside the trackers' own costs."
            .to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{self, BenchOptions};
    use crate::report::html::check::assert_whole_and_alone;

    #[test]
    fn the_page_is_whole_needs_nothing_else_and_has_its_plots() {
        let options = BenchOptions {
            ranges: vec![1, 10],
            samples: 2,
            virtual_ns: 1_000_000,
            threads_ms: 1,
            ..BenchOptions::quick()
        };
        let page = bench_page(&bench::run(&options, &mut |_, _, _| {}), &Machine::look());
        assert_whole_and_alone(&page);
        assert_eq!(page.matches("<svg").count(), 4 + 7);
        for wanted in ["collision-log", "range-valid, per fault", "MISSED", "Per-range tracking as", "processors"] {
            assert!(page.contains(wanted), "no {wanted:?}");
        }
        assert!(!page.contains("nothing to draw"));
    }
}
