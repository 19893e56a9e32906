//! The figures of `bench` as tables.

use super::table::{Table, figure, number};
use crate::bench::{BenchFigures, CostRow, Costed, Kind, Spread, SweepRow, Together};
use crate::variant::Variant;

/// All tables, in the order in which a report shows them.
#[must_use]
pub fn bench_tables(figures: &BenchFigures) -> Vec<Table> {
    let mut tables = Vec::new();
    if !figures.costs.is_empty() {
        tables.push(costs(
            figures,
            "Cost of an invalidation (ns): the tracker alone, memory that touches no range",
            |row| row.unrelated,
        ));
        tables.push(costs(
            figures,
            "Cost of an invalidation (ns): the tracker alone, memory that overlaps a range",
            |row| row.related,
        ));
        tables.push(costs(
            figures,
            "Cost of an invalidation (ns): with the device lock and the lookup in the device's table",
            |row| row.related_on_device,
        ));
        tables.push(costs(figures, "Cost of an undisturbed fault (ns): the tracker alone", |row| row.fault));
        tables
            .push(costs(figures, "Cost of an undisturbed fault (ns): with the device lock", |row| row.fault_on_device));
        tables.push(since(figures));
    }
    tables.extend(Together::ALL.into_iter().map(|together| threads(figures, together)));
    for kind in Kind::ALL {
        tables.push(counts(figures, kind));
        tables.push(times(figures, kind));
    }
    tables
}

fn spread(spread: Spread) -> String {
    format!("{} ({} to {})", figure(spread.median), figure(spread.low), figure(spread.high))
}

fn ratio(ratio: Option<Spread>) -> String {
    ratio.filter(|ratio| ratio.samples > 0).map_or("-".to_owned(), |ratio| figure(ratio.median))
}

fn costs(figures: &BenchFigures, title: &str, of: fn(&CostRow) -> Costed) -> Table {
    let heading = ["ranges", "tracker", "median (quartiles)", "to notifier-count", "to collision-log"];
    let mut table = Table::new(title, &heading, &[1]);
    for row in &figures.costs {
        let costed = of(row);
        let cells = [spread(costed.ns), ratio(costed.to_count), ratio(costed.to_log)];
        table.row([number(row.ranges), row.variant.to_string()].into_iter().chain(cells).collect());
    }
    table
}

fn since(figures: &BenchFigures) -> Table {
    let title = "What each unrelated invalidation since read_begin adds to read_retry (ns), by number of ranges";
    let heading: Vec<String> = figures.options.ranges.iter().map(|ranges| number(*ranges)).collect();
    let heading: Vec<&str> = std::iter::once("tracker").chain(heading.iter().map(String::as_str)).collect();
    let mut table = Table::new(title, &heading, &[0]);
    for variant in &figures.options.variants {
        let rows = figures.costs.iter().filter(|row| row.variant == *variant);
        let cells = rows.map(|row| figure(row.each_since_ns));
        table.row(std::iter::once(variant.to_string()).chain(cells).collect());
    }
    table
}

fn threads(figures: &BenchFigures, together: Together) -> Table {
    let title = format!("Two real threads: {} (ns for each of a thread's operations)", together.text());
    let heading =
        ["tracker", "median (quartiles)", "to notifier-count", "to collision-log", "attempts a fault", "samples"];
    let mut table = Table::new(title, &heading, &[0]);
    for row in figures.threads.iter().filter(|row| row.together == together) {
        if row.ns.samples == 0 {
            table.row(vec![row.variant.to_string(), "never undisturbed".to_owned()]);
            continue;
        }
        table.row(vec![
            row.variant.to_string(),
            spread(row.ns),
            ratio(row.to_count),
            ratio(row.to_log),
            if together == Together::Invalidations { "-".to_owned() } else { figure(row.attempts.median) },
            row.ns.samples.to_string(),
        ]);
    }
    table
}

fn rows_of(figures: &BenchFigures, kind: Kind) -> impl Iterator<Item = &SweepRow> {
    figures.sweeps.iter().filter(move |row| row.kind == kind)
}

/// What is decided when the trackers cost nothing.
fn counts(figures: &BenchFigures, kind: Kind) -> Table {
    let title = format!("By {}: what was decided (the same on every machine)", kind.text());
    let mut table = Table::new(title, &with_counts(&[kind.unit(), "tracker"]), &[1]);
    for row in rows_of(figures, kind) {
        table.row([number(row.value), row.variant.to_string()].into_iter().chain(count_cells(&row.counts)).collect());
    }
    table
}

/// The heading of [`count_cells`], behind these columns.
pub(super) fn with_counts<'h>(first: &[&'h str]) -> Vec<&'h str> {
    let counted = [
        "invalidations",
        "served",
        "attempts",
        "true retries",
        "false retries",
        "conservative",
        "MISSED",
        "waits",
        "needless waits",
        "waited (us)",
        "needlessly (us)",
        "longest unserved (us)",
    ];
    first.iter().copied().chain(counted).collect()
}

/// What a run counted.
pub(super) fn count_cells(counts: &crate::drive::Counts) -> Vec<String> {
    let us = |ns: u64| number(ns / 1000);
    vec![
        number(counts.invalidations),
        number(counts.served),
        number(counts.attempts),
        number(counts.true_retries),
        number(counts.false_retries),
        number(counts.conservative + counts.overflow),
        number(counts.missed),
        number(counts.waits),
        number(counts.needless_waits),
        us(counts.waited_ns),
        us(counts.needless_ns),
        us(counts.starved_ns),
    ]
}

/// How long that takes with the costs of this machine.
fn times(figures: &BenchFigures, kind: Kind) -> Table {
    let title = format!("By {}: time in the cost model, with the costs measured here", kind.text());
    let heading = [
        kind.unit(),
        "tracker",
        "whole time of a fault (ns)",
        "to notifier-count",
        "to collision-log",
        "from first attempt to installation (ns)",
        "served a second",
        "waited for the tracker's lock (us)",
        "costs measured with ranges",
    ];
    let mut table = Table::new(title, &heading, &[1]);
    let total = |row: &SweepRow, variant: &str| {
        let other = rows_of(figures, kind).find(|other| other.value == row.value && other.variant.text() == variant);
        other.map_or("-".to_owned(), |other| figure(row.total_ns() / other.total_ns()))
    };
    for row in rows_of(figures, kind) {
        let costed = &row.costed;
        table.row(vec![
            number(row.value),
            row.variant.to_string(),
            figure(row.total_ns()),
            total(row, "notifier-count"),
            total(row, "collision-log"),
            figure(costed.latency_ns as f64 / costed.served as f64),
            number((costed.served as f64 * 1e9 / row.virtual_ns as f64) as u64),
            number(costed.lock_wait_ns / 1000),
            number(row.costs_at_ranges),
        ]);
    }
    table
}

/// What each tracker is, and which lock its steps take.
pub(super) fn trackers(variants: &[Variant]) -> Table {
    let heading = ["tracker", "what it is", "locks, as the cost model has them"];
    let mut table = Table::new("The trackers", &heading, &[0, 1, 2]);
    for variant in variants {
        table.row(vec![variant.to_string(), variant.describe().to_owned(), variant.locks().text.to_owned()]);
    }
    table
}
