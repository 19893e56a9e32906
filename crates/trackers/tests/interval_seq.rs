//! Today's interval notifiers by themselves: what is deferred, what is waited for, and numbers that go round.
#![cfg(not(any(loom, shuttle)))]

use std::thread;
use std::time::{Duration, Instant};

use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_core::collision::{CollisionTracker, Reader, SubscriptionId, Token, Verdict};
use pagemirror_core::gate::Gate;
use pagemirror_core::wait::{Deadline, Expired, Interrupted, Wait};
use pagemirror_trackers::catalogue::IntervalSeq;

/// A deadline that no test reaches; one that does has hung.
const NEVER: Duration = Duration::from_secs(60);
/// Long enough that a thread which was started is asleep by then, short enough for a test.
const ASLEEP: Duration = Duration::from_millis(50);

const TIMED_OUT: Interrupted = Interrupted::Expired(Expired::TimedOut);

fn pages(first: u64, count: u64) -> PageRange {
    PageRange::covering(VirtAddr::new(first << 12), count << 12, 4096).unwrap()
}

/// Begins to read `range` under this subscription if that is possible at once.
fn begin(tracker: &IntervalSeq, range: PageRange, subscription: Option<SubscriptionId>) -> Result<Token, Interrupted> {
    let (expired, gate) = (Deadline::after(Duration::ZERO), Gate::in_ordinary_memory());
    tracker.read_begin(&Reader { subscription, ..Reader::of(range) }, &Wait::new(&expired, &gate))
}

/// Forgets a subscription if that is possible at once.
fn unsubscribe(tracker: &IntervalSeq, id: SubscriptionId) -> Result<(), Interrupted> {
    let (expired, gate) = (Deadline::after(Duration::ZERO), Gate::in_ordinary_memory());
    tracker.unsubscribe(id, &Wait::new(&expired, &gate))
}

#[test]
fn what_hits_nothing_leaves_the_tree_free_to_change() {
    let tracker = IntervalSeq::default();
    let here = tracker.subscribe(pages(4, 1)).unwrap();
    let running = tracker.start(pages(50, 1));
    let token = begin(&tracker, pages(4, 1), Some(here)).unwrap();
    assert_eq!(tracker.read_retry(&token), Verdict::Valid);
    assert_eq!(unsubscribe(&tracker, here), Ok(()), "partially excluded: the removal is immediate");
    assert_eq!(tracker.subscribed(), 0);
    tracker.end(running);
}

#[test]
fn an_insertion_beside_what_runs_waits_for_it_and_makes_the_rest_wait() {
    let tracker = IntervalSeq::default();
    let before = tracker.subscribe(pages(4, 1)).unwrap();
    let running = tracker.start(pages(50, 1));
    let late = tracker.subscribe(pages(50, 1)).unwrap();
    assert_eq!(begin(&tracker, pages(50, 1), Some(late)).map(drop), Err(TIMED_OUT), "nobody told it what runs");
    assert_eq!(begin(&tracker, pages(4, 1), Some(before)).map(drop), Ok(()), "it was neither hit nor inserted");
    assert_eq!(unsubscribe(&tracker, before), Err(TIMED_OUT), "the insertion has frozen the tree");
    assert_eq!(tracker.subscribed(), 2);
    tracker.end(running);
    assert_eq!(tracker.subscribed(), 1, "forgotten all the same, once everything had ended");
    assert_eq!(begin(&tracker, pages(50, 1), Some(late)).map(drop), Ok(()));
}

#[test]
fn a_deferred_insertion_is_in_the_tree_once_everything_has_ended() {
    let tracker = IntervalSeq::default();
    let _hit = tracker.subscribe(pages(4, 1)).unwrap();
    let (first, second) = (tracker.start(pages(4, 1)), tracker.start(pages(90, 1)));
    let late = tracker.subscribe(pages(8, 1)).unwrap();
    assert_eq!(begin(&tracker, pages(8, 1), Some(late)).map(drop), Err(TIMED_OUT));
    tracker.end(first);
    assert_eq!(begin(&tracker, pages(8, 1), Some(late)).map(drop), Err(TIMED_OUT), "not everything has ended");
    tracker.end(second);
    let token = begin(&tracker, pages(8, 1), Some(late)).unwrap();
    tracker.end(tracker.start(pages(8, 1)));
    assert_eq!(tracker.read_retry(&token), Verdict::Hit(None), "what was inserted late is not told");
}

#[test]
fn a_deferred_insertion_is_taken_back_at_once() {
    let tracker = IntervalSeq::default();
    let _hit = tracker.subscribe(pages(4, 1)).unwrap();
    let running = tracker.start(pages(4, 1));
    let late: Vec<_> = (0..5).map(|n| tracker.subscribe(pages(20 + n, 1)).unwrap()).collect();
    // The first, one in the middle, the last: whatever moves in the list must be found again.
    for gone in [0, 2, 4] {
        assert_eq!(unsubscribe(&tracker, late[gone]), Ok(()));
    }
    assert_eq!(tracker.subscribed(), 3);
    assert_eq!(unsubscribe(&tracker, late[1]), Ok(()));
    tracker.end(running);
    assert_eq!(tracker.subscribed(), 2);
    let token = begin(&tracker, pages(23, 1), Some(late[3])).unwrap();
    tracker.end(tracker.start(pages(20, 3)));
    assert_eq!(tracker.read_retry(&token), Verdict::Valid, "hit by what is subscribed no more");
    tracker.end(tracker.start(pages(23, 1)));
    assert_eq!(tracker.read_retry(&token), Verdict::Hit(None));
}

