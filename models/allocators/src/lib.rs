//! Churn on whatever allocator the program has: threads allocate buffers, send them through fixed buffers of io_uring, compare
//! every byte with what arrived, and free them, while the allocator is told to purge. Allocators purge by `madvise`, which leaves
//! a doubt behind; how much of the work is then served without being cached depends on how soon the callers are proven to have
//! returned, so that share is what is reported.
#![expect(unsafe_code, reason = "gives up what root has")]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pagemirror::{CoherentRing, Config, Deadline, RingOptions, RingStats, Userfault};

/// Threads that churn.
const THREADS: usize = 3;
/// Buffers that a thread keeps; a new one takes the place of one of them, and each is sent now and then.
const LIVE: usize = 12;
/// The smallest buffer and the largest, in bytes.
const SMALLEST: usize = 16 << 10;
const LARGEST: usize = 400 << 10;
/// Pause between two purges. An allocator left to itself purges far less often.
const PURGE: Duration = Duration::from_millis(5);
/// How long one transfer may take: reaching it is a finding.
const LIMIT: Duration = Duration::from_secs(10);
/// Without a purge the churn shows nothing.
const LEAST_REMOVES: u64 = 10;
/// The user and group "nobody".
const NOBODY: u32 = 65534;

/// How the run ends doubts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// Every thread was seen elsewhere, through `/proc`.
    SeenElsewhere,
    /// Not at all: the process may not look at itself in `/proc`.
    None,
}

/// Runs the program of an allocator: `NAME [SECONDS] [without-proof]`. `purge` makes it give back what is free.
///
/// Exit code: 0 for no stale byte, 1 for a finding, 2 when this machine lacks something.
pub fn main(name: &str, purge: fn()) -> ExitCode {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(10);
    let proof = if std::env::args().any(|text| text == "without-proof") { Proof::None } else { Proof::SeenElsewhere };
    if proof == Proof::None
        && let Err(error) = hide_from_oneself()
    {
        eprintln!("SKIPPED: {name}: proofs cannot be taken away: {error}");
        return ExitCode::from(2);
    }
    match run(Duration::from_secs(seconds), purge) {
        Ok(totals) => totals.print(name, proof),
        Err(error) => {
            eprintln!("SKIPPED: {name}: {error}");
            ExitCode::from(2)
        }
    }
}

/// Becomes somebody who may not look at this process in `/proc`, as programs do that drop privileges.
fn hide_from_oneself() -> io::Result<()> {
    // SAFETY: the process has one thread and no further business as root.
    let group = unsafe { libc::setresgid(NOBODY, NOBODY, NOBODY) };
    // SAFETY: as above.
    let user = unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) };
    let dropped = (group, user) == (0, 0);
    if dropped { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[derive(Debug, Default)]
struct Totals {
    seconds: f64,
    sent: AtomicU64,
    stale: AtomicU64,
    rings: Vec<RingStats>,
    removes: u64,
    unmaps: u64,
    proofs: u64,
    lost: bool,
}

fn run(time: Duration, purge: fn()) -> Result<Totals, Box<dyn std::error::Error + Send + Sync>> {
    let source = Userfault::open(Config::default())?;
    let mut totals = Totals::default();
    let since = Instant::now();
    let rings: Result<Vec<RingStats>, _> = std::thread::scope(|scope| {
        let totals = &totals;
        let churns: Vec<_> =
            (0..THREADS).map(|number| scope.spawn(move || churn(number as u64, since, time, purge, totals))).collect();
        while since.elapsed() < time {
            std::thread::sleep(PURGE);
            purge();
        }
        churns.into_iter().map(|churn| churn.join().unwrap_or_else(|_| Err("a thread panicked".into()))).collect()
    });
    totals.rings = rings?;
    let told = source.stats();
    (totals.removes, totals.unmaps, totals.proofs) = (told.remove, told.unmap, told.proofs);
    totals.seconds = since.elapsed().as_secs_f64();
    totals.lost = pagemirror::Source::space(&*source).gate().lost().is_some();
    Ok(totals)
}

/// One thread: makes a buffer, or sends one again.
fn churn(
    number: u64,
    since: Instant,
    time: Duration,
    purge: fn(),
    totals: &Totals,
) -> Result<RingStats, Box<dyn std::error::Error + Send + Sync>> {
    let mut ring = CoherentRing::open(RingOptions::default())?;
    let file = File::from(rustix::fs::memfd_create("pagemirror-churn", rustix::fs::MemfdFlags::CLOEXEC)?);
    let mut arrived = vec![0; LARGEST];
    let mut live: Vec<Vec<u8>> = Vec::new();
    let mut random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % bound as u64) as usize
    };
    for round in 0_u64.. {
        if since.elapsed() >= time {
            break;
        }
        if live.len() < LIVE || below(4) == 0 {
            let len = SMALLEST + below(LARGEST - SMALLEST);
            let tag = (round ^ number << 5) as u8;
            let block = std::hint::black_box(vec![tag; len]);
            if live.len() < LIVE { live.push(block) } else { live[below(LIVE)] = block }
        }
        let block = &live[below(live.len())];
        let sent = ring.write_at(file.as_fd(), block, 0, &Deadline::after(LIMIT))?;
        file.read_exact_at(&mut arrived[..sent], 0)?;
        // ORDERING: Relaxed; statistics that are read after the threads were joined.
        totals.sent.fetch_add(sent as u64, Ordering::Relaxed);
        let stale = arrived[..sent].iter().zip(block).filter(|(came, is)| came != is).count();
        // ORDERING: Relaxed, as above.
        totals.stale.fetch_add(stale as u64, Ordering::Relaxed);
        if round.is_multiple_of(64) {
            // Some allocators purge only what is this thread's own. And a thread that never sleeps keeps every doubt.
            purge();
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    Ok(ring.stats())
}

impl Totals {
    fn print(&self, name: &str, proof: Proof) -> ExitCode {
        // ORDERING: Relaxed; the threads were joined.
        let (sent, stale) = (self.sent.load(Ordering::Relaxed), self.stale.load(Ordering::Relaxed));
        let sum = |of: fn(&RingStats) -> u64| self.rings.iter().map(of).sum::<u64>();
        let (fixed, by_address) = (sum(|ring| ring.fixed), sum(|ring| ring.by_address));
        let in_doubt = sum(|ring| ring.cache.one_shots_in_doubt);
        let uses = (fixed + by_address).max(1);
        println!(
            "{name}: {:.1} s, {} MiB in {uses} transfers, {stale} stale bytes; told of {} discards and {} unmappings; {} hits, \
             {} misses",
            self.seconds,
            sent >> 20,
            self.removes,
            self.unmaps,
            sum(|ring| ring.cache.hits),
            sum(|ring| ring.cache.misses),
        );
        println!(
            "{name}: proof of return: {}: {in_doubt} transfers were one-shots in doubt, {:.1} % of all; {} proofs",
            match proof {
                Proof::SeenElsewhere => "every thread seen elsewhere",
                Proof::None => "none",
            },
            100.0 * in_doubt as f64 / uses as f64,
            self.proofs,
        );
        if stale > 0 || self.lost || self.removes < LEAST_REMOVES {
            println!("FINDING in {name}: {stale} stale bytes, lost: {}, discards: {}", self.lost, self.removes);
            return ExitCode::from(1);
        }
        ExitCode::SUCCESS
    }
}
