//! Reading a trace.

use std::io::BufRead;
use std::str::FromStr;

use pagemirror_core::addr::{PageRange, VirtAddr};

use super::error::{Problem, TraceError};
use super::event::{Access, Discard, Event, Operation, SpaceId, ThreadId};
use super::lines::Lines;
use super::population::Population;
use super::write::{END, EVENTS, MAGIC, end_line, event_line};
use super::{Header, Trace, VERSION, header};

/// The most bytes of a line: the longest text of the header, with room.
const LONGEST_LINE: usize = 2048;

impl Trace {
    /// Reads a trace.
    ///
    /// # Errors
    /// With the number of the line that is wrong, and what to do, when the file is none, of a later version, cut or
    /// changed, or cannot be read.
    pub fn read(from: impl BufRead) -> Result<Self, TraceError> {
        let mut lines = Lines::new(from, LONGEST_LINE);
        read_magic(&mut lines)?;
        let header = read_header(&mut lines)?;
        let mut events = Vec::new();
        let mut population = Population::default();
        let mut before = 0;
        loop {
            next(&mut lines)?;
            let text = lines.text()?;
            if text.starts_with(END) {
                break;
            }
            let event =
                read_event(text, before, header.page, &mut population).map_err(|problem| lines.error(problem))?;
            before = event.at_us;
            events.push(event);
        }
        read_end(&mut lines, events.len() as u64)?;
        Ok(Self { header, events, population })
    }
}

/// Goes to the next line, which must be there and whole.
fn next(lines: &mut Lines<impl BufRead>) -> Result<(), TraceError> {
    if !lines.advance()? || !lines.is_whole() {
        return Err(lines.error(Problem::Truncated));
    }
    if lines.content().ends_with(b"\r") {
        return Err(lines.error(Problem::CarriageReturn));
    }
    Ok(())
}

fn read_magic(lines: &mut Lines<impl BufRead>) -> Result<(), TraceError> {
    let foreign = |lines: &Lines<_>| lines.error(Problem::Foreign);
    match lines.advance() {
        Ok(_) => {}
        // A file of another kind may have no line end for long.
        Err(TraceError::Line { .. }) => return Err(foreign(lines)),
        Err(unreadable) => return Err(unreadable),
    }
    let version = lines.text().ok().and_then(|text| text.strip_prefix(MAGIC)?.strip_prefix(' '));
    let Some(version) = version else { return Err(foreign(lines)) };
    if !lines.is_whole() {
        return Err(lines.error(Problem::Truncated));
    }
    match version.trim_end_matches('\r').parse::<u32>() {
        Ok(newer) if newer > VERSION => Err(lines.error(Problem::Newer(newer))),
        _ if version.ends_with('\r') => Err(lines.error(Problem::CarriageReturn)),
        Ok(VERSION) if version == VERSION.to_string() => Ok(()),
        _ => Err(foreign(lines)),
    }
}

fn read_header(lines: &mut Lines<impl BufRead>) -> Result<Header, TraceError> {
    let header = Header {
        command: text_of(lines, "command")?,
        page: parsed(lines, "page", header::page)?,
        machine: text_of(lines, "machine")?,
        kernel: text_of(lines, "kernel")?,
        recorded: text_of(lines, "recorded")?,
        tool: text_of(lines, "tool")?,
        attribution: text_of(lines, "attribution")?,
        dropped: parsed(lines, "dropped", header::dropped)?,
    };
    // The order of the kinds, zeros in front of a number: anything that would be written in another way.
    let written = header.dropped_line();
    header.check().map_err(|problem| lines.error(problem))?;
    if lines.content() != written.as_bytes() {
        return Err(lines.error(Problem::NotCanonical(written)));
    }
    next(lines)?;
    if lines.content() != EVENTS.as_bytes() {
        return Err(lines.error(Problem::Header(EVENTS)));
    }
    Ok(header)
}

/// What follows `key` on the next line.
fn value<'l>(lines: &'l mut Lines<impl BufRead>, key: &'static str) -> Result<&'l str, TraceError> {
    next(lines)?;
    let value = lines.text()?.strip_prefix(key).and_then(|rest| rest.strip_prefix(' '));
    value.ok_or_else(|| lines.error(Problem::Header(key)))
}

fn text_of(lines: &mut Lines<impl BufRead>, key: &'static str) -> Result<String, TraceError> {
    let text = value(lines, key)?.to_owned();
    header::check_text(&text).map_err(|problem| lines.error(problem))?;
    Ok(text)
}

fn parsed<T>(
    lines: &mut Lines<impl BufRead>,
    key: &'static str,
    parse: fn(&str) -> Result<T, Problem>,
) -> Result<T, TraceError> {
    let parsed = parse(value(lines, key)?);
    parsed.map_err(|problem| lines.error(problem))
}

