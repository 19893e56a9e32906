//! The hog: keeps a processor busy for some milliseconds, so that a thread which is set free there does not run at once.
//!
//! When the announcement of a discard has been read, its caller is free to go, and everything depends on what others do
//! before it takes the first page away. On a quiet machine it goes on at once, and from then on holds the kernel's lock
//! that every registration needs, until the discard is over. That a caller has to wait for its processor is nothing
//! unusual on a busy machine; the hog makes it usual.
//!
//! # States
//! [`AWAY`]; the discarding thread calls: [`CALLED`]; the hog is there and lets that thread run whenever it wants to:
//! [`READY`]; the thread is about to discard: [`GO`]. It sleeps in the kernel a moment later, the hog gets the processor,
//! keeps it, and goes away.
//!
//! # Unsafe code
//! Real-time scheduling keeps the processor for certain. It takes privilege; without it the hog does what it can.
#![expect(unsafe_code, reason = "rustix has no sched_setscheduler")]

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::cpus::{Pair, stay_on};
use super::rig::Rig;

/// How long it keeps the processor: enough for some registrations elsewhere, little enough for real-time throttling.
const STAY: Duration = Duration::from_millis(3);
/// How often it looks whether it was called.
const LOOK: Duration = Duration::from_micros(50);

const AWAY: u8 = 0;
const CALLED: u8 = 1;
const READY: u8 = 2;
const GO: u8 = 3;

/// Calls the hog.
#[derive(Debug)]
pub(crate) struct Hog {
    state: AtomicU8,
    cpus: Pair,
}

impl Hog {
    /// A hog for the second processor. Where there is only one it would keep everybody from running, and stays away.
    pub(crate) fn new(cpus: Pair) -> Self {
        Self { state: AtomicU8::new(AWAY), cpus }
    }

    /// Has the second processor kept busy as soon as the calling thread, which runs there, sleeps.
    pub(crate) fn call(&self, rig: &Rig) {
        if self.cpus.first == self.cpus.second {
            return;
        }
        // ORDERING: SeqCst here and below, for plainness: it steers the schedule and nothing else.
        self.state.store(CALLED, Ordering::SeqCst);
        while self.state.load(Ordering::SeqCst) == CALLED && rig.runs() {
            std::thread::yield_now();
        }
        self.state.store(GO, Ordering::SeqCst);
    }

    /// The hog's thread.
    pub(crate) fn run(&self, rig: &Rig) {
        stay_on(self.cpus.second);
        while rig.runs() {
            if self.state.load(Ordering::SeqCst) != CALLED {
                std::thread::sleep(LOOK);
                continue;
            }
            self.state.store(READY, Ordering::SeqCst);
            while self.state.load(Ordering::SeqCst) != GO && rig.runs() {
                std::thread::yield_now();
            }
            schedule(libc::SCHED_FIFO, 1);
            let since = Instant::now();
            while since.elapsed() < STAY {
                std::hint::spin_loop();
            }
            schedule(libc::SCHED_OTHER, 0);
            self.state.store(AWAY, Ordering::SeqCst);
        }
    }
}

/// How the calling thread is scheduled from now on, if it may.
fn schedule(policy: i32, priority: i32) {
    let parameter = libc::sched_param { sched_priority: priority };
    // SAFETY: the parameter is read during the call; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) };
}
