//! Threads that io_uring makes in the process: they keep the proof waiting while they are at a request, whatever `/proc` says
//! they are in, and no longer.

use std::io;
use std::ptr;
use std::sync::mpsc;
use std::thread::JoinHandle;

use io_uring::{IoUring, opcode, squeue};
use pagemirror_linux::abi::Message;
use pagemirror_linux::tasks::{Progress, Sight, Threads};

use crate::discards::Watched;
use crate::{LOOKS, await_sight, await_that, file_of, named, prove_all_but, skipped, spawn, turn};

/// Runs `submit` on a thread with a ring of its own, which ends, and with it the ring's workers, when told to.
fn with_ring(submit: impl FnOnce(&mut IoUring) + Send + 'static) -> io::Result<(mpsc::Sender<()>, JoinHandle<()>)> {
    let ring = IoUring::new(8)?;
    let (end, told) = mpsc::channel();
    let (_, handle) = spawn(move || {
        let mut ring = ring;
        submit(&mut ring);
        let _ = told.recv();
    });
    Ok((end, handle))
}

fn submit(ring: &mut IoUring, entry: &squeue::Entry) {
    // SAFETY: what the entry points to lives until its test has seen the completion or ended the ring.
    unsafe { ring.submission().push(entry) }.unwrap();
    assert_eq!(ring.submit().unwrap(), 1);
}

/// It keeps the proof waiting until it is over: then its worker sleeps in its own loop, or ends with the ring.
#[test]
fn a_discard_by_io_uring_is_not_taken_for_another_call() {
    let _turn = turn();
    let threads = Threads::open().unwrap();
    let watched = Watched::private();
    let (start, len) = (watched.start, watched.len);
    let started = with_ring(move |ring| {
        let memory = ptr::with_exposed_provenance(start as usize);
        let discard = opcode::Madvise::new(memory, len as libc::off_t, libc::MADV_DONTNEED).build();
        submit(ring, &discard);
        ring.submit_and_wait(1).unwrap();
        assert_eq!(ring.completion().next().map(|entry| entry.result()), Some(0));
    });
    let (end, handle) = match started {
        Ok(started) => started,
        Err(error) => return skipped("a_discard_by_io_uring", format!("no io_uring here: {error}")),
    };
    await_that("a blocked worker", || named("iou-wrk").iter().any(|&n| file_of(n, "stat").contains(") D ")));
    let worker = named("iou-wrk")[0];
    println!("a worker blocked in a discard is shown in {}", file_of(worker, "syscall").trim());
    let mut proof = prove_all_but(&[]);
    for _ in 0..LOOKS {
        assert_eq!(threads.look(worker).unwrap(), Sight::KernelWorker);
        assert!(matches!(proof.advance().unwrap(), Progress::Waiting { unproven: 0, io_workers: 1.. }));
    }
    assert_eq!(watched.read_remove(), Message::Remove { start, end: start + len });
    drop(end);
    handle.join().unwrap();
    await_sight(&threads, worker, Sight::Gone);
    assert_eq!(proof.advance().unwrap(), Progress::Done);
}

/// The last worker of a ring stays as long as the ring, with nothing to do: asleep in its own loop it proves that it is in no
/// discard.
#[test]
fn an_idle_worker_of_io_uring_is_elsewhere() {
    let _turn = turn();
    let threads = Threads::open().unwrap();
    let started = with_ring(|ring| submit(ring, &opcode::Nop::new().build().flags(squeue::Flags::ASYNC)));
    let (end, handle) = match started {
        Ok(started) => started,
        Err(error) => return skipped("an_idle_worker_of_io_uring", format!("no io_uring here: {error}")),
    };
    await_that("a worker", || !named("iou-wrk").is_empty());
    let worker = named("iou-wrk")[0];
    await_that("the worker is idle", || file_of(worker, "wchan") != "0");
    if file_of(worker, "wchan") != "io_wq_worker" {
        skipped("an_idle_worker_of_io_uring", format!("this kernel says {:?}", file_of(worker, "wchan")));
    } else {
        await_sight(&threads, worker, Sight::Elsewhere);
        let mut proof = prove_all_but(&[]);
        assert_eq!(proof.advance().unwrap(), Progress::Done);
    }
    drop(end);
    handle.join().unwrap();
}
