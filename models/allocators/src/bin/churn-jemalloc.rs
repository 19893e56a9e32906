//! The churn on jemalloc, whose arenas are all purged.
#![expect(unsafe_code, reason = "jemalloc is told to purge through its C interface")]

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// `MALLCTL_ARENAS_ALL` of jemalloc.
const PURGE_ALL: &std::ffi::CStr = c"arena.4096.purge";

fn purge() {
    let nothing = std::ptr::null_mut();
    // SAFETY: the command takes no argument and gives no answer.
    unsafe { tikv_jemalloc_sys::mallctl(PURGE_ALL.as_ptr(), nothing, nothing.cast(), nothing, 0) };
}

fn main() -> ExitCode {
    pagemirror_allocators::main("jemalloc", purge)
}
