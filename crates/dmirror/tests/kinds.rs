//! What the device can do with each kind of memory, and the exact error where it cannot.

#[path = "../../linux/tests/support/mod.rs"]
mod support;

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use pagemirror_core::addr::VirtAddr;
use pagemirror_core::mirror::{FaultErrorKind, Need, Request};
use pagemirror_core::table::{Page, UNIT_PAGES};
use pagemirror_core::wait::Deadline;
use pagemirror_dmirror::{Accelerator, Error, PageByte, page_bytes};
use pagemirror_linux::ProcessSpace;
use pagemirror_linux::pagemap::Pagemap;
use support::{Memory, PAGE, memfd, skipped, source, wait_until};

const UNIT: usize = UNIT_PAGES * PAGE;

fn soon() -> Deadline<'static> {
    Deadline::after(Duration::from_secs(20))
}

fn device(test: &str) -> Option<Accelerator> {
    Some(Accelerator::new(Arc::new(ProcessSpace::new(source(test)?).unwrap())))
}

fn address(memory: Memory, page: usize) -> VirtAddr {
    VirtAddr::new((memory.start + page * PAGE) as u64)
}

fn entry(device: &Accelerator, memory: Memory, page: usize) -> Page {
    device.mirror().table().walk(address(memory, page))
}

/// Waits until the translation is revoked. A walk outside a section may come before the callback, which runs when the caller
/// of munmap is free already: that is what a device that is not mediated must hold pins for.
fn assert_revoked(device: &Accelerator, memory: Memory, page: usize) {
    wait_until("the translation is revoked", Duration::from_secs(10), || !entry(device, memory, page).is_valid());
}

fn read(device: &Accelerator, memory: Memory) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0xee; memory.len];
    device.read(address(memory, 0), &mut bytes, &soon()).map(|_| bytes)
}

#[expect(unsafe_code, reason = "the tests' own memory, to which nothing refers")]
fn write(device: &Accelerator, memory: Memory, byte: u8) -> Result<(), Error> {
    // SAFETY: memory of the test's own, which is reached by raw pointers only.
    unsafe { device.write(address(memory, 0), &vec![byte; memory.len], &soon()) }.map(drop)
}

fn bytes(device: &Accelerator, memory: Memory) -> Vec<u8> {
    page_bytes(&device.snapshot(address(memory, 0), memory.len as u64, &soon()).unwrap())
}

/// The address of a refusal of this kind.
fn refusal(error: Error, kind: fn(VirtAddr) -> FaultErrorKind) -> VirtAddr {
    let Error::Fault { source, .. } = error else { panic!("not a fault: {error}") };
    let at = match &source.kind {
        FaultErrorKind::BadAddress { at } | FaultErrorKind::PermissionDenied { at } => *at,
        other => panic!("another kind: {other}"),
    };
    assert_eq!(source.kind, kind(at));
    at
}

fn bad_address(at: VirtAddr) -> FaultErrorKind {
    FaultErrorKind::BadAddress { at }
}

fn permission_denied(at: VirtAddr) -> FaultErrorKind {
    FaultErrorKind::PermissionDenied { at }
}

#[test]
fn anonymous_memory_is_read_and_written() {
    let Some(device) = device("anonymous_memory_is_read_and_written") else { return };
    let memory = Memory::anonymous(40);
    memory.fill(7);
    assert_eq!(read(&device, memory).unwrap(), vec![7; memory.len]);
    assert!(entry(&device, memory, 39).is_writable(), "the page is the process's own");
    write(&device, memory.part(3, 2), 9).unwrap();
    assert_eq!([2, 3, 4, 5].map(|page| memory.byte(page)), [7, 9, 9, 7]);
    memory.set_byte(3, 1);
    assert_eq!(
        read(&device, memory.part(3, 1)).unwrap()[..2],
        [1, 9],
        "the CPU's write is seen by a page that is mirrored"
    );
    memory.unmap();
    assert_revoked(&device, memory, 3);
}

#[test]
fn an_untouched_page_is_the_page_of_zeros_until_it_is_written() {
    let Some(device) = device("an_untouched_page_is_the_page_of_zeros_until_it_is_written") else { return };
    let memory = Memory::anonymous(3);
    assert_eq!(bytes(&device, memory), [PageByte::NONE; 3], "a snapshot brings nothing in");
    assert_eq!(read(&device, memory.part(0, 2)).unwrap(), vec![0; 2 * PAGE]);
    assert!(entry(&device, memory, 0).is_zero() && !entry(&device, memory, 0).is_writable());
    write(&device, memory.part(1, 1), 5).unwrap();
    assert!(entry(&device, memory, 1).is_writable() && !entry(&device, memory, 1).is_zero());
    let zero = PageByte::READ | PageByte::ZERO;
    assert_eq!(bytes(&device, memory), [zero, PageByte::WRITE, PageByte::NONE]);
    assert_eq!((memory.byte(0), memory.byte(1)), (0, 5));
}

