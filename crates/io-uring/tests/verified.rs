//! Check-on-use with real fixed buffers: a use is refused when the program has taken the memory's rights or put a guard page
//! into it, and nobody was told.
#![expect(unsafe_code, reason = "protects and guards real memory")]

mod support;

use pagemirror_core::check::{Change, Checked};
use pagemirror_core::source::Source;
use pagemirror_io_uring::FixedBuffers;
use pagemirror_linux::{Config, Userfault};
use pagemirror_registration::{Access, ErrorKind, Options, RegistrationCache, Verified};
use rustix::mm::MprotectFlags;
use support::{Memory, PAGE, Told, ring_or_skip, skipped, soon};

fn protect(memory: &Memory, rights: MprotectFlags) {
    let start = std::ptr::with_exposed_provenance_mut(memory.address().get() as usize);
    // SAFETY: the test's own memory, which it does not look at meanwhile.
    unsafe { rustix::mm::mprotect(start, memory.len() as usize, rights) }.unwrap();
}

#[test]
fn a_use_of_memory_that_lost_its_rights_is_refused_when_it_is_checked() {
    let test = "a_use_of_memory_that_lost_its_rights_is_refused_when_it_is_checked";
    let Some(ring) = ring_or_skip(test) else { return };
    let source = match Userfault::open(Config::default()) {
        Ok(source) => source as std::sync::Arc<dyn Source>,
        Err(error) => return skipped(test, error),
    };
    let device = match FixedBuffers::new(&ring, 4) {
        Ok(device) => Verified::new(source.clone(), device),
        Err(error) => return skipped(test, error),
    };
    let cache = RegistrationCache::new(source, device, Options::default()).unwrap();
    let memory = Memory::new(4 * PAGE).filled(1);
    let get = |access| cache.get(memory.address(), memory.len(), access, &soon()).unwrap();
    let (reading, writing) = (get(Access::Read), get(Access::Write));
    let (using, ()) = cache.begin_verified(&[&reading, &writing], &soon(), |_| ()).unwrap();
    using.complete();

    protect(&memory, MprotectFlags::READ);
    assert_eq!(cache.verify(&reading), Checked::Same, "the device only reads");
    // Without the check nobody notices.
    let (using, ()) = cache.begin(&[&writing], &soon(), |_| ()).unwrap();
    using.complete();
    let error = cache.begin_verified(&[&writing], &soon(), |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale);
    assert!(writing.is_stale(), "it was not revoked for everybody");
    protect(&memory, MprotectFlags::READ | MprotectFlags::WRITE);
    let again = get(Access::Write);
    assert_eq!(cache.verify(&again), Checked::Same);

    protect(&memory, MprotectFlags::empty());
    assert_eq!(cache.verify(&again), Checked::Changed(Change::Protected, memory.address()));
    let refused = cache.get(memory.address(), memory.len(), Access::Write, &soon()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
    protect(&memory, MprotectFlags::READ | MprotectFlags::WRITE);
}

#[test]
fn a_source_that_cannot_look_registers_nothing_that_is_to_be_checked() {
    let Some(ring) = ring_or_skip("a_source_that_cannot_look_registers_nothing_that_is_to_be_checked") else { return };
    let Ok(device) = FixedBuffers::new(&ring, 4) else {
        return skipped("a_source_that_cannot_look_registers_nothing_that_is_to_be_checked", "no table");
    };
    let source = Told::new();
    let cache = RegistrationCache::new(source.clone(), Verified::new(source, device), Options::default()).unwrap();
    let memory = Memory::new(PAGE).filled(1);
    let error = cache.get(memory.address(), memory.len(), Access::Read, &soon()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("cannot be checked"), "{error}");
}
