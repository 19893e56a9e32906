//! Actors: making one, and waiting for its end.

use super::lock::Mutex;
use super::run::with_scheduler;
use super::{Bell, current};
use std::sync::{Arc, PoisonError};

/// An actor that was spawned.
#[derive(Debug)]
pub struct JoinHandle<T> {
    actor: usize,
    result: Arc<Mutex<Option<T>>>,
    ended: Arc<Bell>,
}

/// Starts an actor without a name.
pub fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    spawn_named(format!("actor of {}", current()), body)
}

/// Starts an actor.
///
/// # Panics
/// Outside a run: there is nobody to schedule it.
pub fn spawn_named<T: Send + 'static>(
    name: impl Into<String>,
    body: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let result = Arc::new(Mutex::new(None));
    let ended = Arc::new(Bell::new());
    let (slot, bell) = (Arc::clone(&result), Arc::clone(&ended));
    let body = move || {
        let value = body();
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        bell.ring();
    };
    let actor = with_scheduler(|scheduler| scheduler.add(name.into(), Box::new(body)));
    let Some(actor) = actor else { panic!("an actor was spawned outside a simulation") };
    JoinHandle { actor, result, ended }
}

impl<T> JoinHandle<T> {
    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        with_scheduler(|scheduler| scheduler.is_done(self.actor)).unwrap_or(true)
    }

    /// Waits for its end and gives what it returned.
    ///
    /// # Errors
    /// Never here: a panic of an actor ends the run. In the shape of the standard library's.
    ///
    /// # Blocking
    /// Sleeps until the actor has ended.
    pub fn join(self) -> std::thread::Result<T> {
        loop {
            if let Some(value) = self.result.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return Ok(value);
            }
            self.ended.wait(None);
        }
    }
}
