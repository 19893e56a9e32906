//! What nobody is told about, looked at: the kernel is the oracle.
#![expect(unsafe_code, reason = "system calls that replace and guard real memory")]

mod support;

use pagemirror_core::addr::VirtAddr;
use pagemirror_core::check::{Change, Checked, Rights, Shown};
use pagemirror_core::source::Source;
use pagemirror_linux::Userfault;
use pagemirror_sync::Arc;
use support::{Memory, PAGE, memfd, skipped, source};

const MADV_GUARD_INSTALL: i32 = 102;
const MADV_GUARD_REMOVE: i32 = 103;

fn shown(source: &Userfault, memory: Memory) -> Shown {
    source.look(memory.range()).unwrap().shown().clone()
}

fn check(source: &Userfault, memory: Memory, earlier: &Shown, rights: Rights) -> Checked {
    source.look(memory.range()).unwrap().compare(earlier, rights)
}

fn changed(change: Change, memory: Memory, page: usize) -> Checked {
    Checked::Changed(change, VirtAddr::new((memory.start + page * PAGE) as u64))
}

/// The source, where this kernel shows what is to be seen. Where it does not, a look says that it cannot tell; what it then
/// says is tested in `environment.rs`.
fn source_that_looks(test: &str) -> Option<Arc<Userfault>> {
    let source = source(test)?;
    match source.look(Memory::anonymous(1).range()) {
        Ok(_) => Some(source),
        Err(why) => {
            skipped(test, why);
            None
        }
    }
}

#[test]
fn protection_is_seen_for_what_the_device_needs() {
    let Some(source) = source_that_looks("protection_is_seen_for_what_the_device_needs") else { return };
    let memory = Memory::anonymous(4);
    memory.fill(1);
    let earlier = shown(&source, memory);
    assert_eq!(check(&source, memory, &earlier, Rights::Write), Checked::Same);
    memory.part(2, 1).protect(libc::PROT_READ);
    assert_eq!(check(&source, memory, &earlier, Rights::Write), changed(Change::Protected, memory, 2));
    assert_eq!(check(&source, memory, &earlier, Rights::Read), Checked::Same);
    memory.part(1, 1).protect(libc::PROT_NONE);
    assert_eq!(check(&source, memory, &earlier, Rights::Read), changed(Change::Protected, memory, 1));
    memory.protect(libc::PROT_READ | libc::PROT_WRITE);
    assert_eq!(check(&source, memory, &earlier, Rights::Write), Checked::Same);
}

#[test]
fn guard_pages_are_seen() {
    let Some(source) = source_that_looks("guard_pages_are_seen") else { return };
    let memory = Memory::anonymous(8);
    memory.fill(1);
    let earlier = shown(&source, memory);
    if !memory.part(5, 2).try_advise(MADV_GUARD_INSTALL) {
        return skipped("guard_pages_are_seen", "this kernel has no guard pages");
    }
    assert_eq!(check(&source, memory, &earlier, Rights::Read), changed(Change::Guarded, memory, 5));
    assert_eq!(check(&source, memory.part(0, 5), &shown(&source, memory.part(0, 5)), Rights::Read), Checked::Same);
    memory.part(5, 2).advise(MADV_GUARD_REMOVE);
    assert_eq!(check(&source, memory, &earlier, Rights::Read), Checked::Same);
}

#[test]
fn a_mapping_that_was_silently_replaced_is_seen() {
    let Some(source) = source_that_looks("a_mapping_that_was_silently_replaced_is_seen") else { return };
    let memory = Memory::shared(memfd(8), 8);
    memory.fill(1);
    let earlier = shown(&source, memory);
    // SAFETY: the test's own mapping, which shows another page of its file afterwards.
    let replaced = unsafe { libc::syscall(libc::SYS_remap_file_pages, memory.start + 3 * PAGE, PAGE, 0, 6, 0) };
    assert_eq!(replaced, 0, "{}", std::io::Error::last_os_error());
    assert!(matches!(check(&source, memory, &earlier, Rights::Read), Checked::Changed(Change::Replaced, _)));

    let memory = Memory::anonymous(4);
    let earlier = shown(&source, memory);
    // SAFETY: a segment of the test's own, attached over memory of its own, and marked to go with its last attachment.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, memory.len, 0o600 | libc::IPC_CREAT) };
    // SAFETY: as above.
    let at = unsafe { libc::shmat(id, memory.start as *const _, libc::SHM_REMAP) };
    // SAFETY: as above.
    unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
    assert_eq!(at as usize, memory.start);
    assert_eq!(check(&source, memory, &earlier, Rights::Read), changed(Change::Replaced, memory, 0));
    let attached = shown(&source, memory);
    assert_eq!(check(&source, memory, &attached, Rights::Write), Checked::Same);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::shmdt(at) }, 0);
    assert_eq!(check(&source, memory, &attached, Rights::Read), changed(Change::Unmapped, memory, 0));
}
