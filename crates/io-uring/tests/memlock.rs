//! What a user without privileges reads when the limit on locked memory is too low, and that clearing a slot gives the
//! charge back. The limit binds only rings that were created without CAP_IPC_LOCK, so the test runs itself again as nobody.

mod support;

use std::os::unix::process::CommandExt;
use std::process::Command;

use pagemirror_io_uring::FixedBuffers;
use pagemirror_registration::{Access, Options, RegisterErrorKind, Registrar, RegistrationCache};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use support::{Memory, PAGE, Told, ring_or_skip, soon};

const TEST: &str = "the_limit_on_locked_memory_is_explained";
const CHILD: &str = "PAGEMIRROR_TEST_AS_NOBODY";
/// The user and group "nobody".
const NOBODY: u32 = 65534;
/// Small enough for every machine's hard limit, with room for the ring's own memory.
const LIMIT: u64 = 1 << 20;

#[test]
fn the_limit_on_locked_memory_is_explained() {
    if std::env::var_os(CHILD).is_some() {
        return as_nobody();
    }
    if ring_or_skip(TEST).is_none() {
        return;
    }
    if !geteuid().is_root() {
        support::skipped(TEST, "needs root, to become somebody whom the limit binds");
        return;
    }
    // A copy, because the way to the build directory may be closed to others.
    let copy = std::env::temp_dir().join(format!("pagemirror-memlock-{}", std::process::id()));
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let mut child = Command::new(&copy);
    child.args(["--exact", TEST, "--nocapture"]).env(CHILD, "1").current_dir("/").uid(NOBODY).gid(NOBODY);
    let output = child.output();
    std::fs::remove_file(&copy).unwrap();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

fn as_nobody() {
    let hard = getrlimit(Resource::Memlock).maximum;
    setrlimit(Resource::Memlock, Rlimit { current: Some(LIMIT), maximum: hard }).unwrap();
    let Some(ring) = ring_or_skip(TEST) else { return };
    let buffers = FixedBuffers::new(&ring, 16).unwrap();

    let large = Memory::new(2 * LIMIT as usize).filled(b'l');
    let error = buffers.register(large.range(), Access::Read).unwrap_err();
    let said = error.to_string();
    assert_eq!(error.source.raw_os_error(), Some(libc::ENOMEM), "{said}");
    assert_eq!(error.kind, RegisterErrorKind::Refused, "evicting would not help: {said}");
    for part in
        ["needs 2048 KiB", "RLIMIT_MEMLOCK is 1024 KiB", "ulimit -l", "CAP_IPC_LOCK", "until their slot is cleared"]
    {
        assert!(said.contains(part), "{part} is missing in: {said}");
    }

    // A page of the heap never shares a huge page with these: each is a mapping of its own, smaller than one.
    let small: Vec<_> = (0..6).map(|_| Memory::new(64 * PAGE).filled(b's')).collect();
    let slot = buffers.register(small[0].range(), Access::Read).unwrap();
    let _second = buffers.register(small[1].range(), Access::Read).unwrap();
    let _third = buffers.register(small[2].range(), Access::Read).unwrap();
    let full = buffers.register(small[3].range(), Access::Read).unwrap_err();
    assert_eq!(full.kind, RegisterErrorKind::NoRoom, "letting go of another would help: {full}");
    let gone = small.into_iter().next().map(|memory| memory.remap().filled(b'n')).unwrap();
    assert!(buffers.register(gone.range(), Access::Read).is_err(), "unmapped pages stay charged");
    buffers.deregister(slot).unwrap();
    buffers.register(gone.range(), Access::Read).expect("clearing gives the charge back");
    drop(buffers);

    // The cache makes room under the limit by itself.
    let cache = RegistrationCache::new(Told::new(), FixedBuffers::new(&ring, 16).unwrap(), Options::default()).unwrap();
    let buffers: Vec<_> = (0..8).map(|_| Memory::new(64 * PAGE).filled(b'c')).collect();
    for memory in buffers.iter().chain(&buffers) {
        cache.get(memory.address(), memory.len(), Access::Read, &soon()).unwrap();
    }
    assert!(cache.stats().evictions > 8, "{:?}", cache.stats());
}
