//! The safe ring over a source that is told what happened: transfers, fallbacks, refusals.
#![expect(unsafe_code, reason = "the source of these tests is told every change, which is what `over` asks for")]

mod support;

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use pagemirror_core::gate::LostCause;
use pagemirror_core::source::Source;
use pagemirror_core::wait::Deadline;
use pagemirror_io_uring::{CoherentRing, Error, ErrorKind, RingOptions};
use support::{Memory, PAGE, Told, head, memfd, ring_or_skip, soon};

fn ring(test: &str, source: &Arc<Told>) -> Option<CoherentRing> {
    ring_or_skip(test)?;
    // SAFETY: the tests tell the source of every change of registered memory.
    Some(unsafe { CoherentRing::over(Arc::clone(source) as _, RingOptions::default()) }.unwrap())
}

#[test]
fn what_was_written_is_read_back() {
    let source = Told::new();
    let Some(mut ring) = ring("what_was_written_is_read_back", &source) else { return };
    let file = memfd();
    // Whole pages and parts of them, short enough for the submitting call to copy and long enough for a worker.
    for (offset, len) in [(0_u64, 1_usize), (7, 4096), (4095, 8194), (100_000, 300_000), (1 << 20, 3 << 20)] {
        let out: Vec<u8> = (0..len).map(|at| (at * 7 + len) as u8).collect();
        let mut back = vec![0; len + 5];
        assert_eq!(ring.write_at(file.as_fd(), &out, offset, &soon()).unwrap(), len);
        file.set_len(offset + len as u64).unwrap();
        assert_eq!(ring.read_at(file.as_fd(), &mut back, offset, &soon()).unwrap(), len, "a short read at the end");
        assert!(back[..len] == out[..] && back[len..] == [0; 5], "the bytes, and none behind them");
        assert_eq!(ring.read_at(file.as_fd(), &mut back, offset + len as u64, &soon()).unwrap(), 0);
    }
    let stats = ring.stats();
    assert_eq!((stats.fixed, stats.by_address), (15, 0), "{stats:?}");
}

#[test]
fn a_buffer_is_registered_once_for_both_ways() {
    let source = Told::new();
    let Some(mut ring) = ring("a_buffer_is_registered_once_for_both_ways", &source) else { return };
    let (file, mut memory) = (memfd(), Memory::new(4 * PAGE).filled(b'a'));
    for round in 0..100_u64 {
        ring.write_at(file.as_fd(), memory.bytes(), round, &soon()).unwrap();
        ring.read_at(file.as_fd(), memory.bytes_mut(), round, &soon()).unwrap();
    }
    let stats = ring.stats();
    assert_eq!((stats.cache.misses, stats.cache.hits), (1, 199), "{stats:?}");
    assert_eq!(ring.registered(), (1, 4 * PAGE as u64));
}

#[test]
fn pipes_give_what_they_have() {
    let source = Told::new();
    let Some(mut ring) = ring("pipes_give_what_they_have", &source) else { return };
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let mut writer = File::from(writer);
    let mut buffer = vec![0; 64];
    writer.write_all(b"abc").unwrap();
    assert_eq!(ring.read_at(reader.as_fd(), &mut buffer, 0, &soon()).unwrap(), 3);
    // The transfer is waited for, whatever the deadline.
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        writer.write_all(b"later").unwrap();
    });
    let short = Deadline::after(Duration::from_millis(20));
    assert_eq!(ring.read_at(reader.as_fd(), &mut buffer, 0, &short).unwrap(), 5);
    later.join().unwrap();
    assert_eq!(&buffer[..5], b"later");
    assert_eq!(ring.read_at(reader.as_fd(), &mut buffer, 0, &soon()).unwrap(), 0, "the writer is gone");
}

/// As io_uring does for every file that can be polled.
#[test]
fn a_pipe_in_non_blocking_mode_is_waited_for() {
    let source = Told::new();
    let Some(mut ring) = ring("a_pipe_in_non_blocking_mode_is_waited_for", &source) else { return };
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        File::from(writer).write_all(b"later").unwrap();
    });
    assert_eq!(ring.read_at(reader.as_fd(), &mut [0; 16], 0, &soon()).unwrap(), 5);
    later.join().unwrap();
}

