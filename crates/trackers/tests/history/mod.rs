//! A tracker beside its rule: what the tracker's module says of itself, by naive lists, and what is true, by the oracle.
//!
//! One thread, and a deadline that has passed, so that a reader who would wait says so at once and nothing is left to luck.

use std::collections::BTreeMap;
use std::time::Duration;

use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_core::collision::{CollisionTracker, InvalidationId, Reader, SubscriptionId, Token, Verdict};
use pagemirror_core::gate::Gate;
use pagemirror_core::wait::{Deadline, Expired, Interrupted, Wait};
use pagemirror_trackers::catalogue::TrackerName;
use pagemirror_trackers::oracle::{Judgement, Oracle};
use proptest::prelude::*;

#[derive(Debug, Clone)]
pub(crate) enum Action {
    Start(PageRange),
    /// Ends one of those that run, counted round.
    End(usize),
    /// One of those that run was refused.
    Cancel(usize),
    Subscribe(PageRange),
    /// Forgets one of the subscriptions, after its attempts have ended.
    Unsubscribe(usize),
    /// Begins an attempt without a subscription.
    Begin(PageRange),
    /// Begins an attempt on a part of a subscription: this one, this many pages in, this many pages long at most.
    BeginUnder(usize, u64, u64),
    /// Asks for the verdict on one of the attempts that were begun.
    Retry(usize),
    /// Ends one of them.
    Finish(usize),
}

/// How an invalidation stands.
#[derive(Debug, Clone, Copy)]
enum Standing {
    Running(InvalidationId),
    Ended,
    Refused,
}

#[derive(Debug)]
struct Past {
    range: PageRange,
    standing: Standing,
}

/// A range that a tracker of ranges keeps: for long, or for one attempt.
#[derive(Debug)]
struct Unit {
    range: PageRange,
    /// Hit, or made known, since the address space was last quiet.
    touched: bool,
    id: Option<SubscriptionId>,
}

#[derive(Debug)]
struct Attempt {
    token: Token,
    /// The key of its unit.
    unit: u64,
    /// How many invalidations had started and how many were over when it began.
    started: usize,
    over: usize,
}

/// What a history led to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) valid: usize,
    pub(crate) hits: usize,
    /// Hits by an overlapping invalidation, as the oracle says.
    pub(crate) exact_hits: usize,
    pub(crate) false_retries: usize,
    /// `Valid` over an invalidation that overlaps, was not refused and started since.
    pub(crate) missed: usize,
    /// Readers that would have waited, and those of them that nothing running overlapped.
    pub(crate) blocked: usize,
    pub(crate) blocked_without_need: usize,
    pub(crate) removals_deferred: usize,
}

/// A tracker and its rule. See the module's text.
pub(crate) struct History<T> {
    name: TrackerName,
    tracker: T,
    /// How many ranges the tracker says it keeps.
    kept: fn(&T) -> usize,
    gate: Gate,
    oracle: Oracle,
    past: Vec<Past>,
    over: usize,
    /// The first of `past` that started after the address space was last quiet.
    busy_since: usize,
    units: BTreeMap<u64, Unit>,
    next_key: u64,
    attempts: Vec<Attempt>,
    pub(crate) counts: Counts,
}

