//! Starting the source's threads: no signal handler of the program ever runs on one of them, because a handler may free
//! memory, and the thread that frees waits for the pump.
#![expect(unsafe_code, reason = "sets this thread's signal mask")]

use std::io;
use std::mem::MaybeUninit;

/// Starts a thread with every signal blocked.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = std::thread::Builder::new().name(name.into());
    builder.spawn(move || {
        block_signals();
        body();
    })?;
    Ok(())
}

fn block_signals() {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is valid for a write of a whole set, which is all that the call does.
    unsafe { libc::sigfillset(set.as_mut_ptr()) };
    // SAFETY: the set was initialised above; the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) };
}