#[test]
fn a_hole_is_a_bad_address_and_what_lies_before_it_is_kept() {
    let Some(device) = device("a_hole_is_a_bad_address_and_what_lies_before_it_is_kept") else { return };
    let memory = Memory::anonymous(5);
    memory.fill(1);
    memory.part(2, 1).unmap();
    for error in [read(&device, memory).unwrap_err(), write(&device, memory, 2).unwrap_err()] {
        assert_eq!(refusal(error, bad_address), address(memory, 2));
    }
    assert!(entry(&device, memory, 0).is_valid() && entry(&device, memory, 1).is_writable());
    assert!(!entry(&device, memory, 3).is_valid(), "nothing behind the hole was asked for");
    assert_eq!(memory.byte(3), 1, "nothing behind the hole is written");
    assert_eq!(bytes(&device, memory)[2], PageByte::ERROR);
    // All of it is gone.
    memory.unmap();
    assert_eq!(refusal(read(&device, memory).unwrap_err(), bad_address), address(memory, 0));
}

#[test]
fn forbidden_memory_is_a_bad_address_for_reading_and_writing() {
    let Some(device) = device("forbidden_memory_is_a_bad_address_for_reading_and_writing") else { return };
    let memory = Memory::anonymous(4);
    memory.fill(1);
    memory.part(1, 1).protect(libc::PROT_NONE);
    for error in [read(&device, memory).unwrap_err(), write(&device, memory, 2).unwrap_err()] {
        assert_eq!(refusal(error, bad_address), address(memory, 1));
    }
    assert_eq!(bytes(&device, memory), [PageByte::WRITE, PageByte::ERROR, PageByte::WRITE, PageByte::WRITE]);
}

#[test]
fn read_only_memory_is_read_and_refuses_writes() {
    let Some(device) = device("read_only_memory_is_read_and_refuses_writes") else { return };
    let memory = Memory::anonymous(4);
    memory.fill(3);
    memory.part(2, 2).protect(libc::PROT_READ);
    assert_eq!(read(&device, memory).unwrap(), vec![3; memory.len]);
    assert_eq!(refusal(write(&device, memory, 4).unwrap_err(), permission_denied), address(memory, 2));
    assert_eq!(memory.byte(2), 3);
    let (own, only_read) = (PageByte::WRITE, PageByte::READ);
    assert_eq!(bytes(&device, memory), [own, own, only_read, only_read]);
}

/// mprotect is not reported. The translation still says "writable"; the copy finds that it is not.
#[test]
fn a_right_that_was_taken_away_unreported_is_found_by_the_next_write() {
    let Some(device) = device("a_right_that_was_taken_away_unreported_is_found_by_the_next_write") else { return };
    let memory = Memory::anonymous(2);
    write(&device, memory, 1).unwrap();
    memory.protect(libc::PROT_READ);
    assert!(entry(&device, memory, 0).is_writable(), "nobody was told");
    assert_eq!(refusal(write(&device, memory, 2).unwrap_err(), permission_denied), address(memory, 0));
    assert!(device.stats().vanished > 0);
    assert_eq!(memory.byte(0), 1);
}

#[test]
fn shared_memory_is_the_same_for_all_its_mappings() {
    let Some(device) = device("shared_memory_is_the_same_for_all_its_mappings") else { return };
    let fd = memfd(4);
    let (memory, alias) = (Memory::shared(fd, 4), Memory::shared(fd, 4));
    alias.fill(6);
    assert_eq!(read(&device, memory).unwrap(), vec![6; memory.len]);
    write(&device, memory.part(1, 1), 8).unwrap();
    assert_eq!((alias.byte(0), alias.byte(1)), (6, 8));
    assert_eq!(bytes(&device, memory), [PageByte::WRITE; 4]);
}

/// A file of two pages of `byte`, in a directory of the machine's own, and its descriptor.
fn file(name: &str, byte: u8) -> File {
    let path = std::env::temp_dir().join(format!("pagemirror-{}-{name}", std::process::id()));
    let options = File::options().read(true).write(true).create_new(true).clone();
    let mut file = options.open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.write_all(&[byte; 2 * PAGE]).unwrap();
    file
}

