//! Tasks and their address spaces, as a log tells of them.

use std::collections::{BTreeMap, HashMap};

use pagemirror_core::addr::{PageRange, VirtAddr};

use super::Step;
use super::effect::Effect;
use crate::trace::event::{Event, Operation, SpaceId, ThreadId};

/// How many attached segments a forked child is known to have. A program attaches few; without a bound, the memory that
/// a log takes would grow with the square of its length.
const INHERITED_SEGMENTS: usize = 64;

/// A task that is alive.
#[derive(Debug, Clone, Copy)]
struct Task {
    thread: ThreadId,
    space: SpaceId,
    /// The number of its process: tasks of one process end when one of them execs.
    process: u32,
}

/// What is known of an address space.
#[derive(Debug, Default)]
struct Space {
    tasks: u32,
    heap_end: Option<u64>,
    /// Segments of shared memory, by where they are.
    segments: BTreeMap<u64, PageRange>,
}

/// Turns steps into events.
#[derive(Debug)]
pub(super) struct Tasks {
    page: u64,
    alive: HashMap<u32, Task>,
    spaces: Vec<Space>,
    threads: u32,
    processes: u32,
    events: Vec<Event>,
    dropped: BTreeMap<&'static str, u64>,
    guessed: u64,
    /// Who acted last.
    last: Option<u32>,
    /// The time of the first step, and of the one that is being taken since then.
    began_us: Option<u64>,
    now_us: u64,
}

impl Tasks {
    pub(super) fn new(page: u64, dropped: BTreeMap<&'static str, u64>) -> Self {
        Self {
            page,
            alive: HashMap::new(),
            spaces: Vec::new(),
            threads: 0,
            processes: 0,
            events: Vec::new(),
            dropped,
            guessed: 0,
            last: None,
            began_us: None,
            now_us: 0,
        }
    }

    /// How it is known who belongs where.
    pub(super) fn attribution(&self) -> String {
        match self.guessed {
            0 => "every task by the line that made it".to_owned(),
            guessed => format!(
                "{guessed} of {} tasks by guess: a new address space if the first call is brk(NULL), else that of the \
                 task which acted before",
                self.threads
            ),
        }
    }

    pub(super) fn into_events(self) -> (Vec<Event>, BTreeMap<&'static str, u64>) {
        (self.events, self.dropped)
    }

    pub(super) fn step(&mut self, step: &Step) {
        let began = *self.began_us.get_or_insert(step.at_us);
        self.now_us = self.now_us.max(step.at_us.saturating_sub(began));
        match step.effect {
            Effect::Exited => return self.exited(step.pid),
            Effect::Superseded { by } => return self.superseded(step.pid, by),
            _ => {}
        }
        let known = self.alive.get(&step.pid).copied();
        let task = known.unwrap_or_else(|| self.appear(step));
        self.last = Some(step.pid);
        match step.effect {
            Effect::Change(operation) => self.push(task, operation),
            Effect::Break { at, asked } => self.moved_break(task, at, asked),
            Effect::Attach { range, replaces } => self.attach(task, range, replaces),
            Effect::Detach(at) => match self.space(task).segments.remove(&at) {
                Some(range) => self.push(task, Operation::Unmap(range)),
                None => self.drop_one("shmdt-of-unknown-size"),
            },
            // Only where numbers of another namespace are mixed in.
            Effect::Create { child, .. } if child == step.pid => self.drop_one("child-of-its-own-number"),
            Effect::Create { child, shares_memory, same_process } => {
                self.create(task, child, shares_memory, same_process);
            }
            // A task that is first seen as it execs has an address space that is new anyway.
            Effect::Exec if known.is_some() => self.exec(step.pid, task),
            Effect::Exec | Effect::Exited | Effect::Superseded { .. } => {}
            Effect::Leaves { process } => {
                if process {
                    self.end_others(task);
                }
                self.exited(step.pid);
            }
        }
    }

    fn push(&mut self, task: Task, operation: Operation) {
        self.events.push(Event { at_us: self.now_us, space: task.space, thread: task.thread, operation });
    }

    fn drop_one(&mut self, kind: &'static str) {
        *self.dropped.entry(kind).or_default() += 1;
    }

    fn space(&mut self, task: Task) -> &mut Space {
        &mut self.spaces[task.space.0 as usize]
    }

    fn new_space(&mut self) -> SpaceId {
        self.spaces.push(Space::default());
        SpaceId(self.spaces.len() as u32 - 1)
    }

