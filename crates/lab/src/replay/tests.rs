//! The shipped traces have the counts that they always had.

use super::*;
use pagemirror_trackers::catalogue::TrackerName;

/// A short form of what is counted: served, attempts, true and false retries, missed, waits, needless waits, time waited.
type Golden = [u64; 8];

fn golden(counts: &Counts) -> Golden {
    let Counts { served, attempts, true_retries, false_retries, missed, waits, needless_waits, waited_ns, .. } =
        *counts;
    [served, attempts, true_retries, false_retries, missed, waits, needless_waits, waited_ns]
}

/// The traces as they are shipped, on the device that is the default. A change of the driver, of the workload, of the time
/// model or of a tracker's decisions shows here; one that is meant is put here.
const GOLDEN: [(&str, [Golden; 7]); 3] = [
    (
        "interpreter",
        [
            // range-valid
            [104_910, 104_912, 2, 0, 0, 43, 36, 9_954_785],
            // range-valid, per fault
            [104_910, 104_912, 2, 0, 0, 157, 152, 20_830_102],
            // notifier-count
            [104_910, 104_963, 2, 51, 0, 193, 188, 22_772_999],
            // hull-seq
            [104_910, 104_942, 2, 30, 0, 12, 1, 2_403_071],
            // interval-seq
            [104_910, 104_912, 2, 0, 0, 43, 36, 9_954_785],
            // interval-seq, per fault
            [104_910, 104_912, 2, 0, 0, 157, 152, 20_830_102],
            // collision-log
            [104_910, 104_912, 2, 0, 0, 11, 0, 2_281_108],
        ],
    ),
    (
        "server",
        [
            // range-valid
            [76_115, 76_116, 1, 0, 1, 24, 22, 196_349],
            // range-valid, per fault
            [76_115, 76_116, 1, 0, 1, 161, 159, 1_391_222],
            // notifier-count
            [76_115, 76_553, 2, 436, 0, 336, 334, 2_509_056],
            // hull-seq
            [76_115, 76_528, 2, 411, 0, 2, 0, 58_809],
            // interval-seq
            [76_115, 76_117, 2, 0, 0, 24, 22, 196_349],
            // interval-seq, per fault
            [76_115, 76_117, 2, 0, 0, 161, 159, 1_391_222],
            // collision-log
            [76_115, 76_117, 2, 0, 0, 2, 0, 58_809],
        ],
    ),
    (
        "compiler",
        [
            // range-valid
            [19_884, 19_886, 2, 0, 1, 194, 176, 91_811_803],
            // range-valid, per fault
            [19_884, 19_886, 2, 0, 1, 217, 199, 94_292_696],
            // notifier-count
            [19_884, 19_944, 3, 57, 0, 121, 118, 97_999_694],
            // hull-seq
            [19_884, 20_056, 9, 163, 0, 43, 3, 74_421_463],
            // interval-seq
            [19_884, 19_887, 3, 0, 0, 194, 176, 91_811_803],
            // interval-seq, per fault
            [19_884, 19_887, 3, 0, 0, 217, 199, 94_292_696],
            // collision-log
            [19_884, 19_893, 9, 0, 0, 39, 0, 72_038_452],
        ],
    ),
];

#[test]
fn the_shipped_traces_have_the_same_counts_everywhere() {
    let options = ReplayOptions::default();
    for ((name, trace), (expected_name, expected)) in shipped().unwrap().iter().zip(GOLDEN) {
        assert_eq!(name, expected_name);
        let replayed = replay(name, trace, &options, &mut |_| {});
        for (row, expected) in replayed.rows.iter().zip(expected) {
            assert_eq!(golden(&row.counts), expected, "{name}, {}: {:?}", row.variant, row.counts);
        }
    }
}

#[test]
fn the_counts_mean_something() {
    for (name, trace) in shipped().unwrap() {
        let options = ReplayOptions { variants: Variant::of(&[TrackerName::CollisionLog]), ..ReplayOptions::default() };
        let replayed = replay(&name, &trace, &options, &mut |_| {});
        let invalidated: usize = trace.events().iter().map(|event| event.operation.invalidates().len()).sum();
        let counts = replayed.rows[0].counts;
        assert_eq!(counts.invalidations, invalidated as u64, "{name}: every invalidation of the trace takes place");
        assert!(counts.served > 10_000 && counts.waits > 0 && counts.true_retries > 0, "{name}: {counts:?}");
        assert_eq!((counts.missed, counts.false_retries, counts.needless_waits, counts.conservative), (0, 0, 0, 0));
    }
}
