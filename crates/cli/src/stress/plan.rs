//! Sharing out the time among the rows.

use std::time::Duration;

use crate::rows::catalogue::RowName;

/// A row and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) name: RowName,
    pub(crate) time: Duration,
}

/// The rows that were asked for, in the usual order, each with its part of `seconds`. No row has less than its least time,
/// so a short run may take longer than was asked for.
pub(crate) fn share_out(asked: &[RowName], seconds: u64) -> Vec<Planned> {
    let wanted = |name: &RowName| if asked.is_empty() { !name.is_kind() } else { asked.contains(name) };
    let rows: Vec<RowName> = RowName::ALL.into_iter().chain(RowName::KINDS).filter(wanted).collect();
    let shares: u64 = rows.iter().map(|row| row.share()).sum();
    let time = |row: RowName| {
        let shared = Duration::from_millis(seconds * 1000 * row.share() / shares);
        shared.max(Duration::from_secs(row.least_seconds()))
    };
    rows.into_iter().map(|name| Planned { name, time: time(name) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_all_rows_is_the_time_of_the_run() {
        let plan = share_out(&[], 1000);
        assert_eq!(plan.len(), RowName::ALL.len());
        assert_eq!(plan.iter().map(|row| row.time).sum::<Duration>(), Duration::from_secs(1000));
        assert_eq!(plan[0], Planned { name: RowName::Mix, time: Duration::from_secs(550) });
    }

    #[test]
    fn rows_asked_for_keep_their_order_and_share_all_the_time() {
        let plan = share_out(&[RowName::Link, RowName::Reuse, RowName::Link], 30);
        let expected = [RowName::Reuse, RowName::Link].map(|name| Planned { name, time: Duration::from_secs(15) });
        assert_eq!(plan, expected);
    }

    #[test]
    fn kinds_of_memory_run_when_they_are_asked_for() {
        let plan = share_out(&[RowName::KindThp, RowName::Mix, RowName::KindMemfd], 65);
        let names: Vec<RowName> = plan.iter().map(|row| row.name).collect();
        assert_eq!(names, [RowName::Mix, RowName::KindThp, RowName::KindMemfd]);
        assert_eq!(plan[1].time, Duration::from_secs(5));
    }

    #[test]
    fn no_row_has_less_than_its_least_time() {
        assert!(share_out(&[], 1).iter().all(|row| row.time >= Duration::from_secs(row.name.least_seconds())));
    }
}
