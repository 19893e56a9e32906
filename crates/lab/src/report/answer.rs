//! The answer in words, made from the figures of one run. Nothing here knows how the comparison ends.

use pagemirror_trackers::catalogue::TrackerName;

use super::phrase::{Compared, Outcome, by_value, compare, list, times};
use super::table::{figure, number};
use crate::bench::{BenchFigures, CostRow, Kind, SweepRow, ThreadsRow, Together};
use crate::variant::Variant;

const COUNT: Variant = Variant::kept(TrackerName::NotifierCount);
const LOG: Variant = Variant::kept(TrackerName::CollisionLog);
/// The trackers that track ranges.
const TRACKING: [Variant; 2] = [Variant::kept(TrackerName::RangeValid), Variant::kept(TrackerName::IntervalSeq)];
/// From this many ranges on, what grows with them is looked at.
const MANY_RANGES: u64 = 10_000;

/// The answer to the question of the review, a paragraph each. What was not measured is not spoken of.
#[must_use]
pub fn answer(figures: &BenchFigures) -> Vec<String> {
    let mut said: Vec<String> = in_short(figures).into_iter().collect();
    said.extend(TRACKING.iter().filter_map(|variant| versus_count(figures, *variant)));
    said.extend(by_ranges(figures));
    said.extend(log_on_its_own(figures));
    said.extend(log_with_many_ranges(figures));
    said.extend(log_versus(figures));
    said.extend(losses(figures));
    said.extend(on_two_threads(figures));
    said.extend(starvation(figures));
    said.extend(missed(figures));
    said
}

/// The question, answered in three sentences: where tracking is ahead, what it costs to track, and what the log does.
fn in_short(figures: &BenchFigures) -> Option<String> {
    let mut parts = vec![rates_in_short(figures)?];
    parts.extend(growth_in_short(figures));
    parts.extend(log_in_short(figures));
    Some(format!("In short: {}", parts.join(" ")))
}

/// From which rate of unrelated invalidations on the best of those that track ranges is ahead of the count.
fn rates_in_short(figures: &BenchFigures) -> Option<String> {
    let by_tracker = TRACKING.map(|variant| totals(figures, Kind::UnrelatedRate, variant, COUNT));
    let rates: Vec<u64> =
        by_tracker.iter().find(|compared| !compared.is_empty())?.iter().map(|one| one.value).collect();
    let best = |rate: u64| {
        let all = by_tracker.iter().flatten().filter(|one| one.value == rate);
        all.copied().min_by(|one, other| one.ratio.total_cmp(&other.ratio))
    };
    let best: Vec<Compared> = rates.into_iter().filter_map(best).collect();
    let ahead = best.iter().rev().take_while(|one| one.outcome == Outcome::Less).count();
    let before = &best[..best.len() - ahead];
    let count_wins = before.iter().any(|one| one.outcome == Outcome::More);
    let count = if count_wins { "the notifier count is as good or better" } else { "the notifier count is as good" };
    Some(match (ahead, before.last()) {
        (0, _) => format!("{count} at every rate of unrelated invalidations that was measured, and simpler."),
        (_, None) => {
            "per-range tracking is ahead of the notifier count at every rate of unrelated invalidations.".to_owned()
        }
        (_, Some(last)) => {
            let first = best[before.len()];
            let most = best.last().map_or(1.0, |one| 1.0 / one.ratio);
            format!(
                "{count} up to {} unrelated invalidations a second; from {} on, the best of those that track ranges is ahead, \
                 and at the highest rate a fault on the count takes {} as long.",
                number(last.value),
                number(first.value),
                times(most)
            )
        }
    })
}

