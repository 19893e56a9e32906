//! Proof that a discard's caller has returned: every thread that could be in the call was seen to be somewhere else.
//!
//! The kernel announces a discard before it happens and is silent about its end. Once the announcement was read, nothing
//! about the *pages* proves that the discard is over; where the *threads* are does.
//!
//! # Guarantee
//! When [`Proof::advance`] says [`Progress::Done`], every discard by a thread of this process whose announcement was read
//! before [`Proof::begin`] was called is over.
//!
//! # States
//! What one look at a thread shows ([`Sight`]):
//! - *elsewhere*: asleep in another system call, or asleep outside of any (on a page fault). It has left the call that
//!   it was in, so it is never looked at again.
//! - *gone*: no such thread. Its number may be another thread's later, which is then looked at in its place: too much
//!   care, never too little.
//! - *unproven*: asleep in `madvise` or `process_madvise`; waiting for a vfork child; or not asleep. The kernel says
//!   `running` of every thread that could run, also of one that waits for a processor in the middle of a discard.
//! - *kernel worker*: io_uring discards on threads that never run user code. They are listed among our threads, and what
//!   the kernel says of their system call is what the thread that made them was in. One that is asleep in its own loop,
//!   between two requests, is elsewhere; any other proves nothing while it lives.
//!
//! # Interleavings
//! ```text
//! caller                              pump                    prover
//! madvise: announce, sleep
//!                                     read the event
//! awake, discard                      [Required: before]      list the threads until two lists agree
//! return; sleep in another call                               look: asleep in another call => discard is over
//! ```
//! A thread that is made later cannot be in a discard that was announced before.
//!
//! # Where it comes from
//! `task_current_syscall` in `lib/syscall.c` (a thread is reported only if it slept, without waking, from before until
//! after its registers were read), `proc_pid_syscall` and `proc_task_readdir` in `fs/proc/base.c` (a list can miss
//! threads while others end), `copy_thread` of x86 and arm64 (a kernel worker gets its maker's registers, and zero for
//! stack and program counter), `get_wchan` in `kernel/sched/core.c` (since Linux 5.16 it tells the place only of a thread that
//! is asleep and is kept so meanwhile). Threads of one process may always look at each other (`ptrace_may_access`).
//!
//! # Not covered
//! Tasks that share the memory without being threads of the process, other than a vfork child while its parent waits.
//! Another process cannot discard: the kernel refuses
//! it in `process_madvise`. A thread that computes without ever sleeping is never proven.
//!
//! # Checked by
//! `tests/tasks.rs`, on running, blocked and ended threads, on threads in each form of the call, and on io_uring's, with
//! the planted bugs `running-is-elsewhere`, `any-worker-is-idle`, `other-conventions-forgotten`, `io-worker-is-a-thread`,
//! `thread-number-of-own-namespace`.

