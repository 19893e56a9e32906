//! What is wrong with a file, where, and what to do.

use std::io;

use thiserror::Error;

use super::VERSION;

/// The most characters of a line that a message shows.
const SHOWN: usize = 80;

/// Why a file is no trace, or no log to make one from.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TraceError {
    /// A line that is wrong.
    #[error("line {line}: {problem}{}", shown(.text))]
    Line {
        /// Its number; the first line is 1.
        line: u64,
        /// What it says, shortened, with everything that is not printable ASCII escaped.
        text: String,
        /// What is wrong with it.
        problem: Problem,
    },
    /// The file could not be read on.
    #[error("line {line} cannot be read: {source}; check the file and its disk")]
    Io {
        /// The line that was about to be read.
        line: u64,
        /// The system's reason.
        source: io::Error,
    },
}

impl TraceError {
    pub(super) fn at(line: u64, text: &[u8], problem: Problem) -> Self {
        Self::Line { line, text: shortened(text), problem }
    }

    /// The line that is wrong or could not be read.
    #[must_use]
    pub fn line(&self) -> u64 {
        match self {
            Self::Line { line, .. } | Self::Io { line, .. } => *line,
        }
    }
}

/// What is wrong with a line, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file begins with something else.
    #[error("this is not a pagemirror trace; to read a saved strace log use `pagemirror import`")]
    Foreign,
    /// The file is of a later version.
    #[error("this is a trace of version {0}, and this program reads up to {VERSION}: use a newer pagemirror")]
    Newer(u32),
    /// The file ends before its last line.
    #[error("the trace ends here without its `end` line: it was cut, copy or record it again")]
    Truncated,
    /// The file goes on behind its last line.
    #[error("the trace has ended in the line before: remove what follows")]
    Trailing,
    /// The number of events is another one.
    #[error("the trace says that it has {said} events, and has {found}: it is damaged, copy or record it again")]
    Count {
        /// The number in the last line.
        said: u64,
        /// The number of lines that were there.
        found: u64,
    },
    /// The checksum is another one.
    #[error("the checksum should be {found:016x}: a line was changed, copy or record the trace again")]
    Checksum {
        /// What the lines add up to.
        found: u64,
    },
    /// A header line is missing or is another one.
    #[error("expected the header line `{0} ...`: the trace is damaged, or was not written by pagemirror")]
    Header(&'static str),
    /// The line is longer than any line can be.
    #[error("the line is longer than {0} bytes: this is no file of that kind, or it is damaged")]
    TooLong(usize),
    /// The line is not text.
    #[error("the line is not UTF-8 text: the file is damaged, or is no text file")]
    NotText,
    /// The line ends as on another system.
    #[error("the line ends with a carriage return: convert the file to plain newlines, or copy it again as it was")]
    CarriageReturn,
    /// The line does not say what such a line says.
    #[error("{what}: expected {expected}")]
    Form {
        /// What is wrong.
        what: &'static str,
        /// What would be right.
        expected: &'static str,
    },
    /// The line says it in another form than pagemirror writes.
    #[error("this is not how pagemirror writes it, which would be `{0}`: edit nothing by hand")]
    NotCanonical(String),
    /// An event of somebody who does not exist there.
    #[error("{0}: the trace is damaged, or was edited")]
    Population(String),
    /// A line of a log that nobody understands.
    #[error("{0}")]
    Log(String),
}

/// The text, short enough for a message, with nothing in it that a terminal would obey.
fn shortened(text: &[u8]) -> String {
    let escaped = |byte: u8| match byte {
        b' '..=b'~' => char::from(byte).to_string(),
        _ => byte.escape_ascii().to_string(),
    };
    let mut short: String = text.iter().take(SHOWN).copied().map(escaped).collect();
    if text.len() > SHOWN {
        short.push_str("...");
    }
    short
}

fn shown(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("\n  {text}") }
}
