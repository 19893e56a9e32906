//! `get` for asynchronous programs, with whatever executor they have.
//!
//! # States
//! A hit is answered by the first poll. A miss is *asked* of the cache's fetcher, a thread that is started with the first one and
//! calls the ordinary blocking way; then it is *answered*, and the fetcher wakes the task. Dropping the future cancels what
//! was asked. Wakers are called by the fetcher, under no lock; never by the pump.
//!
//! # Checked by
//! `tests/fetch.rs`, on real threads: the order of waking rests on one mutex and is not modelled.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use pagemirror_core::addr::PageRange;
use pagemirror_core::wait::{CancelToken, Deadline, WaitQueue};
use pagemirror_sync::atomic::{AtomicBool, Ordering};
use pagemirror_sync::{Arc, Mutex, thread};

use crate::cache::Shared;
use crate::error::Error;
use crate::lease::{Kind, Lease};
use crate::registrar::{Access, Registrar};

/// How long the fetcher sleeps before it looks whether its cache is still there.
const NAP: Duration = Duration::from_millis(100);

/// What came of a request: whether it was cached (else it is good for one use), or why not.
type Answer = Result<bool, Error>;

/// One request for a registration.
struct Request {
    range: PageRange,
    access: Access,
    until: Instant,
    cancel: CancelToken,
    state: Mutex<(Option<Answer>, Option<Waker>)>,
}

/// The requests of a cache, and its fetcher.
pub(crate) struct Fetches {
    asked: Mutex<VecDeque<Arc<Request>>>,
    bell: WaitQueue,
    started: Mutex<bool>,
    closing: AtomicBool,
}

impl Fetches {
    pub(crate) fn new() -> Self {
        let (asked, started) = (Mutex::new(VecDeque::new()), Mutex::new(false));
        Self { asked, bell: WaitQueue::new(), started, closing: AtomicBool::new(false) }
    }

    /// Ends the fetcher.
    pub(crate) fn close(&self) {
        // ORDERING: Release, for form: nothing else is read behind it.
        self.closing.store(true, Ordering::Release);
        self.bell.wake();
    }

    fn is_closing(&self) -> bool {
        // ORDERING: Acquire, see `close`.
        self.closing.load(Ordering::Acquire)
    }
}

/// A lease that is being waited for. See [`RegistrationCache::get_async`](crate::RegistrationCache::get_async).
#[must_use = "a future does nothing until it is polled"]
pub struct Get<'c, R: Registrar> {
    shared: &'c Arc<Shared<R>>,
    range: Result<PageRange, Option<Error>>,
    access: Access,
    until: Instant,
    asked: Option<Arc<Request>>,
}

impl<'c, R: Registrar> Get<'c, R> {
    pub(crate) fn new(
        shared: &'c Arc<Shared<R>>,
        range: Result<PageRange, Error>,
        access: Access,
        until: Instant,
    ) -> Self {
        Self { shared, range: range.map_err(Some), access, until, asked: None }
    }

    fn lease(&self, range: PageRange, kind: Kind<'c>) -> Lease<'c, R> {
        Lease { kind, range, access: self.access, shared: self.shared }
    }

    /// The lease, if it is there or was answered. `None`: it has to be asked for.
    fn ready(&mut self, range: PageRange, waker: &Waker) -> Option<Poll<Result<Lease<'c, R>, Error>>> {
        if let Some(asked) = &self.asked {
            let mut state = asked.state.lock();
            let Some(answer) = state.0.take() else {
                state.1 = Some(waker.clone());
                return Some(Poll::Pending);
            };
            drop(state);
            self.asked = None;
            match answer {
                Ok(true) => {}
                Ok(false) => return Some(Poll::Ready(Ok(self.lease(range, Kind::one_shot_granted())))),
                Err(error) => return Some(Poll::Ready(Err(error))),
            }
        }
        let found = self.shared.find(range, self.access)?;
        Some(Poll::Ready(Ok(self.lease(range, Kind::Cached(found)))))
    }
}

impl<'c, R: Registrar> Future for Get<'c, R> {
    type Output = Result<Lease<'c, R>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let range = match &mut self.range {
            Ok(range) => *range,
            // Polled again after it was ready: that is the caller's bug, and has no answer.
            Err(error) => return error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
        };
        if let Some(ready) = self.ready(range, context.waker()) {
            return ready;
        }
        let state = Mutex::new((None, Some(context.waker().clone())));
        let request = Request { range, access: self.access, until: self.until, cancel: CancelToken::default(), state };
        let request = Arc::new(request);
        if let Err(source) = self.shared.ask(Arc::clone(&request)) {
            return Poll::Ready(Err(Error::Fetcher { source }));
        }
        self.asked = Some(request);
        Poll::Pending
    }
}

impl<R: Registrar> Drop for Get<'_, R> {
    fn drop(&mut self) {
        if let Some(asked) = &self.asked {
            asked.cancel.cancel();
        }
    }
}

impl<R: Registrar> fmt::Debug for Get<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Get").field("range", &self.range).finish_non_exhaustive()
    }
}

impl<R: Registrar> Shared<R> {
    /// Hands a request to the fetcher, which is started if it is not there.
    fn ask(self: &Arc<Self>, request: Arc<Request>) -> io::Result<()> {
        let mut started = self.fetches.started.lock();
        if !*started {
            let (cache, fetches) = (Arc::downgrade(self), Arc::clone(&self.fetches));
            drop(thread::Builder::new().name("pagemirror-fetch".into()).spawn(move || run(&cache, &fetches))?);
            *started = true;
        }
        drop(started);
        self.fetches.asked.lock().push_back(request);
        self.fetches.bell.wake();
        Ok(())
    }

    fn serve(&self, request: &Request) {
        let left = request.until.saturating_duration_since(Instant::now());
        let deadline = Deadline::after(left).or_cancelled(&request.cancel);
        let answer = self.get_by_index(request.range, request.access, &deadline).map(|kind| {
            if let Kind::Cached(leased) = kind {
                self.registry.end_lease(leased);
                return true;
            }
            false
        });
        let mut state = request.state.lock();
        state.0 = Some(answer);
        let waker = state.1.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Serves one request after the other, until the cache is gone. Between two of them it does not hold the cache, which would
/// look like somebody's use.
fn run<R: Registrar>(cache: &Weak<Shared<R>>, fetches: &Fetches) {
    while !fetches.is_closing() {
        let next = fetches.asked.lock().pop_front();
        let Some(request) = next else {
            fetches.bell.wait_at_most(NAP, || !fetches.asked.lock().is_empty() || fetches.is_closing());
            continue;
        };
        let Some(shared) = cache.upgrade() else { return };
        shared.serve(&request);
    }
}
