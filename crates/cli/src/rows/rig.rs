//! What every row stands on: the source, the ring, the cache, the tally and the clock.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagemirror::{
    Config, Control, FixedBuffers, Options, PageRange, RegistrationCache, Source, Stats, Userfault, WaitCause, Watched,
};

use crate::stress::report::{CacheFigures, Outcome, RowReport, Told, WaitFigures};

use super::Settings;
use super::catalogue::RowName;
use super::memory::Span;
use super::ring::Ring;
use super::tally::Tally;
use super::unprivileged;

/// How long [`Rig::nap_until`] sleeps between two looks.
const NAP: Duration = Duration::from_micros(100);

/// How long the device may take to let go of everything at the end.
const LET_GO: Duration = Duration::from_secs(3);

/// Why a row cannot run on this machine: what is missing and how to get it.
#[derive(Debug)]
pub(crate) struct Unsupported(pub(crate) String);

impl Unsupported {
    /// The message of an error with the causes behind it.
    pub(crate) fn because(error: &dyn Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            cause = error.source();
        }
        Self(text)
    }
}

/// The parts of a row. Everything is dropped in the order of the fields, the cache first.
pub(crate) struct Rig {
    pub(crate) cache: RegistrationCache<FixedBuffers>,
    pub(crate) ring: Ring,
    pub(crate) source: Arc<Userfault>,
    pub(crate) tally: Tally,
    pub(crate) clock: Clock,
    unprivileged: bool,
}

/// How long a row runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    since: Instant,
    limit: Duration,
}

impl Clock {
    pub(crate) fn start(limit: Duration) -> Self {
        Self { since: Instant::now(), limit }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.since.elapsed() >= self.limit
    }

    pub(crate) fn milliseconds(&self) -> u64 {
        self.since.elapsed().as_millis() as u64
    }
}

/// What differs between the rows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Setup {
    pub(crate) control: Control,
    pub(crate) options: Options,
    /// Device threads.
    pub(crate) lanes: usize,
    /// Fixed-buffer slots.
    pub(crate) slots: u16,
}

impl Rig {
    pub(crate) fn new(setup: Setup, settings: &Settings) -> Result<Self, Unsupported> {
        let source = Userfault::open(Config { control: setup.control });
        let source = source.map_err(|error| Unsupported::because(&error))?;
        let (ring, device) = open_ring(setup.lanes, setup.slots)?;
        let events: Arc<dyn Source> = Arc::<Userfault>::clone(&source);
        let cache = RegistrationCache::new(events, device, setup.options);
        let cache = cache.map_err(|error| Unsupported(format!("a thread could not be started: {error}")))?;
        let (tally, clock) = (Tally::default(), Clock::start(settings.time));
        Ok(Self { cache, ring, source, tally, clock, unprivileged: settings.unprivileged })
    }

    /// Whether the row goes on.
    pub(crate) fn runs(&self) -> bool {
        !self.clock.is_over() && !self.tally.is_stopped()
    }

    /// Has changes of `span` reported.
    pub(crate) fn watch(&self, span: Span) -> io::Result<()> {
        let range = span.range().map_err(io::Error::other)?;
        match self.source.watch(range).map_err(io::Error::other)? {
            Watched::Covered | Watched::InDoubt => Ok(()),
        }
    }

    /// Whether a page of `range` is in doubt.
    pub(crate) fn is_in_doubt(&self, range: PageRange) -> bool {
        self.source.space().doubt().overlaps(range)
    }

