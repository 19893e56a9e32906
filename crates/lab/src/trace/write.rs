//! Writing a trace.

use std::fmt::Write as _;
use std::io::{self, Write};

use pagemirror_core::addr::PageRange;

use super::event::{Access, Event, Operation};
use super::lines::Checksum;
use super::{Trace, VERSION};

/// What every trace begins with.
pub(super) const MAGIC: &str = "pagemirror-trace";
/// The line between the header and the events.
pub(super) const EVENTS: &str = "events";
/// What the last line begins with.
pub(super) const END: &str = "end";

impl Trace {
    /// Writes the trace. The writer should be buffered.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write(&self, to: impl Write) -> io::Result<()> {
        let mut to = Summing { to, sum: Checksum::default() };
        to.line(&format!("{MAGIC} {VERSION}"))?;
        for (key, value) in self.header.lines() {
            to.line(&header_line(key, &value))?;
        }
        to.line(EVENTS)?;
        let mut before = 0;
        for event in &self.events {
            to.line(&event_line(event, before, self.header.page))?;
            before = event.at_us;
        }
        let sum = to.sum.value();
        to.line(&end_line(self.events.len() as u64, sum))?;
        to.to.flush()
    }
}

struct Summing<W> {
    to: W,
    sum: Checksum,
}

impl<W: Write> Summing<W> {
    fn line(&mut self, text: &str) -> io::Result<()> {
        for part in [text, "\n"] {
            self.sum.add(part.as_bytes());
            self.to.write_all(part.as_bytes())?;
        }
        Ok(())
    }
}

pub(super) fn header_line(key: &str, value: &str) -> String {
    format!("{key} {value}")
}

pub(super) fn end_line(events: u64, checksum: u64) -> String {
    format!("{END} {events} {checksum:016x}")
}

/// The line of an event that follows one at `before`.
pub(super) fn event_line(event: &Event, before: u64, page: u64) -> String {
    let mut text = format!("{} {} {} ", event.at_us.saturating_sub(before), event.space, event.thread);
    // Writing to a String does not fail.
    let _ = write_operation(&mut text, &event.operation, page);
    text
}

fn write_operation(text: &mut String, operation: &Operation, page: u64) -> std::fmt::Result {
    let letter = letter(operation);
    let pages = |range: PageRange| pages(range, page);
    match *operation {
        Operation::Appear | Operation::Exit { .. } => write!(text, "{letter}"),
        Operation::Map(range)
        | Operation::Replace(range)
        | Operation::Unmap(range)
        | Operation::Grow(range)
        | Operation::Shrink(range) => write!(text, "{letter} {}", pages(range)),
        Operation::Remap { old, new, .. } => write!(text, "{letter} {} {}", pages(old), pages(new)),
        Operation::Protect(range, access) => write!(text, "{letter} {} {}", pages(range), rights(access)),
        Operation::Discard(range, kind) => write!(text, "{letter} {} {}", pages(range), kind.word()),
        Operation::Fork { space, thread } => write!(text, "{letter} {space} {thread}"),
        Operation::Thread(thread) => write!(text, "{letter} {thread}"),
        Operation::Exec { into, .. } => write!(text, "{letter} {into}"),
    }
}

fn letter(operation: &Operation) -> char {
    match *operation {
        Operation::Appear => 'a',
        Operation::Map(_) => 'm',
        Operation::Replace(_) => 'f',
        Operation::Unmap(_) => 'u',
        Operation::Remap { replaces: false, keeps_old: false, .. } => 'r',
        Operation::Remap { replaces: true, keeps_old: false, .. } => 'R',
        Operation::Remap { replaces: false, keeps_old: true, .. } => 'k',
        Operation::Remap { replaces: true, keeps_old: true, .. } => 'K',
        Operation::Grow(_) => 'g',
        Operation::Shrink(_) => 's',
        Operation::Protect(..) => 'p',
        Operation::Discard(..) => 'd',
        Operation::Fork { .. } => 'c',
        Operation::Thread(_) => 't',
        Operation::Exec { last: false, .. } => 'e',
        Operation::Exec { last: true, .. } => 'E',
        Operation::Exit { last: false } => 'x',
        Operation::Exit { last: true } => 'X',
    }
}

fn pages(range: PageRange, page: u64) -> String {
    let (first, count) = (range.start().get() / page, range.len() / page);
    if count == 1 { format!("{first:x}") } else { format!("{first:x}+{count:x}") }
}

fn rights(access: Access) -> String {
    let one = |allowed, letter| if allowed { letter } else { '-' };
    [one(access.read, 'r'), one(access.write, 'w'), one(access.execute, 'x')].iter().collect()
}
