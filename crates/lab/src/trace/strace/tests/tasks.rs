//! Several tasks: who made whom, whose memory it is, and in which order things count.

use super::{dropped, events, import, refused};

const THREAD: &str = "clone3({flags=CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_SIGHAND|CLONE_THREAD|CLONE_SETTLS, \
    child_tid=0x7f9dd1ceb990, exit_signal=0, stack=0x7f9dd14eb000, stack_size=0x7fff80} => {parent_tid=[12]}, 88)";
const FORK: &str =
    "clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD, child_tidptr=0x7f73ec734a10)";

fn attribution(log: &str) -> String {
    import(log).unwrap().header().attribution.clone()
}

#[test]
fn threads_share_an_address_space_and_forked_children_have_their_own() {
    let log = format!(
        "11 5.0 brk(NULL) = 0x555555559000\n\
         11 5.1 {THREAD} = 12\n\
         12 5.2 munmap(0x10000, 4096) = 0\n\
         11 5.3 {FORK} = 13\n\
         13 5.4 brk(0x55555555a000) = 0x55555555a000\n\
         13 5.5 +++ exited with 0 +++\n\
         11 5.5 --- SIGCHLD {{si_signo=SIGCHLD, si_pid=13}} ---\n\
         12 5.6 +++ exited with 0 +++\n\
         11 5.7 +++ exited with 0 +++\n"
    );
    let expected = [
        "0 0 0 a",
        "100000 0 0 t 1",
        "100000 0 1 u 10",
        "100000 0 0 c 1 2",
        "100000 1 2 g 555555559",
        "100000 1 2 X",
        "100000 0 1 x",
        "100000 0 0 X",
    ];
    assert_eq!(events(&log), expected);
    assert_eq!(attribution(&log), "every task by the line that made it");
    assert_eq!(dropped(&log, "signal"), 1);
    // The same flags as numbers.
    assert_eq!(events(&log.replace("CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_SIGHAND|CLONE_THREAD", "0x10f00")), expected);
}

#[test]
fn a_child_may_act_before_its_maker_s_call_returns() {
    let log = "11 5.0 munmap(0x10000, 4096) = 0\n\
        11 5.1 clone(child_stack=NULL, flags=SIGCHLD <unfinished ...>\n\
        12 5.2 munmap(0x20000, 4096) = 0\n\
        11 5.3 <... clone resumed>, child_tidptr=0x7f73ec734a10) = 12\n\
        11 5.4 munmap(0x30000, 4096) = 0\n";
    let expected = ["0 0 0 a", "0 0 0 u 10", "100000 0 0 c 1 1", "100000 1 1 u 20", "200000 0 0 u 30"];
    assert_eq!(events(log), expected);
}

#[test]
fn an_address_is_unmapped_before_another_thread_is_given_it() {
    let log = format!(
        "11 5.0 {THREAD} = 12\n\
         11 5.1 munmap(0x10000, 4096 <unfinished ...>\n\
         12 5.2 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0 <unfinished ...>\n\
         11 5.3 <... munmap resumed>) = 0\n\
         12 5.4 <... mmap resumed>) = 0x10000\n"
    );
    assert_eq!(events(&log), ["0 0 0 a", "0 0 0 t 1", "100000 0 0 u 10", "300000 0 1 m 10"]);
    // Also when the line of the first one comes later.
    let late = format!(
        "11 5.0 {THREAD} = 12\n\
         11 5.1 munmap(0x10000, 4096 <unfinished ...>\n\
         12 5.2 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x10000\n\
         11 5.3 <... munmap resumed>) = 0\n"
    );
    assert_eq!(events(&late), ["0 0 0 a", "0 0 0 t 1", "100000 0 0 u 10", "100000 0 1 m 10"]);
}

#[test]
fn a_vfork_child_shares_the_memory_until_it_execs() {
    let log = "11 5.0 vfork( <unfinished ...>\n\
        12 5.1 munmap(0x10000, 4096) = 0\n\
        12 5.2 execve(\"/nowhere/true\", [\"true\"], 0x7ff /* 3 vars */) = -1 ENOENT (No such file or directory)\n\
        12 5.3 execve(\"/bin/true\", [\"true\"], 0x7ff /* 3 vars */ <unfinished ...>\n\
        11 5.4 <... vfork resumed>) = 12\n\
        12 5.5 <... execve resumed>) = 0\n\
        12 5.6 brk(NULL) = 0x55555555a000\n\
        12 5.7 +++ exited with 0 +++\n\
        11 5.8 execve(\"/bin/false\", [\"false\"], 0x7ff /* 3 vars */) = 0\n";
    let expected = ["0 0 0 a", "0 0 0 t 1", "100000 0 1 u 10", "400000 0 1 e 1", "200000 1 1 X", "100000 0 0 E 2"];
    assert_eq!(events(log), expected);
}

