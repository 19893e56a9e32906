//! What a forked child does: it closes the descriptor and never reads it.
//!
//! A child that kept it would keep the parent's blocked callers blocked when the parent closes or dies, and a child that
//! read it would steal the parent's events. The child's own memory is not watched; its gate is wiped by the kernel and
//! says "lost". A child made by a raw `clone` runs no handler: there the wiped gate is all there is, and it is enough.
#![expect(unsafe_code, reason = "registers a handler that runs in forked children")]

use std::io;
use std::sync::atomic::{AtomicI32, Ordering};

/// The descriptor to close, or -1.
static DESCRIPTOR: AtomicI32 = AtomicI32::new(-1);

/// Has `descriptor` closed in every child that is forked from now on.
pub(crate) fn close_in_children(descriptor: i32) -> io::Result<()> {
    // ORDERING: SeqCst for plainness; read in a child that was forked later.
    DESCRIPTOR.store(descriptor, Ordering::SeqCst);
    // SAFETY: the handler is a function without captures that lives for ever and calls only what a forked child of a
    // threaded process may call.
    match unsafe { libc::pthread_atfork(None, None, Some(in_child)) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

extern "C" fn in_child() {
    // ORDERING: SeqCst for plainness; the child has one thread.
    let descriptor = DESCRIPTOR.swap(-1, Ordering::SeqCst);
    if descriptor >= 0 {
        // SAFETY: the descriptor is the source's own; in the child nothing uses it, because the child's gate says lost.
        unsafe { libc::close(descriptor) };
    }
}
