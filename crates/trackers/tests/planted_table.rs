//! The table of planted bugs says what is in the sources: no more, no less.
#![cfg(not(any(loom, shuttle)))]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use pagemirror_trackers::catalogue::TrackerName;
use pagemirror_trackers::planted::PLANTED;

/// Counts every name in `planted("...")` below `folder`.
fn planted_below(folder: &Path, found: &mut BTreeMap<String, usize>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            planted_below(&path, found);
        } else {
            let text = fs::read_to_string(&path).unwrap();
            for (at, call) in text.match_indices("planted(\"") {
                let name = text[at + call.len()..].split('"').next().unwrap();
                *found.entry(name.to_owned()).or_default() += 1;
            }
        }
    }
}

#[test]
fn the_table_names_what_is_planted_in_the_trackers() {
    let mut planted = BTreeMap::new();
    planted_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut planted);
    // Scenarios may plant bugs of their own; theirs begin with no tracker's name.
    let of_a_tracker = |name: &String| TrackerName::ALL.iter().any(|tracker| name.starts_with(tracker.text()));
    let planted: Vec<_> = planted.into_keys().filter(of_a_tracker).collect();
    let mut listed: Vec<_> = PLANTED.iter().map(|bug| bug.name.to_owned()).collect();
    listed.sort_unstable();
    assert_eq!(planted, listed);
}

#[test]
fn names_begin_with_their_tracker_and_each_tracker_has_enough() {
    for bug in PLANTED {
        let what = bug.name.strip_prefix(bug.tracker.text()).and_then(|rest| rest.strip_prefix('-'));
        let plain = |what: &str| !what.is_empty() && what.bytes().all(|byte| byte == b'-' || byte.is_ascii_lowercase());
        assert!(what.is_some_and(plain), "{}", bug.name);
        assert!(!bug.breaks.is_empty() && !bug.noticed.is_empty(), "{}", bug.name);
    }
    for tracker in TrackerName::ALL.into_iter().filter(|name| *name != TrackerName::CollisionLog) {
        let count = PLANTED.iter().filter(|bug| bug.tracker == tracker).count();
        assert!(count >= 5, "{tracker} has {count} planted bugs");
    }
}
