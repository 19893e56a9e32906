//! A checker at the seam: it stands between the space and its tracker, writes down every start, end and answer, and compares
//! the answers with the exact history.
//!
//! # What it holds against a tracker
//! - *Lost*: `Valid`, though an overlapping invalidation had started before the question and had not begun to end when
//!   `read_begin` returned. Whatever the tracker, that is wrong.
//! - *False retry*: `Hit`, though no overlapping invalidation can have started since `read_begin` was called.
//! - *False wait*: `read_begin` waited, and longer than it takes to look again, though no overlapping invalidation ran beside
//!   it. (A slot that is read while it changes hands may look like a mix of two ranges, for one look.)
//! - *Late*: `read_begin` came back long after the last invalidation that it can have waited for had ended, or after
//!   coherence was declared lost: a wake-up was lost.
//!
//! A tracker that claims to be exact must be free of the middle two; for the others they are counted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pagemirror_core_sim::addr::PageRange;
use pagemirror_core_sim::collision::{
    CollisionTracker, Conservative, InvalidationId, Reader, SubscriptionId, Token, Verdict,
};
use pagemirror_core_sim::wait::{Interrupted, Wait};
use pagemirror_sync_sim::sim;

use super::counts::{Count, Counts};
use super::memory::NEVER;
use super::world::Moments;

/// How late a woken reader may be: far above what a few preemptions in a row can make of it, far below a deaf nap.
const LATE: Duration = Duration::from_millis(200);

/// One invalidation, by the moments of its calls.
#[derive(Debug, Clone, Copy)]
struct Record {
    /// What the tracker calls it. To the outside it is known by its place in the list, because trackers may give two the
    /// same name.
    inner: Option<InvalidationId>,
    range: PageRange,
    start_called: u64,
    start_returned: u64,
    end_called: u64,
    end_returned: u64,
}

/// The attempt of one actor.
#[derive(Debug, Clone, Copy, Default)]
struct Attempt {
    called: u64,
    returned: u64,
    /// The first record that can matter to it.
    first: usize,
}

/// A range that the tracker was told of.
#[derive(Debug, Clone, Copy)]
struct Subscribed {
    id: SubscriptionId,
    range: PageRange,
    since: u64,
    /// Nothing ran when it was told, so it was known at once, and not from the next quiet moment on.
    at_once: bool,
}

#[derive(Debug, Default)]
struct History {
    records: Vec<Record>,
    /// Those that have not ended.
    running: Vec<usize>,
    attempts: Vec<Attempt>,
    /// What is subscribed, and since when.
    subscribed: Vec<Subscribed>,
    /// When the last invalidation ended, in virtual time.
    last_end: Duration,
    lost: Option<Duration>,
    counts: Counts,
}

/// What a tracker claims beyond losing nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claims {
    /// It never says `Hit` and never waits without an overlapping invalidation.
    pub(crate) exact: bool,
    /// Forgetting a range waits for the invalidations that hit it.
    pub(crate) forgets_after_waiting: bool,
    /// The flaw that the design of `RangeValid` has, an invalidation that started and ended since with the space quiet
    /// again, is mended by the observer, which says `Hit`: so that other mistakes can be seen beside it.
    pub(crate) mends_range_valid: bool,
}

/// A tracker under observation.
#[derive(Debug)]
pub(crate) struct Observed {
    tracker: Box<dyn CollisionTracker>,
    claims: Claims,
    /// What an actor may lose by preemption within one call.
    slack: Duration,
    moments: Arc<Moments>,
    history: Mutex<History>,
}

impl Observed {
    pub(crate) fn new(tracker: Box<dyn CollisionTracker>, claims: Claims, slack: Duration) -> Self {
        Self { tracker, claims, slack, moments: Arc::default(), history: Mutex::default() }
    }

    pub(crate) fn moments(&self) -> Arc<Moments> {
        Arc::clone(&self.moments)
    }

    /// Coherence is declared lost from here on.
    pub(crate) fn lost_at(&self, at: Duration) {
        self.history().lost.get_or_insert(at);
    }

