//! A model of what surrounds the cache: a process whose one page changes version, the kernel's events, a device with slots.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io;
use std::time::Duration;

use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_core::notify::Event;
use pagemirror_core::source::{Probe, Source, WatchError, Watched};
use pagemirror_core::space::AddressSpace;
use pagemirror_core::turn::{Batch, TurnOrder};
use pagemirror_core::wait::Deadline;
use pagemirror_registration::{Access, RegisterError, RegisterErrorKind, Registrar, RegistrationCache};
use pagemirror_sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use pagemirror_sync::{Arc, Mutex, thread};

pub(crate) const PAGE: u64 = 4096;

/// Runs a body under this build's scheduler, or many times on real threads. Under shuttle both schedulers are used: random
/// ones switch often, the other (PCT) lets one thread run through all of its steps inside another's small window.
pub(crate) fn explore(body: impl Fn() + Send + Sync + 'static) {
    #[cfg(shuttle)]
    {
        let body = Arc::new(body);
        let same = Arc::clone(&body);
        shuttle::check_random(move || same(), 1_500);
        shuttle::check_pct(move || body(), 1_500, 3);
    }
    #[cfg(not(shuttle))]
    for _ in 0..300 {
        body();
    }
}

pub(crate) fn address(page: u64) -> VirtAddr {
    VirtAddr::new(0x10_0000 + page * PAGE)
}

pub(crate) fn soon() -> Deadline<'static> {
    Deadline::after(Duration::from_secs(20))
}

/// A process with some pages. Each page has a version, which grows with every change of its mapping.
#[derive(Debug)]
pub(crate) struct Process {
    space: Arc<AddressSpace>,
    versions: Vec<AtomicU64>,
    /// The kernel's count of changes that it has begun and nobody has read.
    changing: AtomicUsize,
    events: Mutex<Vec<(Event, PageRange, Arc<AtomicBool>)>>,
    stop: AtomicBool,
}

impl Process {
    pub(crate) fn new(pages: usize) -> Arc<Self> {
        Arc::new(Self {
            space: Arc::new(AddressSpace::default()),
            versions: (0..pages).map(|_| AtomicU64::new(1)).collect(),
            changing: AtomicUsize::new(0),
            events: Mutex::new(Vec::new()),
            stop: AtomicBool::new(false),
        })
    }

    pub(crate) fn page(page: u64) -> PageRange {
        PageRange::covering(address(page), PAGE, PAGE).unwrap()
    }

    pub(crate) fn version(&self, page: u64) -> u64 {
        self.versions[page as usize].load(Ordering::SeqCst)
    }

    /// munmap and a new mmap in one: the page is another one before anybody is told, and the call returns when its
    /// event was read.
    pub(crate) fn remap(&self, page: u64) -> u64 {
        self.changing.fetch_add(1, Ordering::SeqCst);
        let version = self.versions[page as usize].fetch_add(1, Ordering::SeqCst) + 1;
        let read = Arc::new(AtomicBool::new(false));
        self.events.lock().push((Event::Unmap, Self::page(page), Arc::clone(&read)));
        while !read.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        self.changing.fetch_sub(1, Ordering::SeqCst);
        version
    }

    /// The pump, until the process is stopped and nothing is left to read.
    pub(crate) fn start_pump(self: &Arc<Self>) -> thread::JoinHandle<()> {
        let process = Arc::clone(self);
        thread::spawn(move || {
            let mut batch = Batch::default();
            loop {
                if !process.events.lock().is_empty() {
                    process.space.turn(TurnOrder::GateFirst, &mut batch, u32::MAX / 2, |batch| process.read(batch));
                } else if process.stop.load(Ordering::SeqCst) {
                    return;
                }
                thread::yield_now();
            }
        })
    }

    fn read(&self, batch: &mut Batch) {
        for (event, range, read) in self.events.lock().drain(..) {
            batch.push(event, range);
            read.store(true, Ordering::SeqCst);
        }
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

impl Source for Process {
    fn space(&self) -> &Arc<AddressSpace> {
        &self.space
    }
    fn page_size(&self) -> u64 {
        PAGE
    }
    fn probe(&self) -> Probe {
        if self.changing.load(Ordering::SeqCst) == 0 { Probe::Quiet } else { Probe::Changing }
    }
    fn watch(&self, _range: PageRange) -> Result<Watched, WatchError> {
        Ok(Watched::Covered)
    }
}

/// What a slot holds: the page and the version that it pinned, and a number that no other registration has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pinned {
    pub(crate) page: u64,
    pub(crate) version: u64,
    pub(crate) serial: u64,
}

/// A device with a few slots. A slot's content is what the device would send.
#[derive(Debug)]
pub(crate) struct Device {
    process: Arc<Process>,
    slots: Mutex<Vec<Option<Pinned>>>,
    serial: AtomicU64,
}

impl Device {
    pub(crate) fn new(process: &Arc<Process>, slots: usize) -> Arc<Self> {
        Arc::new(Self { process: Arc::clone(process), slots: Mutex::new(vec![None; slots]), serial: AtomicU64::new(0) })
    }

    pub(crate) fn slot(&self, key: usize) -> Option<Pinned> {
        self.slots.lock()[key]
    }

    pub(crate) fn in_use(&self) -> usize {
        self.slots.lock().iter().flatten().count()
    }
}

/// The registrar's handle on the device, so that a test can look at it beside the cache.
#[derive(Debug)]
pub(crate) struct Slots(pub(crate) Arc<Device>);

impl Registrar for Slots {
    type Key = usize;

    fn register(&self, range: PageRange, _access: Access) -> Result<usize, RegisterError> {
        let page = (range.start().get() - address(0).get()) / PAGE;
        let serial = self.0.serial.fetch_add(1, Ordering::SeqCst);
        let version = self.0.process.version(page);
        let mut slots = self.0.slots.lock();
        let Some(free) = slots.iter().position(Option::is_none) else {
            let full = io::Error::from(io::ErrorKind::StorageFull);
            return Err(RegisterError::new(RegisterErrorKind::NoRoom, "every slot is taken", full));
        };
        slots[free] = Some(Pinned { page, version, serial });
        Ok(free)
    }

    fn deregister(&self, key: usize) -> Result<(), RegisterError> {
        let taken = self.0.slots.lock()[key].take();
        assert!(taken.is_some(), "a slot was deregistered twice");
        Ok(())
    }
}

/// Drops the cache and waits until its worker has let everything go.
pub(crate) fn close(cache: RegistrationCache<Slots>, device: &Device) {
    drop(cache);
    for _ in 0..1_000_000 {
        if device.in_use() == 0 {
            return;
        }
        thread::yield_now();
    }
    panic!("{} registrations were never let go", device.in_use());
}
