//! What is said where a container's filter refuses io_uring. A filter binds one thread, so each test has one of its own.
#![expect(unsafe_code, reason = "installs a filter")]

mod support;

use std::io;

use pagemirror_io_uring::{CoherentRing, Error, RingOptions};
use support::skipped;

/// Has `io_uring_setup` answered with `errno` for this thread.
fn refuse(errno: i32) -> io::Result<()> {
    let statement = |code: u32, jf, k| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let mut filter = [
        // The number of the call is the first word of what a filter is shown.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, libc::SYS_io_uring_setup as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: makes this thread one that gains no privileges, which is what a filter asks for.
    let bound = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the program is alive during the call, which copies it.
    let installed = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if (bound, installed) == (0, 0) { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The message of a ring that could not be made, or nothing where no filter or no source can be had.
fn message(test: &str, errno: i32) -> Option<String> {
    let opened = std::thread::scope(|scope| {
        let refused = || refuse(errno).map(|()| CoherentRing::open(RingOptions::default()).map(drop));
        scope.spawn(refused).join().unwrap()
    });
    match opened {
        Ok(Err(error @ Error::Setup { .. })) => Some(error.to_string()),
        Ok(Err(error @ Error::Source { .. })) => {
            skipped(test, error);
            None
        }
        Ok(other) => panic!("{other:?}"),
        Err(error) => {
            skipped(test, format_args!("no filter can be installed: {error}"));
            None
        }
    }
}

#[test]
fn a_filter_that_forbids() {
    let Some(said) = message("a_filter_that_forbids", libc::EPERM) else { return };
    // The sysctl may be the reason too, and then it is named.
    assert!(said.contains("seccomp profile") || said.contains("kernel.io_uring_disabled"), "{said}");
}

#[test]
fn a_filter_that_hides() {
    let Some(said) = message("a_filter_that_hides", libc::ENOSYS) else { return };
    assert!(said.contains("built without io_uring, or a seccomp filter hides it"), "{said}");
}