    pub(crate) fn add_to(&self, counts: &mut Counts) {
        counts.merge(&self.history().counts);
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the run, or counts, when the tracker does not claim to be exact.
    fn inexact(&self, count: Count, why: impl FnOnce() -> String) {
        self.history().counts.add(count, 1);
        if self.claims.exact {
            sim::fail(why());
        }
    }

    /// The first record that overlaps and is as `so` says, of those that can matter to the attempt of the actor that asks.
    fn overlapping(&self, range: PageRange, so: impl Fn(&Attempt, &Record) -> bool) -> Option<Record> {
        let history = self.history();
        let attempt = history.attempts.get(sim::current()).copied().unwrap_or_default();
        let records = history.records.get(attempt.first..).unwrap_or_default().to_vec();
        drop(history);
        records.into_iter().find(|one| one.range.overlaps(range) && so(&attempt, one))
    }

    /// Whether nothing ran all the way between two moments.
    fn may_have_been_quiet(&self, from: u64, to: u64) -> bool {
        !self.history().records.iter().any(|one| one.start_returned < from && one.end_called > to)
    }

    fn check_wait(&self, token: &Token, since: Duration) {
        self.history().counts.add(Count::Waits, 1);
        let conservative = self.tracker.conservative().overflow > 0;
        let reason = self.overlapping(token.range, |attempt, one| one.end_returned >= attempt.called);
        let long = sim::elapsed().saturating_sub(since) > self.slack;
        if reason.is_none() && !conservative && long {
            self.inexact(Count::FalseWaits, || {
                format!("read_begin of {} waited, though nothing that overlaps ran", token.range)
            });
        }
    }

    fn check_late(&self, since: Duration, range: PageRange, answer: &Result<Token, Interrupted>) {
        let history = self.history();
        let mut reason = since.max(history.last_end);
        if let (Some(lost), Err(Interrupted::Lost)) = (history.lost, answer) {
            // Once lost, nobody waits for an invalidation any more.
            reason = since.max(lost);
        }
        drop(history);
        let late = sim::elapsed().saturating_sub(reason);
        if late > LATE && !matches!(answer, Err(Interrupted::Expired(_))) {
            sim::fail(format!(
                "read_begin of {range} came back {late:?} after what it waited for: nobody woke it (it says {answer:?})"
            ));
        }
    }

    /// `Valid` is the answer. Gives the answer that is passed on.
    fn check_valid(&self, range: PageRange, asked: u64) -> Verdict {
        let lost = |attempt: &Attempt, one: &Record| one.start_returned < asked && one.end_called > attempt.returned;
        let (mends, answered) = (self.claims.mends_range_valid, self.moments.next());
        let missed = self.overlapping(range, |attempt, one| {
            lost(attempt, one)
                && !(mends && one.end_called < answered && self.may_have_been_quiet(one.end_called, answered))
        });
        if let Some(missed) = missed {
            sim::fail(format!(
                "an invalidation is lost: {range} is valid to the tracker, but the invalidation of {} had started and was \
                 not over when the attempt began",
                missed.range
            ));
        }
        if mends && self.overlapping(range, lost).is_some() {
            self.history().counts.add(Count::Mended, 1);
            return Verdict::Hit(None);
        }
        Verdict::Valid
    }

    /// Forgetting has returned: no invalidation that hit the range while it was `known` still runs.
    fn check_forgotten(&self, range: PageRange, known: std::ops::Range<u64>) {
        let history = self.history();
        let hit = |one: &&Record| {
            let inside = known.start < one.start_called && one.start_returned < known.end;
            inside && one.range.overlaps(range) && one.end_called == NEVER
        };
        let running = history.running.iter().map(|index| &history.records[*index]).find(hit).copied();
        drop(history);
        if let Some(running) = running {
            sim::fail(format!(
                "{range} is forgotten while the invalidation of {}, which hit it, still runs",
                running.range
            ));
        }
    }

    fn check_hit(&self, range: PageRange, by: Option<PageRange>) {
        let reason = self.overlapping(range, |attempt, one| one.start_returned >= attempt.called);
        let named_another = by.is_some_and(|by| !by.overlaps(range));
        if reason.is_some() && !named_another {
            self.history().counts.add(Count::Collisions, 1);
        } else {
            self.inexact(Count::FalseRetries, || {
                format!("a false retry: {range} was hit by {by:?}, but nothing that overlaps started since it began")
            });
        }
    }
}

impl CollisionTracker for Observed {
    fn start(&self, range: PageRange) -> InvalidationId {
        let mut history = self.history();
        let index = history.records.len();
        let (start_returned, end_called, end_returned) = (NEVER, NEVER, NEVER);
        let start_called = self.moments.next();
        history.records.push(Record { inner: None, range, start_called, start_returned, end_called, end_returned });
        history.running.push(index);
        history.counts.add(Count::Invalidations, 1);
        drop(history);
        let inner = self.tracker.start(range);
        let mut history = self.history();
        history.records[index].inner = Some(inner);
        history.records[index].start_returned = self.moments.next();
        InvalidationId { number: index as u64, slot: None }
    }