#[test]
fn a_thread_that_execs_takes_the_place_of_its_leader_and_ends_the_others() {
    let log = format!(
        "11 5.0 {THREAD} = 12\n\
         11 5.1 {THREAD} = 13\n\
         12 5.2 execve(\"/bin/true\", [\"true\"], 0x7ff /* 3 vars */ <unfinished ...>\n\
         11 5.3 +++ superseded by execve in pid 12 +++\n\
         11 5.4 <... execve resumed>) = 0\n\
         13 5.4 +++ exited with 0 +++\n\
         11 5.5 munmap(0x10000, 4096) = 0\n\
         11 5.6 +++ exited with 0 +++\n"
    );
    let expected = [
        "0 0 0 a",
        "0 0 0 t 1",
        "100000 0 0 t 2",
        "200000 0 0 x",
        "100000 0 2 x",
        "0 0 1 E 1",
        "100000 1 1 u 10",
        "100000 1 1 X",
    ];
    assert_eq!(events(&log), expected);
}

#[test]
fn lines_without_a_number_are_those_of_the_only_one() {
    // As strace writes it to a terminal, with its message in the middle of a line.
    let log = "5.0 brk(NULL) = 0x555555559000\n\
        5.1 vfork(strace: Process 12 attached\n \
        <unfinished ...>\n\
        [pid 12] 5.2 munmap(0x10000, 4096) = 0\n\
        [pid 12] 5.3 execve(\"/bin/true\", [\"true\"], 0x7ff /* 3 vars */ <unfinished ...>\n\
        [pid 11] 5.4 <... vfork resumed>) = 12\n\
        [pid 11] 5.5 wait4(-1,  <unfinished ...>\n\
        [pid    12] 5.6 <... execve resumed>) = 0\n\
        [pid    12] 5.7 +++ exited with 0 +++\n\
        5.8 <... wait4 resumed>[{WIFEXITED(s) && WEXITSTATUS(s) == 0}], 0, NULL) = 12\n\
        5.9 brk(0x55555555a000) = 0x55555555a000\n";
    let expected =
        ["0 0 0 a", "100000 0 0 t 1", "100000 0 1 u 10", "400000 0 1 e 1", "100000 1 1 X", "200000 0 0 g 555555559"];
    assert_eq!(events(log), expected);
    assert_eq!(attribution(log), "every task by the line that made it");
    // The same without that message (`-q`): the child acts first, and is not taken for its maker.
    let quiet = log.replace("vfork(strace: Process 12 attached\n <unfinished ...>", "vfork( <unfinished ...>");
    assert_eq!(events(&quiet), expected);
}

#[test]
fn a_child_that_ends_before_its_maker_s_call_returns_is_not_waited_for() {
    let log = "5.0 brk(NULL) = 0x555555559000\n\
        5.1 vfork( <unfinished ...>\n\
        [pid 12] 5.2 munmap(0x10000, 4096) = 0\n\
        [pid 12] 5.3 +++ exited with 127 +++\n\
        5.4 <... vfork resumed>) = 12\n\
        5.5 brk(0x55555555a000) = 0x55555555a000\n";
    assert_eq!(events(log), ["0 0 0 a", "100000 0 0 t 1", "100000 0 1 u 10", "100000 0 1 x", "200000 0 0 g 555555559"]);
}

#[test]
fn without_following_children_there_is_one_task() {
    let log = "5.0 fork() = 12\n5.1 fork() = 13\n5.2 munmap(0x10000, 4096) = 0\n";
    assert_eq!(events(log), ["0 0 0 a", "0 0 0 c 1 1", "100000 0 0 c 2 2", "100000 0 0 u 10"]);
}

