//! The traces in `traces/`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::round_trip::written;
use crate::trace::{Operation, Trace};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../traces")
}

/// Every shipped trace, by its file name.
pub(super) fn shipped() -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder()).unwrap().map(|file| file.unwrap().path());
    let traces = files.filter(|path| path.extension().is_some_and(|extension| extension == "trace"));
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    traces.map(|path| (name(&path), fs::read(&path).unwrap())).collect()
}

/// Events, address spaces and threads as the table of the README says them, by file name.
fn promised() -> BTreeMap<String, [usize; 3]> {
    let readme = fs::read_to_string(folder().join("README.md")).unwrap();
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(|cell| cell.trim().trim_end_matches('`'));
        let name = cells.next()?.to_owned();
        let mut figure = || cells.next()?.parse().ok();
        Some((name, [figure()?, figure()?, figure()?]))
    };
    readme.lines().filter_map(row).collect()
}

#[test]
fn every_trace_is_read_is_written_again_and_is_what_the_readme_says() {
    let mut found = BTreeMap::new();
    for (name, bytes) in shipped() {
        let trace = Trace::read(&bytes[..]).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(written(&trace) == bytes, "{name} is written otherwise");
        assert!(bytes.len() < 300_000, "{name} has {} bytes", bytes.len());
        found.insert(name, [trace.events().len(), trace.spaces(), trace.threads()]);
    }
    assert_eq!(found, promised());
    assert_eq!(found.len(), 3);
}

#[test]
fn every_trace_has_what_it_is_shipped_for() {
    for (name, bytes) in shipped() {
        let trace = Trace::read(&bytes[..]).unwrap();
        let count =
            |wanted: fn(&Operation) -> bool| trace.events().iter().filter(|event| wanted(&event.operation)).count();
        assert!(count(|operation| matches!(operation, Operation::Unmap(_))) > 0, "{name}");
        assert!(count(|operation| matches!(operation, Operation::Discard(..))) > 0, "{name}");
        assert!(count(|operation| matches!(operation, Operation::Thread(_))) > 0, "{name}");
        assert!(trace.header().attribution.starts_with("every task"), "{name}");
    }
}

#[test]
fn a_cut_is_noticed_wherever_it_is() {
    for (name, bytes) in shipped() {
        for cut in (0..bytes.len()).step_by(bytes.len() / 97) {
            let line = bytes[..cut].iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
            let error = Trace::read(&bytes[..cut]).expect_err(&name);
            assert_eq!(error.line(), line, "{name} cut at {cut}: {error}");
        }
    }
}

#[test]
fn a_changed_byte_is_noticed_in_its_line_or_the_last() {
    for (name, bytes) in shipped() {
        let last = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        for at in (0..bytes.len()).step_by(bytes.len() / 89) {
            let line = bytes[..at].iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            let error = Trace::read(&changed[..]).expect_err(&name);
            // A line that is still a right one may make a later one wrong: a range or thread that was not there.
            assert!((line..=last + 1).contains(&error.line()), "{name} changed at {at}: {error}");
        }
    }
}