    fn new_process(&mut self) -> u32 {
        self.processes += 1;
        self.processes
    }

    /// A new thread in `space`, known by `pid`.
    fn enter(&mut self, pid: u32, space: SpaceId, process: u32) -> Task {
        let task = Task { thread: ThreadId(self.threads), space, process };
        self.threads += 1;
        self.spaces[space.0 as usize].tasks += 1;
        self.alive.insert(pid, task);
        task
    }

    /// A task that nobody was seen to make: the first of all, or one that is guessed at.
    fn appear(&mut self, step: &Step) -> Task {
        let loads = matches!(step.effect, Effect::Break { asked: true, .. } | Effect::Exec);
        let before = self.last.and_then(|pid| self.alive.get(&pid)).copied();
        self.guessed += u64::from(self.threads > 0);
        let (space, process) = match before.filter(|_| !loads) {
            Some(before) => (before.space, before.process),
            None => (self.new_space(), self.new_process()),
        };
        let task = self.enter(step.pid, space, process);
        self.push(task, Operation::Appear);
        task
    }

    fn create(&mut self, maker: Task, child: u32, shares_memory: bool, same_process: bool) {
        // An older task of this number has ended without a line about it.
        self.exited(child);
        let process = if same_process { maker.process } else { self.new_process() };
        if shares_memory {
            let made = self.enter(child, maker.space, process);
            return self.push(maker, Operation::Thread(made.thread));
        }
        let space = self.new_space();
        let parent = self.space(maker);
        let heap_end = parent.heap_end;
        let segments = parent.segments.iter().take(INHERITED_SEGMENTS).map(|(at, range)| (*at, *range)).collect();
        self.spaces[space.0 as usize] = Space { tasks: 0, heap_end, segments };
        let made = self.enter(child, space, process);
        self.push(maker, Operation::Fork { space, thread: made.thread });
    }

    fn exec(&mut self, pid: u32, task: Task) {
        self.end_others(task);
        let into = self.new_space();
        let last = self.leave(task);
        self.spaces[into.0 as usize].tasks = 1;
        self.alive.insert(pid, Task { space: into, ..task });
        self.push(task, Operation::Exec { into, last });
    }

    /// All other tasks of the process end.
    fn end_others(&mut self, task: Task) {
        let mut others: Vec<(ThreadId, u32)> = self
            .alive
            .iter()
            .filter(|(_, other)| other.process == task.process && other.thread != task.thread)
            .map(|(pid, other)| (other.thread, *pid))
            .collect();
        others.sort_unstable();
        for (_, pid) in others {
            self.exited(pid);
        }
    }

    /// The task ends, if there is one of this number.
    fn exited(&mut self, pid: u32) {
        if let Some(task) = self.alive.remove(&pid) {
            let last = self.leave(task);
            self.push(task, Operation::Exit { last });
        }
    }

    /// Counts the task out of its address space; says whether that is empty now.
    fn leave(&mut self, task: Task) -> bool {
        let space = self.space(task);
        space.tasks -= 1;
        let last = space.tasks == 0;
        if last {
            space.segments = BTreeMap::new();
        }
        last
    }

    fn superseded(&mut self, leader: u32, by: u32) {
        if leader == by {
            return;
        }
        self.exited(leader);
        if let Some(task) = self.alive.remove(&by) {
            self.alive.insert(leader, task);
        }
    }

    fn attach(&mut self, task: Task, range: PageRange, replaces: bool) {
        self.space(task).segments.insert(range.start().get(), range);
        self.push(task, if replaces { Operation::Replace(range) } else { Operation::Map(range) });
    }

    fn moved_break(&mut self, task: Task, at: u64, asked: bool) {
        let before = self.space(task).heap_end.replace(at);
        let Some(before) = before else {
            if !asked {
                self.drop_one("brk-without-beginning");
            }
            return;
        };
        let (low, high) = (before.min(at), before.max(at));
        let whole = |address: u64| address.checked_next_multiple_of(self.page);
        let pages = whole(low)
            .zip(whole(high))
            .and_then(|(low, high)| PageRange::covering(VirtAddr::new(low), high.checked_sub(low)?, self.page).ok());
        match pages {
            Some(range) if at > before => self.push(task, Operation::Grow(range)),
            Some(range) => self.push(task, Operation::Shrink(range)),
            None => self.drop_one("brk-of-no-page"),
        }
    }
}