/// How the cost of an invalidation grows where ranges are tracked.
fn growth_in_short(figures: &BenchFigures) -> Option<String> {
    let grown = |variant: &Variant| {
        let rows: Vec<_> = figures.costs.iter().filter(|row| row.variant == *variant).collect();
        let (first, last) = (rows.first()?, rows.last()?);
        let ratio = last.unrelated.ns.median / first.unrelated.ns.median;
        (first.ranges < last.ranges).then(|| (format!("{} on {variant}", times(ratio)), first.ranges, last.ranges))
    };
    let grown: Vec<_> = TRACKING.iter().chain([&COUNT, &LOG]).filter_map(grown).collect();
    let &(_, first, last) = grown.first()?;
    let parts: Vec<String> = grown.into_iter().map(|(part, ..)| part).collect();
    Some(format!("From {} to {} ranges an invalidation becomes dearer: {}.", number(first), number(last), list(&parts)))
}

/// Whether the log is behind anywhere in the whole time of a fault.
fn log_in_short(figures: &BenchFigures) -> Option<String> {
    let compared = figures.sweeps.iter().filter(|row| row.variant == LOG).count();
    let lost = behind_in_whole(figures).len();
    (compared > 0).then(|| match lost {
        0 => {
            "In the whole time of a fault collision-log is behind no tracker at any point that was measured.".to_owned()
        }
        1 => {
            "In the whole time of a fault collision-log is behind another tracker at one point, named below.".to_owned()
        }
        _ => format!(
            "In the whole time of a fault collision-log is behind another tracker at {lost} points, named below."
        ),
    })
}

/// Whether a tracker that tracks ranges takes less time than the count, by the rate of unrelated invalidations and by the
/// number of ranges.
fn versus_count(figures: &BenchFigures, variant: Variant) -> Option<String> {
    let rates = totals(figures, Kind::UnrelatedRate, variant, COUNT);
    let ranges = totals(figures, Kind::Ranges, variant, COUNT);
    if rates.is_empty() || ranges.is_empty() {
        return None;
    }
    let all: Vec<Compared> = rates.iter().chain(&ranges).copied().collect();
    let less = all.iter().any(|one| one.outcome == Outcome::Less);
    let more = all.iter().any(|one| one.outcome == Outcome::More);
    let verdict = match (less, more) {
        (true, false) => "pays against the notifier count",
        (false, true) => "does not pay: the notifier count is as good or better everywhere, and simpler",
        (true, true) => "pays in some places and costs in others",
        (false, false) => "makes no difference: the notifier count is as good, and simpler",
    };
    Some(format!(
        "Per-range tracking as {variant} does it {verdict}. The whole time of a fault, retries, waits and its share of the \
         invalidations included, is {} unrelated invalidations a second with 10,000 ranges; and {} ranges at 10,000 \
         invalidations a second, of which one in twenty is related.",
        by_value(&rates),
        by_value(&ranges)
    ))
}

/// `one` against `other` at each value of what varies.
fn totals(figures: &BenchFigures, kind: Kind, one: Variant, other: Variant) -> Vec<Compared> {
    let of = |variant| move |row: &&SweepRow| row.kind == kind && row.variant == variant;
    let pair = |row: &SweepRow| {
        let to = figures.sweeps.iter().filter(of(other)).find(|to| to.value == row.value)?;
        Some(compare(row.value, row.total_ns(), to.total_ns()))
    };
    figures.sweeps.iter().filter(of(one)).filter_map(pair).collect()
}

/// What an invalidation and a fault cost with few ranges and with many.
fn by_ranges(figures: &BenchFigures) -> Vec<String> {
    type Of = fn(&CostRow) -> f64;
    let kinds: [(&str, Of); 2] = [
        ("An invalidation that touches no range (start and end, nothing else)", |row| row.unrelated.ns.median),
        ("A fault that nothing disturbs (begin, retry and end, nothing else)", |row| row.fault.ns.median),
    ];
    let sentence = |(what, of): (&str, Of)| {
        let one = |variant: &Variant| {
            let rows: Vec<_> = figures.costs.iter().filter(|row| row.variant == *variant).collect();
            Some(format!("{variant} {}", span(rows.first()?, rows.last()?, of)))
        };
        let parts: Vec<String> = figures.options.variants.iter().filter_map(one).collect();
        (!parts.is_empty()).then(|| format!("{what} costs, in nanoseconds: {}.", list(&parts)))
    };
    kinds.into_iter().filter_map(sentence).collect()
}

