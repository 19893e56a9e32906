//! Lines of bounded length, numbered, with a running checksum.

use std::io::{BufRead, Read as _};

use super::error::{Problem, TraceError};

/// FNV-1a with 64 bits: each step is a bijection of the state, so a single changed byte always shows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checksum(u64);

impl Default for Checksum {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Checksum {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub(super) fn value(self) -> u64 {
        self.0
    }
}

/// A reader of lines.
#[derive(Debug)]
pub(super) struct Lines<R> {
    from: R,
    longest: usize,
    number: u64,
    line: Vec<u8>,
    /// Of every line before the one that was read last.
    before: Checksum,
}

impl<R: BufRead> Lines<R> {
    /// Reads lines of at most `longest` bytes.
    pub(super) fn new(from: R, longest: usize) -> Self {
        Self { from, longest, number: 0, line: Vec::new(), before: Checksum::default() }
    }

    /// The next line, or whether there is none. The newline is part of it, if it has one.
    pub(super) fn advance(&mut self) -> Result<bool, TraceError> {
        self.before.add(&self.line);
        self.line.clear();
        self.number += 1;
        let most = self.longest as u64 + 1;
        let read = (&mut self.from).take(most).read_until(b'\n', &mut self.line);
        read.map_err(|source| TraceError::Io { line: self.number, source })?;
        if self.content().len() > self.longest {
            return Err(self.error(Problem::TooLong(self.longest)));
        }
        Ok(!self.line.is_empty())
    }

    /// The line without its newline.
    pub(super) fn content(&self) -> &[u8] {
        self.line.strip_suffix(b"\n").unwrap_or(&self.line)
    }

    pub(super) fn text(&self) -> Result<&str, TraceError> {
        std::str::from_utf8(self.content()).map_err(|_| self.error(Problem::NotText))
    }

    /// Whether the line has its newline: the last one of a file that was cut has none.
    pub(super) fn is_whole(&self) -> bool {
        self.line.ends_with(b"\n")
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The checksum of every line before this one.
    pub(super) fn before(&self) -> u64 {
        self.before.value()
    }

    pub(super) fn error(&self, problem: Problem) -> TraceError {
        TraceError::at(self.number, self.content(), problem)
    }
}
