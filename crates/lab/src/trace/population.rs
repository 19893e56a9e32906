//! Who exists: which thread belongs to which address space at each moment of a trace.

use super::error::Problem;
use super::event::{Event, Operation, SpaceId, ThreadId};

use pagemirror_core::addr::PageRange;

/// Address spaces and threads so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Population {
    /// Of each thread, where it is; nowhere when it has ended.
    threads: Vec<Option<SpaceId>>,
    /// Of each address space, how many threads it has.
    spaces: Vec<u32>,
}

impl Population {
    pub(super) fn spaces(&self) -> usize {
        self.spaces.len()
    }

    pub(super) fn threads(&self) -> usize {
        self.threads.len()
    }

    /// The number that the next address space has.
    pub(super) fn next_space(&self) -> SpaceId {
        SpaceId(self.spaces.len() as u32)
    }

    /// The number that the next thread has.
    pub(super) fn next_thread(&self) -> ThreadId {
        ThreadId(self.threads.len() as u32)
    }

    /// Whether nobody else is in this address space.
    pub(super) fn is_alone(&self, space: SpaceId) -> bool {
        self.spaces.get(space.0 as usize) == Some(&1)
    }

    /// Takes the event in, if it can happen after an event at `before`.
    pub(super) fn check(&mut self, event: &Event, before: u64, page: u64) -> Result<(), Problem> {
        if event.at_us < before {
            return Err(Problem::Population("the event lies before the one above it".to_owned()));
        }
        if event.operation.ranges().iter().flatten().any(|range| !is_aligned(*range, page)) {
            return Err(Problem::Population(format!("a range is not a multiple of the page size {page}")));
        }
        self.apply(event).map_err(Problem::Population)
    }

    fn apply(&mut self, event: &Event) -> Result<(), String> {
        let Event { space, thread, operation, .. } = *event;
        if operation == Operation::Appear {
            if space == self.next_space() {
                self.spaces.push(0);
            }
            return self.enter(space, thread);
        }
        if self.threads.get(thread.0 as usize).copied().flatten() != Some(space) {
            return Err(format!("there is no thread {thread} in address space {space} at this point"));
        }
        match operation {
            Operation::Fork { space, thread } => {
                self.create(space)?;
                self.enter(space, thread)
            }
            Operation::Thread(thread) => self.enter(space, thread),
            Operation::Exec { into, last } => {
                self.create(into)?;
                self.leave(space, thread, last)?;
                self.spaces[into.0 as usize] += 1;
                self.threads[thread.0 as usize] = Some(into);
                Ok(())
            }
            Operation::Exit { last } => self.leave(space, thread, last),
            Operation::Appear
            | Operation::Map(_)
            | Operation::Replace(_)
            | Operation::Unmap(_)
            | Operation::Remap { .. }
            | Operation::Grow(_)
            | Operation::Shrink(_)
            | Operation::Protect(..)
            | Operation::Discard(..) => Ok(()),
        }
    }

    fn create(&mut self, space: SpaceId) -> Result<(), String> {
        if space != self.next_space() {
            return Err(format!("the next new address space is {}, not {space}", self.next_space()));
        }
        self.spaces.push(0);
        Ok(())
    }

    fn enter(&mut self, space: SpaceId, thread: ThreadId) -> Result<(), String> {
        if thread != self.next_thread() {
            return Err(format!("the next new thread is {}, not {thread}", self.next_thread()));
        }
        let next = self.next_space();
        let inside = self.spaces.get_mut(space.0 as usize);
        *inside.ok_or_else(|| format!("there is no address space {space}; the next new one is {next}"))? += 1;
        self.threads.push(Some(space));
        Ok(())
    }

    fn leave(&mut self, space: SpaceId, thread: ThreadId, last: bool) -> Result<(), String> {
        if self.is_alone(space) != last {
            let is = if last { "is not" } else { "is" };
            return Err(format!("thread {thread} {is} the last one of address space {space}"));
        }
        self.spaces[space.0 as usize] -= 1;
        self.threads[thread.0 as usize] = None;
        Ok(())
    }
}

impl Operation {
    /// The ranges that the operation names.
    pub(super) fn ranges(&self) -> [Option<PageRange>; 2] {
        match *self {
            Self::Map(range)
            | Self::Replace(range)
            | Self::Unmap(range)
            | Self::Grow(range)
            | Self::Shrink(range)
            | Self::Protect(range, _)
            | Self::Discard(range, _) => [Some(range), None],
            Self::Remap { old, new, .. } => [Some(old), Some(new)],
            Self::Appear | Self::Fork { .. } | Self::Thread(_) | Self::Exec { .. } | Self::Exit { .. } => [None, None],
        }
    }
}

fn is_aligned(range: PageRange, page: u64) -> bool {
    range.start().get().is_multiple_of(page) && range.len().is_multiple_of(page)
}
