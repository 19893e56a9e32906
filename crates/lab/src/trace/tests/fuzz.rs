//! Mutated traces and logs by the thousand: no panic, no promise broken.

use std::time::Instant;

use super::corpus::{LOG, TERMINAL};
use super::round_trip::written;
use super::shipped::shipped;
use crate::trace::lines::Checksum;
use crate::trace::strace::Origin;
use crate::trace::{Trace, TraceError};

/// How many inputs, where nobody says another number: about two seconds of a debug build.
const INPUTS: u64 = 5_000;
/// The most events of a shipped trace that go into one input: what matters is how many inputs there are.
const WINDOW: usize = 40;
/// The most mutations of one input.
const MUTATIONS: u64 = 4;
/// Messages are for people: a line of the file is shown up to 80 characters, each as up to four, or once more in full in
/// the form that would be right, which is never longer than a line of a trace.
const LONGEST_MESSAGE: usize = 3000;

/// splitmix64: every seed is a good one.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.next().is_multiple_of(chances)
    }

    fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.below(from.len())]
    }
}

/// Words that are likely to be looked at twice.
const WORDS: [&[u8]; 27] = [
    b"0",
    b"1",
    b"00",
    b"+1",
    b"-1",
    b"4294967295",
    b"4294967296",
    b"18446744073709551615",
    b"18446744073709551616",
    b"fffffffffffff",
    b"fffffffffffff+1",
    b"0xffffffffffffffff",
    b"0xfffffffffffff000",
    b"NULL",
    b"?",
    b"MAP_FIXED",
    b"CLONE_VM",
    b"<unfinished ...>",
    b"<... clone resumed>) = 12",
    b"+++ exited with 0 +++",
    b"strace: Process 12 attached",
    b"\xff",
    b"\0",
    b"\r",
    b"\n",
    b"/*",
    b"",
];

fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

fn mutate(random: &mut Random, lines: &mut Vec<Vec<u8>>) {
    if lines.is_empty() {
        return lines.push(b"0 0 0 a\n".to_vec());
    }
    let (at, other) = (random.below(lines.len()), random.below(lines.len()));
    let line_len = lines[at].len();
    match random.below(9) {
        0 => lines.swap(at, other),
        1 => drop(lines.remove(at)),
        2 => {
            let twice = lines[at].clone();
            lines.insert(other, twice);
        }
        3 if line_len > 0 => lines[at][random.below(line_len)] ^= 1 << random.below(8),
        4 if line_len > 0 => drop(lines[at].remove(random.below(line_len))),
        5 => {
            let word = *random.pick(&WORDS);
            let place = random.below(line_len + 1);
            lines[at].splice(place..place, word.iter().copied());
        }
        6 => {
            // One word of the line, with another one of the file in its place, or an unlikely one.
            let word = if random.one_in(2) {
                lines[other].split(|byte| *byte == b' ').next_back().unwrap_or_default().to_vec()
            } else {
                random.pick(&WORDS).to_vec()
            };
            let mut words: Vec<Vec<u8>> = lines[at].split(|byte| *byte == b' ').map(<[u8]>::to_vec).collect();
            let place = random.below(words.len());
            words[place] = word;
            lines[at] = words.join(&b' ');
        }
        7 => lines.truncate(at),
        8 => lines[at].truncate(random.below(line_len)),
        _ => {}
    }
}

/// The head of a shipped trace and the events behind it up to some number, mutated; mostly with a last line that fits.
fn trace_input(random: &mut Random, corpus: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let whole = random.pick(corpus);
    let head = 10 + random.below(WINDOW);
    let mut lines: Vec<Vec<u8>> = whole.iter().take(head.min(whole.len() - 1)).cloned().collect();
    for _ in 0..random.next() % (MUTATIONS + 1) {
        mutate(random, &mut lines);
    }
    let mut bytes = lines.concat();
    if !random.one_in(4) {
        let events = bytes.iter().filter(|byte| **byte == b'\n').count().saturating_sub(10);
        let mut checksum = Checksum::default();
        checksum.add(&bytes);
        bytes.extend(format!("end {events} {:016x}\n", checksum.value()).bytes());
    }
    bytes
}

fn log_input(random: &mut Random, corpus: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let mut lines = random.pick(corpus).clone();
    for _ in 0..=random.next() % MUTATIONS {
        mutate(random, &mut lines);
    }
    lines.concat()
}

/// Reads, and holds what the reader promises. Says whether the input was taken.
fn check_read(input: &[u8]) -> bool {
    match Trace::read(input) {
        Ok(trace) => {
            assert_eq!(written(&trace), input, "what is accepted is written again byte for byte");
            assert_eq!(Trace::new(trace.header().clone(), trace.events().to_vec()).unwrap(), trace);
            true
        }
        Err(error) => check_error(&error, input),
    }
}

/// Imports, and holds what the importer promises. Says whether the input was taken.
fn check_import(input: &[u8]) -> bool {
    match Trace::import(input, &Origin::default()) {
        Ok(trace) => {
            let bytes = written(&trace);
            assert_eq!(Trace::read(&bytes[..]).unwrap(), trace, "what is made can be read");
            true
        }
        Err(error) => check_error(&error, input),
    }
}

fn check_error(error: &TraceError, input: &[u8]) -> bool {
    let lines = input.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
    assert!((1..=lines).contains(&error.line()), "{error}: of {lines} lines");
    let message = error.to_string();
    assert!(message.len() <= LONGEST_MESSAGE, "{message}");
    assert!(message.chars().all(|c| c == '\n' || !c.is_control()), "{message:?}");
    false
}

#[test]
fn mutated_files_break_no_promise() {
    let inputs = std::env::var("PAGEMIRROR_FUZZ_INPUTS").ok().map_or(INPUTS, |inputs| inputs.parse().unwrap());
    let seed = std::env::var("PAGEMIRROR_FUZZ_SEED").ok().map_or(1, |seed| seed.parse().unwrap());
    let traces: Vec<_> = shipped().values().map(|bytes| lines(bytes)).collect();
    let logs = [lines(LOG.as_bytes()), lines(TERMINAL.as_bytes())];
    for (corpus, untouched) in [(LOG, 24), (TERMINAL, 6)] {
        let trace = Trace::import(corpus.as_bytes(), &Origin::default()).unwrap();
        assert!(trace.events().len() >= untouched, "{trace}");
    }
    let since = Instant::now();
    let mut accepted = [0_u64; 2];
    for number in 0..inputs {
        // Each input has a seed of its own, so that it can be made again alone.
        let mut random = Random(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        let (input, of_log) = match number % 2 {
            0 => (trace_input(&mut random, &traces), 0),
            _ => (log_input(&mut random, &logs), 1),
        };
        let check = if of_log == 0 { check_read } else { check_import };
        let checked = std::panic::catch_unwind(|| check(&input));
        let taken = checked.unwrap_or_else(|_| panic!("input {number} of seed {seed}:\n{}", input.escape_ascii()));
        accepted[of_log] += u64::from(taken);
    }
    let [read, imported] = accepted;
    println!("{inputs} inputs of seed {seed} in {:.1?}: {read} traces read, {imported} logs imported", since.elapsed());
    // Where all is refused, nothing behind the first check was ever reached.
    assert!(inputs < 1000 || read > inputs / 50 && imported > inputs / 50, "{accepted:?} of {inputs}");
}
