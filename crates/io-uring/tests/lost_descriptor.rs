//! What happens when somebody takes the ring's descriptor away, as programs do that close every descriptor they do not know. A
//! request in flight is waited for all the same, because the kernel has the buffer; afterwards the ring says that it is
//! broken. Alone in its program, because it looks for the descriptor among all there are.
#![expect(unsafe_code, reason = "takes a descriptor away from its owner")]

mod support;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use pagemirror_io_uring::{CoherentRing, Error, ErrorKind, RingOptions};
use support::{Memory, PAGE, Told, memfd, ring_or_skip, soon};

/// The ring's own descriptor: made before its duplicate, so the first of the two.
fn descriptor() -> i32 {
    let is_ring = |fd: &i32| {
        std::fs::read_link(format!("/proc/self/fd/{fd}"))
            .is_ok_and(|name| name.to_string_lossy().contains("[io_uring]"))
    };
    (0..1024).find(is_ring).expect("the ring has a descriptor")
}

/// Puts another file where the ring's descriptor was.
fn take_away(fd: i32) {
    let other = File::open("/dev/null").unwrap();
    // SAFETY: exactly what the program that is acted out here does: it breaks the owner's trust, no memory.
    assert_eq!(unsafe { libc::dup2(other.as_raw_fd(), fd) }, fd);
}

#[test]
fn a_request_in_flight_outlives_the_descriptor() {
    if ring_or_skip("a_request_in_flight_outlives_the_descriptor").is_none() {
        return;
    }
    // SAFETY: the test changes no registered memory.
    let mut ring = unsafe { CoherentRing::over(Told::new(), RingOptions::default()) }.unwrap();
    let fd = descriptor();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let thief = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        take_away(fd);
        std::thread::sleep(Duration::from_millis(50));
        File::from(writer).write_all(b"late").unwrap();
    });
    let mut memory = Memory::new(PAGE).filled(b'.');
    let since = Instant::now();
    assert_eq!(ring.read_at(reader.as_fd(), memory.bytes_mut(), 0, &soon()).unwrap(), 4);
    assert!(since.elapsed() >= Duration::from_millis(90), "the request was waited for");
    assert!(memory.bytes().starts_with(b"late."));
    thief.join().unwrap();

    for _ in 0..2 {
        let error = ring.write_at(memfd().as_fd(), memory.bytes(), 0, &soon()).unwrap_err();
        assert!(matches!(error, Error::Broken { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Lost);
    }
}