#[test]
fn a_line_of_which_nobody_knows_whose_it_is_is_refused() {
    let log = "[pid 11] 5.0 brk(NULL) = 0x1000\n[pid 12] 5.1 brk(NULL) = 0x1000\n5.2 munmap(0x10000, 4096) = 0\n";
    let (line, message) = refused(log);
    assert!(line == 3 && message.contains("which of 2 processes") && message.contains("-o FILE"), "{message}");
}

#[test]
fn without_lines_of_clone_tasks_are_guessed_and_it_is_said() {
    let log = "11 5.0 brk(NULL) = 0x555555559000\n\
        12 5.1 munmap(0x10000, 4096) = 0\n\
        13 5.2 brk(NULL) = 0x55555555a000\n\
        14 5.3 munmap(0x20000, 4096) = 0\n\
        11 5.4 munmap(0x30000, 4096) = 0\n\
        15 5.5 madvise(0x40000, 4096, MADV_DONTNEED) = 0\n";
    let expected = [
        "0 0 0 a",
        "100000 0 1 a",
        "0 0 1 u 10",
        "100000 1 2 a",
        "100000 1 3 a",
        "0 1 3 u 20",
        "100000 0 0 u 30",
        "100000 0 4 a",
        "0 0 4 d 40 dontneed",
    ];
    assert_eq!(events(log), expected);
    assert!(attribution(log).starts_with("4 of 5 tasks by guess"), "{}", attribution(log));
}

#[test]
fn a_number_that_is_used_again_is_another_task() {
    let log = format!(
        "11 5.0 {FORK} = 12\n\
         12 5.1 +++ killed by SIGKILL +++\n\
         11 5.2 {FORK} = 12\n\
         11 5.3 {FORK} = 12\n\
         12 5.4 munmap(0x10000, 4096) = 0\n"
    );
    // The second 12 has ended without a line about it.
    let expected = [
        "0 0 0 a",
        "0 0 0 c 1 1",
        "100000 1 1 X",
        "100000 0 0 c 2 2",
        "100000 2 2 X",
        "0 0 0 c 3 3",
        "100000 3 3 u 10",
    ];
    assert_eq!(events(&log), expected);
}

#[test]
fn a_process_ends_by_its_last_call_where_the_log_says_nothing_of_ends() {
    let log = format!(
        "11 5.0 {THREAD} = 12\n\
         11 5.1 {THREAD} = 13\n\
         13 5.2 exit(0) = ?\n\
         12 5.3 exit_group(0) = ?\n"
    );
    let expected = ["0 0 0 a", "0 0 0 t 1", "100000 0 0 t 2", "100000 0 2 x", "100000 0 0 x", "0 0 1 X"];
    assert_eq!(events(&log), expected);
    // With lines about ends, others may still act after that call.
    let ended = format!("{log}11 5.4 munmap(0x10000, 4096) = 0\n12 5.5 +++ exited with 0 +++\n");
    assert_eq!(events(&ended)[3..], ["300000 0 0 u 10", "100000 0 1 x"]);
}

#[test]
fn numbers_of_another_namespace_are_those_of_this_one() {
    let log = format!("11 5.0 {FORK} = 2 /* 12 in strace's PID NS */\n12 5.1 munmap(0x10000, 4096) = 0\n");
    assert_eq!(events(&log), ["0 0 0 a", "0 0 0 c 1 1", "100000 1 1 u 10"]);
    assert!(attribution(&log).starts_with("every task"));
}

#[test]
fn nobody_is_its_own_child() {
    // The result is a number of another namespace, and happens to be the maker's here.
    let log = format!("11 5.0 {FORK} = 11\n11 5.1 munmap(0x10000, 4096) = 0\n12 5.2 munmap(0x20000, 4096) = 0\n");
    assert_eq!(events(&log), ["0 0 0 a", "100000 0 0 u 10", "100000 0 1 a", "0 0 1 u 20"]);
    assert_eq!(dropped(&log, "child-of-its-own-number"), 1);
}

#[test]
fn halves_of_calls_are_counted() {
    let log = "11 5.0 <... munmap resumed>) = 0\n\
        11 5.1 munmap(0x10000, 4096 <unfinished ...>\n\
        11 5.2 munmap(0x20000, 4096) = 0\n\
        12 5.3 munmap(0x30000, 4096 <detached ...>\n";
    assert_eq!(events(log), ["0 0 0 a", "0 0 0 u 20"]);
    assert_eq!((dropped(log, "resumed-without-beginning"), dropped(log, "unfinished")), (1, 2));
}
