//! Memory that is refused, never cached, or not mapped by the program itself: files on disks, System V segments, stacks, the
//! heap behind the break.
#![expect(unsafe_code, reason = "maps and attaches memory by address")]

use std::fs::File;
use std::sync::Arc;

use pagemirror_io_uring::{CoherentRing, RingOptions};

use super::area::{Area, Change, Kind, REMAPS};
use super::support::{PAGE, Told, memfd, skipped};
use super::{PAGES, ordinary, ring, sized, written_as_seen};

/// What a test needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileSystem {
    Tmpfs,
    Other,
}

/// `TMPFS_MAGIC` of `linux/magic.h`.
const TMPFS: i64 = 0x0102_1994;

/// An open file without a name in `folder`, if that is on the file system that is asked for.
pub(crate) fn file_in(test: &str, folder: &str, wanted: FileSystem) -> Option<File> {
    let path = std::path::Path::new(folder).join(format!("pagemirror-{}-{test}", std::process::id()));
    let made = File::options().read(true).write(true).create_new(true).open(&path);
    let _ = std::fs::remove_file(&path);
    let file = match made {
        Ok(file) => file,
        Err(error) => {
            skipped(test, format_args!("no file can be made in {folder}: {error}"));
            return None;
        }
    };
    let magic = rustix::fs::fstatfs(&file).unwrap().f_type as i64;
    let found = if magic == TMPFS { FileSystem::Tmpfs } else { FileSystem::Other };
    if found != wanted {
        skipped(test, format_args!("{folder} is on {found:?}, and this needs {wanted:?}"));
        return None;
    }
    Some(file)
}

/// io_uring does not pin pages of a file that has to be told of writes. The transfer goes by address, and the reason is kept.
#[test]
fn a_shared_mapping_of_a_file_on_a_disk_is_refused() {
    let test = "odd::a_shared_mapping_of_a_file_on_a_disk_is_refused";
    let Some(mut ring) = ring(test) else { return };
    let Some(file) = file_in("shared-file", env!("CARGO_TARGET_TMPDIR"), FileSystem::Other) else { return };
    let mut area = ordinary(Kind::File { file: sized(file, PAGES * PAGE), shared: true });
    let out = memfd();
    let since = std::time::Instant::now();
    // While it is in doubt it is not even tried.
    while ring.last_refusal().is_none() {
        area.fill(since.elapsed().subsec_nanos() as u8);
        assert!(written_as_seen(&mut ring, &out, area.bytes()));
        assert!(since.elapsed() < super::PATIENCE, "never refused: {:?}", ring.stats());
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!((ring.stats().fixed, ring.registered()), (0, (0, 0)));
    let reason = ring.last_refusal().unwrap().to_string();
    assert!(reason.contains("shared file mapping"), "{reason}");
}

#[test]
fn a_shared_mapping_of_a_file_opened_read_only_is_refused() {
    let test = "odd::a_shared_mapping_of_a_file_opened_read_only_is_refused";
    let Some(mut ring) = ring(test) else { return };
    let file = sized(memfd(), PAGES * PAGE);
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&*file));
    let again = File::open(again).unwrap();
    // SAFETY: a new mapping, which is never unmapped.
    let at = unsafe {
        let fd = std::os::fd::AsRawFd::as_raw_fd(&again);
        libc::mmap(std::ptr::null_mut(), PAGES * PAGE, libc::PROT_READ, libc::MAP_SHARED, fd, 0)
    };
    assert!(at != libc::MAP_FAILED);
    // SAFETY: mapped above, for ever; the file is not written meanwhile.
    let bytes = unsafe { std::slice::from_raw_parts(at.cast::<u8>(), PAGES * PAGE) };
    assert!(written_as_seen(&mut ring, &memfd(), bytes));
    assert_eq!((ring.stats().fixed, ring.registered()), (0, (0, 0)));
    let reason = ring.last_refusal().unwrap().to_string();
    assert!(reason.contains("opened read-only; open the file read-write"), "{reason}");
}

/// shmdt takes a segment away and tells nobody, so a segment is served by address each time.
#[test]
fn a_system_v_segment_is_never_cached() {
    let test = "odd::a_system_v_segment_is_never_cached";
    let Some(mut ring) = ring(test) else { return };
    let file = memfd();
    let mut at = std::ptr::null();
    for round in 1..=200_u8 {
        let (bytes, here) = attach_new(at);
        bytes.fill(round);
        assert!(written_as_seen(&mut ring, &file, bytes), "round {round}: the old segment was sent");
        assert!(written_as_seen(&mut ring, &file, bytes), "round {round}: the old segment was sent");
        // SAFETY: attached above; the bytes are not looked at again.
        assert_eq!(unsafe { libc::shmdt(here) }, 0);
        at = here;
    }
    let stats = ring.stats();
    assert_eq!((stats.fixed, stats.by_address, ring.registered()), (0, 400, (0, 0)), "{stats:?}");
}