#[expect(unsafe_code, reason = "maps a file")]
fn map(file: &File, pages: usize, flags: i32) -> Memory {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), pages * PAGE, rights, flags, file.as_raw_fd(), 0) };
    assert!(at != libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
    Memory { start: at as usize, len: pages * PAGE }
}

#[test]
fn a_shared_file_gets_what_the_device_writes() {
    let Some(device) = device("a_shared_file_gets_what_the_device_writes") else { return };
    let file = file("shared", 4);
    let memory = map(&file, 2, libc::MAP_SHARED);
    assert_eq!(read(&device, memory).unwrap(), vec![4; memory.len]);
    write(&device, memory.part(1, 1), 5).unwrap();
    let mut last = [0];
    file.read_exact_at(&mut last, 2 * PAGE as u64 - 1).unwrap();
    assert_eq!(last, [5]);
}

#[test]
fn a_private_file_is_copied_on_the_device_s_first_write() {
    let Some(device) = device("a_private_file_is_copied_on_the_device_s_first_write") else { return };
    let file = file("private", 4);
    let memory = map(&file, 2, libc::MAP_PRIVATE);
    assert_eq!(read(&device, memory).unwrap(), vec![4; memory.len]);
    assert!(!entry(&device, memory, 1).is_writable(), "the next write goes to another page");
    write(&device, memory.part(1, 1), 5).unwrap();
    assert!(entry(&device, memory, 1).is_writable());
    assert_eq!(bytes(&device, memory), [PageByte::READ, PageByte::WRITE]);
    let mut last = [0];
    file.read_exact_at(&mut last, 2 * PAGE as u64 - 1).unwrap();
    assert_eq!((last, memory.byte(1)), ([4], 5));
}

#[test]
fn behind_the_end_of_its_file_a_mapping_is_a_bad_address() {
    let Some(device) = device("behind_the_end_of_its_file_a_mapping_is_a_bad_address") else { return };
    let memory = map(&file("short", 4), 4, libc::MAP_SHARED);
    assert_eq!(refusal(read(&device, memory).unwrap_err(), bad_address), address(memory, 2));
}

/// Memory of two aligned units for which huge pages were asked.
fn huge(units: usize) -> Memory {
    let reserved = Memory::anonymous((units + 1) * UNIT_PAGES);
    let first = reserved.start.next_multiple_of(UNIT);
    let memory = Memory { start: first, len: units * UNIT };
    memory.advise(libc::MADV_HUGEPAGE);
    memory
}

#[test]
fn a_huge_page_is_one_entry_and_survives_the_loss_of_a_part() {
    let name = "a_huge_page_is_one_entry_and_survives_the_loss_of_a_part";
    let Some(device) = device(name) else { return };
    let memory = huge(1);
    write(&device, memory.part(0, 1), 2).unwrap();
    if entry(&device, memory, 0).order() == 0 {
        return skipped(name, "no huge page was to be had");
    }
    let whole = device.mirror().range_fault(memory.range(), Request::all(Need::WRITE), &soon()).unwrap();
    assert_eq!(whole.installed, UNIT_PAGES as u64);
    assert_eq!(bytes(&device, memory), vec![PageByte::WRITE | PageByte::PMD; UNIT_PAGES]);
    let (first, last) = (entry(&device, memory, 0), entry(&device, memory, UNIT_PAGES - 1));
    assert_eq!((first.order(), last.order()), (9, 9));
    memory.part(100, 1).unmap();
    assert_revoked(&device, memory, 100);
    let there = |page| entry(&device, memory, page).is_valid();
    assert_eq!([99, 100, 101].map(there), [true, false, true], "only what was unmapped is gone");
    assert_eq!(refusal(read(&device, memory).unwrap_err(), bad_address), address(memory, 100));
}

/// The neighbours of a page that was discarded stay, and its content is gone for the device as well.
#[test]
fn a_discarded_page_reads_as_zeros() {
    let Some(device) = device("a_discarded_page_reads_as_zeros") else { return };
    let memory = Memory::anonymous(3);
    write(&device, memory, 9).unwrap();
    memory.part(1, 1).advise(libc::MADV_DONTNEED);
    assert_revoked(&device, memory, 1);
    let there = |page| entry(&device, memory, page).is_valid();
    assert_eq!([0, 1, 2].map(there), [true, false, true]);
    let read = read(&device, memory).unwrap();
    assert_eq!([read[0], read[PAGE], read[2 * PAGE]], [9, 0, 9]);
}

