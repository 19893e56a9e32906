//! The churn on mimalloc: each thread collects what is its own, and what is free is purged.
#![expect(unsafe_code, reason = "mimalloc is told to collect through its C interface")]

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn purge() {
    // SAFETY: may be called by any thread at any time.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

fn main() -> ExitCode {
    pagemirror_allocators::main("mimalloc", purge)
}
