//! io_uring's fixed buffers for ordinary memory: registered once, used many times, never stale.
//!
//! A fixed buffer is a range of memory whose pages io_uring has pinned once, so that requests need not pin them each time. The
//! pages stay pinned when the program unmaps, moves or discards them, and a request that names the buffer goes on using the
//! old ones: what is written to the file is not what the program sees. This crate registers buffers as they are used, and
//! takes the registration back when their memory changes.
//!
//! # A newcomer's way in
//! [`CoherentRing`] reads and writes files from whatever buffer it is given, and is safe to call:
//!
//! ```no_run
//! use std::fs::File;
//! use std::os::fd::AsFd;
//! use std::time::Duration;
//! use pagemirror_core::wait::Deadline;
//! use pagemirror_io_uring::{CoherentRing, RingOptions};
//!
//! let mut ring = CoherentRing::open(RingOptions::default())?;
//! let file = File::create("/tmp/out")?;
//! let buffer = vec![7; 65536]; // registered by the first write, found by the second
//! for offset in [0, 65536] {
//!     ring.write_at(file.as_fd(), &buffer, offset, &Deadline::after(Duration::from_secs(1)))?;
//! }
//! drop(buffer); // the allocator unmaps it, and the registration is gone
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A program with a loop of its own gives its ring to [`FixedBuffers`], that to a
//! [`RegistrationCache`](pagemirror_registration::RegistrationCache), and makes its requests through [`FixedEntry`], whose
//! text has the example. A whole program is `examples/copy_file.rs`, which copies a file with direct transfers:
//! `cargo run --release -p pagemirror-io-uring --example copy_file -- SRC DST`.
//!
//! # What it gains and costs
//! Only direct transfers (`O_DIRECT`) gain, by what pinning costs; a buffered one copies anyway. A transfer from a buffer that
//! is registered costs a probe of the kernel more than one through the table alone. Buffers that live for one transfer are
//! better left unregistered. Pinned pages count against `RLIMIT_MEMLOCK`.
//!
//! # Discards
//! After a `madvise(MADV_DONTNEED)` its addresses are served by address until the discard is proven to be over: correct, and
//! without the gain. The proof waits for io_uring's own worker threads too, while they are at a request.
#![deny(unsafe_code)]

mod entry;
mod error;
mod explain;
mod fixed;
mod flight;
mod request;
mod ring;
mod slots;

pub use entry::{FixedEntry, Outside, Target};
pub use error::{Direction, Error, ErrorKind};
pub use fixed::{FixedBuffers, Slot};
pub use ring::{CoherentRing, RingOptions, RingStats};
