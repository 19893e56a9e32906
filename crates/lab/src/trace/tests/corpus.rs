//! What the fuzz test mutates: shipped traces, and a log in which everything occurs that a log may have.

/// A log with an interesting line for every branch of the reader.
pub(super) const LOG: &str = r#"11 1700000000.000001 execve("/usr/bin/prog"..., ["prog", "a,b)", "\"c"...], 0x7ffc /* 35 vars */) = 0
11 1700000000.000100 brk(NULL)       = 0x555555559000
11 1700000000.000200 mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000001000
11 1700000000.000300 mmap(0x7f0000002000, 4096, PROT_READ, MAP_PRIVATE|MAP_FIXED|MAP_DENYWRITE, 3</lib/a,b>, 0x26000) = 0x7f0000002000
11 1700000000.000400 mmap(0x20000, 4096, 0x1, 0x100022 /* MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED_NOREPLACE */, -1, 0) = 0x20000
11 1700000000.000500 mprotect(0x7f0000001000, 4096, PROT_READ) = 0 <0.000012>
11 1700000000.000600 brk(0x55555557a000) = 0x55555557a000
11 1700000000.000700 munmap(0x7f0000009000, 37911) = -1 EINVAL (Invalid argument)
11 1700000000.000800 clone3({flags=CLONE_VM|CLONE_THREAD|CLONE_SETTLS, exit_signal=0} => {parent_tid=[12]}, 88) = 12
12 1700000000.000900 madvise(0x7f0000001000, 4096, MADV_DONTNEED <unfinished ...>
11 1700000000.001000 mremap(0x7f0000001000, 8192, 4096, MREMAP_MAYMOVE|MREMAP_FIXED, 0x30000) = 0x30000
12 1700000000.001100 <... madvise resumed>) = 0
12 1700000000.001200 process_madvise(3, [{iov_base=0x10000, iov_len=4096}, {iov_base=0x20000, iov_len=8192}], 2, MADV_FREE, 0) = 8192
11 1700000000.001300 shmget(IPC_PRIVATE, 8192, IPC_CREAT|0600) = 7
11 1700000000.001400 shmat(7, NULL, SHM_REMAP) = 0x7f0000100000
11 1700000000.001500 clone(child_stack=NULL, flags=CLONE_CHILD_SETTID|SIGCHLD <unfinished ...>
13 1700000000.001600 shmdt(0x7f0000100000) = 0
11 1700000000.001700 <... clone resumed>, child_tidptr=0x7f0000000a10) = 13
13 1700000000.001800 vfork( <unfinished ...>
14 1700000000.001900 execve("/bin/true", ["true"], 0x7ffc /* 35 vars */ <unfinished ...>
13 1700000000.002000 <... vfork resumed>) = 14
14 1700000000.002100 <... execve resumed>) = 0
14 1700000000.002200 exit_group(0) = ?
14 1700000000.002300 +++ exited with 0 +++
13 1700000000.002400 --- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=14} ---
13 1700000000.002500 +++ killed by SIGKILL +++
12 1700000000.002600 execve("/bin/false", ["false"], 0x7ffc /* 35 vars */ <unfinished ...>
11 1700000000.002700 +++ superseded by execve in pid 12 +++
11 1700000000.002800 <... execve resumed>) = 0
11 1700000000.002900 write(1, "munmap(0x1000, 4096) = 0\n", 25) = 25
11 1700000000.003000 remap_file_pages(0x40000, 4096, 0, 3, 0) = 0
11 1700000000.003100 madvise(0x40000, 4096, 0x66 /* MADV_??? */) = 0
11 1700000000.003200 fork() = 2 /* 15 in strace's PID NS */
15 1700000000.003300 brk(0x555555559800) = 0x555555559800
16 1700000000.003400 pkey_mprotect(0x40000, 4096, PROT_NONE, 2) = 0
11 1700000000.003500 +++ exited with 0 +++
"#;

/// The same as strace writes it to a terminal, where lines may have no number.
pub(super) const TERMINAL: &str = "1700000000.000100 brk(NULL) = 0x555555559000\n\
    1700000000.000200 vfork(strace: Process 12 attached\n \
    <unfinished ...>\n\
    [pid 12] 1700000000.000300 munmap(0x10000, 4096) = 0\n\
    [pid    12] 1700000000.000400 execve(\"/bin/true\", [\"true\"], 0x7ff /* 3 vars */ <unfinished ...>\n\
    [pid 11] 1700000000.000500 <... vfork resumed>) = 12\n\
    strace: Process 13 attached\n\
    [pid 11] 1700000000.000600 wait4(-1,  <unfinished ...>\n\
    [pid 12] 1700000000.000700 <... execve resumed>) = 0\n\
    [ Process PID=12 runs in 32 bit mode. ]\n\
    [pid 12] 1700000000.000800 +++ exited with 0 +++\n\
    [pid 13] 1700000000.000800 +++ exited with 0 +++\n\
    1700000000.000900 <... wait4 resumed>[{WIFEXITED(s)}], 0, NULL) = 12\n\
    1700000000.001000 brk(0x55555555a000) = 0x55555555a000\n";
