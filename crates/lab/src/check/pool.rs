//! Runs cases beside each other, one for each processor.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::cases::Case;
use super::expect::Judged;
use super::process::{self, Order};

/// How far a check is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// Cases that have ended.
    pub done: usize,
    /// A case that is running, or has just ended.
    pub case: &'a Case,
    /// The executions of that case so far.
    pub executions: u64,
}

/// Runs every case in a process of its own, and judges it. `progress` is called from several threads.
#[must_use]
pub fn run(cases: &[Case], progress: &(dyn Fn(Progress<'_>) + Sync)) -> Vec<Judged> {
    let done = AtomicUsize::new(0);
    // ORDERING: Relaxed; a number for people.
    let tell = |case: &Case, executions| progress(Progress { done: done.load(Ordering::Relaxed), case, executions });
    beside_each_other(cases, |case| {
        let since = Instant::now();
        let ended = process::run(&Order { case: *case, planted: None }, |executions| tell(case, executions));
        done.fetch_add(1, Ordering::Relaxed);
        tell(case, ended.executions());
        Judged::new(case, ended, since.elapsed().as_millis() as u64)
    })
}

/// Applies `each` to all items, on as many threads as there are processors. The answers are in the order of the items.
pub(crate) fn beside_each_other<T: Sync, R: Send>(items: &[T], each: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                // ORDERING: Relaxed; each item is taken once, and that is all.
                while let Some((at, item)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, items.get(at)?)))
                {
                    let answer = each(item);
                    answers.lock().unwrap_or_else(PoisonError::into_inner).push((at, answer));
                }
            });
        }
    });
    let mut answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    answers.sort_unstable_by_key(|(at, _)| *at);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_answered_once_in_order() {
        let items: Vec<usize> = (0..200).collect();
        assert_eq!(beside_each_other(&items, |item| item * 2), (0..400).step_by(2).collect::<Vec<_>>());
        assert!(beside_each_other(&[] as &[u8], |_| ()).is_empty());
    }
}
