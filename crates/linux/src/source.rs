//! The source: opening it, watching ranges, the probe.
//!
//! # Guarantee
//! A range that [`watch`](Source::watch) called `Covered` reports every change of the kinds named in the crate's text from
//! then on, and no discard of it was under way. The probe says `Quiet` only if every change of watched memory that the
//! kernel had begun was read.
//!
//! # Fields
//! `uffd` is read by the pump and, when the pump is stuck, by the watchdog; anybody may ask it. `aliases` has its own
//! rules. `turns` is written by the pump alone.
//!
//! # Not covered
//! A program that closes the descriptor while a child made by a raw `clone` holds a copy: the kernel then releases callers
//! that are blocked only when the child ends.

use std::fmt;
use std::io;
use std::sync::{Mutex as StdMutex, PoisonError};

use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_core::check::Look;
use pagemirror_core::gate::{ALIVE, Gate, GateWord, LostCause};
use pagemirror_core::log::CollisionLog;
use pagemirror_core::source::{Probe, Source, WatchError, Watched};
use pagemirror_core::space::AddressSpace;
use pagemirror_core::wait::WaitQueue;
use pagemirror_sync::atomic::{AtomicBool, AtomicU64, Ordering};
use pagemirror_sync::{Arc, Mutex};
use rustix::io::Errno;

use crate::abi::{self, Uffd};
use crate::aliases::{Aliases, FileSpan, Standing};
use crate::config::{Config, OpenError};
use crate::mapping::{self, Mapping};
use crate::maps::{Maps, Vma};
use crate::stats::{Counters, SourceStats, count};
use crate::{fork, prover, pump, watchdog};

/// The events that a source lives on.
const NEEDED: [(u64, &str); 4] = [
    (abi::UFFD_FEATURE_EVENT_UNMAP, "UNMAP events"),
    (abi::UFFD_FEATURE_EVENT_REMAP, "REMAP events"),
    (abi::UFFD_FEATURE_EVENT_REMOVE, "REMOVE events"),
    (abi::UFFD_FEATURE_PAGEFAULT_FLAG_WP, "write-protect registration"),
];

/// What lets more kinds of memory be registered, where the kernel has it: without `WP_ASYNC` only anonymous and shared
/// memory, and without the other only anonymous memory.
const WELCOME: u64 =
    abi::UFFD_FEATURE_WP_ASYNC | abi::UFFD_FEATURE_WP_UNPOPULATED | abi::UFFD_FEATURE_WP_HUGETLBFS_SHMEM;

/// The one source of this process. It is never closed: a caller of munmap could be waiting for it.
static OPEN: StdMutex<Option<Arc<Userfault>>> = StdMutex::new(None);

/// What a source's descriptor may do beyond telling changes, which needs no privilege and loses nothing without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// Page faults that the kernel takes for the program (a read(2) into missing pages) could be served too. Has
    /// `CAP_SYS_PTRACE`, or `vm.unprivileged_userfaultfd`, or may open `/dev/userfaultfd`.
    Full,
    /// Page faults of user mode only, and forks are not told. This source asks for neither.
    UserModeOnly,
}

/// Changes of this process's memory, told by userfaultfd.
///
/// ```no_run
/// use pagemirror_core::source::Source;
/// let source = pagemirror_linux::Userfault::open(pagemirror_linux::Config::default())?;
/// println!("changes under way: {:?}", source.probe());
/// # Ok::<(), pagemirror_linux::OpenError>(())
/// ```
pub struct Userfault {
    pub(crate) uffd: Uffd,
    pub(crate) space: Arc<AddressSpace>,
    pub(crate) config: Config,
    pub(crate) counters: Counters,
    pub(crate) aliases: Mutex<Aliases>,
    pub(crate) maps: Maps,
    /// Where the prover sleeps until something is in doubt.
    pub(crate) doubtful: WaitQueue,
    /// The newest doubt that a proof has ended.
    pub(crate) proved: AtomicU64,
    /// Turns that the pump has begun; the watchdog sees by it that the pump lives.
    pub(crate) turns: AtomicU64,
    /// The pump's thread, once it runs.
    pub(crate) pump_thread: AtomicU64,
    /// A test holds the pump in place.
    pub(crate) stalled: AtomicBool,
    features: u64,
    privilege: Privilege,
    page_size: u64,
    /// A registered page of our own that nobody changes: what the probe asks about.
    probe_page: Mapping,
}