#[test]
fn the_files_errors_are_told() {
    let source = Told::new();
    let Some(mut ring) = ring("the_files_errors_are_told", &source) else { return };
    let directory = File::open("/").unwrap();
    let error = ring.read_at(directory.as_fd(), &mut [0; 16], 0, &soon()).unwrap_err();
    assert!(matches!(error, Error::Transfer { len: 16, .. }), "{error}");
    assert!(error.to_string().starts_with("a read of 16 bytes at 0x"), "{error}");
    let read_only = File::open("/proc/self/exe").unwrap();
    let error = ring.write_at(read_only.as_fd(), b"no", 0, &soon()).unwrap_err();
    assert_eq!(error.errno(), Some(libc::EBADF));
    assert_eq!(ring.write_at(read_only.as_fd(), b"", 0, &soon()).unwrap(), 0);
}

#[test]
fn what_cannot_be_registered_goes_by_address() {
    let source = Told::new();
    let Some(mut ring) = ring("what_cannot_be_registered_goes_by_address", &source) else { return };
    let (file, memory) = (memfd(), Memory::read_only(PAGE));
    assert_eq!(ring.write_at(file.as_fd(), memory.bytes(), 0, &soon()).unwrap(), PAGE);
    assert_eq!(head(&file, PAGE), vec![0; PAGE]);
    let stats = ring.stats();
    assert_eq!((stats.fixed, stats.by_address, stats.cache.register_failures), (0, 1, 1), "{stats:?}");
    let why = ring.last_refusal().expect("a reason").to_string();
    assert!(why.contains("writable"), "{why}");
}

#[test]
fn an_invalidation_takes_effect_between_two_writes() {
    let source = Told::new();
    let Some(mut ring) = ring("an_invalidation_takes_effect_between_two_writes", &source) else { return };
    let (file, mut memory) = (memfd(), Memory::new(PAGE).filled(0));
    for round in 1..=100_u8 {
        memory = memory.remap().filled(round);
        source.invalidate_all();
        ring.write_at(file.as_fd(), memory.bytes(), 0, &soon()).unwrap();
        assert_eq!(head(&file, PAGE), vec![round; PAGE]);
    }
    assert!(ring.stats().cache.invalidations.revoked >= 99);
}

#[test]
fn lost_coherence_is_an_error_and_nothing_is_written() {
    let source = Told::new();
    let Some(mut ring) = ring("lost_coherence_is_an_error_and_nothing_is_written", &source) else { return };
    let file = memfd();
    source.space().lose(LostCause::SourceClosed);
    let error = ring.write_at(file.as_fd(), b"stale?", 0, &soon()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
    assert_eq!(file.read_at(&mut [0; 8], 0).unwrap(), 0);
}

#[test]
fn a_signal_interrupts_no_transfer() {
    use std::sync::atomic::{AtomicBool, Ordering};
    static STOP: AtomicBool = AtomicBool::new(false);
    extern "C" fn nothing(_: libc::c_int) {}
    let source = Told::new();
    let Some(mut ring) = ring("a_signal_interrupts_no_transfer", &source) else { return };
    // SAFETY: a handler that does nothing, without SA_RESTART, so that waits are interrupted.
    let action = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        action
    };
    // SAFETY: the action is initialised.
    assert_eq!(unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) }, 0);
    // SAFETY: asks for the calling thread's own handle.
    let target = unsafe { libc::pthread_self() };
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let pest = std::thread::spawn(move || {
        for _ in 0..200 {
            // SAFETY: the target is the test's thread, which joins this one.
            unsafe { libc::pthread_kill(target, libc::SIGUSR1) };
            std::thread::sleep(Duration::from_micros(200));
        }
        STOP.store(true, Ordering::Relaxed);
        File::from(writer).write_all(b"done").unwrap();
    });
    let mut buffer = [0; 16];
    assert_eq!(ring.read_at(reader.as_fd(), &mut buffer, 0, &soon()).unwrap(), 4);
    assert!(STOP.load(Ordering::Relaxed) && buffer.starts_with(b"done"));
    pest.join().unwrap();
}
