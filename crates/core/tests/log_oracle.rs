//! The collision log on one thread against a list of everything that ever happened.
//!
//! On one thread nothing is a matter of luck, so every answer can be asked to be exact: never a missed invalidation, a hit
//! only by one that overlaps and is younger than the token, `Outrun` only when more started than the ring remembers, and
//! neither false hit nor `Outrun` with a reader slot.
#![cfg(not(any(loom, shuttle)))]

use std::time::Duration;

use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_core::collision::{CollisionTracker, Conservative, InvalidationId, Reader, Token, Verdict};
use pagemirror_core::gate::Gate;
use pagemirror_core::log::CollisionLog;
use pagemirror_core::memory::LogSize;
use pagemirror_core::wait::{Deadline, Expired, Interrupted, Wait};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Action {
    Start(PageRange),
    /// Ends one of those that run, counted round.
    End(usize),
    /// Begins an attempt; the flag says that the one before was outrun.
    Begin(PageRange, bool),
    /// Asks for the verdict on one of the attempts that were begun.
    Retry(usize),
    /// Ends one of them.
    Finish(usize),
}

#[derive(Debug)]
struct Past {
    range: PageRange,
    /// The name under which it runs; nothing once it has ended.
    running: Option<InvalidationId>,
}

/// The log beside its oracle. `past[n]` is the invalidation number `n + 1` behind `before`.
struct Pair {
    log: CollisionLog,
    gate: Gate,
    size: LogSize,
    before: u64,
    past: Vec<Past>,
    attempts: Vec<Token>,
    outrun: u64,
    overflow: u64,
}

impl Pair {
    fn new(size: LogSize, before: u64) -> Self {
        let (log, gate) = (CollisionLog::starting_after(size, before), Gate::in_ordinary_memory());
        Self { log, gate, size, before, past: Vec::new(), attempts: Vec::new(), outrun: 0, overflow: 0 }
    }

    fn run(&mut self, action: &Action) {
        match *action {
            Action::Start(range) => self.start(range),
            Action::End(nth) => self.end(nth),
            Action::Begin(range, outrun) => self.begin(range, outrun.then_some(Verdict::Outrun)),
            Action::Retry(nth) => self.retry(nth),
            Action::Finish(nth) => {
                if !self.attempts.is_empty() {
                    let token = self.attempts.swap_remove(nth % self.attempts.len());
                    self.log.read_end(token);
                }
            }
        }
        let counted = Conservative { outrun: self.outrun, overflow: self.overflow };
        assert_eq!(self.log.conservative(), counted, "every answer that was not exact is counted, and no other");
    }

    fn start(&mut self, range: PageRange) {
        let in_slots = self.past.iter().filter_map(|past| past.running?.slot).count();
        let id = self.log.start(range);
        assert_eq!(id.number, self.newest().wrapping_add(1), "numbers are given out one by one");
        assert_eq!(id.slot.is_none(), in_slots == self.size.running, "no slot only when all are taken");
        let taken = self.past.iter().filter_map(|past| past.running?.slot).any(|slot| Some(slot) == id.slot);
        assert!(!taken, "two invalidations that run share a slot");
        self.overflow += u64::from(id.slot.is_none());
        self.past.push(Past { range, running: Some(id) });
    }

    /// The number of the newest invalidation.
    fn newest(&self) -> u64 {
        self.before.wrapping_add(self.past.len() as u64)
    }

    fn end(&mut self, nth: usize) {
        let mut running: Vec<_> = self.past.iter_mut().filter(|past| past.running.is_some()).collect();
        if !running.is_empty() {
            let nth = nth % running.len();
            self.log.end(running[nth].running.take().unwrap());
        }
    }

