//! The arena against a program that tries everything: the kernel's answer is the oracle.
#![expect(unsafe_code, reason = "system calls that would change the arena if they were permitted")]

mod support;

use std::io;

use pagemirror_core::source::Source;
use pagemirror_linux::{Arena, Block};
use support::{Memory, PAGE, skipped, source};

const MADV_GUARD_INSTALL: i32 = 102;
const MADV_DONTNEED_LOCKED: i32 = 24;

fn arena(test: &str) -> Option<Arena> {
    let arena = Arena::new(8 * PAGE).map_err(|error| skipped(test, error)).ok()?;
    if !arena.sealing().mapping {
        skipped(test, "this kernel has no mseal");
        return None;
    }
    Some(arena)
}

/// A system call that the arena must withstand.
fn call(number: libc::c_long, arguments: [usize; 5]) -> Result<usize, i32> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: every caller names the arena, which the kernel keeps as it is, or memory of the test's own.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e, 0) };
    usize::try_from(answer).map_err(|_| io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

fn filled(arena: &Arena) -> (Block, usize, usize) {
    let mut block = arena.allocate(4 * PAGE).unwrap();
    block.as_mut_slice().fill(7);
    let range = block.range();
    (block, range.start().get() as usize, range.len() as usize)
}

#[test]
fn the_kernel_refuses_to_unmap_move_replace_and_protect_an_arena() {
    let Some(arena) = arena("the_kernel_refuses_to_unmap_move_replace_and_protect_an_arena") else { return };
    let (block, at, len) = filled(&arena);
    let target = Memory::anonymous(4);
    let fixed = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as usize;
    let anonymous = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED) as usize;
    let refused = [
        ("munmap", call(libc::SYS_munmap, [at, len, 0, 0, 0])),
        ("munmap of a page", call(libc::SYS_munmap, [at + PAGE, PAGE, 0, 0, 0])),
        ("mremap away", call(libc::SYS_mremap, [at, len, len, fixed, target.start])),
        ("mremap shrunk", call(libc::SYS_mremap, [at, len, PAGE, 0, 0])),
        ("mremap onto it", call(libc::SYS_mremap, [target.start, len, len, fixed, at])),
        ("mmap over it", call(libc::SYS_mmap, [at, len, libc::PROT_READ as usize, anonymous, usize::MAX])),
        ("mprotect", call(libc::SYS_mprotect, [at, len, libc::PROT_NONE as usize, 0, 0])),
        ("mprotect of a page", call(libc::SYS_mprotect, [at + PAGE, PAGE, libc::PROT_READ as usize, 0, 0])),
        ("pkey_mprotect", call(libc::SYS_pkey_mprotect, [at, len, libc::PROT_NONE as usize, usize::MAX, 0])),
        ("remap_file_pages", call(libc::SYS_remap_file_pages, [at, PAGE, 0, 3, 0])),
    ];
    for (what, answer) in refused {
        assert_eq!(answer, Err(libc::EPERM), "{what}");
    }
    let id = call(libc::SYS_shmget, [libc::IPC_PRIVATE as usize, len, 0o600 | libc::IPC_CREAT as usize, 0, 0]).unwrap();
    let attached = call(libc::SYS_shmat, [id, at, libc::SHM_REMAP as usize, 0, 0]);
    call(libc::SYS_shmctl, [id, libc::IPC_RMID as usize, 0, 0, 0]).unwrap();
    assert_eq!(attached, Err(libc::EPERM), "shmat over it");
    assert_eq!(block.as_slice(), &[7; 4 * PAGE]);
}

#[test]
fn no_discard_takes_a_page_out_of_an_arena() {
    let Some(arena) = arena("no_discard_takes_a_page_out_of_an_arena") else { return };
    let (mut block, at, len) = filled(&arena);
    let advise = |advice: i32| call(libc::SYS_madvise, [at, len, advice as usize, 0, 0]);
    assert!(advise(libc::MADV_REMOVE).is_err(), "MADV_REMOVE");
    assert!(advise(libc::MADV_FREE).is_err(), "MADV_FREE");
    if arena.sealing().locked {
        assert_eq!(advise(libc::MADV_DONTNEED), Err(libc::EINVAL), "MADV_DONTNEED of locked memory");
        assert_eq!(advise(MADV_GUARD_INSTALL), Err(libc::EINVAL), "MADV_GUARD_INSTALL in locked memory");
    } else {
        skipped("guard pages in an arena", "the limit on locked memory is too low to keep them out");
    }
    // Permitted, and harmless: the pages stay in the file.
    let _ = advise(MADV_DONTNEED_LOCKED);
    assert_eq!(block.as_slice(), &[7; 4 * PAGE]);
    block.as_mut_slice().fill(8);
    assert_eq!(block.as_slice(), &[8; 4 * PAGE]);
}

#[test]
fn nobody_has_the_file_and_who_gets_it_cannot_shrink_it() {
    let Some(arena) = arena("nobody_has_the_file_and_who_gets_it_cannot_shrink_it") else { return };
    let (block, ..) = filled(&arena);
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let shows = entry.and_then(|entry| std::fs::read_link(entry.path())).unwrap_or_default();
        assert!(!shows.to_string_lossy().contains("pagemirror-arena"), "a descriptor is open");
    }
    let range = arena.range();
    let name = format!("/proc/self/map_files/{:x}-{:x}", range.start().get(), range.end().get());
    match std::fs::OpenOptions::new().read(true).write(true).open(&name) {
        Ok(file) => {
            let refused = |answer: io::Result<()>| answer.unwrap_err().raw_os_error() == Some(libc::EPERM);
            assert!(refused(file.set_len(0)) && refused(file.set_len(1 << 30)), "its length");
            // SAFETY: the descriptor is open.
            let hole = unsafe { libc::fallocate(std::os::fd::AsRawFd::as_raw_fd(&file), 3, 0, PAGE as i64) };
            assert_eq!((hole, io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EPERM)), "a hole");
        }
        Err(error) => skipped("the file of an arena", format_args!("{name}: {error}")),
    }
    assert_eq!(block.as_slice(), &[7; 4 * PAGE]);
}

#[test]
fn an_arena_can_be_watched_like_other_memory_and_a_child_does_not_have_it() {
    let test = "an_arena_can_be_watched_like_other_memory_and_a_child_does_not_have_it";
    let (Some(arena), Some(source)) = (arena(test), source(test)) else { return };
    let (block, at, len) = filled(&arena);
    let _ = source.watch(block.range()).unwrap();
    assert_eq!(call(libc::SYS_munmap, [at, len, 0, 0, 0]), Err(libc::EPERM), "watched, and sealed still");
    // SAFETY: the child makes two system calls.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut resident = [0_u8; 4];
        let here = call(libc::SYS_mincore, [at, len, resident.as_mut_ptr() as usize, 0, 0]);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(here != Err(libc::ENOMEM))) };
    }
    let mut status = -1;
    // SAFETY: our own child; the status is ours to be written.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0, "the child has the arena");
    assert_eq!(block.as_slice(), &[7; 4 * PAGE]);
}
