//! The safe ring over the real source, while the process changes the memory under it. The file is the oracle: it must hold what
//! the processor sees.
#![expect(unsafe_code, reason = "a control run tells its ring nothing, which `over` forbids; a test forks")]

mod support;

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pagemirror_io_uring::{CoherentRing, Error, ErrorKind, RingOptions};
use support::{Memory, PAGE, Told, head, memfd, ring_or_skip, soon};

const LEN: usize = 16 * PAGE;
const ROUNDS: u32 = 1000;

/// One test at a time: they have one source, and each other's addresses would be in their way.
static ALONE: Mutex<()> = Mutex::new(());

fn ring(test: &str) -> Option<(MutexGuard<'static, ()>, CoherentRing)> {
    ring_or_skip(test)?;
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    match CoherentRing::open(RingOptions::default()) {
        Ok(ring) => Some((alone, ring)),
        Err(error @ Error::Source { .. }) => {
            support::skipped(test, &error);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn stamp(memory: &mut Memory, round: u32) {
    memory.bytes_mut().chunks_exact_mut(4).for_each(|word| word.copy_from_slice(&round.to_le_bytes()));
}

/// Whether a write of the whole memory put its own bytes into the file.
fn written_as_seen(ring: &mut CoherentRing, file: &File, memory: &Memory) -> bool {
    assert_eq!(ring.write_at(file.as_fd(), memory.bytes(), 0, &soon()).unwrap(), LEN);
    head(file, LEN) == memory.bytes()
}

/// Runs the rounds, and says how many writes were made from an address that had other pages before, and how many of these
/// were stale.
fn churn(ring: &mut CoherentRing, mut change: impl FnMut(Memory) -> Memory) -> (u32, u32) {
    let (file, mut memory) = (memfd(), Memory::new(LEN));
    let (mut again, mut stale) = (0, 0);
    for round in 1..=ROUNDS {
        stamp(&mut memory, round);
        stale += u32::from(!written_as_seen(ring, &file, &memory));
        let before = memory.address();
        memory = change(memory);
        again += u32::from(memory.address() == before && round < ROUNDS);
    }
    (again, stale)
}

#[test]
fn unmapped_and_mapped_again() {
    let Some((_alone, mut ring)) = ring("unmapped_and_mapped_again") else { return };
    let (again, stale) = churn(&mut ring, Memory::remap);
    let (stats, cache) = (ring.stats(), ring.stats().cache);
    println!("{stats:?}");
    assert!(again > ROUNDS / 2, "{again} rounds at the same address");
    assert_eq!((stale, stats.by_address, cache.false_retries), (0, cache.one_shots_in_doubt, 0), "{stats:?}");
    // What another test has discarded at these addresses is not registered at all.
    assert!(cache.invalidations.revoked + cache.one_shots_in_doubt >= u64::from(again), "{stats:?}");
}

/// What the same rounds do to registrations that nobody takes back. It shows that the test above can fail.
#[test]
fn control_untold_registrations_are_stale() {
    if ring_or_skip("control_untold_registrations_are_stale").is_none() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: it breaks the promise on purpose, and only ever writes *from* the memory.
    let mut ring = unsafe { CoherentRing::over(Told::new(), RingOptions::default()) }.unwrap();
    let (again, stale) = churn(&mut ring, Memory::remap);
    println!("{stale} of {again} stale");
    assert!(stale > ROUNDS / 2 && stale >= again, "{stale} of {again}");
}

#[test]
fn discarded_and_rewritten() {
    let Some((_alone, mut ring)) = ring("discarded_and_rewritten") else { return };
    let discard = |memory: Memory| {
        memory.discard();
        memory
    };
    assert_eq!(churn(&mut ring, discard), (ROUNDS - 1, 0));
    assert!(ring.stats().by_address > 0, "an address in doubt is not registered: {:?}", ring.stats());
    println!("{:?}", ring.stats());
}

#[test]
fn moved_away() {
    let Some((_alone, mut ring)) = ring("moved_away") else { return };
    let file = memfd();
    let mut memory = Memory::new(LEN);
    for round in 1..=ROUNDS {
        stamp(&mut memory, round);
        assert!(written_as_seen(&mut ring, &file, &memory));
        let mut moved = memory.move_away();
        stamp(&mut memory, !round);
        assert!(written_as_seen(&mut ring, &file, &memory), "the address has other pages now");
        assert!(written_as_seen(&mut ring, &file, &moved), "the pages have another address now");
        // What is read to the old address stays away from the pages that were moved.
        ring.read_at(file.as_fd(), memory.bytes_mut(), 0, &soon()).unwrap();
        stamp(&mut moved, 7);
        assert!(memory.bytes().starts_with(&round.to_le_bytes()));
    }
}

#[test]
fn read_into_new_pages() {
    let Some((_alone, mut ring)) = ring("read_into_new_pages") else { return };
    let (file, mut memory) = (memfd(), Memory::new(LEN));
    for round in 1..=ROUNDS {
        let expected: Vec<u8> = round.to_le_bytes().repeat(LEN / 4);
        std::os::unix::fs::FileExt::write_all_at(&file, &expected, 0).unwrap();
        assert_eq!(ring.read_at(file.as_fd(), memory.bytes_mut(), 0, &soon()).unwrap(), LEN);
        assert!(memory.bytes() == expected, "round {round}");
        memory = memory.remap();
    }
}

/// Heap buffers as programs have them: allocated, grown, freed, while another thread does the same.
#[test]
fn ordinary_vectors_beside_another_thread() {
    let Some((_alone, mut ring)) = ring("ordinary_vectors_beside_another_thread") else { return };
    let stop = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&stop);
    let other = std::thread::spawn(move || {
        while !theirs.load(Ordering::Relaxed) {
            std::hint::black_box(vec![0xee_u8; 300_000]);
        }
    });
    let file = memfd();
    for round in 0..ROUNDS as usize {
        let mut buffer = vec![round as u8; 150_000 + (round % 7) * 40_000];
        ring.write_at(file.as_fd(), &buffer, 0, &soon()).unwrap();
        assert!(head(&file, buffer.len()) == buffer, "round {round}");
        // Growing moves large vectors by mremap.
        buffer.resize(buffer.len() * 2, !(round as u8));
        ring.write_at(file.as_fd(), &buffer, 0, &soon()).unwrap();
        assert!(head(&file, buffer.len()) == buffer, "round {round}, grown");
    }
    stop.store(true, Ordering::Relaxed);
    other.join().unwrap();
    println!("{:?}", ring.stats());
}

/// The child shares the ring with its parent, and must not touch it.
#[test]
fn a_forked_child_is_refused() {
    let Some((_alone, mut ring)) = ring("a_forked_child_is_refused") else { return };
    let (file, memory) = (memfd(), Memory::new(PAGE).filled(b'p'));
    ring.write_at(file.as_fd(), memory.bytes(), 0, &soon()).unwrap();
    // SAFETY: the child calls the ring, whose answer is what is tested, and ends without running anything of its parent's.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused =
            ring.write_at(file.as_fd(), b"child", 0, &soon()).is_err_and(|error| error.kind() == ErrorKind::Lost);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!refused)) };
    }
    let mut status = -1;
    // SAFETY: waits for the child that was made above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child was told that coherence is lost");
    ring.write_at(file.as_fd(), memory.bytes(), 0, &soon()).expect("the parent goes on");
    assert_eq!(head(&file, PAGE), memory.bytes());
}
