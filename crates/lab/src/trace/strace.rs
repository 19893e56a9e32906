//! Traces from logs of strace.
//!
//! # Guarantee
//! A line is turned into events, dropped and counted in the header, or an error that names it. A log of whatever bytes
//! neither panics nor takes more memory than a constant times its size.
//!
//! # Order
//! strace writes a call that was not interrupted as one line, and one that was as two: `<unfinished ...>` and
//! `<... resumed>`. What takes pages away counts from the first of them, what makes pages from the second, and a new task
//! from the first line of the call that makes it. So an address that one thread unmaps and another is given at once is
//! unmapped first, and nobody acts before he was made. Times are those of the lines; a clock that was set back stands still.
//!
//! # Who belongs where
//! With lines of clone, fork, vfork and execve it is known: a task made with `CLONE_VM` shares the address space of its
//! maker until it execs. strace puts no process number in front of the lines while it traces one task only; such lines are
//! those of the one that is alive.
//!
//! A task that nobody is seen to make is guessed: if the first thing it does is `brk(NULL)`, with which the loader of every
//! program begins, it has a new address space; else it shares that of the task which acted last before it, if that is
//! alive, which is most often its maker. It is taken for a thread and not for a forked child, because a child that does not
//! exec changes its memory little, and threads without lines of clone are the common case (`-e trace=memory`). How many
//! were guessed is said in the header.
//!
//! # Checked by
//! `trace::strace::tests`, one test for each peculiarity of a log; `trace::tests::fuzz`.
//!
//! # Not covered
//! Which of two tasks is meant, where lines without numbers are followed by lines with numbers and nobody was seen to make
//! a task: the first number is taken for that of the one so far. Ranges that a call does not name: `PROT_GROWSDOWN`, stacks
//! that grow, what execve itself maps. Segments of shared memory whose shmget is not in the log have no known size. Logs of
//! a machine with another page size than they are read with.

mod call;
mod clock;
mod effect;
mod line;
mod tasks;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::BufRead;

use super::error::{Problem, TraceError};
use super::lines::Lines;
use super::{Header, Trace};
use call::Call;
use effect::{Effect, Segments, Translated};
use line::{Body, LogLine};
use tasks::Tasks;

/// The most bytes of a line of a log: far above what strace writes without a very large `-s`.
const LONGEST_LINE: usize = 1 << 20;

/// What a log does not say about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The program and its arguments; nothing, to take it from the first execve of the log.
    pub command: Option<String>,
    /// The page size of the machine, in bytes.
    pub page: u64,
    /// Its architecture.
    pub machine: String,
    /// Its kernel.
    pub kernel: String,
    /// strace and its version.
    pub tool: String,
}

impl Default for Origin {
    /// Nothing is known; pages have 4096 bytes.
    fn default() -> Self {
        let unknown = || "unknown".to_owned();
        Self { command: None, page: 4096, machine: unknown(), kernel: unknown(), tool: "strace".to_owned() }
    }
}

impl Trace {
    /// Makes a trace of a log that `strace -f -ttt` wrote; see `pagemirror import --help` for what to trace.
    ///
    /// # Errors
    /// With the number of the line that is not understood, and what to do.
    pub fn import(log: impl BufRead, origin: &Origin) -> Result<Self, TraceError> {
        super::header::check_page(origin.page).map_err(|problem| TraceError::at(1, b"", problem))?;
        let mut reader = LogReader::new(origin.page);
        let mut lines = Lines::new(log, LONGEST_LINE);
        while lines.advance()? {
            reader.line(&lines)?;
        }
        reader.finish(origin)
    }
}

/// What one task did, in the order in which it counts.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// The line from which it counts.
    order: u64,
    at_us: u64,
    pid: u32,
    effect: Effect,
}

/// The beginning of a call that another line ends.
#[derive(Debug)]
struct Begun {
    order: u64,
    at_us: u64,
    /// The call so far; only its name, where the rest does not matter.
    text: String,
}