impl Userfault {
    /// Opens the source of this process, or gives the one that is open. Starts its threads. In a forked child the source of the
    /// parent stays lost, with everything that was made over it; the child opens one of its own, which knows nothing yet.
    ///
    /// # Errors
    /// When the kernel, its version or a security module does not permit it, or when it is open with another
    /// configuration. The message says what to do.
    pub fn open(config: Config) -> Result<Arc<Self>, OpenError> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        // A forked child begins anew: what it inherited says that it is lost, and is never closed or freed.
        let inherited = open.take_if(|source| source.space.gate().lost() == Some(LostCause::Forked));
        std::mem::forget(inherited);
        if let Some(source) = open.as_ref() {
            return if source.config == config { Ok(Arc::clone(source)) } else { Err(OpenError::OtherConfig) };
        }
        let source = Arc::new(Self::set_up(config)?);
        let failed = OpenError::system("starting a thread");
        fork::close_in_children(source.uffd.raw_fd()).map_err(OpenError::system("registering a fork handler"))?;
        // The watchdog is there before anybody can be blocked, which is before the first range is watched.
        watchdog::start(&source).map_err(&failed)?;
        pump::start(&source).map_err(&failed)?;
        prover::start(&source).map_err(&failed)?;
        *open = Some(Arc::clone(&source));
        Ok(source)
    }

    fn set_up(config: Config) -> Result<Self, OpenError> {
        let (uffd, features, privilege) = open_descriptor()?;
        let page_size = rustix::param::page_size() as u64;
        let probe_page = Mapping::new(page_size as usize).map_err(OpenError::system("mapping the probe's page"))?;
        let registering = OpenError::system("registering the probe's page");
        uffd.register_wp(probe_page.start(), page_size).map_err(registering)?;
        let word = mapping::wipe_on_fork_word().map_err(OpenError::system("mapping the gate's page"))?;
        // ORDERING: SeqCst for plainness; nobody else knows the word yet.
        word.store(ALIVE, Ordering::SeqCst);
        Ok(Self {
            uffd,
            space: Arc::new(AddressSpace::new(CollisionLog::default(), Gate::new(GateWord::Wiped(word)))),
            config,
            counters: Counters::default(),
            aliases: Mutex::new(Aliases::new()),
            maps: Maps::open().map_err(OpenError::system("opening /proc/self/maps"))?,
            doubtful: WaitQueue::new(),
            proved: AtomicU64::new(0),
            turns: AtomicU64::new(0),
            pump_thread: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
            features,
            privilege,
            page_size,
            probe_page,
        })
    }

    /// What was counted so far.
    #[must_use]
    pub fn stats(&self) -> SourceStats {
        self.counters.snapshot()
    }

    /// Whether files and every kind of shared memory can be watched, which needs Linux 6.7.
    #[must_use]
    pub fn watches_files(&self) -> bool {
        self.features & abi::UFFD_FEATURE_WP_ASYNC != 0
    }

    /// What the descriptor may do beyond telling changes.
    #[must_use]
    pub fn privilege(&self) -> Privilege {
        self.privilege
    }

    /// The thread that runs the pump, by its number in the kernel; 0 before it runs.
    #[must_use]
    pub fn pump_thread(&self) -> u64 {
        // ORDERING: Acquire, so that who sees the number sees a pump that runs.
        self.pump_thread.load(Ordering::Acquire)
    }

    /// Holds the pump in place before its next read, as a callback that blocks would. For tests of the watchdog.
    #[doc(hidden)]
    pub fn stall_pump(&self, stalled: bool) {
        // ORDERING: Release for form.
        self.stalled.store(stalled, Ordering::Release);
    }

    /// Remembers the parts of `range` that show a shared file. Says whether any of them is new.
    fn watch_shared(&self, range: PageRange) -> Result<Watched, WatchError> {
        let mut standing = Watched::Covered;
        let mut at = range.start().get();
        while at < range.end().get() {
            let failed =
                |error: io::Error| WatchError::new(range, format!("/proc/self/maps: {error}"), error.raw_os_error());
            let Some(vma) = self.maps.query(at, true).map_err(failed)? else { break };
            if vma.start > at {
                let hole = format!("nothing is mapped at {}; map it first", VirtAddr::new(at));
                return Err(WatchError::new(range, hole, Some(Errno::FAULT.raw_os_error())).because_unmapped());
            }
            if vma.shared && self.watch_file(range, &vma)? == Watched::InDoubt {
                standing = Watched::InDoubt;
            }
            if vma.shared && self.maps.is_system_v(at).map_err(failed)? {
                // shmdt tells nobody, so what is registered here is good for one use only, for ever.
                count(&self.counters.uncacheable);
                standing = Watched::InDoubt;
            }
            at = vma.end;
        }
        Ok(standing)
    }

    fn watch_file(&self, range: PageRange, vma: &Vma) -> Result<Watched, WatchError> {
        let Some((part, file)) = shown(range, vma) else { return Ok(Watched::Covered) };
        let mut aliases = self.aliases.lock();
        if let Standing::Known(mark) = aliases.standing(part, file) {
            // ORDERING: Acquire pairs with the prover's Release: the proof came before.
            let cleared = self.proved.load(Ordering::Acquire) >= mark;
            return Ok(if cleared { Watched::Covered } else { Watched::InDoubt });
        }
        // It may be in a discard that nobody announced. The doubt is set after the range was registered, so a proof that
        // begins later finds that caller elsewhere.
        let doubt = self.space.doubt();
        doubt.set(part);
        let added = aliases.add(part, file, doubt.mark());
        drop(aliases);
        self.doubtful.wake();
        let full = || {
            WatchError::new(
                range,
                "more shared mappings are watched than the table holds; use fewer, larger ones",
                None,
            )
        };
        added.map(|()| Watched::InDoubt).map_err(|_| full())
    }
}