    fn begin(&mut self, range: PageRange, previous: Option<Verdict>) {
        // Whoever runs without a slot stands for everything, which is conservative and counted.
        let blocks = |past: &Past| past.running.is_some_and(|id| id.slot.is_none() || past.range.overlaps(range));
        let blocked = self.past.iter().any(blocks);
        let owned = self.attempts.iter().filter(|token| token.slot.is_some()).count();
        let expired = Deadline::after(Duration::ZERO);
        match self.log.read_begin(&Reader { previous, ..Reader::of(range) }, &Wait::new(&expired, &self.gate)) {
            Ok(token) => {
                assert!(!blocked, "began to read {range} beside an invalidation that overlaps");
                assert_eq!((token.range, token.number), (range, self.newest()));
                let exact = previous.is_some() && owned < self.size.readers;
                assert_eq!(token.slot.is_some(), exact, "a reader slot for whoever was outrun, while there is one");
                self.attempts.push(token);
            }
            Err(why) => {
                assert_eq!(why, Interrupted::Expired(Expired::TimedOut));
                assert!(blocked, "waited for an invalidation elsewhere, or for none");
            }
        }
    }

    fn retry(&mut self, nth: usize) {
        if self.attempts.is_empty() {
            return;
        }
        let token = &self.attempts[nth % self.attempts.len()];
        let since = &self.past[token.number.wrapping_sub(self.before) as usize..];
        let by = |range: &PageRange| range.overlaps(token.range);
        let hits: Vec<_> = since.iter().map(|past| past.range).filter(by).collect();
        let verdict = self.log.read_retry(token);
        if token.slot.is_none() && since.len() > self.size.ring {
            assert_eq!(verdict, Verdict::Outrun, "{} started, the ring holds {}", since.len(), self.size.ring);
            self.outrun += 1;
            return;
        }
        match verdict {
            Verdict::Valid => assert!(hits.is_empty(), "{} was missed by the reader of {}", hits[0], token.range),
            Verdict::Hit(Some(by)) => assert!(hits.contains(&by), "hit by {by}, which did not hit {}", token.range),
            Verdict::Hit(None) => assert!(token.slot.is_some() && !hits.is_empty(), "a hit without an invalidation"),
            Verdict::Outrun => panic!("{} started, the ring of {} remembers them", since.len(), self.size.ring),
        }
    }
}

fn ranges() -> impl Strategy<Value = PageRange> {
    let few = (0_u64..12, 1_u64..5);
    let few =
        few.prop_map(|(first, count)| PageRange::covering(VirtAddr::new(first << 12), count << 12, 4096).unwrap());
    // Everything at once is what a full batch of events becomes.
    prop_oneof![12 => few, 1 => Just(PageRange::ALL)]
}

fn actions() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => ranges().prop_map(Action::Start),
        4 => any::<usize>().prop_map(Action::End),
        4 => (ranges(), any::<bool>()).prop_map(|(range, outrun)| Action::Begin(range, outrun)),
        5 => any::<usize>().prop_map(Action::Retry),
        2 => any::<usize>().prop_map(Action::Finish),
    ]
}

fn sizes() -> impl Strategy<Value = LogSize> {
    (0_u32..4, 1_usize..5, 1_usize..4).prop_map(|(ring, running, readers)| LogSize {
        ring: 1 << ring,
        running,
        readers,
    })
}

/// Logs that start at zero, and logs whose numbers go round during the script: of the entries' 63 bits, and of all 64.
fn starts() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        (0_u64..60).prop_map(|back| (1 << 63) - back),
        (0_u64..60).prop_map(|back| 0_u64.wrapping_sub(back))
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn the_log_agrees_with_a_list_of_everything(size in sizes(), before in starts(), script in prop::collection::vec(actions(), 1..120)) {
        let mut pair = Pair::new(size, before);
        for action in &script {
            pair.run(action);
        }
    }
}

/// The property above would also hold for a log that is never asked anything hard, so the hard cases are counted once.
#[test]
fn the_scripts_reach_every_answer() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let script = (sizes(), prop::collection::vec(actions(), 120));
    let (mut outrun, mut overflow, mut exact) = (0, 0, 0);
    for _ in 0..200 {
        let (size, script) = script.new_tree(&mut runner).unwrap().current();
        let mut pair = Pair::new(size, 0);
        for action in &script {
            pair.run(action);
        }
        outrun += pair.outrun;
        overflow += pair.overflow;
        exact += pair.attempts.iter().filter(|token| token.slot.is_some()).count();
    }
    assert!(
        outrun > 100 && overflow > 100 && exact > 100,
        "{outrun} outrun, {overflow} overflows, {exact} reader slots"
    );
}