impl<T: CollisionTracker> History<T> {
    pub(crate) fn new(name: TrackerName, tracker: T, kept: fn(&T) -> usize) -> Self {
        Self {
            name,
            tracker,
            kept,
            gate: Gate::in_ordinary_memory(),
            oracle: Oracle::default(),
            past: Vec::new(),
            over: 0,
            busy_since: 0,
            units: BTreeMap::new(),
            next_key: 0,
            attempts: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Runs the script, then ends everything and looks whether the tracker has forgotten it.
    pub(crate) fn run(&mut self, script: &[Action]) {
        script.iter().for_each(|action| self.step(action));
        while !self.attempts.is_empty() {
            self.retry(0);
            self.finish(0);
        }
        while self.running() > 0 {
            self.end(0, false);
        }
        assert_eq!((self.kept)(&self.tracker), self.kept_units(), "{}: ranges are kept that nobody names", self.name);
        // Nothing runs and nothing is owed, so everybody may begin, and is not hit.
        let quiet = self.begin(PageRange::ALL, None);
        assert!(quiet, "{}: waits where nothing runs", self.name);
        self.retry(0);
        assert_eq!(self.tracker.conservative(), Default::default(), "{}: nothing was outrun here", self.name);
    }

    fn step(&mut self, action: &Action) {
        match *action {
            Action::Start(range) => self.start(range),
            Action::End(nth) => self.end(nth, false),
            Action::Cancel(nth) => self.end(nth, true),
            Action::Subscribe(range) => self.subscribe(range),
            Action::Unsubscribe(nth) => self.unsubscribe(nth),
            Action::Begin(range) => drop(self.begin(range, None)),
            Action::BeginUnder(nth, skip, len) => self.begin_under(nth, skip, len),
            Action::Retry(nth) => self.retry(nth),
            Action::Finish(nth) => self.finish(nth),
        }
    }

    fn keeps_ranges(&self) -> bool {
        matches!(self.name, TrackerName::RangeValid | TrackerName::IntervalSeq)
    }

    fn kept_units(&self) -> usize {
        if self.keeps_ranges() { self.units.len() } else { 0 }
    }

    fn running(&self) -> usize {
        self.past.len() - self.over
    }

    fn start(&mut self, range: PageRange) {
        let id = self.tracker.start(range);
        self.oracle.start(range);
        if self.running() == 0 {
            self.busy_since = self.past.len();
        }
        self.past.push(Past { range, standing: Standing::Running(id) });
        self.units.values_mut().filter(|unit| unit.range.overlaps(range)).for_each(|unit| unit.touched = true);
    }

    fn end(&mut self, nth: usize, refused: bool) {
        let running = self.past.iter_mut().filter_map(|past| match past.standing {
            Standing::Running(id) => Some((&mut past.standing, id)),
            Standing::Ended | Standing::Refused => None,
        });
        let mut running: Vec<_> = running.collect();
        if running.is_empty() {
            return;
        }
        let nth = nth % running.len();
        let (standing, id) = running.swap_remove(nth);
        *standing = if refused { Standing::Refused } else { Standing::Ended };
        if refused {
            self.tracker.cancel(id)
        } else {
            self.tracker.end(id)
        }
        self.over += 1;
        if self.running() == 0 {
            self.units.values_mut().for_each(|unit| unit.touched = false);
        }
    }

    fn subscribe(&mut self, range: PageRange) {
        let id = self.tracker.subscribe(range);
        assert_eq!(id.is_some(), self.keeps_ranges(), "{}: {range}", self.name);
        let taken = |unit: &Unit| unit.id.is_some() && unit.id == id;
        assert!(!self.units.values().any(taken), "{}: two subscriptions share a name", self.name);
        if id.is_some() {
            self.add_unit(range, id);
        }
    }

    fn add_unit(&mut self, range: PageRange, id: Option<SubscriptionId>) -> u64 {
        let touched = self.running() > 0;
        self.next_key += 1;
        self.units.insert(self.next_key, Unit { range, touched, id });
        self.next_key
    }

    fn nth_subscription(&self, nth: usize) -> Option<(u64, PageRange, SubscriptionId)> {
        let subscribed = self.units.iter().filter_map(|(key, unit)| Some((*key, unit.range, unit.id?)));
        let subscribed: Vec<_> = subscribed.collect();
        (!subscribed.is_empty()).then(|| subscribed[nth % subscribed.len()])
    }

    fn unsubscribe(&mut self, nth: usize) {
        let Some((key, _, id)) = self.nth_subscription(nth) else { return };
        while let Some(at) = self.attempts.iter().position(|attempt| attempt.unit == key) {
            self.finish(at);
        }
        let expired = Deadline::after(Duration::ZERO);
        let gone = self.tracker.unsubscribe(id, &Wait::new(&expired, &self.gate));
        let unit = self.units.remove(&key).unwrap();
        if let Err(why) = gone {
            assert_eq!(why, Interrupted::Expired(Expired::TimedOut));
            let deferred = self.name == TrackerName::IntervalSeq && self.running() > 0;
            assert!(deferred, "{}: waits to forget {}", self.name, unit.range);
            self.counts.removals_deferred += 1;
        }
    }

    fn begin_under(&mut self, nth: usize, skip: u64, len: u64) {
        let Some((key, range, _)) = self.nth_subscription(nth) else { return };
        let pages = range.len() >> 12;
        let skip = skip % pages;
        let start = VirtAddr::new(range.start().get() + (skip << 12));
        let part = PageRange::covering(start, (len % (pages - skip)).max(1) << 12, 4096).unwrap();
        assert!(range.contains(part));
        self.begin(part, Some(key));
    }

    /// Says whether it began, which is what the rule has to say as well.
    fn begin(&mut self, range: PageRange, key: Option<u64>) -> bool {
        let subscription = key.and_then(|key| self.units[&key].id);
        let reader = Reader { subscription, ..Reader::of(range) };
        let unit = key.unwrap_or_else(|| self.add_unit(range, None));
        let waits = self.rule_waits(range, unit);
        let overlapped = self.is_running_over(range);
        assert!(waits || !overlapped, "{}: the rule itself begins beside an overlapping invalidation", self.name);
        let expired = Deadline::after(Duration::ZERO);
        match self.tracker.read_begin(&reader, &Wait::new(&expired, &self.gate)) {
            Ok(token) => {
                assert!(!waits, "{}: began to read {range}", self.name);
                assert_eq!((token.range, token.subscription, token.waited), (range, subscription, false));
                let (started, over) = (self.oracle.position(), self.over);
                self.attempts.push(Attempt { token, unit, started, over });
            }
            Err(why) => {
                assert_eq!(why, Interrupted::Expired(Expired::TimedOut));
                assert!(waits, "{}: waited to read {range}", self.name);
                self.counts.blocked += 1;
                self.counts.blocked_without_need += usize::from(!overlapped);
                if subscription.is_none() {
                    self.units.remove(&unit);
                }
            }
        }
        !waits
    }

    fn is_running_over(&self, range: PageRange) -> bool {
        self.past.iter().any(|past| matches!(past.standing, Standing::Running(_)) && past.range.overlaps(range))
    }

    /// Whether one range around all that started since the address space was last quiet overlaps `range`.
    fn is_in_hull(&self, range: PageRange) -> bool {
        let since = &self.past[self.busy_since..];
        let start = since.iter().map(|past| past.range.start()).min();
        let end = since.iter().map(|past| past.range.end()).max();
        self.running() > 0 && start < Some(range.end()) && Some(range.start()) < end
    }

    fn rule_waits(&self, range: PageRange, unit: u64) -> bool {
        match self.name {
            TrackerName::RangeValid | TrackerName::IntervalSeq => self.units[&unit].touched,
            TrackerName::NotifierCount => self.running() > 0,
            TrackerName::HullSeq => self.is_in_hull(range),
            TrackerName::CollisionLog => self.is_running_over(range),
        }
    }

    fn rule_hits(&self, attempt: &Attempt) -> bool {
        let started_over = |range: PageRange| self.past[attempt.started..].iter().any(|by| by.range.overlaps(range));
        let unit = &self.units[&attempt.unit];
        match self.name {
            TrackerName::RangeValid => unit.touched,
            TrackerName::NotifierCount => self.past.len() > attempt.started,
            TrackerName::HullSeq => self.is_in_hull(attempt.token.range) || self.over > attempt.over,
            TrackerName::IntervalSeq => started_over(unit.range),
            TrackerName::CollisionLog => started_over(attempt.token.range),
        }
    }

    fn retry(&mut self, nth: usize) {
        if self.attempts.is_empty() {
            return;
        }
        let attempt = &self.attempts[nth % self.attempts.len()];
        let (name, range) = (self.name, attempt.token.range);
        let verdict = self.tracker.read_retry(&attempt.token);
        assert_eq!(verdict != Verdict::Valid, self.rule_hits(attempt), "{name}: {verdict:?} for {range}");
        match verdict {
            Verdict::Valid => self.counts.valid += 1,
            Verdict::Hit(_) => self.counts.hits += 1,
            Verdict::Outrun => panic!("{name}: outrun by {} invalidations", self.past.len()),
        }
        if let Verdict::Hit(Some(by)) = verdict {
            assert!(by.overlaps(range), "{name}: {range} was hit by {by}");
        }
        match self.oracle.judge(attempt.started, range, verdict) {
            Judgement::Exact => self.counts.exact_hits += usize::from(verdict != Verdict::Valid),
            Judgement::FalseRetry => self.counts.false_retries += 1,
            Judgement::Conservative => panic!("{name}: does not know"),
            Judgement::Missed(_) => self.assert_only_the_known_flaw(attempt.started, range),
        }
    }

    /// A flag forgets what started and ended in between. Nothing else may be missed, and by nobody else.
    fn assert_only_the_known_flaw(&mut self, started: usize, range: PageRange) {
        assert_eq!(self.name, TrackerName::RangeValid, "an invalidation of {range} was missed");
        let mut changed = false;
        for past in self.past[started..].iter().filter(|past| past.range.overlaps(range)) {
            match past.standing {
                Standing::Running(_) => panic!("the invalidation of {} still runs, and was missed", past.range),
                Standing::Ended => changed = true,
                Standing::Refused => {}
            }
        }
        self.counts.missed += usize::from(changed);
    }

    fn finish(&mut self, nth: usize) {
        if self.attempts.is_empty() {
            return;
        }
        let attempt = self.attempts.swap_remove(nth % self.attempts.len());
        self.tracker.read_end(attempt.token);
        self.units.retain(|key, unit| unit.id.is_some() || *key != attempt.unit);
    }
}

fn ranges() -> impl Strategy<Value = PageRange> {
    let few = (0_u64..16, 1_u64..5);
    let few =
        few.prop_map(|(first, count)| PageRange::covering(VirtAddr::new(first << 12), count << 12, 4096).unwrap());
    prop_oneof![15 => few, 1 => Just(PageRange::ALL)]
}

fn actions() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => ranges().prop_map(Action::Start),
        5 => any::<usize>().prop_map(Action::End),
        1 => any::<usize>().prop_map(Action::Cancel),
        2 => ranges().prop_map(Action::Subscribe),
        1 => any::<usize>().prop_map(Action::Unsubscribe),
        3 => ranges().prop_map(Action::Begin),
        3 => (any::<usize>(), any::<u64>(), any::<u64>()).prop_map(|(nth, skip, len)| Action::BeginUnder(nth, skip, len)),
        5 => any::<usize>().prop_map(Action::Retry),
        2 => any::<usize>().prop_map(Action::Finish),
    ]
}

/// Histories of a hundred steps or so.
pub(crate) fn scripts() -> impl Strategy<Value = Vec<Action>> {
    prop::collection::vec(actions(), 1..120)
}

/// Where sequences begin: at the beginning, or a few steps before they go round.
pub(crate) fn sequences() -> impl Strategy<Value = u64> {
    prop_oneof![Just(2), (0_u64..12).prop_map(|before| u64::MAX - before)]
}