impl Source for Userfault {
    fn space(&self) -> &Arc<AddressSpace> {
        &self.space
    }

    fn page_size(&self) -> u64 {
        self.page_size
    }

    fn probe(&self) -> Probe {
        // Asking to un-protect a page of our own that was never protected changes nothing; the kernel refuses with EAGAIN
        // while a change of any memory registered with this descriptor is under way or unread.
        match self.uffd.write_protect(self.probe_page.start(), self.page_size, 0) {
            Ok(()) => Probe::Quiet,
            Err(error) if error.raw_os_error() == Some(Errno::AGAIN.raw_os_error()) => Probe::Changing,
            Err(_) => {
                // A forked child has no page registered here; its gate says so before anything else does.
                self.space.lose(LostCause::SourceClosed);
                Probe::Lost(self.space.gate().lost().unwrap_or(LostCause::SourceClosed))
            }
        }
    }

    fn watch(&self, range: PageRange) -> Result<Watched, WatchError> {
        self.register(range).map_err(|error| self.explain(range, &error))?;
        self.watch_shared(range)
    }

    fn look(&self, range: PageRange) -> Result<Look, &'static str> {
        self.look_at(range)
    }
}

impl Userfault {
    /// Registers `range`, or the whole huge pages that it lies in: those of hugetlbfs are registered as a whole or not at all.
    fn register(&self, range: PageRange) -> io::Result<()> {
        let refused = match self.uffd.register_wp(range.start().get(), range.len()) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if refused.raw_os_error() != Some(Errno::INVAL.raw_os_error()) {
            return Err(refused);
        }
        let page_at = |address| {
            let vma = self.maps.query(address, false)?;
            io::Result::Ok(vma.map_or(self.page_size, |vma| vma.page_size))
        };
        let (first, last) = (range.start().get(), range.end().get() - 1);
        let start = first - first % page_at(first)?;
        let end = last - last % page_at(last)? + page_at(last)?;
        if (start, end) == (range.start().get(), range.end().get()) {
            return Err(refused);
        }
        self.uffd.register_wp(start, end - start).map(drop)
    }

