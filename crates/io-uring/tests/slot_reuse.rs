//! The kernel looks a slot up when it issues a request, not when the request was submitted. A write that waits behind a
//! pipe is attacked while it waits: its address gets new pages, its registration is invalidated, and others come and go.
//! It must still write the bytes of its own time, because its use was not given back.
#![expect(unsafe_code, reason = "the tests push requests themselves")]

mod support;

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use io_uring::{IoUring, opcode, squeue, types};
use pagemirror_core::wait::Deadline;
use pagemirror_io_uring::{FixedBuffers, FixedEntry};
use pagemirror_registration::{Access, ErrorKind, Options, OwnedUse, RegistrationCache};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use support::{Memory, PAGE, Told, head, memfd, ring_or_skip, soon};

const READ: u64 = 1;
const WRITE: u64 = 2;
const LEN: u32 = 16;

/// A write of 16 bytes of `memory` that waits for a byte of a pipe, with its use.
struct Waiting {
    ring: IoUring,
    source: Arc<Told>,
    cache: Arc<RegistrationCache<FixedBuffers>>,
    using: Option<OwnedUse<FixedBuffers>>,
    file: File,
    pipe: File,
    _reader: File,
    _byte: Box<u8>,
}

fn start(mut ring: IoUring, slots: u16, memory: &Memory) -> Waiting {
    let source = Told::new();
    let buffers = FixedBuffers::new(&ring, slots).unwrap();
    let cache = RegistrationCache::new(Arc::clone(&source) as _, buffers, Options::default()).unwrap();
    let (reader, pipe) = rustix::pipe::pipe().unwrap();
    let (reader, pipe, file) = (File::from(reader), File::from(pipe), memfd());
    let mut byte = Box::new(0_u8);
    let lease = cache.get(memory.address(), memory.len(), Access::Read, &soon()).unwrap();
    let (using, ()) = cache
        .begin(&[&lease], &soon(), |registered| {
            let first = opcode::Read::new(types::Fd(reader.as_raw_fd()), &raw mut *byte, 1).build();
            let write = registered[0].write_fixed(file.as_fd(), memory.bytes().as_ptr(), LEN).unwrap();
            let linked = [first.flags(squeue::Flags::IO_LINK).user_data(READ), write.build().user_data(WRITE)];
            // SAFETY: the byte, the files and the registered pages stay until both have completed.
            unsafe { ring.submission().push_multiple(&linked) }.unwrap();
            assert_eq!(ring.submit().unwrap(), 2);
        })
        .unwrap();
    let using = using.into_owned();
    drop(lease);
    Waiting { ring, source, cache: Arc::new(cache), using: Some(using), file, pipe, _reader: reader, _byte: byte }
}

impl Waiting {
    /// Lets the write go, and says what came of it and what stands in the file.
    fn finish(&mut self) -> (i32, Vec<u8>) {
        self.pipe.write_all(b"x").unwrap();
        let mut results = [None; 2];
        while results.contains(&None) {
            self.ring.submit_and_wait(1).unwrap();
            for completion in self.ring.completion() {
                results[completion.user_data() as usize - 1] = Some(completion.result());
            }
        }
        (results[WRITE as usize - 1].unwrap(), head(&self.file, LEN as usize))
    }
}

#[test]
fn a_request_in_flight_keeps_its_slot_through_invalidation_and_eviction() {
    let Some(ring) = ring_or_skip("a_request_in_flight_keeps_its_slot_through_invalidation_and_eviction") else {
        return;
    };
    let memory = Memory::new(PAGE).filled(b'O');
    let mut waiting = start(ring, 3, &memory);

    let renewed = memory.remap().filled(b'N');
    waiting.source.invalidate_all();
    let others: Vec<_> = (0..4).map(|_| Memory::new(PAGE).filled(b'X')).collect();
    for _ in 0..50 {
        for memory in std::iter::once(&renewed).chain(&others) {
            let lease = waiting.cache.get(memory.address(), memory.len(), Access::Read, &soon()).unwrap();
            let (using, ()) = waiting.cache.begin(&[&lease], &soon(), |_| ()).unwrap();
            using.complete();
        }
    }
    assert!(waiting.cache.stats().evictions > 50, "{:?}", waiting.cache.stats());

    let (result, written) = waiting.finish();
    assert_eq!((result, written), (LEN as i32, vec![b'O'; LEN as usize]));
    waiting.using.take().unwrap().complete();
    let leases: Vec<_> = others[..3]
        .iter()
        .map(|memory| waiting.cache.get(memory.address(), memory.len(), Access::Read, &soon()).unwrap())
        .collect();
    assert_eq!(leases.len(), 3, "the slot was given back after the completion");
}

#[test]
fn the_only_slot_is_not_given_out_while_a_request_names_it() {
    let Some(ring) = ring_or_skip("the_only_slot_is_not_given_out_while_a_request_names_it") else { return };
    let memory = Memory::new(PAGE).filled(b'O');
    let mut waiting = start(ring, 1, &memory);
    let renewed = memory.remap().filled(b'N');
    waiting.source.invalidate_all();
    let short = Deadline::after(Duration::from_millis(50));
    let error = waiting.cache.get(renewed.address(), renewed.len(), Access::Read, &short).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Busy | ErrorKind::Refused), "{error}");
    assert_eq!(waiting.finish(), (LEN as i32, vec![b'O'; LEN as usize]));
}

/// What happens without the rule: the same attack on a use that was given back too early. If this ever passes as the tests
/// above do, they prove nothing.
#[test]
fn control_a_use_that_is_given_back_early_loses_its_slot() {
    // Another test may be faster at the address; then the attack is made again.
    for _ in 0..20 {
        let Some(ring) = ring_or_skip("control_a_use_that_is_given_back_early_loses_its_slot") else { return };
        let memory = Memory::new(PAGE).filled(b'O');
        let address = memory.address();
        let mut waiting = start(ring, 1, &memory);
        waiting.using.take().unwrap().complete();
        let renewed = memory.remap().filled(b'N');
        waiting.source.invalidate_all();
        let cache = Arc::clone(&waiting.cache);
        let _lease = cache.get(renewed.address(), renewed.len(), Access::Read, &soon()).unwrap();
        let outcome = waiting.finish();
        if renewed.address() == address {
            assert_eq!(outcome, (LEN as i32, vec![b'N'; LEN as usize]), "the other registration's bytes");
            return;
        }
        assert_eq!(outcome, (-libc::EFAULT, vec![]), "the slot holds another address");
    }
    panic!("never at the same address");
}

#[test]
fn control_with_slots_to_spare_it_finds_an_empty_one() {
    let Some(ring) = ring_or_skip("control_with_slots_to_spare_it_finds_an_empty_one") else { return };
    let memory = Memory::new(PAGE).filled(b'O');
    let mut waiting = start(ring, 4, &memory);
    waiting.using.take().unwrap().complete();
    let renewed = memory.remap().filled(b'N');
    waiting.source.invalidate_all();
    let cache = Arc::clone(&waiting.cache);
    let _lease = cache.get(renewed.address(), renewed.len(), Access::Read, &soon()).unwrap();
    while waiting.cache.registrar().filled().0 > 1 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(waiting.finish(), (-libc::EFAULT, vec![]), "an empty slot, thanks to the order of the free list");
}
