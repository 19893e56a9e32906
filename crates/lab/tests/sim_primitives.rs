//! The simulator's primitives: time, order, locks, and how a run ends.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pagemirror_sync_sim::atomic::{AtomicU64, Ordering};
use pagemirror_sync_sim::sim::{self, Bell, Outcome, Schedule};
use pagemirror_sync_sim::time::Instant;
use pagemirror_sync_sim::{Condvar, RwLock, section_depth, thread_index};

fn schedule(seed: u64) -> Schedule {
    Schedule {
        seed,
        switch_every: 1,
        jitter: 100,
        preempt_one_in: 0,
        preempted: 0,
        deaf: 1,
        limit: Duration::from_secs(10),
        most_steps: 100_000,
    }
}

fn run(main: impl FnOnce() + Send + 'static) -> Outcome {
    sim::run(schedule(1), main)
}

/// Everything ended and nothing was found.
fn fine(outcome: &Outcome) {
    assert_eq!((&outcome.finding, &outcome.unfinished), (&None, &Vec::new()));
}

#[test]
fn who_sleeps_longer_wakes_later_and_nobody_waits_for_real() {
    let (order, real) = (Arc::new(Mutex::new(Vec::new())), std::time::Instant::now());
    let seen = Arc::clone(&order);
    let outcome = run(move || {
        for seconds in [3, 1, 2] {
            let seen = Arc::clone(&seen);
            sim::spawn(move || {
                let began = Instant::now();
                sim::sleep(Duration::from_secs(seconds));
                assert!(began.elapsed() >= Duration::from_secs(seconds));
                seen.lock().unwrap().push(seconds);
            });
        }
    });
    fine(&outcome);
    assert_eq!(*order.lock().unwrap(), [1, 2, 3]);
    assert!(outcome.virtual_time >= Duration::from_secs(3) && real.elapsed() < Duration::from_secs(2));
}

/// Loads and stores without a read-modify-write: whether two actors lose a step to each other depends on the schedule.
fn loses_a_step(seed: u64) -> bool {
    let counter = Arc::new(AtomicU64::new(0));
    let shared = Arc::clone(&counter);
    let outcome = sim::run(schedule(seed), move || {
        for _ in 0..2 {
            let counter = Arc::clone(&shared);
            sim::spawn(move || {
                let seen = counter.load(Ordering::SeqCst);
                counter.store(seen + 1, Ordering::SeqCst);
            });
        }
    });
    fine(&outcome);
    counter.load(Ordering::SeqCst) == 1
}

#[test]
fn every_operation_is_a_switch_point() {
    let lost = (0..100).filter(|seed| loses_a_step(*seed)).count();
    assert!((1..100).contains(&lost), "{lost} of 100 schedules lose a step");
}

#[test]
fn a_mutex_keeps_others_out_and_a_joined_actor_has_ended() {
    fine(&run(|| {
        let counter = Arc::new(pagemirror_sync_sim::Mutex::new(0_u64));
        let add = |_| {
            let counter = Arc::clone(&counter);
            sim::spawn(move || {
                for _ in 0..10 {
                    let mut held = counter.lock();
                    let seen = *held;
                    sim::sleep(Duration::from_micros(1));
                    *held = seen + 1;
                }
            })
        };
        let actors: Vec<_> = (0..3).map(add).collect();
        actors.into_iter().for_each(|actor| actor.join().unwrap());
        assert_eq!(*counter.lock(), 30);
    }));
}

#[test]
fn readers_share_and_a_writer_does_not() {
    fine(&run(|| {
        let lock = Arc::new(RwLock::new(0_u64));
        let (first, second) = (lock.read(), lock.read());
        assert_eq!(*first + *second, 0);
        let shared = Arc::clone(&lock);
        let writer = sim::spawn(move || *shared.write() = 1);
        sim::sleep(Duration::from_millis(1));
        assert!(!writer.is_finished());
        drop((first, second));
        writer.join().unwrap();
        assert_eq!(*lock.read(), 1);
    }));
}

#[test]
fn a_timed_wait_ends_in_virtual_time_and_later_where_the_run_is_deaf() {
    let wait = || {
        let (lock, bell) = (pagemirror_sync_sim::Mutex::new(()), Condvar::new());
        drop(bell.wait(lock.lock(), Duration::from_millis(10)));
    };
    let hears = run(wait).virtual_time;
    let deaf = sim::run(Schedule { deaf: 100, ..schedule(1) }, wait).virtual_time;
    assert!((10..20).contains(&hears.as_millis()), "{hears:?}");
    assert!((1000..1010).contains(&deaf.as_millis()), "{deaf:?}");
}

#[test]
fn who_waits_for_ever_is_named() {
    let outcome = run(|| {
        sim::spawn_named("the patient", || {
            Bell::new().wait(None);
        });
    });
    assert_eq!(outcome.unfinished, ["the patient"]);
}

#[test]
fn who_spins_for_ever_is_named() {
    let outcome = run(|| {
        sim::spawn_named("the busy", || {
            while std::hint::black_box(true) {
                sim::yield_now();
            }
        });
    });
    assert_eq!(outcome.unfinished, ["the busy"]);
    assert!(outcome.virtual_time <= Duration::from_secs(10));
}

#[test]
fn a_finding_ends_the_run_and_says_who() {
    let outcome = run(|| {
        sim::spawn(|| {
            sim::fail("seen");
        });
        sim::sleep(Duration::from_secs(5));
        panic!("the run is over");
    });
    assert_eq!(outcome.finding, Some((1, "seen".to_owned())));
}

#[test]
fn a_panic_of_an_actor_is_a_finding_and_one_that_is_caught_is_none() {
    let outcome = run(|| std::panic::resume_unwind(Box::new("broken")));
    assert_eq!(outcome.finding, Some((0, "panicked: broken".to_owned())));
    fine(&run(|| {
        let caught = std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new("meant")));
        assert!(caught.is_err());
        sim::sleep(Duration::from_millis(1));
    }));
}

#[test]
fn an_actor_has_a_number_and_a_section_of_its_own() {
    fine(&run(|| {
        section_depth(|depth| depth.set(1));
        let other = sim::spawn(|| (thread_index(), section_depth(std::cell::Cell::get)));
        assert_eq!(other.join().unwrap(), (1, 0));
        assert_eq!((thread_index(), section_depth(std::cell::Cell::get)), (0, 1));
        section_depth(|depth| depth.set(0));
    }));
}
