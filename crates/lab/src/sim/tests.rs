//! The simulator's own checks: that it is deterministic, that its faults strike, that its checkers can fail.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pagemirror_core_sim::addr::PageRange;
use pagemirror_core_sim::collision::{CollisionTracker, Conservative, InvalidationId, Reader, Token, Verdict};
use pagemirror_core_sim::log::CollisionLog;
use pagemirror_core_sim::wait::{Interrupted, Wait};

use super::{Count, Options, Run, Setting, Simulator, TrackerName, bugs, hunt, not_hunted, try_hunt};

fn simulator(tracker: TrackerName, settings: &str) -> Simulator {
    let settings: Result<Vec<Setting>, _> = settings.split_terminator(',').map(str::parse).collect();
    Simulator::new(tracker, settings.unwrap())
}

fn ours() -> Simulator {
    simulator(TrackerName::CollisionLog, "")
}

/// The first failing run of some seeds.
fn first_failure(simulator: &Simulator, seeds: u64) -> Run {
    simulator.run_many(0..seeds, &|_| {}).failed.expect("a broken tracker is found")
}

#[test]
fn a_seed_gives_the_same_run_each_time() {
    let ours = ours();
    for seed in 0..12 {
        let (once, again) = (ours.run(seed), ours.trace(seed));
        assert_eq!((once.digest, once.steps, once.counts), (again.digest, again.steps, again.counts), "seed {seed}");
        assert_eq!(once.virtual_time, again.virtual_time);
    }
    let digests: std::collections::BTreeSet<u64> = (0..12).map(|seed| ours.run(seed).digest).collect();
    assert_eq!(digests.len(), 12, "different seeds give different runs");
}

#[test]
fn a_run_does_not_depend_on_what_the_thread_ran_before() {
    let fresh = std::thread::spawn(|| ours().run(3).digest).join().unwrap();
    let used = ours();
    let _ = (used.run(1), used.run(2));
    assert_eq!(used.run(3).digest, fresh);
}

#[test]
fn nothing_is_found_in_200_seeds_and_every_fault_strikes() {
    let totals = ours().run_many(0..200, &|_| {});
    assert!(totals.failed.is_none(), "{:?}", totals.failed.map(|run| (run.seed, run.finding)));
    assert_eq!(totals.seeds, 200);
    let never = Count::ALL.iter().filter(|count| totals.counts.get(**count) == 0).map(|count| count.text());
    // The exact tracker must have none of these; the flaw is another one's.
    let must_not = [Count::FalseRetries, Count::Mended, Count::FalseWaits].map(Count::text);
    assert_eq!(never.collect::<Vec<_>>(), must_not);
}

#[test]
fn the_flaw_of_range_valid_is_found_and_is_its_only_one() {
    let run = first_failure(&simulator(TrackerName::RangeValid, ""), 50);
    assert!(run.finding.unwrap().starts_with("an invalidation is lost: "));
    let mended = simulator(TrackerName::RangeValid, "mend=1").run_many(0..60, &|_| {});
    assert!(mended.failed.is_none(), "{:?}", mended.failed.map(|run| (run.seed, run.finding)));
    assert!(mended.counts.get(Count::Mended) > 0);
}

#[test]
fn nothing_is_found_with_the_other_trackers() {
    for tracker in [TrackerName::NotifierCount, TrackerName::HullSeq, TrackerName::IntervalSeq] {
        let totals = simulator(tracker, "").run_many(0..40, &|_| {});
        assert!(totals.failed.is_none(), "{tracker}: {:?}", totals.failed.map(|run| (run.seed, run.finding)));
    }
}

#[test]
fn what_a_control_run_leaves_out_is_missed() {
    let expected = [
        ("control=1", &["stale: a use gets the page"][..]),
        ("control=2", &["events are read, and so callers released, while a use is in its section"]),
        ("control=3,late_caller=1", &["stale: "]),
        ("control=4,late_caller=1", &["stale: "]),
        // Whoever looks first: the device at its page, or the child at what was written through it.
        ("control=5,fork=2", &["stale: ", "content is lost: a forked child"]),
    ];
    for (settings, what) in expected {
        let run = first_failure(&simulator(TrackerName::CollisionLog, settings), 400);
        let finding = run.finding.unwrap();
        assert!(what.iter().any(|what| finding.starts_with(what)), "{settings}, seed {}: {finding}", run.seed);
    }
}

/// How a tracker is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// Every third collision is not told.
    Forgets,
    /// Every tenth invalidation never ends.
    Leaks,
    /// Every third valid attempt is told that it collided.
    Imagines,
    /// Who has waited comes back a second later.
    Oversleeps,
    /// Nobody comes back who has waited.
    Blocks,
}

#[derive(Debug)]
struct BrokenTracker {
    log: CollisionLog,
    broken: Broken,
    calls: AtomicU64,
}

impl BrokenTracker {
    fn strikes(&self, broken: Broken, one_in: u64) -> bool {
        self.broken == broken && self.calls.fetch_add(1, Ordering::Relaxed) % one_in == one_in - 1
    }
}