    /// Spins, politely, until `condition` holds. Gives up at `limit` and when the row ends.
    pub(crate) fn spin_until(&self, limit: Duration, condition: impl Fn() -> bool) -> bool {
        let since = Instant::now();
        while !condition() {
            if since.elapsed() >= limit || !self.runs() {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }

    /// The same, asleep between looks: a thread that never blocks keeps every doubt.
    pub(crate) fn nap_until(&self, limit: Duration, condition: impl Fn() -> bool) -> bool {
        self.spin_until(limit, || {
            let holds = condition();
            if !holds {
                std::thread::sleep(NAP);
            }
            holds
        })
    }

    /// The row's report. Every lease and use has been given back.
    pub(crate) fn report(&self, row: RowName, note: Option<String>) -> Outcome {
        if let Some(lacking) = self.tally.lacking() {
            return Outcome::Unsupported(lacking);
        }
        let stats = self.cache.stats();
        if let Some(cause) = stats.lost {
            self.tally.finding(format!("coherence was lost: {cause}"));
        }
        self.let_everything_go();
        let mut report = report_of(row, &self.clock, &self.tally);
        let rights = self.unprivileged.then(|| unprivileged::in_words(&self.source));
        report.note = match (note, rights) {
            (Some(note), Some(rights)) => Some(format!("{note}; {rights}")),
            (note, rights) => note.or(rights),
        };
        report.told = told(&stats);
        report.cache = CacheFigures { proofs: self.source.stats().proofs, ..figures(&stats) };
        report.waits = waits(&stats);
        Outcome::Ran(Box::new(report))
    }
}

impl Rig {
    /// Gives up every registration and waits for the device to have let go of them: none may be forgotten.
    fn let_everything_go(&self) {
        let everything = PageRange::ALL;
        if let Err(error) = self.cache.evict(everything.start(), everything.len()) {
            self.tally.finding(format!("evicting everything: {error}"));
        }
        let since = Instant::now();
        while self.cache.registrar().filled().0 > 0 && since.elapsed() < LET_GO {
            std::thread::sleep(NAP);
        }
        let (slots, bytes) = self.cache.registrar().filled();
        if slots > 0 {
            self.tally.finding(format!("{slots} registrations of {bytes} bytes were forgotten: nobody holds them"));
        }
    }
}

/// A ring and its fixed buffers.
pub(crate) fn open_ring(lanes: usize, slots: u16) -> Result<(Ring, FixedBuffers), Unsupported> {
    let ring = Ring::new(lanes).map_err(|error| {
        Unsupported(format!(
            "no io_uring could be made: {error}. It needs Linux 5.19 or later with CONFIG_IO_URING. Where it is refused, look \
             at the sysctl kernel.io_uring_disabled and, in a container, at its seccomp profile; where memory is lacking, raise \
             RLIMIT_MEMLOCK (ulimit -l)"
        ))
    })?;
    let device = FixedBuffers::new(&*ring.lock(), slots).map_err(|error| Unsupported::because(&error))?;
    Ok((ring, device))
}

/// A report with the figures of the tally only.
pub(crate) fn report_of(row: RowName, clock: &Clock, tally: &Tally) -> RowReport {
    let (stale_uses, stale_bytes) = tally.stale();
    RowReport {
        row,
        milliseconds: clock.milliseconds(),
        uses: tally.uses(),
        checked_bytes: tally.checked_bytes(),
        stale_uses,
        stale_bytes,
        unmapped_answers: tally.unmapped_answers(),
        invalidations: tally.invalidations(),
        told: Told::default(),
        cache: CacheFigures::default(),
        waits: Vec::new(),
        note: None,
        examples: tally.examples(),
        findings: tally.findings(),
    }
}

fn told(stats: &Stats) -> Told {
    let events = stats.invalidations;
    Told {
        unmap: events.unmap,
        remap: events.remap,
        remove: events.remove,
        requested: events.requested,
        revoked: events.revoked,
    }
}

fn figures(stats: &Stats) -> CacheFigures {
    CacheFigures {
        hits: stats.hits,
        misses: stats.misses,
        collisions: stats.collisions,
        retries: stats.retries,
        false_retries: stats.false_retries,
        outrun: stats.conservative.outrun,
        overflow: stats.conservative.overflow,
        doubt_overflows: stats.doubt_overflows,
        one_shots_in_doubt: stats.one_shots_in_doubt,
        one_shots_contended: stats.one_shots_contended,
        stale_leases: stats.stale,
        evictions: stats.evictions,
        register_failures: stats.register_failures,
        deregister_failures: stats.deregister_failures,
        proofs: 0,
    }
}

fn waits(stats: &Stats) -> Vec<WaitFigures> {
    let microseconds = |wait: Duration| wait.as_nanos() as f64 / 1000.0;
    let figures = |(cause, waits): (&WaitCause, &pagemirror::Waits)| WaitFigures {
        cause: format!("{cause:?}").to_lowercase(),
        count: waits.count,
        p50_us: microseconds(waits.p50),
        p99_us: microseconds(waits.p99),
        max_us: microseconds(waits.max),
    };
    WaitCause::ALL.iter().zip(&stats.waits).map(figures).collect()
}