/// The cost with the fewest ranges and with the most; one figure where they hardly differ.
fn span(first: &CostRow, last: &CostRow, of: fn(&CostRow) -> f64) -> String {
    /// What grows by less than half over all numbers of ranges does not grow with them.
    const GROWS: f64 = 1.5;
    let (few, many) = (of(first), of(last));
    let apart = if few < many { many / few } else { few / many };
    if first.ranges == last.ranges || apart < GROWS {
        return figure(few.midpoint(many));
    }
    format!("{} with {} to {} with {} ranges", figure(few), number(first.ranges), figure(many), number(last.ranges))
}

/// What the log costs beside the count, apart from collisions.
fn log_on_its_own(figures: &BenchFigures) -> Option<String> {
    let row = figures.costs.iter().filter(|row| row.variant == LOG).max_by_key(|row| row.ranges)?;
    let (invalidation, fault) = (row.unrelated.to_count?, row.fault.to_count?);
    let on_device = row.unrelated_on_device.to_count?;
    Some(format!(
        "The collision log takes {} ns for an invalidation, {} what the count takes ({} with the lookup in a device's table \
         of {} ranges, which both need), and {} ns for a fault, {} the count's.",
        figure(row.unrelated.ns.median),
        times(invalidation.median),
        times(on_device.median),
        number(row.ranges),
        figure(row.fault.ns.median),
        times(fault.median)
    ))
}

/// What the log costs beside the trackers that track ranges, where there are many.
fn log_with_many_ranges(figures: &BenchFigures) -> Option<String> {
    let log = |ranges| figures.costs.iter().find(|row| row.variant == LOG && row.ranges == ranges);
    let part = |variant: &Variant| {
        let rows = figures.costs.iter().filter(|row| row.variant == *variant && row.ranges >= MANY_RANGES);
        let pairs: Vec<_> = rows.filter_map(|row| Some((log(row.ranges)?, row))).collect();
        let ratios = |of: fn(&CostRow) -> f64| pairs.iter().map(|(log, row)| of(log) / of(row)).collect::<Vec<_>>();
        let (invalidation, fault) = (ratios(|row| row.unrelated.ns.median), ratios(|row| row.fault.ns.median));
        (!pairs.is_empty())
            .then(|| format!("{} and {} what they cost on {variant}", extent(&invalidation), extent(&fault)))
    };
    let tracking = figures.options.variants.iter().filter(|variant| variant.tracks_ranges());
    let parts: Vec<String> = tracking.filter_map(part).collect();
    (!parts.is_empty()).then(|| {
        format!(
            "With {} ranges and more, an invalidation and a fault cost on collision-log: {}.",
            number(MANY_RANGES),
            list(&parts)
        )
    })
}

/// From the least to the most of these quotients.
fn extent(ratios: &[f64]) -> String {
    let (low, high) = ratios.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), &one| (low.min(one), high.max(one)));
    if times(low) == times(high) { times(low) } else { format!("{} to {}", times(low), times(high)) }
}

/// The whole time of a fault on the log, against the count and against those that track ranges.
fn log_versus(figures: &BenchFigures) -> Vec<String> {
    let kinds = [Kind::UnrelatedRate, Kind::RelatedRate, Kind::ManyThreads];
    let one = |other: Variant| {
        let parts: Vec<String> = kinds
            .into_iter()
            .filter_map(|kind| {
                let compared = totals(figures, kind, LOG, other);
                (!compared.is_empty()).then(|| format!("{} {}", by_value(&compared), scene(kind)))
            })
            .collect();
        (!parts.is_empty())
            .then(|| format!("The whole time of a fault on collision-log against {other} is {}.", list(&parts)))
    };
    std::iter::once(COUNT).chain(TRACKING).filter_map(one).collect()
}

const fn scene(kind: Kind) -> &'static str {
    match kind {
        Kind::RelatedRate => "related invalidations a second on 100 ranges",
        Kind::ManyThreads => "unrelated ones a second beside 64 device threads",
        _ => "unrelated invalidations a second",
    }
}

