//! A registrar that remembers what the device holds, so that an unmapping can wait until it holds nothing of a range.
//!
//! The cache deregisters after the last use, so "no registration of the range is left at the device" says both that the uses
//! have ended and that the pages are let go. It is kept where registrations are made and taken back, not where they are
//! used: a hit costs nothing.

use std::fmt;

use pagemirror_core::addr::PageRange;
use pagemirror_core::holder::Holder;
use pagemirror_core::wait::{Deadline, WaitQueue};
use pagemirror_sync::Mutex;
use pagemirror_sync::atomic::{AtomicU64, Ordering};

use crate::registrar::{Access, RegisterError, Registrar};

/// How often the list is looked at when nothing is taken back: a deregistration wakes the waiter before.
const LOOK: std::time::Duration = std::time::Duration::from_millis(10);

/// A device whose registrations are remembered. Give it to a cache in the device's place; the cache's `registrar()` is then
/// the [`Holder`] to wait for.
///
/// ```
/// # use pagemirror_registration::{Registrar, Tracked};
/// fn with_list<R: Registrar>(device: R) -> Tracked<R> {
///     Tracked::new(device)
/// }
/// ```
pub struct Tracked<R: Registrar> {
    device: R,
    /// What the device holds, and what it is being asked to hold, which has no key yet. Locked for one pass; nothing is
    /// registered or taken back under it. The pump never takes it.
    held: Mutex<Vec<(PageRange, Option<R::Key>)>>,
    /// Registrations that were taken back, by which a waiter sees that the list has changed.
    taken_back: AtomicU64,
    changed: WaitQueue,
}

impl<R: Registrar> Tracked<R> {
    /// Remembers what `device` holds from now on.
    pub fn new(device: R) -> Self {
        Self { device, held: Mutex::new(Vec::new()), taken_back: AtomicU64::new(0), changed: WaitQueue::new() }
    }

    /// The device itself.
    pub fn device(&self) -> &R {
        &self.device
    }

    /// Says that the list has become shorter.
    fn announce(&self) {
        // ORDERING: Release pairs with the Acquire of the waiter, which looks at the list again.
        self.taken_back.fetch_add(1, Ordering::Release);
        self.changed.wake();
    }

    /// Whether the device holds a page of `range`, or is being asked to.
    #[must_use]
    pub fn holds(&self, range: PageRange) -> bool {
        self.held.lock().iter().any(|(held, _)| held.overlaps(range))
    }
}

impl<R: Registrar> Registrar for Tracked<R>
where
    R::Key: PartialEq,
{
    type Key = R::Key;

    fn register(&self, range: PageRange, access: Access) -> Result<R::Key, RegisterError> {
        // In the list before the device is asked: a registration for one use may be made while somebody unmaps.
        self.held.lock().push((range, None));
        let registered = self.device.register(range, access);
        let mut held = self.held.lock();
        if let Some(at) = held.iter().position(|entry| *entry == (range, None)) {
            match &registered {
                Ok(key) => held[at].1 = Some(*key),
                Err(_) => drop(held.swap_remove(at)),
            }
        }
        drop(held);
        if registered.is_err() {
            self.announce();
        }
        registered
    }

    fn deregister(&self, key: R::Key) -> Result<(), RegisterError> {
        // Out of the list only when the device has let go: what it refuses to let go is held for ever. Looked up before,
        // because the device may give the key out again at once, and then it stands for two ranges for a moment.
        let range = self.held.lock().iter().find(|(_, held)| *held == Some(key)).map(|(range, _)| *range);
        self.device.deregister(key)?;
        let mut held = self.held.lock();
        if let Some(at) = held.iter().position(|(of, held)| (Some(*of), *held) == (range, Some(key))) {
            held.swap_remove(at);
        }
        drop(held);
        self.announce();
        Ok(())
    }
}

impl<R: Registrar> Holder for Tracked<R> {
    fn wait_released(&self, range: PageRange, deadline: &Deadline<'_>) -> bool {
        loop {
            // ORDERING: Acquire, see `deregister`. Read before the list, so that no change between the two is slept through.
            let seen = self.taken_back.load(Ordering::Acquire);
            if !self.holds(range) {
                return true;
            }
            if deadline.expired().is_some() {
                return false;
            }
            self.changed.wait_at_most(LOOK, || self.taken_back.load(Ordering::Acquire) != seen);
        }
    }
}

impl<R: Registrar> fmt::Debug for Tracked<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracked").field("held", &self.held.lock().len()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::io;
    use std::sync::mpsc;
    use std::time::Duration;

    use pagemirror_core::addr::VirtAddr;

    use super::*;
    use crate::registrar::RegisterErrorKind;

    /// A device that says when it is asked, and answers what it is told to.
    struct Slow {
        asked: mpsc::SyncSender<()>,
        answers: Mutex<mpsc::Receiver<bool>>,
    }

    impl Registrar for Slow {
        type Key = u32;

        fn register(&self, _range: PageRange, _access: Access) -> Result<u32, RegisterError> {
            self.asked.send(()).unwrap();
            let answer = self.answers.lock().recv().unwrap();
            let refused = || RegisterError::new(RegisterErrorKind::Refused, "told so", io::Error::other("told so"));
            answer.then_some(7).ok_or_else(refused)
        }

        fn deregister(&self, _key: u32) -> Result<(), RegisterError> {
            Ok(())
        }
    }

    #[test]
    fn what_the_device_is_being_asked_to_hold_is_waited_for() {
        let range = PageRange::covering(VirtAddr::new(0x10000), 0x1000, 4096).unwrap();
        let (asked, was_asked) = mpsc::sync_channel(0);
        let (answer, answers) = mpsc::channel();
        let device = Tracked::new(Slow { asked, answers: Mutex::new(answers) });
        let at_once = || device.wait_released(range, &Deadline::after(Duration::ZERO));
        let soon = || device.wait_released(range, &Deadline::after(Duration::from_secs(30)));
        std::thread::scope(|scope| {
            let registering = scope.spawn(|| device.register(range, Access::Read));
            was_asked.recv().unwrap();
            assert!(!at_once(), "released while the device registers");
            answer.send(true).unwrap();
            assert_eq!(registering.join().unwrap().unwrap(), 7);
            assert!(!at_once(), "released while the device holds it");
            device.deregister(7).unwrap();
            assert!(soon());

            let refused = scope.spawn(|| device.register(range, Access::Read));
            was_asked.recv().unwrap();
            answer.send(false).unwrap();
            assert!(soon(), "what was refused is not held");
            assert!(refused.join().unwrap().is_err());
        });
    }
}