#[test]
fn each_page_is_asked_for_and_answered_by_itself() {
    let Some(device) = device("each_page_is_asked_for_and_answered_by_itself") else { return };
    let memory = Memory::anonymous(6);
    memory.part(5, 1).fill(1);
    memory.part(3, 1).unmap();
    memory.part(2, 1).protect(libc::PROT_NONE);
    let needs = [Need::NOTHING, Need::WRITE, Need::NOTHING, Need::NOTHING, Need::READ, Need::NOTHING];
    let mut answers = [Page::ERROR; 6];
    let request = Request::with_needs(&needs, Need::WRITE, Need::NOTHING).answering(&mut answers);
    device.mirror().range_fault(memory.range(), request, &soon()).unwrap();
    assert_eq!(answers[0], Page::ABSENT, "not asked for, not brought in");
    assert!(answers[1].is_writable());
    assert_eq!([answers[2], answers[3]], [Page::ERROR; 2], "no fault could bring these, and none was asked");
    assert!(answers[4].is_zero());
    assert!(answers[5].is_writable(), "present, so described");
    assert_eq!(entry(&device, memory, 1), answers[1], "what is answered is what is installed");

    // The mask takes the writes away; the default asks for the rest, up to what cannot be had.
    let mut answers = [Page::ABSENT; 6];
    let request = Request::with_needs(&needs, Need::NOTHING, Need::READ).answering(&mut answers);
    let error = device.mirror().range_fault(memory.range(), request, &soon()).unwrap_err();
    assert_eq!((error.kind, error.done), (bad_address(address(memory, 2)), 2));
    assert!(answers[0].is_zero() && answers[1].is_writable());
    assert_eq!([answers[2], answers[3]], [Page::ERROR, Page::ABSENT], "behind the error nothing is answered");
}

#[test]
fn a_snapshot_of_much_absent_memory_is_one_run_and_brings_nothing_in() {
    let Some(device) = device("a_snapshot_of_much_absent_memory_is_one_run_and_brings_nothing_in") else { return };
    let memory = Memory::anonymous(3 << 18);
    let runs = device.snapshot(address(memory, 0), memory.len as u64, &soon()).unwrap();
    assert_eq!((runs.len(), runs[0].range, runs[0].page), (1, memory.range(), Page::ABSENT));
    assert_eq!(Pagemap::open().unwrap().present_pages(memory.range()).unwrap(), 0);
    memory.unmap();
}

#[test]
fn what_is_no_range_is_refused_and_nothing_is_nothing() {
    let Some(device) = device("what_is_no_range_is_refused_and_nothing_is_nothing") else { return };
    assert!(matches!(device.read(VirtAddr::new(u64::MAX - 4), &mut [0; 64], &soon()), Err(Error::Range(_))));
    assert!(device.read(VirtAddr::new(1), &mut [], &soon()).is_ok());
    let beyond = device.read(VirtAddr::new(1 << 60), &mut [0; 64], &soon()).unwrap_err();
    let Error::Fault { source, .. } = beyond else { panic!("{beyond}") };
    assert!(matches!(source.kind, FaultErrorKind::Beyond(_)), "{source}");
    let error = device.write_to(&mut [0; 3], &[0; 4], &soon()).unwrap_err();
    assert_eq!(error, Error::Lengths { left: 3, right: 4 });
}

#[test]
fn two_devices_share_memory_and_not_tables() {
    let Some(one) = device("two_devices_share_memory_and_not_tables") else { return };
    let other = Accelerator::new(Arc::clone(one.mirror().host()));
    let memory = Memory::anonymous(2);
    write(&one, memory, 3).unwrap();
    assert!(!entry(&other, memory, 0).is_valid());
    assert_eq!(read(&other, memory).unwrap(), vec![3; memory.len]);
    write(&other, memory.part(1, 1), 4).unwrap();
    assert_eq!(read(&one, memory).unwrap()[PAGE], 4);
    memory.unmap();
    assert_revoked(&one, memory, 0);
    assert_revoked(&other, memory, 1);
    drop(other);
    assert_eq!(refusal(read(&one, memory).unwrap_err(), bad_address), address(memory, 0));
}

#[test]
fn an_access_inside_another_is_refused() {
    let Some(device) = device("an_access_inside_another_is_refused") else { return };
    let memory = Memory::anonymous(1);
    memory.fill(1);
    let inner = device.mirror().access(memory.range(), Need::READ, &soon(), |_| {
        Ok(device.mirror().access(memory.range(), Need::READ, &soon(), |_| Ok(())).unwrap_err().kind)
    });
    let kind = match inner.unwrap() {
        pagemirror_core::mirror::Accessed::Done(kind) => kind,
        not => panic!("{not:?}"),
    };
    assert_eq!(kind, FaultErrorKind::Nested);
}
