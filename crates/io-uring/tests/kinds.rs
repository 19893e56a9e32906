//! Every kind of memory, registered, changed by each operation that applies, and registered anew: what io_uring writes to a file
//! is what the processor sees. What cannot be kept coherent is refused with its reason, or served without being cached.

mod support;

#[path = "kinds/area.rs"]
mod area;
#[path = "kinds/huge.rs"]
mod huge;
#[path = "kinds/odd.rs"]
mod odd;

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use area::{Area, Change, Kind, REMAPS};
use pagemirror_io_uring::{CoherentRing, Error, RingOptions};
use support::{PAGE, head, memfd, ring_or_skip, skipped, soon};

/// How long a doubt may last before a test calls it endless: until every thread of the test program was seen to sleep.
const PATIENCE: Duration = Duration::from_secs(20);
/// The pages of an area of ordinary pages.
const PAGES: usize = 8;

pub(crate) fn ring(test: &str) -> Option<CoherentRing> {
    ring_or_skip(test)?;
    match CoherentRing::open(RingOptions::default()) {
        Ok(ring) => Some(ring),
        Err(error @ Error::Source { .. }) => {
            skipped(test, &error);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Whether a write of `bytes` put them into the file.
pub(crate) fn written_as_seen(ring: &mut CoherentRing, file: &File, bytes: &[u8]) -> bool {
    assert_eq!(ring.write_at(file.as_fd(), bytes, 0, &soon()).unwrap(), bytes.len());
    head(file, bytes.len()) == bytes
}

/// Writes until it went through a registration that is kept.
fn until_cached(ring: &mut CoherentRing, file: &File, area: &Area, what: &str) {
    let since = Instant::now();
    loop {
        let hits = ring.stats().cache.hits;
        for _ in 0..2 {
            assert!(written_as_seen(ring, file, area.bytes()), "{what}: stale before any change");
        }
        if ring.stats().cache.hits > hits {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "{what}: never cached: {:?} {:?}", ring.last_refusal(), ring.stats());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Has the area cached, changes it, and writes it again; each change twice.
pub(crate) fn survive(test: &str, mut area: Area, changes: &[Change]) {
    let Some(mut ring) = ring(test) else { return };
    let file = memfd();
    let mut round = 0;
    for change in changes.iter().chain(changes) {
        round += 2;
        area.fill(round);
        until_cached(&mut ring, &file, &area, &format!("{test}, before {change:?}"));
        if *change == Change::RemoveByAlias {
            remove_by_alias(&mut ring, &file, &area);
        } else {
            area.change(*change).unwrap_or_else(|error| panic!("{test}: {change:?}: {error}"));
        }
        assert!(written_as_seen(&mut ring, &file, area.bytes()), "{test}: stale after {change:?}, untouched");
        area.fill(round + 1);
        assert!(written_as_seen(&mut ring, &file, area.bytes()), "{test}: stale after {change:?}");
    }
    assert_eq!(ring.stats().cache.false_retries, 0);
}

fn remove_by_alias(ring: &mut CoherentRing, file: &File, area: &Area) {
    let mut alias = area.alias().unwrap();
    // Known to the source from its first use on, cached or not.
    assert!(written_as_seen(ring, file, alias.bytes()));
    alias.change(Change::Remove).unwrap();
}

fn all(more: &[Change]) -> Vec<Change> {
    [&REMAPS[..], more].concat()
}

fn ordinary(kind: Kind) -> Area {
    Area::new(kind, PAGES, PAGE).unwrap()
}

/// A file of zeros with room for every part of an area and one more.
pub(crate) fn sized(file: File, len: usize) -> Arc<File> {
    file.set_len(5 * len as u64).unwrap();
    Arc::new(file)
}

#[test]
fn anonymous_pages() {
    let area = ordinary(Kind::Anonymous);
    area.advise(libc::MADV_NOHUGEPAGE).unwrap();
    survive("anonymous_pages", area, &all(&[Change::Discard, Change::DiscardLocked]));
}

#[test]
fn shared_anonymous_pages() {
    let area = ordinary(Kind::SharedAnonymous);
    let changes = [Change::Unmap, Change::MapOver, Change::MoveAway, Change::MoveOnto];
    survive("shared_anonymous_pages", area, &[&changes[..], &[Change::Discard, Change::Remove]].concat());
}

#[test]
fn a_memfd() {
    let file = sized(memfd(), PAGES * PAGE);
    let area = ordinary(Kind::File { file, shared: true });
    survive("a_memfd", area, &all(&[Change::Discard, Change::Remove, Change::RemoveByAlias]));
}

#[test]
fn a_private_mapping_of_a_memfd() {
    let file = sized(memfd(), PAGES * PAGE);
    let area = ordinary(Kind::File { file, shared: false });
    survive("a_private_mapping_of_a_memfd", area, &all(&[Change::Discard]));
}

#[test]
fn a_file_of_tmpfs() {
    let test = "a_file_of_tmpfs";
    let Some(file) = odd::file_in(test, "/dev/shm", odd::FileSystem::Tmpfs) else { return };
    let area = ordinary(Kind::File { file: sized(file, PAGES * PAGE), shared: true });
    survive(test, area, &all(&[Change::Discard, Change::Remove, Change::RemoveByAlias]));
}

#[test]
fn a_private_mapping_of_a_file_on_a_disk() {
    let test = "a_private_mapping_of_a_file_on_a_disk";
    let Some(file) = odd::file_in(test, env!("CARGO_TARGET_TMPDIR"), odd::FileSystem::Other) else { return };
    let area = ordinary(Kind::File { file: sized(file, PAGES * PAGE), shared: false });
    survive(test, area, &all(&[Change::Discard]));
}
