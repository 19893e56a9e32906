//! What the tests of this crate share: a source that is told what happened, memory at chosen addresses, rings.
#![expect(unsafe_code, reason = "tests map, fill and unmap memory")]
#![allow(dead_code, reason = "each test program uses a part of this")]

use std::ffi::c_void;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use io_uring::IoUring;
use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_core::notify::Event;
use pagemirror_core::source::{Probe, Source, WatchError, Watched};
use pagemirror_core::space::AddressSpace;
use pagemirror_core::wait::Deadline;
use pagemirror_linux::abi::{Feature, hide};
use rustix::mm::{MapFlags, MremapFlags, ProtFlags};

pub(crate) const PAGE: usize = 4096;

/// A source that reports what the test tells it, and nothing else: without being told it is a lie, which is what the
/// control runs want.
#[derive(Debug, Default)]
pub(crate) struct Told {
    space: Arc<AddressSpace>,
}

impl Told {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub(crate) fn invalidate_all(&self) {
        drop(self.space.invalidate_start(PageRange::ALL, Event::Requested));
    }
}

impl Source for Told {
    fn space(&self) -> &Arc<AddressSpace> {
        &self.space
    }

    fn page_size(&self) -> u64 {
        PAGE as u64
    }

    fn probe(&self) -> Probe {
        Probe::Quiet
    }

    fn watch(&self, _range: PageRange) -> Result<Watched, WatchError> {
        Ok(Watched::Covered)
    }
}

/// Pages that the test mapped. Unmapped at the end.
#[derive(Debug)]
pub(crate) struct Memory {
    start: NonNull<c_void>,
    len: usize,
}

// SAFETY: a mapping belongs to no thread.
unsafe impl Send for Memory {}

impl Memory {
    pub(crate) fn new(len: usize) -> Self {
        Self::map(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
    }

    pub(crate) fn read_only(len: usize) -> Self {
        Self::map(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE)
    }

    fn map(at: *mut c_void, len: usize, prot: ProtFlags, flags: MapFlags) -> Self {
        Self::try_map(at, len, prot, flags).expect("mmap")
    }

    fn try_map(at: *mut c_void, len: usize, prot: ProtFlags, flags: MapFlags) -> rustix::io::Result<Self> {
        // SAFETY: a fresh mapping; a fixed one is refused where something is mapped.
        let start = unsafe { rustix::mm::mmap_anonymous(at, len, prot, flags) }?;
        Ok(Self { start: NonNull::new(start).expect("mmap gives no null"), len })
    }

    /// New pages at `at`, or elsewhere when another thread was faster.
    fn again(at: *mut c_void, len: usize) -> Self {
        let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
        Self::try_map(at, len, ProtFlags::READ | ProtFlags::WRITE, flags).unwrap_or_else(|_| Self::new(len))
    }

    /// Maps `file` shared.
    pub(crate) fn of_file(file: &std::fs::File, len: usize) -> Self {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping.
        let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, file, 0) };
        Self { start: NonNull::new(start.expect("mmap")).expect("mmap gives no null"), len }
    }

    /// Unmaps, and maps new pages at the same address, unless another thread was faster.
    pub(crate) fn remap(self) -> Self {
        let (at, len) = (self.start.as_ptr(), self.len);
        drop(self);
        Self::again(at, len)
    }

    /// Moves the pages elsewhere, and maps new ones where they were. Gives the moved ones.
    pub(crate) fn move_away(&mut self) -> Self {
        let (from, len) = (self.start.as_ptr(), self.len);
        let elsewhere = Self::new(len);
        let to = elsewhere.start.as_ptr();
        // SAFETY: both mappings are ours and borrowed by nobody; what is at the target is replaced.
        let moved = unsafe { rustix::mm::mremap_fixed(from, len, len, MremapFlags::MAYMOVE, to) };
        assert_eq!(moved.expect("mremap"), to);
        // Nothing of ours is left at the old address, so the old value must not unmap it.
        std::mem::forget(std::mem::replace(self, Self::again(from, len)));
        elsewhere
    }

    pub(crate) fn discard(&self) {
        // SAFETY: ours; the pages are zero afterwards.
        unsafe { rustix::mm::madvise(self.start.as_ptr(), self.len, rustix::mm::Advice::LinuxDontNeed) }
            .expect("madvise");
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: mapped for as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: mapped for as long as `self`, and borrowed from it.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.len) }
    }

    pub(crate) fn filled(mut self, byte: u8) -> Self {
        self.bytes_mut().fill(byte);
        self
    }

    pub(crate) fn address(&self) -> VirtAddr {
        VirtAddr::of(self.start.as_ptr())
    }

    pub(crate) fn len(&self) -> u64 {
        self.len as u64
    }

    pub(crate) fn range(&self) -> PageRange {
        PageRange::covering(self.address(), self.len(), PAGE as u64).unwrap()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: ours, and no reference into it is left.
        unsafe { rustix::mm::munmap(self.start.as_ptr(), self.len) }.expect("munmap");
    }
}

/// Says that a test did not run, and why. Not by `println`, which the test harness keeps to itself.
pub(crate) fn skipped(test: &str, why: impl std::fmt::Display) {
    let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("SKIPPED: {test}: {why}\n"));
}

/// Hides features of the kernel that the variable `PAGEMIRROR_TEST_HIDE` names, several with commas between them.
fn hide_what_is_asked() {
    let Ok(asked) = std::env::var("PAGEMIRROR_TEST_HIDE") else { return };
    for name in asked.split(',') {
        let known = Feature::ALL.iter().find(|(known, _)| *known == name);
        hide(known.unwrap_or_else(|| panic!("no feature {name:?}")).1);
    }
}

/// A ring, or the news that this machine has none.
pub(crate) fn ring_or_skip(test: &str) -> Option<IoUring> {
    hide_what_is_asked();
    IoUring::new(16).map_err(|error| skipped(test, format_args!("io_uring_setup says {error}"))).ok()
}

pub(crate) fn soon() -> Deadline<'static> {
    Deadline::after(Duration::from_secs(20))
}

/// A file in memory, and its content from the start.
pub(crate) fn memfd() -> std::fs::File {
    let fd: OwnedFd = rustix::fs::memfd_create("pagemirror-test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    fd.into()
}

/// The first `len` bytes of a file.
pub(crate) fn head(file: &std::fs::File, len: usize) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; len];
    let got = file.read_at(&mut bytes, 0).unwrap();
    bytes.truncate(got);
    bytes
}