    /// Why the kernel does not register `range`.
    fn explain(&self, range: PageRange, error: &io::Error) -> WatchError {
        let errno = error.raw_os_error();
        let refused = |reason: &str| WatchError::new(range, reason, errno);
        match errno.map(Errno::from_raw_os_error) {
            Some(Errno::BUSY) => refused(
                "another userfaultfd watches it (another library, or another copy of this one): only one can; \
                 use one source for the whole process",
            ),
            Some(Errno::PERM) => refused("it is a shared mapping of a file opened read-only; open the file read-write"),
            Some(Errno::NOMEM) => {
                refused("the process has too many mappings; raise vm.max_map_count or use larger ranges")
            }
            Some(Errno::INVAL) if matches!(self.maps.query(range.start().get(), false), Ok(None)) => {
                refused("nothing is mapped there; map it first").because_unmapped()
            }
            Some(Errno::INVAL) if !self.watches_files() => {
                refused("this kernel watches anonymous memory only; Linux 6.7 watches files too")
            }
            Some(Errno::INVAL) => {
                refused("the kernel does not watch this kind of mapping; use anonymous memory or a memfd")
            }
            _ => refused(&format!("registering it with userfaultfd failed: {error}")),
        }
    }
}

impl fmt::Debug for Userfault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Userfault").field("stats", &self.stats()).field("config", &self.config).finish_non_exhaustive()
    }
}

/// What a shared mapping shows in `range`: the addresses, and the part of its file.
pub(crate) fn shown(range: PageRange, vma: &Vma) -> Option<(PageRange, FileSpan)> {
    let start = range.start().get().max(vma.start);
    let len = range.end().get().min(vma.end).checked_sub(start)?;
    let part = PageRange::covering(VirtAddr::new(start), len, pagemirror_core::addr::MIN_PAGE).ok()?;
    let offset = vma.offset + (start - vma.start);
    Some((part, FileSpan { device: (vma.dev_major, vma.dev_minor), inode: vma.inode, offset, len }))
}

/// A descriptor with every feature that it can have, privileged or not: notification needs no privilege.
fn open_descriptor() -> Result<(Uffd, u64, Privilege), OpenError> {
    let open = || match Uffd::open(false) {
        Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {
            Uffd::open(true).map(|uffd| (uffd, Privilege::UserModeOnly))
        }
        opened => opened.map(|uffd| (uffd, Privilege::Full)),
    };
    let refusal = |error: io::Error| match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSYS) => OpenError::Missing(error),
        Some(Errno::PERM | Errno::ACCESS) => OpenError::Refused(error),
        _ => OpenError::System { doing: "opening a userfaultfd", source: error },
    };
    // A handshake with no features tells which there are, and can be made only once for each descriptor.
    let available =
        open().map_err(refusal)?.0.handshake(0).map_err(OpenError::system("asking userfaultfd for its features"))?;
    if let Some((_, what)) = NEEDED.iter().find(|(feature, _)| available & feature == 0) {
        return Err(OpenError::TooOld { what });
    }
    let wanted = NEEDED.iter().fold(available & WELCOME, |all, (feature, _)| all | feature);
    let (uffd, privilege) = open().map_err(refusal)?;
    uffd.handshake(wanted).map_err(OpenError::system("agreeing on userfaultfd's features"))?;
    Ok((uffd, wanted, privilege))
}
