//! Which implementation of the primitives this build uses.

#[cfg(sim)]
pub use crate::sim::atomic;
#[cfg(loom)]
pub use loom::{hint, sync::atomic};
#[cfg(all(shuttle, not(loom)))]
pub use shuttle::{hint, sync::atomic};
#[cfg(not(any(loom, shuttle, sim)))]
pub use std::{hint, sync::atomic};

/// Hints of this build.
#[cfg(sim)]
pub mod hint {
    pub use crate::sim::yield_now as spin_loop;
}

/// The clock of this build. A model checker has none: there an instant is the standard one, and nothing depends on it.
pub mod time {
    #[cfg(sim)]
    pub use crate::sim::time::Instant;
    #[cfg(not(sim))]
    pub use std::time::Instant;
}

/// Threads of this build's scheduler.
pub mod thread {
    #[cfg(sim)]
    pub use crate::sim::{JoinHandle, sleep, spawn, yield_now};
    #[cfg(loom)]
    pub use loom::thread::{Builder, JoinHandle, spawn, yield_now};
    #[cfg(all(shuttle, not(loom)))]
    pub use shuttle::thread::{Builder, JoinHandle, spawn, yield_now};
    #[cfg(not(any(loom, shuttle, sim)))]
    pub use std::thread::{Builder, JoinHandle, spawn, yield_now};

    /// Sleeps for `duration`; under a model checker, which has no clock, it only lets others run.
    #[cfg(not(sim))]
    pub fn sleep(duration: std::time::Duration) {
        if cfg!(any(loom, shuttle)) {
            yield_now();
        } else {
            std::thread::sleep(duration);
        }
    }
}

/// Lanes of a structure in which each thread writes a line of its own: enough for a hundred threads that live at a time.
/// The last lane is for everybody who finds no other.
pub const LANES: usize = if cfg!(any(loom, shuttle)) { 3 } else { 128 };

/// The lane in which the calling thread writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane {
    index: usize,
}

impl Lane {
    /// Less than [`LANES`].
    #[inline]
    #[must_use]
    pub fn index(self) -> usize {
        self.index
    }

    /// Whether no other living thread writes in it, so that what only lanes write needs no read-modify-write. The next
    /// owner sees all that the former one has done.
    #[inline]
    #[must_use]
    pub fn is_exclusive(self) -> bool {
        self.index < LANES - 1
    }
}

/// The calling thread's lane, the same until its thread-local storage is taken down; then the shared one.
#[inline]
#[must_use]
pub fn lane() -> Lane {
    Lane { index: thread_index().min(LANES - 1) }
}

/// Every lane in which a thread may write that has called [`lane`] so far.
#[inline]
pub fn lanes_in_use() -> impl Iterator<Item = usize> {
    (0..highest_index()).chain(std::iter::once(LANES - 1))
}

/// A small number of the calling thread; two threads never have the same while both live. What is not less than
/// [`LANES`]` - 1` is shared.
#[cfg(not(any(loom, shuttle, sim)))]
#[inline]
#[must_use]
pub fn thread_index() -> usize {
    own::INDEX.with(|index| match index.get() {
        own::UNKNOWN => own::take(),
        known => known,
    })
}

#[cfg(not(any(loom, shuttle, sim)))]
#[inline]
fn highest_index() -> usize {
    // ORDERING: SeqCst, see `own::take`.
    own::HIGHEST.load(std::sync::atomic::Ordering::SeqCst)
}

/// Numbers of threads: taken at the first question, given back when the thread ends. Allocates nothing.
#[cfg(not(any(loom, shuttle, sim)))]
mod own {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use super::LANES;

    pub(super) const UNKNOWN: usize = usize::MAX;
    const SHARED: usize = LANES - 1;

    /// A bit for each number that is taken.
    static TAKEN: [AtomicU64; LANES / 64] = [const { AtomicU64::new(0) }; LANES / 64];
    /// One more than the highest number that was ever taken.
    pub(super) static HIGHEST: AtomicUsize = AtomicUsize::new(0);

    thread_local! {
        pub(super) static INDEX: Cell<usize> = const { Cell::new(UNKNOWN) };
        static OWNED: GiveBack = GiveBack(claim());
    }

    struct GiveBack(usize);

    impl Drop for GiveBack {
        fn drop(&mut self) {
            INDEX.with(|index| index.set(SHARED));
            if self.0 < SHARED {
                // ORDERING: Release pairs with `claim`: the next owner sees what this thread wrote.
                TAKEN[self.0 / 64].fetch_and(!(1 << (self.0 % 64)), Ordering::Release);
            }
        }
    }