/// Reads line by line, and keeps what matters.
#[derive(Debug)]
struct LogReader {
    page: u64,
    steps: Vec<Step>,
    dropped: BTreeMap<&'static str, u64>,
    begun: HashMap<u32, Begun>,
    /// Who is alive, as far as this log says it; for lines without a process number.
    alive: BTreeSet<u32>,
    /// Of each task that has ended, the line that said so: its maker's call may return later.
    ended: HashMap<u32, u64>,
    /// Whether a line had a process number, or told of another process: until then there is one task.
    several: bool,
    /// The first step of the unnamed task.
    unnamed_from: usize,
    segments: Segments,
    command: Option<String>,
    began_us: Option<u64>,
    /// The beginning of a line into which strace wrote a message of its own.
    held: String,
    /// The task that this message was about: the line was begun before it was there.
    attached: Option<u32>,
}

/// Stands for a task whose number the log does not say. No process has it.
const UNNAMED: u32 = 0;

impl LogReader {
    fn new(page: u64) -> Self {
        Self {
            page,
            steps: Vec::new(),
            dropped: BTreeMap::new(),
            begun: HashMap::new(),
            alive: BTreeSet::new(),
            ended: HashMap::new(),
            several: false,
            unnamed_from: 0,
            segments: Segments::default(),
            command: None,
            began_us: None,
            held: String::new(),
            attached: None,
        }
    }

    fn line(&mut self, lines: &Lines<impl BufRead>) -> Result<(), TraceError> {
        if !lines.is_whole() {
            // The log was cut, most likely because strace was killed: what is there still counts.
            self.drop_one("cut-line");
            return Ok(());
        }
        let text = lines.text()?;
        let mut joined = std::mem::take(&mut self.held);
        joined.push_str(text);
        if joined.len() > LONGEST_LINE {
            return Err(lines.error(Problem::TooLong(LONGEST_LINE)));
        }
        if let Some((before, child)) = line::interrupted_by_attach(&joined) {
            self.attached(child, before);
            return Ok(());
        }
        let understood = LogLine::parse(&joined).and_then(|line| match line {
            Some(line) => self.understood(&line, lines.number()),
            None => {
                self.drop_one("message");
                Ok(())
            }
        });
        self.alive.extend(self.attached.take());
        understood.map_err(|why| lines.error(Problem::Log(why)))
    }

    /// A new task is traced; strace says so behind the beginning of a line, or on a line of its own.
    fn attached(&mut self, child: u32, before: &str) {
        self.several = true;
        self.held = before.to_owned();
        self.alive.extend(self.attached.replace(child));
        if before.is_empty() {
            self.alive.extend(self.attached.take());
        }
    }

    fn understood(&mut self, line: &LogLine<'_>, number: u64) -> Result<(), String> {
        let pid = self.name(line)?;
        self.began_us.get_or_insert(line.at_us);
        let here = Begun { order: number, at_us: line.at_us, text: String::new() };
        match line.body {
            Body::Call(text) => self.call(pid, text, &here, &here),
            Body::Unfinished(text) => {
                let text = if effect::matters(call::name(text)) { text } else { call::name(text) };
                if self.begun.insert(pid, Begun { text: text.to_owned(), ..here }).is_some() {
                    self.drop_one("unfinished");
                }
                Ok(())
            }
            Body::Resumed(name, rest) => match self.begun.remove(&pid) {
                Some(begun) if call::name(&begun.text) == name => {
                    let whole =
                        if effect::matters(name) { format!("{}{rest}", begun.text) } else { begun.text.clone() };
                    self.call(pid, &whole, &begun, &here)
                }
                _ => {
                    self.drop_one("resumed-without-beginning");
                    Ok(())
                }
            },
            Body::Exited => {
                self.alive.remove(&pid);
                self.ended.insert(pid, number);
                self.push(pid, &here, Effect::Exited);
                Ok(())
            }
            Body::Superseded(by) => {
                // The task that execs takes the number of its leader, and its call is resumed under that.
                self.alive.remove(&by);
                match self.begun.remove(&by) {
                    Some(begun) => drop(self.begun.insert(pid, begun)),
                    None => drop(self.begun.remove(&pid)),
                }
                self.push(pid, &here, Effect::Superseded { by });
                Ok(())
            }
            Body::Signal => {
                self.drop_one("signal");
                Ok(())
            }
        }
    }