/// Where the log is behind another tracker by more than the margin, and why.
fn losses(figures: &BenchFigures) -> Option<String> {
    let logs: Vec<&CostRow> = figures.costs.iter().filter(|row| row.variant == LOG).collect();
    let widest = logs.last()?;
    let mut parts = Vec::new();
    let invalidation = behind(figures, |row| row.unrelated.ns.median);
    if !invalidation.is_empty() {
        parts.push(format!(
            "in the cost of an invalidation, behind {}, because it stores a range, takes a number and publishes an entry \
             under a lock",
            list(&invalidation)
        ));
    }
    let fault = behind(figures, |row| row.fault.ns.median);
    if !fault.is_empty() {
        parts.push(format!("in the cost of an undisturbed fault, behind {}", list(&fault)));
    }
    if widest.each_since_ns > EACH_SINCE_COUNTS {
        parts.push(format!(
            "in a fault that many invalidations pass by, because its commit looks at each that has started since: {} ns each",
            figure(widest.each_since_ns)
        ));
    }
    for together in Together::ALL {
        let lost = behind_on_two_threads(figures, together);
        if !lost.is_empty() {
            parts.push(format!("on two real threads, where {}, behind {}", together.text(), list(&lost)));
        }
    }
    let whole = behind_in_whole(figures);
    if !whole.is_empty() {
        parts.push(format!("in the whole time of a fault, behind {}", list(&whole)));
    }
    Some(if parts.is_empty() {
        "In these figures collision-log loses nowhere by more than one in a hundred.".to_owned()
    } else {
        format!("collision-log loses {}.", parts.join("; "))
    })
}

/// Below this, what an invalidation adds to a commit is lost in the clock, in nanoseconds.
const EACH_SINCE_COUNTS: f64 = 0.3;

/// The trackers that are cheaper than the log at some number of ranges, and where.
fn behind(figures: &BenchFigures, of: fn(&CostRow) -> f64) -> Vec<String> {
    let log = |ranges| figures.costs.iter().find(|row| row.variant == LOG && row.ranges == ranges).map(of);
    let others = figures.options.variants.iter().filter(|variant| **variant != LOG);
    let one = |variant: &Variant| {
        let rows = figures.costs.iter().filter(|row| row.variant == *variant);
        let compared: Vec<_> = rows.filter_map(|row| Some(compare(row.ranges, log(row.ranges)?, of(row)))).collect();
        let lost: Vec<u64> = compared.iter().filter(|one| one.outcome == Outcome::More).map(|one| one.value).collect();
        let worst = compared.iter().map(|one| one.ratio).fold(0.0, f64::max);
        let where_ = if lost.len() == compared.len() { "everywhere".to_owned() } else { at(&lost) };
        (!lost.is_empty()).then(|| format!("{variant} ({where_}, at worst {} it)", times(worst)))
    };
    others.filter_map(one).collect()
}

fn at(ranges: &[u64]) -> String {
    match ranges {
        [1] => "at 1 range".to_owned(),
        [only] => format!("at {} ranges", number(*only)),
        [first, .., last] => format!("at {} to {} ranges", number(*first), number(*last)),
        [] => String::new(),
    }
}

/// The trackers on which two threads are quicker than on the log, and by how much. A difference within the quartiles is none.
fn behind_on_two_threads(figures: &BenchFigures, together: Together) -> Vec<String> {
    let measured = |row: &&ThreadsRow| row.together == together && row.ns.samples > 0;
    let Some(log) = figures.threads.iter().filter(measured).find(|row| row.variant == LOG) else { return Vec::new() };
    let quicker = figures.threads.iter().filter(measured).filter(|row| row.ns.high < log.ns.low);
    let compared = quicker.map(|row| (row.variant, compare(0, log.ns.median, row.ns.median)));
    let lost = compared.filter(|(_, one)| one.outcome == Outcome::More);
    lost.map(|(variant, one)| format!("{variant} ({} it)", times(one.ratio))).collect()
}

