//! The library's own source, opened and made to notice something.
#![expect(unsafe_code, reason = "forks a child that looks at the gate")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use pagemirror::core::addr::AddrError;
use pagemirror::linux::tasks::Proof;
use pagemirror::{Config, LostCause, PageRange, Probe, Source, Userfault, VirtAddr};

use super::coverage::scratch::{call, map, page};
use super::survey::Check;

/// How long an event, or the proof that a sleeping thread has returned, may take. Both take milliseconds.
const LIMIT: Duration = Duration::from_secs(3);

/// Opens the source; gives it if it is there.
pub(super) fn ask(checks: &mut Vec<Check>) -> Option<Arc<Userfault>> {
    let (name, question) = ("source", "changes of this process's memory are told");
    let source = match Userfault::open(Config::default()) {
        Ok(source) => source,
        Err(error) => {
            let why = std::error::Error::source(&error).map(|why| format!(": {why}")).unwrap_or_default();
            checks.push(Check::missing(name, question, format!("no{why}"), error.to_string()));
            return None;
        }
    };
    checks.push(Check::fine(name, question, "the source is open"));
    checks.push(probe(&source));
    checks.push(event(&source));
    checks.push(proof(&source));
    checks.push(fork(&source));
    Some(source)
}

fn probe(source: &Userfault) -> Check {
    let (name, question) = ("probe", "the kernel says whether a change is under way");
    let since = Instant::now();
    while matches!(source.probe(), Probe::Changing) && since.elapsed() < LIMIT {
        std::thread::yield_now();
    }
    match source.probe() {
        Probe::Quiet => Check::fine(name, question, "yes"),
        other => Check::missing(name, question, format!("{other:?}"), "nothing can be used at the strict level"),
    }
}

fn anonymous() -> std::io::Result<(usize, PageRange)> {
    let at = map(0, page(), libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
    let range = PageRange::covering(VirtAddr::new(at as u64), page() as u64, page() as u64);
    Ok((at, range.map_err(|error: AddrError| std::io::Error::other(error))?))
}

/// A watched page is unmapped, and the event arrives.
fn event(source: &Userfault) -> Check {
    let (name, question) = ("event", "an munmap of a watched page is noticed");
    let before = source.stats().unmap;
    let unmapped = anonymous().and_then(|(at, range)| {
        let _ = source.watch(range).map_err(std::io::Error::other)?;
        call(libc::SYS_munmap, [at, page(), 0, 0, 0, 0])
    });
    let since = Instant::now();
    while source.stats().unmap == before && since.elapsed() < LIMIT {
        std::thread::sleep(Duration::from_millis(1));
    }
    match unmapped {
        Ok(_) if source.stats().unmap > before => Check::fine(name, question, "yes"),
        Ok(_) => Check::missing(name, question, "no event came", "report this with the kernel's version"),
        Err(error) => Check::missing(name, question, format!("no: {error}"), "see the answers above"),
    }
}

/// A watched page is discarded, and the doubt about it ends.
fn proof(source: &Userfault) -> Check {
    let (name, question) = ("proof-of-return", "the end of a discard is proven");
    let advice = "what was discarded once is served uncached from then on; wrapped discards end their own doubt only if \
        nothing else is in doubt. Allow reading /proc/self/task/*/syscall (CONFIG_HAVE_ARCH_TRACEHOOK, hidepid, dumpable)";
    if let Err(error) = Proof::begin().and_then(|mut proof| proof.advance()) {
        return Check::lacks(name, question, format!("no: {error}"), advice);
    }
    let before = source.stats();
    let since = Instant::now();
    let discarded = anonymous().and_then(|(at, range)| {
        let _ = source.watch(range).map_err(std::io::Error::other)?;
        call(libc::SYS_madvise, [at, page(), libc::MADV_DONTNEED as usize, 0, 0, 0]).map(|_| range)
    });
    let range = match discarded {
        Ok(range) => range,
        Err(error) => return Check::lacks(name, question, format!("no: {error}"), advice),
    };
    // The doubt is set a moment after the caller was released, so its end is the proof that comes after the event.
    let over = || {
        let now = source.stats();
        now.remove > before.remove && now.proofs > before.proofs && !source.space().doubt().overlaps(range)
    };
    while !over() && since.elapsed() < LIMIT {
        std::thread::sleep(Duration::from_micros(100));
    }
    if !over() {
        return Check::lacks(name, question, format!("not within {LIMIT:?}"), advice);
    }
    let took = since.elapsed().as_micros();
    Check::fine(name, question, format!("by /proc/self/task/TID/syscall, {took} us while no thread computes"))
}

/// A forked child finds the gate's page wiped, and so fails closed.
fn fork(source: &Userfault) -> Check {
    let (name, question) = ("fork", "a forked child knows that nothing is told there");
    let advice = "a forked child must not use what its parent registered";
    // SAFETY: the child looks at one word and ends, without taking a lock or allocating.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let knows = source.space().gate().lost() == Some(LostCause::Forked);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!knows)) };
    }
    let mut status = -1;
    // SAFETY: our own child, or -1, for which the call fails; the status is ours to be written.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    match (child > 0 && waited == child, status) {
        (true, 0) => Check::fine(name, question, "yes"),
        (true, _) => Check::lacks(name, question, "no", advice),
        (false, _) => Check::lacks(name, question, "no child could be forked", advice),
    }
}
