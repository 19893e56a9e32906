//! The pump: the thread that reads events while their callers sleep in the kernel.
//!
//! # Guarantee
//! A caller of munmap, mremap, brk, mmap(MAP_FIXED) or madvise is released as soon as the pump has read its event, which
//! it does within [`SECTION_LIMIT`] whatever the uses do; if the pump itself is stuck, the watchdog reads within
//! [`STUCK_LIMIT`]. Coherence is declared lost *before* either reads early.
//!
//! # What it may not do
//! Allocate, free, log, or take a lock that another thread can hold while it changes memory: that thread would be waiting
//! for the pump. Signal handlers of the program never run here. `tests/pump_allocates_nothing.rs` aborts the process on
//! the first allocation of this thread. Its tables are touched in ordinary memory: nothing is ever protected or reported
//! missing, so touching watched memory never waits.

use std::io;
use std::time::Duration;

use pagemirror_core::addr::{MIN_PAGE, PageRange, VirtAddr};
use pagemirror_core::gate::LostCause;
use pagemirror_core::notify::Event;
use pagemirror_core::source::{Probe, Source};
use pagemirror_core::turn::{Batch, TurnOrder};
use pagemirror_sync::Arc;
use pagemirror_sync::atomic::Ordering;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::abi::Message;
use crate::source::{Userfault, shown};
use crate::stats::count;
use crate::threads;

/// How long a use may stay in its section before events are read beside it and coherence is declared lost. A section
/// lasts about one system call; a second is the time of a machine in deep trouble.
pub const SECTION_LIMIT: Duration = Duration::from_secs(1);

/// How long the pump may be stuck, with something to read, before the watchdog declares coherence lost and reads.
pub const STUCK_LIMIT: Duration = Duration::from_secs(2);

/// Messages of one read. All their callers are released by it.
const MESSAGES: usize = 16;

/// The pump looks around this often when nothing happens.
const IDLE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Starts the pump.
pub(crate) fn start(source: &Arc<Userfault>) -> io::Result<()> {
    let source = Arc::clone(source);
    threads::spawn("pagemirror-pump", move || run(&source))
}

fn run(source: &Userfault) {
    if let Some(cpu) = source.config.control.pump_cpu {
        let mut only = rustix::thread::CpuSet::new();
        only.set(cpu);
        // A control run asks for this; without it the run only shows less.
        let _ = rustix::thread::sched_setaffinity(None, &only);
    }
    let mut batch = Batch::default();
    let mut messages = [[0_u8; 32]; MESSAGES];
    let order = if source.config.control.read_before_gate { TurnOrder::ReadFirst } else { TurnOrder::GateFirst };
    let turns = SECTION_LIMIT.as_millis() as u32;
    // ORDERING: Release pairs with `pump_thread`.
    source.pump_thread.store(rustix::thread::gettid().as_raw_nonzero().get() as u64, Ordering::Release);
    while source.wait_readable() {
        // ORDERING: Relaxed; the watchdog only compares it with itself.
        source.turns.fetch_add(1, Ordering::Relaxed);
        source.hold_while_stalled();
        source.space.turn(order, &mut batch, turns, |batch| source.read(batch, &mut messages));
        if batch.events().iter().any(|(event, _)| *event == Event::Remove) {
            source.doubtful.wake();
        }
    }
}

impl Userfault {
    /// Sleeps until there is something to read. Says no when the descriptor is not ours any more: then coherence is lost.
    fn wait_readable(&self) -> bool {
        loop {
            let mut ready = [PollFd::new(&self.uffd, PollFlags::IN)];
            let found = poll(&mut ready, Some(&IDLE));
            let events = ready[0].revents();
            // Whatever poll says, the probe tells whether this number is still a userfaultfd of this process: a program
            // may close every descriptor and open others in their place.
            if matches!(self.probe(), Probe::Lost(_)) {
                return false;
            }
            match found {
                Ok(_) if events.contains(PollFlags::IN) => return true,
                Ok(_) if events.is_empty() => {}
                Err(Errno::INTR) => {}
                Ok(_) | Err(_) => {
                    self.space.lose(LostCause::SourceClosed);
                    return false;
                }
            }
        }
    }

    /// Reads one batch without waiting, and works out which ranges it stands for.
    fn read(&self, batch: &mut Batch, messages: &mut [[u8; 32]; MESSAGES]) {
        let count_read = match self.uffd.read_messages(messages) {
            Ok(count_read) => count_read,
            Err(error) if error.raw_os_error() == Some(Errno::AGAIN.raw_os_error()) => 0,
            Err(_) => {
                self.space.lose(LostCause::SourceClosed);
                0
            }
        };
        if count_read > 0 {
            count(&self.counters.turns);
        }
        for message in &messages[..count_read] {
            match Message::decode(message) {
                Message::Unmap { start, end } => self.push(batch, Event::Unmap, start, end.wrapping_sub(start)),
                Message::Remap { from, to, len } => {
                    self.follow(from, to, len);
                    self.push(batch, Event::Remap, from, len);
                    self.push(batch, Event::Remap, to, len);
                }
                Message::Remove { start, end } => self.push(batch, Event::Remove, start, end.wrapping_sub(start)),
                // Nothing is protected and no fork event was asked for. What comes all the same is not understood, and
                // might have been a change.
                _ => self.space.lose(LostCause::SourceClosed),
            }
        }
    }

    fn push(&self, batch: &mut Batch, event: Event, start: u64, len: u64) {
        // An event that is no range stands for everything.
        let range = PageRange::covering(VirtAddr::new(start), len, MIN_PAGE).unwrap_or(PageRange::ALL);
        match event {
            Event::Unmap => count(&self.counters.unmap),
            Event::Remap => count(&self.counters.remap),
            _ => count(&self.counters.remove),
        }
        if event == Event::Remove {
            self.push_remove(batch, range);
        } else {
            self.aliases.lock().drop_named(range);
            self.add(batch, event, range);
        }
    }

    /// Remembers where a mapping of a shared file has gone. Only where the kernel cannot be asked what it shows there.
    fn follow(&self, from: u64, to: u64, len: u64) {
        let range = |start| PageRange::covering(VirtAddr::new(start), len, MIN_PAGE);
        if !self.maps.can_query_without_allocating()
            && let (Ok(from), Ok(to)) = (range(from), range(to))
        {
            self.aliases.lock().moved(from, to);
        }
    }

    fn add(&self, batch: &mut Batch, event: Event, range: PageRange) {
        if !batch.push(event, range) {
            count(&self.counters.everything);
        }
    }

    /// A discard takes pages from every mapping of the same part of a file.
    fn push_remove(&self, batch: &mut Batch, range: PageRange) {
        let event = if self.config.control.ignore_doubt { Event::Unmap } else { Event::Remove };
        self.add(batch, event, range);
        let can_ask = self.maps.can_query_without_allocating();
        let mapped = if can_ask { self.maps.query(range.start().get(), false) } else { Ok(None) };
        let file =
            mapped.ok().flatten().filter(|vma| vma.shared).and_then(|vma| shown(range, &vma)).map(|(_, file)| file);
        let aliases = self.aliases.lock();
        let mut take = |other| {
            count(&self.counters.aliases);
            self.add(batch, event, other);
        };
        if !can_ask && aliases.for_each_if_forgetful(range, &mut take) {
            return;
        }
        let exact = aliases.for_each_alias(range, file, take);
        if exact.is_err() {
            count(&self.counters.everything);
            self.add(batch, event, PageRange::ALL);
        }
    }

    fn hold_while_stalled(&self) {
        // ORDERING: Acquire for form. Only tests set it.
        while self.stalled.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