    fn end(&self, id: InvalidationId) {
        self.ending(id).into_iter().for_each(|inner| self.tracker.end(inner));
        self.ended(id);
    }

    fn cancel(&self, id: InvalidationId) {
        self.ending(id).into_iter().for_each(|inner| self.tracker.cancel(inner));
        self.ended(id);
    }

    fn subscribe(&self, range: PageRange) -> Option<SubscriptionId> {
        let quiet = self.history().running.is_empty();
        let id = self.tracker.subscribe(range)?;
        let mut history = self.history();
        let at_once = quiet && history.running.is_empty();
        history.subscribed.push(Subscribed { id, range, since: self.moments.next(), at_once });
        Some(id)
    }

    fn unsubscribe(&self, id: SubscriptionId, wait: &Wait<'_>) -> Result<(), Interrupted> {
        let mut history = self.history();
        let at = history.subscribed.iter().position(|one| one.id == id);
        let subscribed = at.map(|at| history.subscribed.swap_remove(at));
        let called = self.moments.next();
        drop(history);
        self.tracker.unsubscribe(id, wait)?;
        if let Some(one) = subscribed.filter(|one| one.at_once && self.claims.forgets_after_waiting) {
            self.check_forgotten(one.range, one.since..called);
        }
        Ok(())
    }

    fn read_begin(&self, reader: &Reader, wait: &Wait<'_>) -> Result<Token, Interrupted> {
        let since = sim::elapsed();
        let mut history = self.history();
        let first = history.running.iter().copied().min().unwrap_or(history.records.len());
        let actor = sim::current();
        if history.attempts.len() <= actor {
            history.attempts.resize(actor + 1, Attempt::default());
        }
        history.attempts[actor] = Attempt { called: self.moments.next(), returned: NEVER, first };
        drop(history);
        let answer = self.tracker.read_begin(reader, wait);
        self.history().attempts[actor].returned = self.moments.next();
        self.check_late(since, reader.range, &answer);
        if let Ok(token) = &answer
            && token.waited
        {
            self.check_wait(token, since);
        }
        answer
    }

    fn read_retry(&self, token: &Token) -> Verdict {
        let asked = self.moments.next();
        let verdict = self.tracker.read_retry(token);
        match verdict {
            Verdict::Valid => return self.check_valid(token.range, asked),
            Verdict::Hit(by) => self.check_hit(token.range, by),
            Verdict::Outrun => {}
        }
        verdict
    }

    fn read_end(&self, token: Token) {
        self.tracker.read_end(token);
    }

    fn wake(&self) {
        self.tracker.wake();
    }

    fn conservative(&self) -> Conservative {
        self.tracker.conservative()
    }
}

impl Observed {
    fn ending(&self, id: InvalidationId) -> Option<InvalidationId> {
        let mut history = self.history();
        let record = &mut history.records[id.number as usize];
        record.end_called = self.moments.next();
        record.inner
    }

    fn ended(&self, id: InvalidationId) {
        let mut history = self.history();
        let index = id.number as usize;
        history.records[index].end_returned = self.moments.next();
        history.running.retain(|other| *other != index);
        history.last_end = sim::elapsed();
    }
}