impl CollisionTracker for BrokenTracker {
    fn start(&self, range: PageRange) -> InvalidationId {
        self.log.start(range)
    }
    fn end(&self, id: InvalidationId) {
        if !self.strikes(Broken::Leaks, 10) {
            self.log.end(id);
        }
    }
    fn read_begin(&self, reader: &Reader, wait: &Wait<'_>) -> Result<Token, Interrupted> {
        let token = self.log.read_begin(reader, wait)?;
        if token.waited && self.strikes(Broken::Oversleeps, 1) {
            pagemirror_sync_sim::sim::sleep(Duration::from_secs(1));
        }
        if token.waited && self.strikes(Broken::Blocks, 1) {
            pagemirror_sync_sim::sim::Bell::new().wait(None);
        }
        Ok(token)
    }
    fn read_retry(&self, token: &Token) -> Verdict {
        match self.log.read_retry(token) {
            Verdict::Hit(_) if self.strikes(Broken::Forgets, 3) => Verdict::Valid,
            Verdict::Valid if self.strikes(Broken::Imagines, 3) => Verdict::Hit(None),
            verdict => verdict,
        }
    }
    fn read_end(&self, token: Token) {
        self.log.read_end(token);
    }
    fn wake(&self) {
        self.log.wake();
    }
    fn conservative(&self) -> Conservative {
        self.log.conservative()
    }
}

fn broken(broken: Broken) -> Simulator {
    Simulator::of(move |options: &Options| {
        Box::new(BrokenTracker { log: CollisionLog::new(options.log_size()), broken, calls: AtomicU64::new(0) })
    })
}

#[test]
fn every_way_of_being_broken_is_found_for_what_it_is() {
    let expected = [
        (Broken::Forgets, "an invalidation is lost: "),
        (Broken::Imagines, "a false retry: "),
        (Broken::Oversleeps, "nobody woke it"),
        (Broken::Blocks, "blocked for ever: "),
    ];
    for (how, what) in expected {
        let finding = first_failure(&broken(how), 200).finding.unwrap();
        assert!(finding.contains(what), "{how:?} is found as {finding:?}");
    }
    // A leak is found where somebody waits for what never ends; in which words depends on who does.
    let finding = first_failure(&broken(Broken::Leaks), 200).finding.unwrap();
    let words = ["false wait", "waited, though nothing", "never ends", "blocked for ever", "nobody disturbs it"];
    assert!(words.iter().any(|words| finding.contains(words)), "{finding}");
}

#[test]
fn what_was_made_smaller_still_fails_and_is_smaller() {
    let broken = broken(Broken::Forgets);
    let failed = first_failure(&broken, 50);
    let shrunk = broken.shrink(&failed).run;
    assert!(shrunk.finding.as_deref().unwrap().starts_with("an invalidation is lost: "));
    assert!(shrunk.options.calls < failed.options.calls && shrunk.options.requests < failed.options.requests);
    assert!(shrunk.trace.last().unwrap().what.starts_with("FOUND: "));
    // The command line that is printed for it gives the same run.
    let settings: Vec<Setting> = shrunk.options.differences().split(',').map(|text| text.parse().unwrap()).collect();
    assert_eq!(Options::swarm(shrunk.seed).with(&settings), shrunk.options);
    assert_eq!(broken.run_with(shrunk.seed, shrunk.options, false).digest, shrunk.digest);
}

#[test]
fn the_smallest_failing_seed_is_found_whoever_is_faster() {
    let broken = broken(Broken::Imagines);
    let failed = first_failure(&broken, 200);
    assert!((0..failed.seed).all(|seed| broken.run(seed).finding.is_none()));
}

#[test]
fn every_planted_bug_of_the_core_is_hunted_or_said_not_to_be() {
    let mut planted = std::collections::BTreeSet::new();
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../core"))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(entry).unwrap();
                let names =
                    text.split("planted(\"").skip(1).filter_map(|rest| rest.split('"').next().map(str::to_owned));
                planted.extend(names);
            }
        }
    }
    let hunted = bugs().into_iter().filter(|(_, tracker)| *tracker == TrackerName::CollisionLog).map(|(bug, _)| bug);
    let others = not_hunted().into_iter().map(|(bug, _)| bug).filter(|bug| planted.contains(*bug));
    let listed: std::collections::BTreeSet<String> = hunted.chain(others).map(str::to_owned).collect();
    assert_eq!(planted, listed);
}

#[test]
fn a_bug_is_not_hunted_in_a_build_without_it() {
    if !cfg!(pagemirror_planted) {
        assert_eq!(hunt("no-wait", 1), None);
        assert!(try_hunt("no-wait", 1).unwrap_err().to_string().contains("pagemirror_planted"));
    }
}

#[test]
fn settings_are_read_and_refused() {
    assert_eq!("ring=2".parse(), Ok(Setting::new("ring", 2)));
    assert_eq!("preempt-one-in=7".parse(), Ok(Setting::new("preempt_one_in", 7)));
    assert!("ring".parse::<Setting>().unwrap_err().to_string().contains("write name=value"));
    assert!("ring=x".parse::<Setting>().unwrap_err().to_string().contains("no number"));
    assert!("rings=1".parse::<Setting>().unwrap_err().to_string().contains("devices, workers"));
    let options = Options::swarm(5).with(&["simplest".parse().unwrap(), "ring=2".parse().unwrap()]);
    assert_eq!(options, Options { ring: 2, ..Options::simplest() });
    assert_eq!(options.differences(), "simplest,ring=2");
}
