//! Single calls of a single task.

use super::{dropped, events, import, refused};
use crate::trace::strace::Origin;
use crate::trace::{Problem, Trace, TraceError};

/// The lines of these calls, one microsecond after the other, without the first line and the front of the others.
fn calls(calls: &[&str]) -> Vec<String> {
    let line = |(at, call): (usize, &&str)| format!("5.{at:06} {call}\n");
    let events = events(&calls.iter().enumerate().map(line).collect::<String>());
    assert!(events.is_empty() || events[0] == "0 0 0 a", "{events:?}");
    events.iter().skip(1).map(|line| line.splitn(4, ' ').nth(3).unwrap().to_owned()).collect()
}

#[test]
fn mappings_are_fresh_unless_they_are_fixed() {
    let made = calls(&[
        "mmap(NULL, 8193, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000001000",
        "mmap(0x10000, 4096, PROT_READ, MAP_PRIVATE|MAP_FIXED, 3</lib/a,b.so>, 0x26000) = 0x10000",
        "mmap(0x20000, 4096, PROT_READ, MAP_PRIVATE|MAP_FIXED_NOREPLACE, 3, 0) = 0x20000",
        "mmap(0x30000, 0x1000, 0x1, 0x32 /* MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS */, -1, 0) = 0x30000",
        "mmap(0x40000, 4096, PROT_NONE, 0x100012, -1, 0) = 0x40000",
        "mmap2(NULL, 2097152, PROT_READ, MAP_PRIVATE|MAP_HUGETLB|21<<MAP_HUGE_SHIFT, -1, 0) = 0x7f0000200000 <0.000009>",
    ]);
    assert_eq!(made, ["m 7f0000001+3", "f 10", "m 20", "f 30", "m 40", "m 7f0000200+200"]);
}

#[test]
fn unmapping_protecting_and_moving() {
    let made = calls(&[
        "munmap(0x7f0000001000, 37911)          = 0",
        "mprotect(0x7f0000001000, 4096, PROT_READ) = 0",
        "mprotect(0x7f0000001000, 4096, 0x3)     = 0",
        "pkey_mprotect(0x7f0000001000, 8192, PROT_NONE, 2) = 0",
        "mremap(0x7f0000001000, 4096, 8192, MREMAP_MAYMOVE) = 0x7f0000005000",
        "mremap(0x7f0000005000, 8192, 8192, MREMAP_MAYMOVE|MREMAP_FIXED, 0x10000) = 0x10000",
        "mremap(0x10000, 8192, 8192, MREMAP_MAYMOVE|MREMAP_DONTUNMAP, 0) = 0x20000",
        "mremap(0x20000, 4096, 4096, 0x7, 0x30000) = 0x30000",
        "mremap(0x30000, 0, 4096, MREMAP_MAYMOVE) = 0x40000",
        "remap_file_pages(0x40000, 4096, 0, 3, 0) = 0",
    ]);
    let expected = [
        "u 7f0000001+a",
        "p 7f0000001 r--",
        "p 7f0000001 rw-",
        "p 7f0000001+2 ---",
        "r 7f0000001 7f0000005+2",
        "R 7f0000005+2 10+2",
        "k 10+2 20+2",
        "K 20 30",
        "m 40",
        "f 40",
    ];
    assert_eq!(made, expected);
}

