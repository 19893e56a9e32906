//! Traces of what real programs do to their address spaces.
//!
//! # Format
//! Text, one line each, `\n` at the end of every line. `docs/trace-format.md` has it in full.
//! ```text
//! pagemirror-trace 1
//! command sort big.txt
//! page 4096
//! machine x86_64
//! kernel Linux 6.12.1
//! recorded 2026-11-25T11:23:38Z
//! tool strace 6.1
//! attribution every task by its clone line
//! dropped advice=2 failed=1
//! events
//! 0 0 0 a
//! 412 0 0 m 7f21c4e00+2
//! 97 0 0 u 7f21c4e00
//! end 3 90d6b7f4a2c1e835
//! ```
//! An event is the time since the one before (us), the address space, the thread, a letter, and what the letter needs.
//! Ranges are pages in hex, `first+count`, where `+1` is left out.
//!
//! # Guarantee
//! What [`Trace::read`] accepts, [`Trace::write`] writes again byte for byte. A file that was cut, or in which any one byte
//! was changed, is refused. Reading allocates in proportion to the bytes that were read, never to a number in them, and
//! never panics.
//!
//! # States
//! Address spaces and threads are numbered as they come, without a gap. A thread that acts is alive and belongs to the
//! address space that the event names; both readers and [`Trace::new`] refuse anything else, so that a replay can index by
//! these numbers.
//!
//! # Checked by
//! `trace::tests`: round trips of random traces; cuts and changed bytes; the shipped traces; mutated files.

mod error;
mod event;
mod header;
mod lines;
mod population;
mod read;
pub mod strace;
#[cfg(test)]
mod tests;
mod write;

pub use error::{Problem, TraceError};
pub use event::{Access, Discard, Event, Invalidated, Operation, SpaceId, ThreadId};
pub use header::Header;

use std::fmt;

use population::Population;

/// The version of the format that is written, and the newest that is read.
pub const VERSION: u32 = 1;

/// The address spaces of a program and its children, from its start to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    header: Header,
    events: Vec<Event>,
    population: Population,
}

impl Trace {
    /// A trace of these events.
    ///
    /// # Errors
    /// When it could not be written and read again: an event of a thread that does not exist there, times that go
    /// backwards, ranges that are no multiples of the page size, header texts of more than one line. The line that is
    /// named is the one that the event would have.
    pub fn new(header: Header, events: Vec<Event>) -> Result<Self, TraceError> {
        header.check().map_err(|problem| TraceError::at(1, b"", problem))?;
        let mut population = Population::default();
        let mut before = 0;
        for (number, event) in events.iter().enumerate() {
            let checked = population.check(event, before, header.page);
            checked.map_err(|problem| {
                let text = write::event_line(event, before, header.page);
                TraceError::at(header::LINES + 1 + number as u64, text.as_bytes(), problem)
            })?;
            before = event.at_us;
        }
        Ok(Self { header, events, population })
    }

    /// Where the trace comes from.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Everything that happened, in order.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// How many address spaces there ever were; all their numbers are below this.
    #[must_use]
    pub fn spaces(&self) -> usize {
        self.population.spaces()
    }

    /// How many threads there ever were; all their numbers are below this.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.population.threads()
    }

    /// The time of the last event, in microseconds since the first.
    #[must_use]
    pub fn span_us(&self) -> u64 {
        match (self.events.first(), self.events.last()) {
            (Some(first), Some(last)) => last.at_us - first.at_us,
            _ => 0,
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "trace of {}: {} events", self.header.command, self.events.len())
    }
}