#[test]
fn a_removal_sleeps_until_it_is_carried_out() {
    let (tracker, gate) = (IntervalSeq::default(), Gate::in_ordinary_memory());
    let here = tracker.subscribe(pages(4, 1)).unwrap();
    let running = tracker.start(pages(4, 1));
    let deadline = Deadline::after(NEVER);
    thread::scope(|scope| {
        let removing = scope.spawn(|| {
            let gone = tracker.unsubscribe(here, &Wait::new(&deadline, &gate));
            (gone, tracker.subscribed())
        });
        thread::sleep(ASLEEP);
        assert!(!removing.is_finished(), "did not wait for the invalidation that hit it");
        tracker.end(running);
        assert_eq!(removing.join().unwrap(), (Ok(()), 0));
    });
    assert!(deadline.expired().is_none());
}

#[test]
fn a_removal_whose_wait_ended_happens_later() {
    let (tracker, gate) = (IntervalSeq::default(), Gate::in_ordinary_memory());
    let here = tracker.subscribe(pages(4, 1)).unwrap();
    let running = tracker.start(pages(4, 1));
    let (deadline, begun) = (Deadline::after(ASLEEP), Instant::now());
    assert_eq!(tracker.unsubscribe(here, &Wait::new(&deadline, &gate)), Err(TIMED_OUT));
    assert!(begun.elapsed() >= ASLEEP);
    assert_eq!(tracker.subscribed(), 1);
    tracker.end(running);
    assert_eq!(tracker.subscribed(), 0);
}

#[test]
fn an_attempt_without_a_subscription_leaves_nothing_behind_and_does_not_sleep_for_it() {
    let tracker = IntervalSeq::default();
    let token = begin(&tracker, pages(4, 1), None).unwrap();
    let running = tracker.start(pages(4, 1));
    assert_eq!(tracker.read_retry(&token), Verdict::Hit(None));
    tracker.read_end(token);
    assert_eq!(tracker.subscribed(), 1, "the tree is frozen");
    assert_eq!(begin(&tracker, pages(4, 1), None).map(drop), Err(TIMED_OUT));
    tracker.end(running);
    assert_eq!(tracker.subscribed(), 0);
}

#[test]
fn a_refused_start_ends_itself() {
    let tracker = IntervalSeq::default();
    let here = tracker.subscribe(pages(4, 1)).unwrap();
    tracker.cancel(tracker.start(pages(4, 1)));
    let token = begin(&tracker, pages(4, 1), Some(here)).unwrap();
    // Beside one that runs it ends only itself.
    let running = tracker.start(pages(4, 1));
    tracker.cancel(tracker.start(pages(4, 1)));
    assert_eq!(begin(&tracker, pages(4, 1), Some(here)).map(drop), Err(TIMED_OUT));
    tracker.end(running);
    assert_eq!(tracker.read_retry(&token), Verdict::Hit(None));
    assert_eq!(begin(&tracker, pages(4, 1), Some(here)).map(drop), Ok(()));
}

#[test]
fn the_odd_period_ends_when_everything_has_ended() {
    let tracker = IntervalSeq::default();
    let here = tracker.subscribe(pages(4, 1)).unwrap();
    let (own, other) = (tracker.start(pages(4, 1)), tracker.start(pages(90, 1)));
    tracker.end(own);
    assert_eq!(
        begin(&tracker, pages(4, 1), Some(here)).map(drop),
        Err(TIMED_OUT),
        "what runs elsewhere keeps it waiting"
    );
    tracker.end(other);
    assert_eq!(begin(&tracker, pages(4, 1), Some(here)).map(drop), Ok(()));
}

#[test]
fn numbers_go_round_without_forgetting_or_hitting_anybody() {
    for before in 0..8 {
        let tracker = IntervalSeq::starting_at(u64::MAX - before);
        let here = tracker.subscribe(pages(4, 1)).unwrap();
        for _ in 0..8 {
            let token = begin(&tracker, pages(4, 1), Some(here)).unwrap();
            assert_eq!(tracker.read_retry(&token), Verdict::Valid);
            let fresh = tracker.subscribe(pages(9, 1)).unwrap();
            let elsewhere = begin(&tracker, pages(9, 1), Some(fresh)).unwrap();
            tracker.end(tracker.start(pages(4, 1)));
            assert_eq!(tracker.read_retry(&token), Verdict::Hit(None));
            assert_eq!(tracker.read_retry(&elsewhere), Verdict::Valid);
            assert_eq!(unsubscribe(&tracker, fresh), Ok(()));
        }
    }
}

#[test]
fn many_subscriptions_come_and_go_without_mixing_their_numbers() {
    let tracker = IntervalSeq::default();
    let mut ids: Vec<_> = (0..1000).map(|n| (n, tracker.subscribe(pages(n * 2, 1)).unwrap())).collect();
    ids.retain(|&(n, id)| n % 3 != 0 || unsubscribe(&tracker, id).is_err());
    ids.extend((0..400).map(|n| (n, tracker.subscribe(pages(n * 2, 1)).unwrap())));
    assert_eq!(tracker.subscribed(), ids.len());
    let begin = |&(n, id)| (n, begin(&tracker, pages(n * 2, 1), Some(id)).unwrap());
    let tokens: Vec<_> = ids.iter().map(begin).collect();
    tracker.end(tracker.start(pages(200, 101)));
    for (n, token) in &tokens {
        assert_eq!(tracker.read_retry(token) != Verdict::Valid, (100..=150).contains(n), "{n}");
    }
}
