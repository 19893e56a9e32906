//! Whether a thread is said to be elsewhere only when it is: on the running kernel, with threads in every state.
//!
//! A proof looks at all threads of the process, and so at those of the other tests: the tests take turns.
#![expect(unsafe_code, reason = "makes the system calls whose callers are looked at")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "tasks/discards.rs"]
mod discards;
#[path = "tasks/workers.rs"]
mod workers;

use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pagemirror_linux::abi::{self, Uffd};
use pagemirror_linux::mapping::Mapping;
use pagemirror_linux::tasks::{Progress, Proof, Sight, Threads};

/// Long enough for anything that is going to happen on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked that something does *not* happen.
const LOOKS: u32 = 400;
const NAP: Duration = Duration::from_micros(250);

/// Set for a test that is run in a process of its own.
const HELPER: &str = "PAGEMIRROR_TEST_HELPER";

static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `body` on a thread and gives its number.
fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> (u32, JoinHandle<T>) {
    let (sender, receiver) = mpsc::channel();
    let handle = thread::spawn(move || {
        sender.send(rustix::thread::gettid().as_raw_nonzero().get() as u32).unwrap();
        body()
    });
    (receiver.recv().unwrap(), handle)
}

fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(NAP);
    }
}

fn await_sight(threads: &Threads, number: u32, wanted: Sight) {
    await_that(&format!("{wanted:?}"), || threads.look(number).unwrap() == wanted);
}

fn file_of(number: u32, name: &str) -> String {
    fs::read_to_string(format!("/proc/self/task/{number}/{name}")).unwrap_or_default()
}

/// The numbers of this process's threads whose name begins like this.
fn named(prefix: &str) -> Vec<u32> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let numbers = tasks.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    numbers.filter(|&number| file_of(number, "comm").starts_with(prefix)).collect()
}

/// Says why a test did not run.
fn skipped(test: &str, why: impl std::fmt::Display) {
    // Not by `println`, which the test harness keeps to itself.
    let _ = writeln!(io::stdout(), "SKIPPED: {test}: {why}");
}

/// Proves that everybody is elsewhere, except threads whose number is in `but`, who must stay unproven to the end.
fn prove_all_but(but: &[u32]) -> Proof {
    let mut proof = Proof::begin().unwrap();
    await_that("the others are proven", || {
        let _ = proof.advance().unwrap();
        for number in but {
            assert!(proof.unproven().contains(number), "thread {number} was proven to be elsewhere");
        }
        proof.unproven().len() == but.len()
    });
    proof
}

#[test]
fn sleepers_are_proven_whatever_they_sleep_in() {
    let _turn = turn();
    let threads = Threads::open().unwrap();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let parked = Arc::clone(&stop);
    let sleepers = [
        spawn(|| thread::sleep(Duration::from_millis(500))),
        // ORDERING: Acquire for form; the unpark behind the store is what wakes.
        spawn(move || {
            while !parked.load(Ordering::Acquire) {
                thread::park()
            }
        }),
        spawn(move || assert_eq!(rustix::io::read(&reader, &mut [0_u8; 1]), Ok(0))),
    ];
    for (number, _) in &sleepers {
        await_sight(&threads, *number, Sight::Elsewhere);
    }
    let mut proof = prove_all_but(&[]);
    assert_eq!(proof.advance().unwrap(), Progress::Done);
    stop.store(true, Ordering::Release);
    drop(writer);
    for (number, sleeper) in sleepers {
        sleeper.thread().unpark();
        sleeper.join().unwrap();
        await_sight(&threads, number, Sight::Gone);
    }
}

#[test]
fn a_thread_that_computes_is_never_proven_and_is_when_it_ends() {
    let _turn = turn();
    let threads = Threads::open().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    // More than there are processors, so that some are always ready to run without running.
    let count = thread::available_parallelism().unwrap().get() + 2;
    let spinners: Vec<_> = (0..count)
        .map(|_| {
            let stop = Arc::clone(&stop);
            // ORDERING: Relaxed; the thread only has to see it some time.
            spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop()
                }
            })
        })
        .collect();
    let numbers: Vec<u32> = spinners.iter().map(|(number, _)| *number).collect();
    await_that("they compute", || numbers.iter().all(|&number| threads.look(number).unwrap() == Sight::Unproven));
    let mut proof = prove_all_but(&numbers);
    for _ in 0..LOOKS / 4 {
        assert_eq!(proof.advance().unwrap(), Progress::Waiting { unproven: count, io_workers: 0 });
    }
    stop.store(true, Ordering::Relaxed);
    await_that("they end", || proof.advance().unwrap() == Progress::Done);
    for (_, spinner) in spinners {
        spinner.join().unwrap();
    }
}