    fn call(&mut self, pid: u32, text: &str, begun: &Begun, ended: &Begun) -> Result<(), String> {
        if !effect::matters(call::name(text)) {
            self.drop_one("other-call");
            return Ok(());
        }
        let call = Call::parse(text)?;
        if call.name == "execve" && self.command.is_none() {
            self.command = call.args.get(1).map(|arguments| Header::text(arguments));
        }
        match effect::translate(&call, self.page, &mut self.segments)? {
            Translated::Effects(effects) => {
                for effect in effects {
                    if let Effect::Create { child, .. } = effect
                        && self.ended.get(&child).is_none_or(|ended| *ended < begun.order)
                    {
                        self.alive.insert(child);
                    }
                    self.push(pid, if effect.counts_from_its_beginning() { begun } else { ended }, effect);
                }
            }
            Translated::Dropped(kind) => self.drop_one(kind),
        }
        Ok(())
    }

    /// Whose line it is.
    fn name(&mut self, line: &LogLine<'_>) -> Result<u32, String> {
        if let Some(pid) = line.pid {
            if !self.alive.contains(&pid) && self.alive.contains(&UNNAMED) && self.is_the_unnamed(line) {
                self.rename_unnamed(pid);
            }
            self.several = true;
            self.alive.insert(pid);
            return Ok(pid);
        }
        if self.alive.is_empty() {
            self.unnamed_from = self.steps.len();
            self.alive.insert(UNNAMED);
        }
        match (self.alive.first(), self.alive.len()) {
            (Some(only), 1) => Ok(*only),
            // Without `-f`, children are made and never traced.
            (Some(&UNNAMED), _) if !self.several => Ok(UNNAMED),
            (_, tasks) => Err(format!(
                "the line does not say which of {tasks} processes it belongs to: save the log with `strace -f -o FILE`"
            )),
        }
    }

    /// Whether a number that was never seen is that of the task whose lines had none so far. Such a task can only go on
    /// with the call that it is in; whoever does something else meanwhile is somebody new.
    fn is_the_unnamed(&self, line: &LogLine<'_>) -> bool {
        match (self.begun.get(&UNNAMED), &line.body) {
            (None, _) | (Some(_), Body::Exited | Body::Superseded(_)) => true,
            (Some(begun), Body::Resumed(name, _)) => call::name(&begun.text) == *name,
            (Some(_), Body::Call(_) | Body::Unfinished(_) | Body::Signal) => false,
        }
    }

    fn rename_unnamed(&mut self, pid: u32) {
        self.alive.remove(&UNNAMED);
        if let Some(begun) = self.begun.remove(&UNNAMED) {
            self.begun.insert(pid, begun);
        }
        for step in self.steps.iter_mut().skip(self.unnamed_from).filter(|step| step.pid == UNNAMED) {
            step.pid = pid;
        }
        // Each step is gone through once, however often a log begins anew without numbers.
        self.unnamed_from = self.steps.len();
    }

    fn push(&mut self, pid: u32, from: &Begun, effect: Effect) {
        self.steps.push(Step { order: from.order, at_us: from.at_us, pid, effect });
    }

    fn drop_one(&mut self, kind: &'static str) {
        *self.dropped.entry(kind).or_default() += 1;
    }

    fn finish(mut self, origin: &Origin) -> Result<Trace, TraceError> {
        if !self.held.is_empty() {
            self.drop_one("cut-line");
        }
        if !self.begun.is_empty() {
            *self.dropped.entry("unfinished").or_default() += self.begun.len() as u64;
        }
        if self.steps.iter().any(|step| step.effect == Effect::Exited) {
            // Threads may still act after one of them has called exit_group: who has ended is said by lines of its own.
            self.steps.retain(|step| !matches!(step.effect, Effect::Leaves { .. }));
        }
        self.steps.sort_by_key(|step| step.order);
        let mut tasks = Tasks::new(origin.page, self.dropped);
        for step in &self.steps {
            tasks.step(step);
        }
        let attribution = Header::text(&tasks.attribution());
        let (events, dropped) = tasks.into_events();
        let command = origin.command.as_deref().or(self.command.as_deref()).unwrap_or_default();
        let header = Header {
            command: Header::text(command),
            page: origin.page,
            machine: Header::text(&origin.machine),
            kernel: Header::text(&origin.kernel),
            recorded: self.began_us.map_or_else(|| "unknown".to_owned(), clock::utc),
            tool: Header::text(&origin.tool),
            attribution,
            dropped: dropped.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect(),
        };
        Trace::new(header, events)
    }
}