#[test]
fn only_advice_that_takes_pages_away_is_an_event() {
    let log = "5.0 madvise(0x10000, 4096, MADV_DONTNEED) = 0\n\
        5.0 madvise(0x10000, 4096, MADV_FREE) = 0\n\
        5.0 madvise(0x10000, 4096, MADV_REMOVE) = 0\n\
        5.0 madvise(0x10000, 4096, MADV_DONTNEED_LOCKED) = 0\n\
        5.0 madvise(0x10000, 4096, 0x66 /* MADV_??? */) = 0\n\
        5.0 madvise(0x10000, 4096, MADV_HUGEPAGE) = 0\n\
        5.0 madvise(0x10000, 4096, 0x1234) = 0\n\
        5.0 madvise(0x10000, 0, MADV_DONTNEED) = 0\n\
        5.0 process_madvise(3, [{iov_base=0x10000, iov_len=4096}, {iov_base=0x20000, iov_len=8192}, \
        {iov_base=0x30000, iov_len=4096}], 3, MADV_DONTNEED, 0) = 8192\n\
        5.0 process_madvise(3, [{iov_base=0x10000, iov_len=4096}], 1, MADV_COLD, 0) = 4096\n";
    let expected = [
        "0 0 0 a",
        "0 0 0 d 10 dontneed",
        "0 0 0 d 10 free",
        "0 0 0 d 10 remove",
        "0 0 0 d 10 dontneed-locked",
        "0 0 0 d 10 guard",
        "0 0 0 d 10 dontneed",
        "0 0 0 d 20 dontneed",
    ];
    assert_eq!(events(log), expected);
    assert_eq!((dropped(log, "advice"), dropped(log, "empty")), (3, 1));
}

#[test]
fn the_heap_is_followed_from_where_it_was_first_seen() {
    let log = "5.0 brk(NULL) = 0x555555559800\n\
        5.0 brk(0x555555560000) = 0x555555560000\n\
        5.0 brk(0x555555560008) = 0x555555560008\n\
        5.0 brk(0x55555555a123) = 0x55555555a123\n\
        5.0 brk(0x55555555a200) = 0x55555555a200\n\
        5.0 brk(0x7fffffffffff) = 0x55555555a200\n";
    let expected = ["0 0 0 a", "0 0 0 g 55555555a+6", "0 0 0 g 555555560", "0 0 0 s 55555555b+6"];
    assert_eq!(events(log), expected);
    assert_eq!(dropped(log, "brk-of-no-page"), 2);
    assert_eq!(dropped("5.0 brk(0x555555560000) = 0x555555560000\n", "brk-without-beginning"), 1);
}

#[test]
fn segments_of_shared_memory_have_the_size_that_they_were_made_with() {
    let log = "5.0 shmget(IPC_PRIVATE, 8192, IPC_CREAT|0600) = 32769\n\
        5.0 shmat(32769, NULL, 0) = 0x7f0000001000\n\
        5.0 shmget(0x1234, 0, 0) = 32769\n\
        5.0 shmat(32769, 0x10000, SHM_REMAP) = 0x10000\n\
        5.0 shmdt(0x7f0000001000) = 0\n\
        5.0 shmdt(0x7f0000001000) = 0\n\
        5.0 shmat(7, NULL, 0) = 0x7f0000009000\n\
        5.0 fork() = 12\n\
        12 6.0 shmdt(0x10000) = 0\n";
    let expected =
        ["0 0 0 a", "0 0 0 m 7f0000001+2", "0 0 0 f 10+2", "0 0 0 u 7f0000001+2", "0 0 0 c 1 1", "1000000 1 1 u 10+2"];
    assert_eq!(events(log), expected);
    assert_eq!((dropped(log, "shmdt-of-unknown-size"), dropped(log, "shmat-of-unknown-size")), (1, 1));
}

#[test]
fn what_failed_or_never_returned_is_no_event() {
    let log = "5.0 munmap(0x1, 4096) = -1 EINVAL (Invalid argument)\n\
        5.0 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, -1, 0) = ?\n\
        5.0 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, -1, 0) = ? ERESTARTSYS (To be restarted)\n\
        5.0 mlock(0x10000, 4096) = 0\n\
        5.0 write(1, \"munmap(0x1000, 4096) = 0\\n\", 25) = 25\n\
        5.0 munmap(0x10000, 4096 <unfinished ...>\n\
        5.0 +++ killed by SIGKILL +++\n";
    assert_eq!(events(log), Vec::<String>::new());
    let kinds = ["failed", "result-unknown", "other-call", "unfinished"].map(|kind| dropped(log, kind));
    assert_eq!(kinds, [1, 2, 2, 1]);
}