    #[cold]
    pub(super) fn take() -> usize {
        // A thread that is being torn down may not own a number any more.
        let index = OWNED.try_with(|owned| owned.0).unwrap_or(SHARED);
        INDEX.with(|own| own.set(index));
        index
    }

    fn claim() -> usize {
        for (at, word) in TAKEN.iter().enumerate() {
            let lowest = |taken: u64| (taken != u64::MAX).then(|| taken | (taken + 1));
            // ORDERING: Acquire pairs with the Release of the former owner.
            if let Ok(before) = word.fetch_update(Ordering::Acquire, Ordering::Relaxed, lowest) {
                let index = (at * 64 + before.trailing_ones() as usize).min(SHARED);
                // ORDERING: SeqCst; comes before everything that the thread writes in its lane, in the one order in which
                // whoever looks at the lanes has first asked for this.
                HIGHEST.fetch_max((index + 1).min(SHARED), Ordering::SeqCst);
                return index;
            }
        }
        SHARED
    }
}

/// Under a model checker every lane may be written in.
#[cfg(any(loom, shuttle, sim))]
fn highest_index() -> usize {
    LANES - 1
}

/// See the standard build: the same numbers, handed out anew in each execution of the model.
#[cfg(loom)]
#[must_use]
pub fn thread_index() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};
    // The counter itself is not part of the model, so it is a standard atomic, made anew for each execution.
    loom::lazy_static! { static ref NEXT: AtomicUsize = AtomicUsize::new(0); }
    loom::thread_local! { static INDEX: usize = NEXT.fetch_add(1, Ordering::Relaxed); }
    INDEX.with(|index| *index)
}

/// See the standard build: shuttle numbers its threads itself.
#[cfg(all(shuttle, not(loom)))]
#[must_use]
pub fn thread_index() -> usize {
    shuttle::current::me().into()
}

/// See the standard build: the actor's number.
#[cfg(sim)]
#[must_use]
pub fn thread_index() -> usize {
    crate::sim::current()
}

/// Runs `f` on the calling thread's count of sections it is in: 0 or 1. Outside the model: never an interleaving.
#[inline]
pub fn section_depth<R>(f: impl FnOnce(&std::cell::Cell<u32>) -> R) -> R {
    #[cfg(loom)]
    {
        loom::thread_local! { static DEPTH: std::cell::Cell<u32> = std::cell::Cell::new(0); }
        DEPTH.with(f)
    }
    #[cfg(all(shuttle, not(loom)))]
    {
        shuttle::thread_local! { static DEPTH: std::cell::Cell<u32> = std::cell::Cell::new(0); }
        DEPTH.with(f)
    }
    #[cfg(sim)]
    {
        crate::sim::section_depth(f)
    }
    #[cfg(not(any(loom, shuttle, sim)))]
    {
        thread_local! { static DEPTH: std::cell::Cell<u32> = const { std::cell::Cell::new(0) }; }
        DEPTH.with(f)
    }
}

/// Stands behind a sequentially consistent read-modify-write and before a sequentially consistent load, which are in one
/// order by themselves. loom takes those accesses for acquire and release, so there this is the fence; elsewhere nothing.
#[inline(always)]
pub fn fence_for_loom() {
    #[cfg(loom)]
    loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
}

#[cfg(all(test, not(any(loom, shuttle, sim))))]
mod tests {
    use super::{LANES, lane, lanes_in_use};

    #[test]
    fn living_threads_have_lanes_of_their_own_and_give_them_back() {
        let own = lane();
        assert!(own.is_exclusive() && own == lane());
        let all = std::sync::Barrier::new(200);
        let mut exclusive: Vec<usize> = std::thread::scope(|scope| {
            let ask = || {
                let lane = lane();
                all.wait();
                lane
            };
            let threads: Vec<_> = (0..200).map(|_| scope.spawn(ask)).collect();
            let lanes = threads.into_iter().map(|thread| thread.join().unwrap());
            lanes.filter(|lane| lane.is_exclusive()).map(super::Lane::index).collect()
        });
        let found = exclusive.len();
        exclusive.sort_unstable();
        exclusive.dedup();
        assert_eq!(found, exclusive.len(), "two threads that lived at a time shared a lane");
        assert!(found < LANES && !exclusive.contains(&own.index()));
        assert!(exclusive.iter().all(|lane| lanes_in_use().any(|used| used == *lane)));
        let later = std::thread::spawn(lane).join().unwrap();
        assert!(later.is_exclusive(), "a lane of a thread that has ended is given out again");
    }
}
