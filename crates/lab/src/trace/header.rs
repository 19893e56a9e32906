//! Where a trace comes from.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use pagemirror_core::addr::MIN_PAGE;

use super::error::Problem;
use super::write::header_line;

/// How many lines there are before the first event, the magic and `events` among them.
pub(super) const LINES: u64 = 10;

/// The most bytes of a text in the header.
const LONGEST: usize = 1000;

/// Page sizes up to this are real: 64 KiB is the largest base page of any machine that Linux runs on, with room.
const LARGEST_PAGE: u64 = 1 << 24;

/// The lines in front of the events. Each text is one line; [`Header::text`] makes one of anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The program and its arguments.
    pub command: String,
    /// The page size, in bytes.
    pub page: u64,
    /// The machine's architecture, as `uname -m` says it.
    pub machine: String,
    /// The kernel's name and release.
    pub kernel: String,
    /// When, in UTC, or that nobody knows.
    pub recorded: String,
    /// What wrote down the calls.
    pub tool: String,
    /// How it is known which thread belongs to which address space.
    pub attribution: String,
    /// What was seen and is not among the events: how many of each kind.
    pub dropped: BTreeMap<String, u64>,
}

impl Header {
    /// The text as one line of the header: control characters escaped, and cut where it is too long.
    #[must_use]
    pub fn text(from: &str) -> String {
        let mut text = String::new();
        for c in from.trim().chars() {
            if text.len() + c.len_utf8().max(10) > LONGEST {
                text.push_str(" ...");
                break;
            }
            if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
        }
        if text.trim().is_empty() { "unknown".to_owned() } else { text }
    }

    /// Whether it can be written so that it is read again as it is.
    pub(super) fn check(&self) -> Result<(), Problem> {
        let texts = [&self.command, &self.machine, &self.kernel, &self.recorded, &self.tool, &self.attribution];
        texts.into_iter().try_for_each(|text| check_text(text))?;
        check_page(self.page)?;
        if !self.dropped.iter().all(|(kind, count)| is_kind(kind) && *count > 0) || self.dropped_text().len() > LONGEST
        {
            return Err(Problem::Form { what: "this is no count of what was dropped", expected: DROPPED });
        }
        Ok(())
    }

    pub(super) fn dropped_line(&self) -> String {
        header_line("dropped", &self.dropped_text())
    }

    fn dropped_text(&self) -> String {
        let mut text = String::new();
        for (kind, count) in &self.dropped {
            let _ = write!(text, "{}{kind}={count}", if text.is_empty() { "" } else { " " });
        }
        if text.is_empty() { "nothing".to_owned() } else { text }
    }

    /// The lines between the magic and `events`: their first word, and the rest.
    pub(super) fn lines(&self) -> [(&'static str, String); 8] {
        [
            ("command", self.command.clone()),
            ("page", self.page.to_string()),
            ("machine", self.machine.clone()),
            ("kernel", self.kernel.clone()),
            ("recorded", self.recorded.clone()),
            ("tool", self.tool.clone()),
            ("attribution", self.attribution.clone()),
            ("dropped", self.dropped_text()),
        ]
    }
}

const PAGE: &str = "a power of two from 4096 to 16777216";
const DROPPED: &str = "`nothing`, or `kind=count` of each kind in alphabetical order, with kinds of a-z, 0-9, - and _";

pub(super) fn page(text: &str) -> Result<u64, Problem> {
    let page = text.parse().ok().filter(|page| is_page(*page));
    let page: u64 = page.ok_or(Problem::Form { what: "this is no page size", expected: PAGE })?;
    let written = page.to_string();
    if written == text { Ok(page) } else { Err(Problem::NotCanonical(header_line("page", &written))) }
}

pub(super) fn dropped(text: &str) -> Result<BTreeMap<String, u64>, Problem> {
    let wrong = Problem::Form { what: "this is no count of what was dropped", expected: DROPPED };
    if text == "nothing" {
        return Ok(BTreeMap::new());
    }
    let one = |pair: &str| {
        let (kind, count) = pair.split_once('=')?;
        Some((kind.to_owned(), count.parse().ok()?))
    };
    text.split(' ').map(one).collect::<Option<_>>().ok_or(wrong)
}

pub(super) fn check_page(page: u64) -> Result<(), Problem> {
    if is_page(page) { Ok(()) } else { Err(Problem::Form { what: "this is no page size", expected: PAGE }) }
}

pub(super) fn check_text(text: &str) -> Result<(), Problem> {
    let expected = "one line without control characters, not empty, of at most 1004 bytes";
    if is_text(text) { Ok(()) } else { Err(Problem::Form { what: "the text is none", expected }) }
}

fn is_page(page: u64) -> bool {
    page.is_power_of_two() && (MIN_PAGE..=LARGEST_PAGE).contains(&page)
}

fn is_text(text: &str) -> bool {
    // What `text` makes may be longer by its mark of a cut.
    !text.trim().is_empty() && text.trim() == text && text.len() <= LONGEST + 4 && !text.chars().any(char::is_control)
}

fn is_kind(kind: &str) -> bool {
    !kind.is_empty() && kind.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}