fn read_end(lines: &mut Lines<impl BufRead>, found: u64) -> Result<(), TraceError> {
    let sum = lines.before();
    let text = lines.text()?;
    if text != end_line(found, sum) {
        let mut words = text.split(' ');
        let said = words.nth(1).and_then(|said| said.parse().ok());
        let problem = match said {
            Some(said) if said != found => Problem::Count { said, found },
            _ => Problem::Checksum { found: sum },
        };
        return Err(lines.error(problem));
    }
    if lines.advance()? {
        return Err(lines.error(Problem::Trailing));
    }
    Ok(())
}

/// Reads the line of an event, and takes it in.
fn read_event(text: &str, before: u64, page: u64, population: &mut Population) -> Result<Event, Problem> {
    let event = parse_event(text, before, page)?;
    let written = event_line(&event, before, page);
    if written != text {
        return Err(Problem::NotCanonical(written));
    }
    population.check(&event, before, page)?;
    Ok(event)
}

fn parse_event(text: &str, before: u64, page: u64) -> Result<Event, Problem> {
    let mut words = Words { words: text.split(' '), page };
    let since: u64 = words.number("the time since the event before, in microseconds")?;
    let at_us = before.checked_add(since);
    let at_us = at_us.ok_or(Problem::Form { what: "the time runs over", expected: "a sum below 2^64 microseconds" })?;
    let space = SpaceId(words.number("the number of an address space")?);
    let thread = ThreadId(words.number("the number of a thread")?);
    let operation = words.operation()?;
    if words.words.next().is_some() {
        return Err(Problem::Form { what: "the line goes on", expected: "its end" });
    }
    Ok(Event { at_us, space, thread, operation })
}

/// The words of a line, taken one by one.
struct Words<'t> {
    words: std::str::Split<'t, char>,
    page: u64,
}

impl Words<'_> {
    fn operation(&mut self) -> Result<Operation, Problem> {
        let letter = self.words.next().unwrap_or_default();
        Ok(match letter {
            "a" => Operation::Appear,
            "m" => Operation::Map(self.pages()?),
            "f" => Operation::Replace(self.pages()?),
            "u" => Operation::Unmap(self.pages()?),
            "r" | "R" | "k" | "K" => Operation::Remap {
                old: self.pages()?,
                new: self.pages()?,
                replaces: matches!(letter, "R" | "K"),
                keeps_old: matches!(letter, "k" | "K"),
            },
            "g" => Operation::Grow(self.pages()?),
            "s" => Operation::Shrink(self.pages()?),
            "p" => Operation::Protect(self.pages()?, self.access()?),
            "d" => Operation::Discard(self.pages()?, self.discard()?),
            "c" => Operation::Fork {
                space: SpaceId(self.number("the number of the new address space")?),
                thread: ThreadId(self.number("the number of its thread")?),
            },
            "t" => Operation::Thread(ThreadId(self.number("the number of the new thread")?)),
            "e" | "E" => Operation::Exec {
                into: SpaceId(self.number("the number of the new address space")?),
                last: letter == "E",
            },
            "x" | "X" => Operation::Exit { last: letter == "X" },
            _ => {
                let expected = "one of a m f u r R k K g s p d c t e E x X in the fourth place";
                return Err(Problem::Form { what: "there is no such operation", expected });
            }
        })
    }

    fn number<T: FromStr>(&mut self, expected: &'static str) -> Result<T, Problem> {
        let number = self.words.next().and_then(|word| word.parse().ok());
        number.ok_or(Problem::Form { what: "a number is missing, wrong or too large", expected })
    }

    fn pages(&mut self) -> Result<PageRange, Problem> {
        let expected = "`first+count` in hex pages, inside the address space and not empty";
        let wrong = Problem::Form { what: "this is no range of pages", expected };
        let word = self.words.next().unwrap_or_default();
        let (first, count) = word.split_once('+').unwrap_or((word, "1"));
        let bytes = |pages: &str| u64::from_str_radix(pages, 16).ok()?.checked_mul(self.page);
        let (Some(start), Some(len)) = (bytes(first), bytes(count)) else { return Err(wrong) };
        PageRange::covering(VirtAddr::new(start), len, self.page).map_err(|_| wrong)
    }

    fn access(&mut self) -> Result<Access, Problem> {
        let expected = "three letters of `rwx`, with `-` for each that is not allowed";
        match self.words.next().unwrap_or_default().as_bytes() {
            [read, write, execute] => {
                Ok(Access { read: *read == b'r', write: *write == b'w', execute: *execute == b'x' })
            }
            _ => Err(Problem::Form { what: "these are no rights", expected }),
        }
    }

    fn discard(&mut self) -> Result<Discard, Problem> {
        let word = self.words.next().unwrap_or_default();
        let expected = "dontneed, dontneed-locked, free, remove or guard";
        let kind = Discard::ALL.into_iter().find(|kind| kind.word() == word);
        kind.ok_or(Problem::Form { what: "there is no such discard", expected })
    }
}