use std::ffi::CStr;
use std::io::{self, ErrorKind, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use pagemirror_sync::planted;
use rustix::fs::{CWD, Mode, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;

/// Passes over the list of threads before it counts as never stable. Two are the rule; each further one means that a
/// thread began or ended during the last, which takes at least as long as the pass itself.
const MAX_PASSES: u32 = 64;
/// What a directory counts as links besides the threads in it: its own name and its entry in the parent.
const DIRECTORY_LINKS: u64 = 2;
/// The first Linux whose `wchan` is of a thread that sleeps and goes on sleeping while it is looked at.
const PLACES_EXACT: (u32, u32) = (5, 16);
/// The flag in a thread's `stat` that says that it works for io_uring.
const PF_IO_WORKER: u64 = 0x10;
/// The field of `stat` that holds the flags, counted from the one behind the name.
const FLAGS_FIELD: usize = 6;

/// The system calls that can discard pages, or can be one that does, as numbers of `/proc/PID/task/TID/syscall`. A call
/// that was interrupted and goes on is `restart_syscall`; on x86-64 that is also the number of the 32-bit `madvise`.
const DISCARDING: [i64; 3] = [libc::SYS_madvise, libc::SYS_process_madvise, libc::SYS_restart_syscall];
const _: () = assert!(!cfg!(target_arch = "x86_64") || libc::SYS_restart_syscall == 219);
/// The system calls that can sleep until a child has ended that shares the memory (`CLONE_VFORK`): the child is no
/// thread and cannot be looked at, and as long as its parent waits it may be in a discard.
#[cfg(target_arch = "x86_64")]
const WAITING_FOR_CHILD: [i64; 3] = [libc::SYS_clone, libc::SYS_clone3, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const WAITING_FOR_CHILD: [i64; 2] = [libc::SYS_clone, libc::SYS_clone3];
/// Set in the number of a system call that was made by the x32 convention.
const X32_BIT: i64 = if cfg!(target_arch = "x86_64") { 0x4000_0000 } else { 0 };
/// Where a worker of io_uring sleeps when it has no request: the innermost function that is not the scheduler's. Inside a
/// request that would be a function of the request's.
const IDLE_WORKER: &[u8] = b"io_wq_worker";

/// What stands for the number when the thread sleeps outside of any system call.
const NO_SYSCALL: i64 = -1;

/// What one look at a thread shows. See the module's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Sight {
    /// It sleeps in another system call or in none.
    Elsewhere,
    /// There is no such thread.
    Gone,
    /// It may be in a discard.
    Unproven,
    /// It never runs user code; io_uring's threads are such.
    KernelWorker,
}

/// How far a proof has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// Every thread was seen elsewhere.
    Done,
    /// Not all were.
    Waiting {
        /// Threads that were in a discard, or running, whenever they were looked at.
        unproven: usize,
        /// Kernel workers that still live. They keep the proof from being done for as long as they do.
        io_workers: usize,
    },
}

/// One round of looking at every thread that lived when it began.
///
/// ```
/// use pagemirror_linux::tasks::{Progress, Proof};
/// let mut proof = Proof::begin()?;
/// if let Progress::Waiting { unproven, .. } = proof.advance()? {
///     println!("{unproven} threads are still running; look again later");
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Proof {
    threads: Threads,
    unproven: Vec<u32>,
    io_workers: Vec<u32>,
}

impl Proof {
    /// Begins a round: lists the threads of this process. The calling one is here, so it is proven. Call it after the
    /// announcements that it is about were read.
    ///
    /// # Errors
    /// When no proof is to be had: `/proc` is not mounted, the process may not read it (after a change of identity, until
    /// exec), or the kernel does not tell system calls (`Unsupported`). `WouldBlock` when threads come and go so fast that
    /// no two lists agree: try again later.
    ///
    /// # Blocking
    /// Never waits for another thread. Allocates.
    pub fn begin() -> io::Result<Self> {
        let threads = Threads::open()?;
        let own = own_number()?;
        let mut unproven = threads.list()?;
        let listed = unproven.len();
        unproven.retain(|&number| number != own);
        if unproven.len() + 1 != listed {
            // A list without the thread that reads it is not the list of its process.
            return Err(ErrorKind::InvalidData.into());
        }
        Ok(Self { threads, unproven, io_workers: Vec::new() })
    }

    /// Looks once at every thread that is not proven yet.
    ///
    /// # Errors
    /// When a thread that is there cannot be looked at. What was proven before stays so.
    ///
    /// # Blocking
    /// Never waits for what another thread does; a look may last until the next clock tick if the thread is about to fall
    /// asleep. Allocates only for threads that turn out to be kernel workers.
    pub fn advance(&mut self) -> io::Result<Progress> {
        let mut failure = None;
        let (threads, io_workers) = (&self.threads, &mut self.io_workers);
        let mut keeps = |number: u32| match threads.look(number) {
            Ok(Sight::Elsewhere | Sight::Gone) => (false, false),
            Ok(Sight::Unproven) => (true, false),
            Ok(Sight::KernelWorker) => (true, true),
            Err(error) => {
                failure = Some(error);
                (true, false)
            }
        };
        // A number that was a worker's and is another thread's now is looked at like any other.
        io_workers.retain(|&number| keeps(number).0);
        self.unproven.retain(|&number| {
            let (stays, is_worker) = keeps(number);
            if is_worker {
                io_workers.push(number);
            }
            stays && !is_worker
        });
        match (failure, self.unproven.len(), self.io_workers.len()) {
            (Some(error), ..) => Err(error),
            (None, 0, 0) => Ok(Progress::Done),
            (None, unproven, io_workers) => Ok(Progress::Waiting { unproven, io_workers }),
        }
    }

    /// The threads that are not proven, kernel workers aside, by their numbers in `/proc/self/task`.
    #[must_use]
    pub fn unproven(&self) -> &[u32] {
        &self.unproven
    }
}

/// The threads of this process, as `/proc` shows them.
#[derive(Debug)]
pub struct Threads {
    directory: OwnedFd,
    /// Whether this kernel tells where a thread sleeps only while it does.
    places_are_exact: bool,
}

impl Threads {
    /// Opens the list, and makes sure that this kernel tells what a thread is in: later, a file that is not there must
    /// mean that its thread is gone.
    ///
    /// # Errors
    /// As [`Proof::begin`].
    pub fn open() -> io::Result<Self> {
        if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
            // What the file says of sleeping threads is known of these two, and tested on x86-64.
            return Err(ErrorKind::Unsupported.into());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(c"/proc/self/task", flags, Mode::empty())?;
        let threads = Self { directory, places_are_exact: release() >= Some(PLACES_EXACT) };
        match threads.look(own_number()?)? {
            // Reading is a system call, and another one.
            Sight::Elsewhere => Ok(threads),
            Sight::Gone | Sight::Unproven | Sight::KernelWorker => Err(ErrorKind::Unsupported.into()),
        }
    }

    /// Looks once at the thread with this number in `/proc/self/task`. Never allocates.
    ///
    /// # Errors
    /// When the thread is there and cannot be looked at, or what is told of it is not understood.
    pub fn look(&self, number: u32) -> io::Result<Sight> {
        let mut buffer = [0; 256];
        let Some(line) = self.read(number, "syscall", &mut buffer)? else { return Ok(Sight::Gone) };
        let Some(asleep) = Asleep::parse(line).ok_or(ErrorKind::InvalidData)? else {
            return Ok(if planted("running-is-elsewhere") { Sight::Elsewhere } else { Sight::Unproven });
        };
        let known = if planted("other-conventions-forgotten") { &DISCARDING[..1] } else { &DISCARDING };
        let call = asleep.number & !X32_BIT;
        let discarding = known.contains(&call) || WAITING_FOR_CHILD.contains(&call);
        if discarding || asleep.number < NO_SYSCALL {
            return Ok(Sight::Unproven);
        }
        let mut buffer = [0; 512];
        let Some(line) = self.read(number, "stat", &mut buffer)? else { return Ok(Sight::Gone) };
        let stat = Stat::parse(line).ok_or(ErrorKind::InvalidData)?;
        Ok(match stat {
            _ if stat.is_dead || planted("io-worker-is-a-thread") => Sight::Elsewhere,
            // The flag is no promise of the kernel's; that such a thread has no user code to go back to is the second
            // sign, and either is enough.
            _ if stat.flags & PF_IO_WORKER != 0 || !asleep.has_user_code => self.look_at_worker(number)?,
            _ => Sight::Elsewhere,
        })
    }

    /// A worker of io_uring stays for as long as its ring, mostly with nothing to do.
    fn look_at_worker(&self, number: u32) -> io::Result<Sight> {
        if planted("any-worker-is-idle") {
            return Ok(Sight::Elsewhere);
        }
        if !self.places_are_exact {
            return Ok(Sight::KernelWorker);
        }
        let mut buffer = [0; 64];
        Ok(match self.read(number, "wchan", &mut buffer) {
            Ok(None) => Sight::Gone,
            Ok(Some(place)) if place == IDLE_WORKER => Sight::Elsewhere,
            // A kernel without names for its functions, or one that does not tell them: no proof, but no failure.
            Ok(Some(_)) | Err(_) => Sight::KernelWorker,
        })
    }

    /// All threads, ascending. Passes over the list go on until two agree with each other and with the kernel's count.
    fn list(&self) -> io::Result<Vec<u32>> {
        let mut last = Vec::new();
        for _ in 0..MAX_PASSES {
            let numbers = self.list_once()?;
            let count = rustix::fs::fstat(&self.directory)?.st_nlink as u64;
            let agree = numbers == last && numbers.len() as u64 + DIRECTORY_LINKS == count;
            if agree {
                return Ok(numbers);
            }
            last = numbers;
        }
        Err(ErrorKind::WouldBlock.into())
    }

    fn list_once(&self) -> io::Result<Vec<u32>> {
        rustix::fs::seek(&self.directory, SeekFrom::Start(0))?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(&self.directory, &mut buffer);
        let mut numbers = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            match entry.file_name().to_bytes() {
                b"." | b".." => {}
                name => numbers.push(decimal(name).ok_or(ErrorKind::InvalidData)?),
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The beginning of the file `name` of a thread; nothing when the thread is gone.
    fn read<'buffer>(&self, number: u32, name: &str, buffer: &'buffer mut [u8]) -> io::Result<Option<&'buffer [u8]>> {
        let mut path = [0; 32];
        write!(&mut path[..], "{number}/{name}\0")?;
        let path = CStr::from_bytes_until_nul(&path).map_err(|_| ErrorKind::InvalidInput)?;
        let read = rustix::fs::openat(&self.directory, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|file| rustix::io::read(&file, &mut *buffer));
        match read {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(len) => Ok(Some(&buffer[..len])),
            Err(Errno::NOENT | Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// The number of the calling thread as `/proc` has it. It is not asked of gettid, which counts in the caller's own
/// namespace: the two differ when `/proc` was mounted for another one.
fn own_number() -> io::Result<u32> {
    if planted("thread-number-of-own-namespace") {
        return Ok(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs());
    }
    let mut buffer = [0_u8; 64];
    let len = rustix::fs::readlinkat_raw(CWD, c"/proc/thread-self", &mut buffer)?;
    let number = buffer[..len].rsplit(|&byte| byte == b'/').next().and_then(decimal);
    number.ok_or_else(|| ErrorKind::InvalidData.into())
}

/// The kernel's version, as far as it matters.
fn release() -> Option<(u32, u32)> {
    let name = rustix::system::uname();
    let mut parts = name.release().to_str().ok()?.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Where a thread sleeps.
#[derive(Debug, PartialEq, Eq)]
struct Asleep {
    /// The number of its system call, or [`NO_SYSCALL`].
    number: i64,
    /// Whether it has a place in user code to return to.
    has_user_code: bool,
}

impl Asleep {
    /// Reads the file `syscall` of a thread: `running`, or the number, arguments unless it is negative, the stack
    /// pointer and the program counter. Inner nothing for a thread that is not asleep, outer for what is no such line.
    fn parse(line: &[u8]) -> Option<Option<Self>> {
        let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
        if line == "running" {
            return Some(None);
        }
        let (number, rest) = line.split_once(' ')?;
        let program_counter = rest.rsplit(' ').next()?.strip_prefix("0x")?;
        let has_user_code = u64::from_str_radix(program_counter, 16).ok()? != 0;
        Some(Some(Self { number: number.parse().ok()?, has_user_code }))
    }
}

/// What is needed of a thread's file `stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    is_dead: bool,
    flags: u64,
}

impl Stat {
    /// Reads `number (name) state field field ...`. The name may hold spaces and brackets; no later field does.
    fn parse(line: &[u8]) -> Option<Self> {
        let behind_name = line.iter().rposition(|&byte| byte == b')')? + 1;
        let mut fields = std::str::from_utf8(&line[behind_name..]).ok()?.split_ascii_whitespace();
        let is_dead = matches!(fields.clone().next()?, "Z" | "X" | "x");
        Some(Self { is_dead, flags: fields.nth(FLAGS_FIELD)?.parse().ok()? })
    }
}

fn decimal(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asleep(line: &str) -> Option<Option<(i64, bool)>> {
        Asleep::parse(line.as_bytes()).map(|found| found.map(|asleep| (asleep.number, asleep.has_user_code)))
    }

    #[test]
    fn a_line_of_the_system_call_file_is_read() {
        assert_eq!(asleep("running\n"), Some(None));
        assert_eq!(asleep("-1 0x7ffc0 0x401000\n"), Some(Some((-1, true))));
        assert_eq!(asleep("28 0x7f00 0x1000 0x4 0x0 0x0 0x0 0x7ffd 0x7fe0\n"), Some(Some((28, true))));
        assert_eq!(asleep("426 0x3 0x1 0x0 0x0 0x0 0x0 0x0 0x0\n"), Some(Some((426, false))));
    }

    #[test]
    fn what_is_no_such_line_is_not_taken_for_one() {
        for line in
            ["", "\n", "running", "runnin", "0x1c 0x0 0x0\n", "28\n", "28 0x1 0x2 0x7fe", "28 0x1 zz\n", "28 1 2\n"]
        {
            assert_eq!(asleep(line), None, "{line:?}");
        }
    }

    #[test]
    fn flags_are_found_whatever_the_name_of_the_thread() {
        let stat = |line: &str| Stat::parse(line.as_bytes()).map(|stat| (stat.is_dead, stat.flags));
        assert_eq!(stat("7 (a) S 1 2 3 4 5 4194368 0 0"), Some((false, 4_194_368)));
        assert_eq!(stat("7 (x) S 1 2 3 4 5 0) D 1 2 3 4 5 16 9"), Some((false, 16)));
        assert_eq!(stat("7 (a b) Z 1 2 3 4 5 64 9"), Some((true, 64)));
        assert_eq!(stat("7 a S 1 2 3 4 5 64"), None);
        assert_eq!(stat("7 (a) S 1 2"), None);
    }
}
