//! The report of `replay`.

use pagemirror_trackers::catalogue::TrackerName;

use super::bench_tables::{count_cells, trackers, with_counts};
use super::html::Page;
use super::phrase::{list, times};
use super::table::{Table, figure, number};
use super::{Machine, QUESTION};
use crate::drive::Counts;
use crate::replay::{ReplayOptions, Replayed};
use crate::variant::Variant;

/// The page.
#[must_use]
pub fn replay_page(options: &ReplayOptions, replayed: &[Replayed], machine: &Machine) -> String {
    let mut page = Page::new("Collision trackers on traces of real programs");
    page.paragraph(QUESTION).heading("What these traces say").answer(&said(replayed));
    page.note(&format!("Made by `pagemirror replay`. {}", machine.line()));
    page.heading("What was replayed");
    page.paragraph(
        "Each address space of a trace is replayed with a tracker and a device of its own, in virtual time, as the trace has it. \
         The program was slowed down by its recorder, so its calls come further apart than in life. The counts are the same \
         on every machine.",
    );
    page.list(&assumptions(options));
    for table in replay_tables(replayed) {
        page.raw(&table.html());
    }
    page.heading("The trackers").raw(&trackers(&options.variants).html());
    page.finish()
}

/// The counts of each trace.
#[must_use]
pub fn replay_tables(replayed: &[Replayed]) -> Vec<Table> {
    replayed.iter().map(one).collect()
}

fn one(replayed: &Replayed) -> Table {
    let Replayed { name, command, events, spaces, span_us, .. } = replayed;
    let title = format!(
        "{name}: {command}; {} events in {} address spaces over {} ms",
        number(*events as u64),
        number(*spaces as u64),
        number(span_us / 1000)
    );
    let mut table = Table::new(title, &with_counts(&["tracker"]), &[0]);
    for row in &replayed.rows {
        table.row(std::iter::once(row.variant.to_string()).chain(count_cells(&row.counts)).collect());
    }
    table
}

fn assumptions(options: &ReplayOptions) -> Vec<String> {
    let (device, time) = (&options.device, &options.time);
    vec![
        format!(
            "Device: {} threads, {} faults a second together, at most {} ranges of {} pages, seed {}.",
            device.threads,
            number(device.rate),
            number(device.ranges as u64),
            device.range_pages,
            device.seed
        ),
        format!(
            "A fault reads the page table for {} ns; a change takes {} ns and {} ns a mapped page; a callback {} ns; a sleeper \
             looks again {} ns after an end.",
            time.snapshot, time.change, time.change_per_page, time.callback, time.wake
        ),
    ]
}

/// What the counts say in words, tracker by tracker over all traces.
fn said(replayed: &[Replayed]) -> Vec<String> {
    let sum = |variant: Variant| {
        let rows = replayed.iter().flat_map(|trace| &trace.rows).filter(move |row| row.variant == variant);
        rows.map(|row| row.counts).reduce(Counts::and)
    };
    let variants: Vec<Variant> = replayed.first().iter().flat_map(|trace| &trace.rows).map(|row| row.variant).collect();
    let sums: Vec<(Variant, Counts)> = variants.iter().filter_map(|&variant| Some((variant, sum(variant)?))).collect();
    let each = |what: &str, of: fn(&Counts) -> String| {
        let parts: Vec<String> = sums.iter().map(|(variant, counts)| format!("{variant} {}", of(counts))).collect();
        format!("{what}: {}.", list(&parts))
    };
    if sums.is_empty() {
        return vec!["No tracker was replayed.".to_owned()];
    }
    let mut said = vec![
        each("Retries without an overlapping invalidation", |counts| number(counts.false_retries)),
        each("Time waited while nothing that overlaps ran, in us", |counts| number(counts.needless_ns / 1000)),
        each("Faults let through with what an invalidation had made stale", |counts| number(counts.missed)),
        each("The longest that a fault went unserved, in us", |counts| figure(counts.starved_ns as f64 / 1000.0)),
    ];
    said.extend(against_the_count(&sums));
    said
}

/// The time from first attempt to installation, against the count.
fn against_the_count(sums: &[(Variant, Counts)]) -> Option<String> {
    let mean = |counts: &Counts| counts.latency_ns as f64 / counts.served.max(1) as f64;
    let (_, count) = sums.iter().find(|(variant, _)| *variant == Variant::kept(TrackerName::NotifierCount))?;
    let others = sums.iter().filter(|(variant, _)| variant.tracker != TrackerName::NotifierCount);
    let part = |(variant, counts): &(Variant, Counts)| format!("{variant} {}", times(mean(counts) / mean(count)));
    let parts: Vec<String> = others.map(part).collect();
    (!parts.is_empty()).then(|| {
        format!(
            "From first attempt to installation a fault takes {} ns with notifier-count, when trackers cost nothing; {} that.",
            figure(mean(count)),
            list(&parts)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::ReplayRow;
    use crate::report::html::check::assert_whole_and_alone;

    fn replayed(false_retries: u64, latency_ns: u64) -> Vec<Replayed> {
        let row = |variant: Variant| {
            let counts = Counts { served: 10, latency_ns: 1000, ..Counts::default() };
            let collided = Counts { false_retries, latency_ns, ..counts };
            let of_count = variant.tracker == TrackerName::NotifierCount;
            ReplayRow { variant, counts: if of_count { collided } else { counts } }
        };
        vec![Replayed {
            name: "a <trace>".into(),
            command: "true".into(),
            events: 1,
            spaces: 1,
            span_us: 1000,
            rows: Variant::all().into_iter().map(row).collect(),
        }]
    }

    #[test]
    fn the_page_is_whole_and_says_what_the_counts_say() {
        let page = replay_page(&ReplayOptions::default(), &replayed(1234, 5000), &Machine::look());
        assert_whole_and_alone(&page);
        assert!(
            page.contains("notifier-count 1,234, hull-seq 0") && page.contains("collision-log 0.20 times"),
            "{page}"
        );
        let page = replay_page(&ReplayOptions::default(), &replayed(0, 500), &Machine::look());
        assert!(page.contains("notifier-count 0, hull-seq 0") && page.contains("collision-log 2.00 times"), "{page}");
    }
}
