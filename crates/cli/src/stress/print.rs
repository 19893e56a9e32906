//! The tables.

use std::fmt::Write as _;

use super::machine::Machine;
use super::report::RowReport;
use super::verdict::{Exit, RowResult, Verdict};
use pagemirror_lab::report::{Table, number};

/// What is printed before anything runs.
pub(crate) fn heading(machine: &Machine, seed: u64, threads: usize, seconds: u64) -> String {
    let Machine { kernel, architecture, cpus, page_bytes, memory_mib } = machine;
    format!(
        "pagemirror {} stress: seed {seed}, {seconds} s, {threads} threads\n\
         Linux {kernel} {architecture}, {cpus} CPUs, {page_bytes} bytes a page, {} MiB of memory\n",
        env!("CARGO_PKG_VERSION"),
        number(*memory_mib)
    )
}

/// Everything that was measured, and what it means.
pub(crate) fn tables(rows: &[RowResult], exit: Exit) -> String {
    let reports: Vec<&RowReport> = rows.iter().filter_map(|row| row.report.as_ref()).collect();
    let mut text = String::new();
    let mut section = |title: &str, table: &Table| {
        if !table.is_empty() {
            let _ = write!(text, "\n{title}\n{}", table.lines());
        }
    };
    section("Stale bytes: those that match no state of their address between begin and completion", &verdicts(rows));
    section("Invalidations: changes of memory that a device had used, by what was called", &invalidations(&reports));
    section("The cache: leases, and attempts to register", &cache(&reports));
    section("What was not exact, not cached, or refused", &exceptions(&reports));
    section("Waits", &waits(&reports));
    for report in &reports {
        if let Some(note) = &report.note {
            let _ = write!(text, "\n{}: {note}", report.row.text());
        }
    }
    text.push('\n');
    text.push_str(&conclusion(rows, exit));
    text
}

fn verdicts(rows: &[RowResult]) -> Table {
    let heading = ["row", "expected", "ran (s)", "uses", "checked (MiB)", "stale uses", "stale bytes", "verdict"];
    let mut table = Table::untitled(&heading, &[0, 1, 7]);
    for row in rows {
        let figure = |of: fn(&RowReport) -> u64| row.report.as_ref().map_or("-".into(), |report| number(of(report)));
        let seconds =
            row.report.as_ref().map_or("-".into(), |report| format!("{:.1}", report.milliseconds as f64 / 1e3));
        table.row(vec![
            row.row.text().into(),
            row.expected.into(),
            seconds,
            figure(|report| report.uses),
            figure(|report| report.checked_bytes >> 20),
            figure(|report| report.stale_uses),
            figure(|report| report.stale_bytes),
            in_words(&row.verdict).into(),
        ]);
    }
    table
}

fn in_words(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Fine => "fine",
        Verdict::Shown => "shown",
        Verdict::NotShown => "did not show",
        Verdict::Skipped(_) => "skipped",
        Verdict::Finding(_) => "FINDING",
    }
}

fn invalidations(reports: &[&RowReport]) -> Table {
    let heading = ["row", "munmap", "MAP_FIXED", "mremap", "DONTNEED", "REMOVE", "allocator", "revoked registrations"];
    let mut table = Table::untitled(&heading, &[0]);
    for report in reports {
        let made = report.invalidations;
        let mut cells = vec![report.row.text().into()];
        let figures = [made.munmap, made.map_fixed, made.mremap, made.dontneed, made.remove, made.allocator];
        cells.extend(figures.map(number));
        cells.push(number(report.told.revoked));
        table.row(cells);
    }
    table
}

fn cache(reports: &[&RowReport]) -> Table {
    let heading = ["row", "hits", "misses", "evictions", "stale leases", "collisions", "retries", "false retries"];
    let mut table = Table::untitled(&heading, &[0]);
    for report in with_cache(reports) {
        let of = report.cache;
        let mut cells = vec![report.row.text().into()];
        let figures = [of.hits, of.misses, of.evictions, of.stale_leases, of.collisions, of.retries, of.false_retries];
        cells.extend(figures.map(number));
        table.row(cells);
    }
    table
}

fn exceptions(reports: &[&RowReport]) -> Table {
    let heading = [
        "row",
        "one-shots in doubt",
        "one-shots contended",
        "conservative: outrun",
        "overflow",
        "doubt overflow",
        "unmapped answers",
        "doubts proved over",
    ];
    let mut table = Table::untitled(&heading, &[0]);
    for report in with_cache(reports) {
        let of = report.cache;
        let mut cells = vec![report.row.text().into()];
        let figures = [
            of.one_shots_in_doubt,
            of.one_shots_contended,
            of.outrun,
            of.overflow,
            of.doubt_overflows,
            report.unmapped_answers,
            of.proofs,
        ];
        cells.extend(figures.map(number));
        table.row(cells);
    }
    table
}

/// A control with a cache of its own has nothing to say about the library's.
fn with_cache<'r>(reports: &'r [&RowReport]) -> impl Iterator<Item = &'r RowReport> {
    reports.iter().copied().filter(|report| report.cache.misses > 0)
}

fn waits(reports: &[&RowReport]) -> Table {
    let mut table = Table::untitled(&["row", "for", "count", "p50 (us)", "p99 (us)", "max (us)"], &[0, 1]);
    for report in reports {
        for wait in report.waits.iter().filter(|wait| wait.count > 0) {
            let time = |microseconds: f64| format!("{microseconds:.1}");
            table.row(vec![
                report.row.text().into(),
                wait.cause.clone(),
                number(wait.count),
                time(wait.p50_us),
                time(wait.p99_us),
                time(wait.max_us),
            ]);
        }
    }
    table
}

fn conclusion(rows: &[RowResult], exit: Exit) -> String {
    let mut text = String::new();
    for row in rows {
        if row.verdict == Verdict::NotShown {
            let _ = writeln!(
                text,
                "\n{}: the adversary ran for its whole time and did not meet the schedule that it needs; nothing was shown. \
                 Run it longer: --row {} --seconds 60",
                row.row.text(),
                row.row.text()
            );
        }
        if let Verdict::Skipped(lacking) = &row.verdict {
            let _ = writeln!(text, "\nSKIPPED: {}: {lacking}", row.row.text());
        }
        if let Verdict::Finding(findings) = &row.verdict {
            let _ = writeln!(text, "\nFINDING in {}:", row.row.text());
            let examples = row.report.iter().flat_map(|report| &report.examples);
            for line in findings.iter().chain(examples) {
                let _ = writeln!(text, "  {line}");
            }
        }
    }
    text.push_str(match exit {
        Exit::Fine => "\nAll is as expected: no stale byte in a coherent row.\n",
        Exit::Finding => "\nThere are findings. Please report them with the seed and this output.\n",
        Exit::Environment => "",
    });
    text
}