/// A new segment, at `at` unless that is null or taken.
fn attach_new(at: *const libc::c_void) -> (&'static mut [u8], *const libc::c_void) {
    // SAFETY: makes a segment.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, PAGES * PAGE, libc::IPC_CREAT | 0o600) };
    assert!(id >= 0, "shmget: {}", std::io::Error::last_os_error());
    // SAFETY: attaches where nothing is, or where the kernel likes.
    let mut here = unsafe { libc::shmat(id, at, 0) };
    if here as isize == -1 {
        // SAFETY: where the kernel likes.
        here = unsafe { libc::shmat(id, std::ptr::null(), 0) };
    }
    assert_ne!(here as isize, -1, "shmat: {}", std::io::Error::last_os_error());
    // SAFETY: the segment goes with its last attachment.
    unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
    // SAFETY: attached, and used by one caller until it detaches it.
    (unsafe { std::slice::from_raw_parts_mut(here.cast(), PAGES * PAGE) }, here)
}

/// Buffers on the stacks of threads that come and go: the C library keeps stacks, discards them, and gives them out again.
#[test]
fn the_stack() {
    let Some(mut ring) = ring("odd::the_stack") else { return };
    let file = memfd();
    let mut seen = std::collections::HashSet::new();
    let mut again = 0;
    for round in 0..300_u32 {
        let ring = &mut ring;
        let file = &file;
        let address = std::thread::scope(|scope| scope.spawn(move || on_this_stack(ring, file, round)).join().unwrap());
        again += u32::from(!seen.insert(address));
    }
    assert!(again > 100, "only {again} buffers were where another one had been");
    assert!(ring.stats().fixed > 0, "{:?}", ring.stats());
}

fn on_this_stack(ring: &mut CoherentRing, file: &File, round: u32) -> usize {
    let mut buffer = [0_u8; 4 * PAGE];
    buffer.chunks_exact_mut(4).for_each(|word| word.copy_from_slice(&round.to_le_bytes()));
    let buffer = std::hint::black_box(&buffer);
    for _ in 0..2 {
        assert!(written_as_seen(ring, file, buffer), "round {round}: stale");
    }
    buffer.as_ptr().addr()
}

/// The heap behind the break, given back and taken again. The allocator of this program is not asked meanwhile to move it: the
/// test is alone in its process.
#[test]
fn the_break() {
    let test = "odd::the_break";
    if std::env::var_os("PAGEMIRROR_TEST_CHILD").is_none() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env("PAGEMIRROR_TEST_CHILD", test)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        print!("{said}");
        assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stderr));
        return;
    }
    let Some(mut ring) = ring(test) else { return };
    let (file, len) = (memfd(), PAGES * PAGE);
    // SAFETY: asks where the break is.
    let top = unsafe { libc::sbrk(0) } as usize;
    let start = top.next_multiple_of(PAGE);
    for round in 1..=200_u8 {
        // SAFETY: takes memory behind the allocator's.
        assert_eq!(unsafe { libc::brk((start + len) as *mut _) }, 0);
        // SAFETY: taken just now; the allocator does not know of it.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, len) };
        bytes.fill(round);
        for _ in 0..2 {
            assert!(written_as_seen(&mut ring, &file, bytes), "round {round}: stale");
        }
        // SAFETY: gives back what was taken; nothing refers to it.
        assert_eq!(unsafe { libc::brk(start as *mut _) }, 0);
    }
    assert!(ring.stats().fixed > 300, "{:?}", ring.stats());
}

/// The same changes under a ring that nobody tells: each of them makes a registration stale, so each test of this program can
/// fail.
#[test]
fn control_untold_every_change_is_stale() {
    let test = "odd::control_untold_every_change_is_stale";
    if super::support::ring_or_skip(test).is_none() {
        return;
    }
    let shared = Kind::File { file: sized(memfd(), PAGES * PAGE), shared: true };
    let private = [Change::Discard, Change::DiscardLocked];
    let cases = REMAPS.iter().chain(&private).map(|change| (Kind::Anonymous, *change));
    let cases = cases.chain(REMAPS.iter().chain(&[Change::Remove]).map(|change| (shared.clone(), *change)));
    for (kind, change) in cases {
        // SAFETY: it breaks the promise on purpose, and only ever writes *from* the memory.
        let mut ring = unsafe { CoherentRing::over(Told::new(), RingOptions::default()) }.unwrap();
        let (file, mut area) = (memfd(), ordinary(kind));
        area.fill(1);
        assert!(written_as_seen(&mut ring, &file, area.bytes()));
        area.change(change).unwrap();
        area.fill(2);
        assert!(!written_as_seen(&mut ring, &file, area.bytes()), "{change:?} changed nothing");
    }
}

/// One file through two descriptors: it is known by its device and inode, not by what was opened.
#[test]
fn a_file_opened_twice_is_one_file() {
    let test = "odd::a_file_opened_twice_is_one_file";
    let Some(mut ring) = ring(test) else { return };
    let (out, file) = (memfd(), sized(memfd(), PAGES * PAGE));
    let again = File::options()
        .read(true)
        .write(true)
        .open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&*file)))
        .unwrap();
    let mut one = ordinary(Kind::File { file, shared: true });
    let mut other = Area::new(Kind::File { file: Arc::new(again), shared: true }, PAGES, PAGE).unwrap();
    assert!(written_as_seen(&mut ring, &out, other.bytes()));
    for round in 0..20 {
        one.fill(round);
        super::until_cached(&mut ring, &out, &one, test);
        other.change(Change::Remove).unwrap();
        assert!(one.bytes().iter().all(|byte| *byte == 0), "one file");
        one.fill(round + 1);
        assert!(written_as_seen(&mut ring, &out, one.bytes()), "round {round}: stale");
    }
}