/// Where the whole time of a fault on the log is longer than on another tracker; and whether that one was wrong there.
fn behind_in_whole(figures: &BenchFigures) -> Vec<String> {
    let mut lost = Vec::new();
    for kind in Kind::ALL {
        for &variant in figures.options.variants.iter().filter(|variant| **variant != LOG) {
            let compared = totals(figures, kind, LOG, variant);
            for one in compared.iter().filter(|one| one.outcome == Outcome::More) {
                let (value, unit, ratio) = (number(one.value), kind.unit(), times(one.ratio));
                let missed = match missed_at(figures, kind, one.value, variant) {
                    0 => String::new(),
                    missed => format!(", which missed {} invalidations there", number(missed)),
                };
                lost.push(format!("{variant} at {value} {unit} in the sweep by {} ({ratio} it{missed})", kind.text()));
            }
        }
    }
    lost
}

/// How many stale faults a tracker let through at one point: each is a retry that it did not make.
fn missed_at(figures: &BenchFigures, kind: Kind, value: u64, variant: Variant) -> u64 {
    let at = figures.sweeps.iter().filter(|row| row.kind == kind && row.value == value && row.variant == variant);
    at.map(|row| row.costed.missed).sum()
}

/// How many attempts a fault took on two real threads, where the machine let two run side by side.
fn on_two_threads(figures: &BenchFigures) -> Option<String> {
    let rows: Vec<_> = figures.threads.iter().filter(|row| row.together == Together::FaultsBesideMany).collect();
    if rows.is_empty() {
        return None;
    }
    let reading = figure(figures.time.snapshot as f64 / 1000.0);
    let part = |row: &&ThreadsRow| {
        let (attempts, us) = (figure(row.attempts.median), figure(row.ns.median / 1000.0));
        format!("{} {attempts} attempts and {us} us", row.variant)
    };
    let parts: Vec<String> = rows.iter().filter(|row| row.ns.samples > 0).map(part).collect();
    Some(if parts.len() < rows.len() {
        "This machine did not let two threads run side by side for long enough to be measured.".to_owned()
    } else {
        format!(
            "On two real threads, one that faults, with {reading} us of reading in each attempt, and one that makes 50,000 \
             unrelated invalidations a second, a fault takes: {}.",
            list(&parts)
        )
    })
}

/// The longest that a fault went without being served, where invalidators are preempted.
fn starvation(figures: &BenchFigures) -> Option<String> {
    let value = figures.sweeps.iter().filter(|row| row.kind == Kind::Preempted).map(|row| row.value).max()?;
    let rows = figures.sweeps.iter().filter(|row| row.kind == Kind::Preempted && row.value == value);
    let parts: Vec<String> =
        rows.map(|row| format!("{} {} ms", row.variant, figure(row.counts.starved_ns as f64 / 1e6))).collect();
    Some(format!(
        "Where {value} of 1000 invalidators are preempted for {} ms, the longest that a fault went unserved was: {}.",
        figures.time.preempted / 1_000_000,
        list(&parts)
    ))
}

/// Whether anybody let something stale be installed.
fn missed(figures: &BenchFigures) -> Option<String> {
    let sum = |variant: Variant| {
        let rows = figures.sweeps.iter().filter(move |row| row.variant == variant);
        rows.map(|row| (row.counts.missed, row.counts.served)).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    };
    let sums: Vec<_> = figures.options.variants.iter().map(|&variant| (variant, sum(variant))).collect();
    let guilty: Vec<String> = sums
        .iter()
        .filter(|(_, (missed, _))| *missed > 0)
        .map(|(variant, (missed, served))| format!("{variant} {} of {}", number(*missed), number(*served)))
        .collect();
    if sums.iter().all(|(_, (_, served))| *served == 0) {
        return None;
    }
    Some(if guilty.is_empty() {
        "No tracker let a fault install what an invalidation had made stale.".to_owned()
    } else {
        format!(
            "Faults that were let through with what an invalidation had made stale: {}. Whatever such a tracker costs, it is \
             the cost of a wrong answer.",
            list(&guilty)
        )
    })
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
