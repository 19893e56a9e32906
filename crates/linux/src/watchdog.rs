//! The watchdog: reads in the pump's place when the pump does not run, so that nobody stays blocked in munmap.
//!
//! # Steps
//! When there has been something to read and the pump has begun no turn for [`STUCK_LIMIT`], coherence is declared lost,
//! **then** the events are read, from here on always. Closing the descriptor would not do: it releases nobody while a
//! forked child holds a copy.
//!
//! The limit is counted in looks of this thread, so a process that was stopped is not taken for a stuck pump. Like the
//! pump, this thread never allocates.

use std::io;
use std::time::Duration;

use pagemirror_core::gate::LostCause;
use pagemirror_sync::Arc;
use pagemirror_sync::atomic::Ordering;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::pump::STUCK_LIMIT;
use crate::source::Userfault;
use crate::threads;

/// The time between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Looks in a row that find the pump standing still.
const STRIKES: u128 = STUCK_LIMIT.as_millis() / LOOK.as_millis();

/// Starts the watchdog.
pub(crate) fn start(source: &Arc<Userfault>) -> io::Result<()> {
    let source = Arc::clone(source);
    threads::spawn("pagemirror-dog", move || run(&source))
}

fn run(source: &Userfault) {
    let mut seen = 0;
    let mut strikes = 0;
    while strikes < STRIKES {
        std::thread::sleep(LOOK);
        let Some(readable) = readable(source) else { return };
        // ORDERING: Relaxed; compared with itself.
        let turns = source.turns.load(Ordering::Relaxed);
        strikes = if readable && turns == seen { strikes + 1 } else { 0 };
        seen = turns;
    }
    source.space.lose(LostCause::PumpStuck);
    let mut messages = [[0_u8; 32]; 16];
    while let Some(readable) = readable(source) {
        if readable {
            // What it says does not matter any more: everything is lost. Reading is what frees the callers.
            let _ = source.uffd.read_messages(&mut messages);
        } else {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Whether there is something to read; nothing once the descriptor is gone.
fn readable(source: &Userfault) -> Option<bool> {
    let mut ready = [PollFd::new(&source.uffd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut ready, Some(&now)).is_err() {
        return Some(false);
    }
    let events = ready[0].revents();
    if events.intersects(PollFlags::NVAL) { None } else { Some(events.contains(PollFlags::IN)) }
}
