//! Files that are no traces, or no longer.

use std::io::{self, BufReader, Read};

use crate::trace::{Problem, Trace, TraceError};

const SMALL: &str = "pagemirror-trace 1\n\
    command x\n\
    page 4096\n\
    machine x86_64\n\
    kernel Linux 6.12.1\n\
    recorded unknown\n\
    tool none\n\
    attribution none\n\
    dropped nothing\n\
    events\n\
    0 0 0 a\n\
    10 0 0 m 7f000+2\n\
    3 0 0 u 7f000\n\
    end 3 ";

fn small() -> String {
    let wrong = Trace::read(format!("{SMALL}{:016x}\n", 0).as_bytes()).unwrap_err();
    let TraceError::Line { problem: Problem::Checksum { found }, .. } = wrong else { panic!("{wrong}") };
    format!("{SMALL}{found:016x}\n")
}

/// Line and message of the refusal.
fn refused(bytes: &[u8]) -> (u64, String) {
    let error = Trace::read(bytes).expect_err("refused");
    (error.line(), error.to_string())
}

#[test]
fn a_small_trace_is_read() {
    let trace = Trace::read(small().as_bytes()).unwrap();
    assert_eq!((trace.events().len(), trace.spaces(), trace.threads(), trace.span_us()), (3, 1, 1, 13));
}

#[test]
fn every_cut_is_noticed_in_the_line_where_it_is() {
    let whole = small();
    for cut in 0..whole.len() {
        let line = whole[..cut].matches('\n').count() as u64 + 1;
        let (at, message) = refused(&whole.as_bytes()[..cut]);
        assert_eq!(at, line, "cut at {cut}: {message}");
        assert!(message.contains("cut") || message.contains("not a pagemirror trace"), "cut at {cut}: {message}");
    }
}

#[test]
fn every_changed_byte_is_noticed() {
    let whole = small();
    for at in 0..whole.len() {
        for change in 1..=255 {
            let mut bytes = whole.clone().into_bytes();
            bytes[at] ^= change;
            let (line, message) = refused(&bytes);
            assert!(line > 0 && !message.is_empty());
        }
    }
}

#[test]
fn each_refusal_says_where_what_and_what_to_do() {
    let whole = small();
    let edit = |from: &str, to: &str| refused(whole.replacen(from, to, 1).as_bytes());
    let cases = [
        (edit("pagemirror-trace 1", "1234 1.5 brk(NULL) = 0x0"), 1, "`pagemirror import`"),
        (edit("pagemirror-trace 1", "pagemirror-trace 2"), 1, "version 2"),
        (edit("pagemirror-trace 1", "pagemirror-trace 01"), 1, "not a pagemirror trace"),
        (edit("command x", "comand x"), 2, "`command ...`"),
        (edit("page 4096", "page 4095"), 3, "power of two"),
        (edit("page 4096", "page +4096"), 3, "how pagemirror writes"),
        (edit("nothing", "b=1 a=1"), 9, "how pagemirror writes"),
        (edit("nothing", "a=0"), 9, "count of what was dropped"),
        (edit("events\n", "events \n"), 10, "`events ...`"),
        (edit("0 0 0 a", "0 1 0 a"), 11, "no address space 1"),
        (edit("0 0 0 a", "0 0 4000000000 a"), 11, "next new thread is 0"),
        (edit("0 0 0 a", "0 0 0 z"), 11, "no such operation"),
        (edit("0 0 0 a", "0 0 0 a 7"), 11, "goes on"),
        (edit("10 0 0 m", "10 0 1 m"), 12, "no thread 1"),
        (edit("10 0 0 m", "010 0 0 m"), 12, "how pagemirror writes"),
        (edit("10 0 0 m", "99999999999999999999 0 0 m"), 12, "too large"),
        (edit("7f000+2", "7f000+0"), 12, "range of pages"),
        (edit("7f000+2", "7F000+2"), 12, "how pagemirror writes"),
        (edit("7f000+2", "7f000+ffffffffffffffff"), 12, "range of pages"),
        (edit("3 0 0 u", "18446744073709551606 0 0 u"), 13, "time runs over"),
        (edit("u 7f000", "p 7f000 rw"), 13, "rights"),
        (edit("u 7f000", "d 7f000 cold"), 13, "no such discard"),
        (edit("end 3", "end 4"), 14, "says that it has 4 events, and has 3"),
        (edit("end 3 ", "end 3 f"), 14, "checksum"),
        (edit("10 0 0 m", "11 0 0 m"), 14, "checksum"),
        (refused(whole.replace('\n', "\r\n").as_bytes()), 1, "carriage return"),
        (refused(format!("{whole}\n").as_bytes()), 15, "has ended"),
        (refused(&whole.replacen("u 7f000", "u \u{7f}", 1).replace('\u{7f}', "\n").into_bytes()), 13, "range of pages"),
    ];
    for (number, ((line, message), expected_line, expected)) in cases.into_iter().enumerate() {
        assert!(message.contains(expected), "case {number}: {message}");
        assert_eq!(line, expected_line, "case {number}: {message}");
        assert!(message.starts_with(&format!("line {line}: ")), "case {number}: {message}");
    }
}

#[test]
fn what_is_shown_of_a_line_is_short_and_harmless() {
    let mut bytes = small().replacen("u 7f000", "u \u{1b}]0;title", 1).into_bytes();
    let (_, message) = refused(&bytes);
    assert!(message.contains(r"\x1b]0;title") && !message.contains('\u{1b}'), "{message}");
    let at = bytes.iter().position(|byte| *byte == 0x1b).unwrap();
    bytes[at] = 0xff;
    let (line, message) = refused(&bytes);
    assert_eq!(line, 13);
    assert!(message.contains("not UTF-8") && message.contains(r"\xff]0;title"), "{message}");
    assert!(message.len() < 400);
}

/// Bytes without an end, and how many were taken.
struct Endless(u64);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        buffer.fill(b'9');
        self.0 += buffer.len() as u64;
        Ok(buffer.len())
    }
}

#[test]
fn a_line_without_an_end_is_not_read_to_its_end() {
    let mut endless = Endless(0);
    let error = Trace::read(BufReader::new(&mut endless)).unwrap_err();
    assert!(matches!(error, TraceError::Line { line: 1, problem: Problem::Foreign, .. }), "{error}");
    let begun = small();
    let begun = &begun.as_bytes()[..begun.len() - 40];
    let error = Trace::read(BufReader::new(begun.chain(&mut endless))).unwrap_err();
    assert!(matches!(error, TraceError::Line { line: 12, problem: Problem::TooLong(_), .. }), "{error}");
    assert!(endless.0 < 1 << 17, "{} bytes were read", endless.0);
}

#[test]
fn a_reader_that_fails_is_named() {
    struct Fails;
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the cable was pulled"))
        }
    }
    let error = Trace::read(BufReader::new(&b"pagemirror-trace 1\n"[..]).chain(BufReader::new(Fails))).unwrap_err();
    assert!(matches!(error, TraceError::Io { line: 2, .. }), "{error}");
    assert!(error.to_string().contains("the cable was pulled"));
}