#[test]
fn a_thread_that_waits_for_a_page_is_proven() {
    let _turn = turn();
    let threads = Threads::open().unwrap();
    let page = Arc::new(Mapping::new(4096).unwrap());
    let uffd = Uffd::open(true).unwrap();
    uffd.handshake(0).unwrap();
    let range = abi::UffdioRange { start: page.start(), len: page.len() };
    let mut missing = abi::UffdioRegister { range, mode: abi::UFFDIO_REGISTER_MODE_MISSING, ioctls: 0 };
    // SAFETY: the request takes this structure, which points to nothing.
    let answer = unsafe { libc::ioctl(uffd.raw_fd(), abi::UFFDIO_REGISTER as libc::Ioctl, &raw mut missing) };
    assert_eq!(answer, 0, "{}", io::Error::last_os_error());
    let touched = Arc::clone(&page);
    // SAFETY: the page is mapped, and nobody else writes to it.
    let (number, toucher) = spawn(move || unsafe { touched.as_ptr().write_volatile(1) });
    await_sight(&threads, number, Sight::Elsewhere);
    assert!(file_of(number, "syscall").starts_with("-1 0x"), "{}", file_of(number, "syscall"));
    // Taking the registration away lets the thread have an ordinary page.
    uffd.unregister(page.start(), page.len()).unwrap();
    toucher.join().unwrap();
}

#[test]
fn no_thread_is_missed_while_older_ones_end() {
    const LISTS: u32 = 30;
    const WAVES: u32 = 12;
    const OLDER: usize = 600;
    const YOUNGER: usize = 100;
    let _turn = turn();
    let (mut lists, mut gave_up, mut waves, deadline) = (0, 0, 0, Instant::now() + PATIENCE);
    while (lists < LISTS || waves < WAVES) && Instant::now() < deadline {
        waves += 1;
        // The kernel lists threads by age and finds its place by counting: who ends hides a younger one.
        let (older, end_older) = blocked_threads(OLDER);
        let (younger, end_younger) = blocked_threads(YOUNGER);
        let ender = thread::spawn(move || drop(end_older));
        loop {
            let is_over = older.iter().all(|(_, thread)| thread.is_finished());
            match Proof::begin() {
                Ok(proof) => {
                    lists += 1;
                    let missed = younger.iter().find(|(number, _)| !proof.unproven().contains(number));
                    assert!(missed.is_none(), "{missed:?} was missed");
                }
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    gave_up += 1;
                }
            }
            if is_over {
                break;
            }
        }
        ender.join().unwrap();
        drop(end_younger);
        for (_, thread) in older.into_iter().chain(younger) {
            thread.join().unwrap();
        }
    }
    println!("{lists} lists while threads ended were whole, {gave_up} were never stable");
    assert!(lists > 0, "no list was ever stable");
}

/// Threads that sleep until what is returned with them is dropped.
fn blocked_threads(count: usize) -> (Vec<(u32, JoinHandle<()>)>, OwnedFd) {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let reader = Arc::new(reader);
    let thread = |_| {
        let reader = Arc::clone(&reader);
        spawn(move || assert_eq!(rustix::io::read(&*reader, &mut [0_u8; 1]), Ok(0)))
    };
    ((0..count).map(thread).collect(), writer)
}

/// Runs a test that is marked as a helper in a process of its own, behind `wrapper`. Says what it printed, if it ran.
fn run_apart(wrapper: &[&str], helper: &str) -> Option<String> {
    let program = std::env::current_exe().unwrap();
    let mut words = wrapper.iter().map(std::ffi::OsStr::new).chain([program.as_os_str()]);
    let mut command = Command::new(words.next()?);
    command.env(HELPER, helper).args(words).args(["--exact", "--nocapture", "--test-threads=1", helper]);
    let output = command.output().ok()?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() || text.contains("unshare failed"), "{helper}: {text}");
    Some(text)
}

#[test]
fn the_calling_thread_is_known_under_another_namespace_s_proc() {
    let helper = "helper_begins_under_a_foreign_proc";
    match run_apart(&["unshare", "--pid", "--fork"], helper) {
        Some(text) if text.contains("numbers differ") => {}
        Some(text) => skipped("another namespace's /proc", text.trim()),
        None => skipped("another namespace's /proc", "no unshare(1)"),
    }
}

/// Does nothing unless it is run by another test, in a process namespace of its own with the /proc of its parent.
#[test]
fn helper_begins_under_a_foreign_proc() {
    if std::env::var_os(HELPER).is_none() {
        return;
    }
    let shown = fs::read_link("/proc/thread-self").unwrap();
    let own = rustix::thread::gettid().as_raw_nonzero().get();
    assert!(!shown.ends_with(own.to_string()), "{shown:?} is {own}");
    await_that("the others are proven", || Proof::begin().unwrap().advance().unwrap() == Progress::Done);
    println!("numbers differ: {own} is shown as {}", shown.display());
}

#[test]
fn a_process_that_may_not_look_at_itself_is_told_so() {
    if !rustix::process::geteuid().is_root() {
        return skipped("a_process_that_may_not_look", "only root can become somebody else");
    }
    let text = run_apart(&[], "helper_has_changed_its_identity").unwrap();
    assert!(text.contains("refused: "), "{text}");
}

/// Does nothing unless it is run by another test, since it changes the identity of its process.
#[test]
fn helper_has_changed_its_identity() {
    if std::env::var_os(HELPER).is_none() {
        return;
    }
    const NOBODY: u32 = 65534;
    // SAFETY: changes the identity of this process, which runs this test alone.
    assert_eq!(unsafe { libc::setuid(NOBODY) }, 0);
    // From here to the next exec the files of the process belong to root, and a proof must not take that for threads
    // that are gone.
    let refused = Proof::begin().unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    println!("refused: {refused}");
}