#[test]
fn a_log_that_was_cut_counts_up_to_its_last_whole_line() {
    let log = "5.0 munmap(0x10000, 4096) = 0\n5.1 munmap(0x20000, 40";
    assert_eq!(events(log), ["0 0 0 a", "0 0 0 u 10"]);
    assert_eq!(dropped(log, "cut-line"), 1);
}

#[test]
fn times_are_those_of_the_log_and_never_go_back() {
    let log = "100.000001 munmap(0x10000, 4096) = 0\n\
        100.500001 munmap(0x20000, 4096) = 0\n\
        99.000000 munmap(0x30000, 4096) = 0\n\
        101.000000 munmap(0x40000, 4096) = 0\n";
    assert_eq!(events(log), ["0 0 0 a", "0 0 0 u 10", "500000 0 0 u 20", "0 0 0 u 30", "499999 0 0 u 40"]);
    assert_eq!(import(log).unwrap().header().recorded, "1970-01-01T00:01:40Z");
}

#[test]
fn what_is_not_known_of_a_log_is_taken_from_it_or_said() {
    let log = "5.0 execve(\"/bin/ls\", [\"ls\", \"-l\"], 0x7ff /* 35 vars */) = 0\n5.0 brk(NULL) = 0x1000\n";
    let header = import(log).unwrap().header().clone();
    assert_eq!((header.command.as_str(), header.kernel.as_str()), (r#"["ls", "-l"]"#, "unknown"));
    let named = Origin { command: Some("ls -l".to_owned()), page: 16384, ..Origin::default() };
    let trace = Trace::import(&b"5.0 munmap(0x10000, 4096) = 0\n"[..], &named).unwrap();
    assert_eq!((trace.header().command.as_str(), trace.header().page), ("ls -l", 16384));
    assert!(Trace::import(&b""[..], &Origin { page: 5000, ..named }).is_err());
    let empty = import("").unwrap();
    assert_eq!((empty.events().len(), empty.header().command.as_str()), (0, "unknown"));
}

#[test]
fn a_line_that_is_not_understood_is_named() {
    let good = "5.0 munmap(0x10000, 4096) = 0\n";
    for (bad, expected) in [
        ("hello, world", "-ttt"),
        ("munmap(0x10000, 4096) = 0", "-ttt"),
        ("11:22:33 munmap(0x10000, 4096) = 0", "-ttt"),
        ("5.0 this is not a call", "no line that strace writes"),
        ("5.0 munmap(0x10000, 4096", "no end"),
        ("5.0 munmap(0x10000, 4096)", "no result"),
        ("5.0 munmap(0x10000) = 0", "no argument 2"),
        ("5.0 munmap(here, 4096) = 0", "should be a number and is \"here\""),
        ("5.0 munmap(0x10000, 0) = 0", "no range"),
        ("5.0 munmap(0xfffffffffffff000, 8192) = 0", "no range"),
        ("5.0 mmap(NULL, 4096, PROT_READ) = 0x10000", "no argument 4"),
        ("5.0 process_madvise(3, [{iov_base=x}], 1, MADV_DONTNEED, 0) = 4096", "list of ranges"),
        ("5.0 clone(child_stack=NULL) = 12", "no flags"),
        ("5.0 fork() = 0", "no process number"),
        ("5.0 fork() = 99999999999", "no process number"),
    ] {
        let (line, message) = refused(&format!("{good}{bad}\n{good}"));
        assert_eq!(line, 2, "{message}");
        assert!(message.contains(expected) && message.contains(&bad[..8]), "{bad}: {message}");
    }
    let not_text = Trace::import(&b"5.0 brk(NULL) = 0x1000\n5.0 \xff\n"[..], &Origin::default()).unwrap_err();
    assert!(matches!(not_text, TraceError::Line { line: 2, problem: Problem::NotText, .. }), "{not_text}");
    let long = format!("5.0 munmap({}", "1".repeat(1 << 21));
    assert!(refused(&long).1.contains("longer than 1048576 bytes"));
}
