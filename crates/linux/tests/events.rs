//! Every operation that the kernel tells about reaches a subscriber, with its exact range.

mod support;

use std::sync::Mutex;
use std::time::Duration;

use pagemirror_core::addr::PageRange;
use pagemirror_core::notify::{Event, Subscriber};
use pagemirror_core::source::{Probe, Source, Watched};
use pagemirror_linux::Userfault;
use pagemirror_sync::Arc;
use support::{Memory, PAGE, memfd, source, wait_until};

/// Remembers the events that touch one range, in memory that was allocated before.
struct Recorder {
    about: PageRange,
    seen: Mutex<Vec<(Event, PageRange)>>,
}

impl Subscriber for Recorder {
    fn invalidate(&self, range: PageRange, event: Event) {
        let mut seen = self.seen.lock().unwrap();
        if range.overlaps(self.about) && seen.len() < seen.capacity() {
            seen.push((event, range));
        }
    }
}

/// Watches `memory`, runs `change`, and gives the events that touched it.
fn events_of(source: &Arc<Userfault>, memory: Memory, change: impl FnOnce()) -> Vec<(Event, PageRange)> {
    let recorder = Arc::new(Recorder { about: memory.range(), seen: Mutex::new(Vec::with_capacity(64)) });
    let subscription = source.space().subscribe(Arc::clone(&recorder) as Arc<dyn Subscriber>);
    memory.fill(1);
    let _ = source.watch(memory.range()).unwrap();
    change();
    // The call returns when its event was read; the callback follows before the gate falls.
    wait_until("the gate falls", Duration::from_secs(5), || {
        matches!(source.space().gate().enter(), pagemirror_core::gate::Entered::Open(_))
    });
    drop(subscription);
    std::mem::take(&mut *recorder.seen.lock().unwrap())
}

#[test]
fn unmapping_and_mapping_over_name_exact_ranges() {
    let Some(source) = source("unmapping_and_mapping_over_name_exact_ranges") else { return };
    let memory = Memory::anonymous(16);
    let middle = memory.part(4, 3);
    assert_eq!(events_of(&source, memory, || middle.unmap()), [(Event::Unmap, middle.range())]);

    let memory = Memory::anonymous(16);
    let middle = memory.part(4, 3);
    let over = || assert_eq!(Memory::anonymous_at(middle.start, 3), middle);
    assert_eq!(events_of(&source, memory, over), [(Event::Unmap, middle.range())]);
}

#[test]
fn moving_names_source_and_destination() {
    let Some(source) = source("moving_names_source_and_destination") else { return };
    let (from, to) = (Memory::anonymous(4), Memory::anonymous(4));
    let seen = events_of(&source, from, || assert_eq!(from.move_to(to.start), to));
    assert_eq!(seen, [(Event::Remap, from.range()), (Event::Unmap, from.range())]);

    // The other way round: what is watched lies where something else is moved to.
    let (from, to) = (Memory::anonymous(4), Memory::anonymous(4));
    from.fill(1);
    let seen = events_of(&source, to, || assert_eq!(from.move_to(to.start), to));
    assert_eq!(seen.first(), Some(&(Event::Unmap, to.range())));
}

#[test]
fn shrinking_names_the_tail() {
    let Some(source) = source("shrinking_names_the_tail") else { return };
    let memory = Memory::anonymous(8);
    let seen = events_of(&source, memory, || assert_eq!(memory.shrink(5), memory.part(0, 5)));
    assert_eq!(seen, [(Event::Unmap, memory.part(5, 3).range())]);
}

/// The tail that grows joins the watched mapping silently, so a miss on it registers again and never relies on a list.
#[test]
fn a_grown_tail_is_watched_by_its_own_miss() {
    let Some(source) = source("a_grown_tail_is_watched_by_its_own_miss") else { return };
    let memory = Memory::anonymous(8);
    let head = memory.part(0, 4);
    let _ = source.watch(head.range()).unwrap();
    let tail = memory.part(4, 4);
    assert_eq!(events_of(&source, tail, || tail.unmap()), [(Event::Unmap, tail.range())]);
}

#[test]
fn every_discard_names_its_range_and_puts_it_in_doubt() {
    let Some(source) = source("every_discard_names_its_range_and_puts_it_in_doubt") else { return };
    // MADV_FREE does not take pinned pages away, but the event does not say which advice it was.
    for advice in [libc::MADV_DONTNEED, libc::MADV_FREE] {
        let memory = Memory::anonymous(8);
        let part = memory.part(2, 4);
        let before = source.space().doubt().mark();
        assert_eq!(events_of(&source, memory, || part.advise(advice)), [(Event::Remove, part.range())]);
        assert!(source.space().doubt().mark() > before, "no doubt was set");
    }
}

/// A discard of a file takes the pages from every mapping of it and is announced for one.
#[test]
fn a_discard_through_an_alias_reaches_every_known_mapping() {
    let Some(source) = source("a_discard_through_an_alias_reaches_every_known_mapping") else { return };
    let fd = memfd(16);
    let (one, other) = (Memory::shared(fd, 16), Memory::shared(fd, 16));
    let _ = source.watch(other.range()).unwrap();
    let seen = events_of(&source, one, || other.part(3, 5).advise(libc::MADV_REMOVE));
    assert_eq!(seen, [(Event::Remove, one.part(3, 5).range())]);
    assert_eq!(one.byte(2), 1);
    assert_eq!(one.byte(3), 0, "the kernel did take it from the other mapping");
}

#[test]
fn the_break_names_what_it_gives_back() {
    let Some(source) = source("the_break_names_what_it_gives_back") else { return };
    support::in_child("the_break_names_what_it_gives_back", Duration::from_secs(20), || {
        let top = support_brk(0);
        let start = top.next_multiple_of(PAGE);
        assert_eq!(support_brk(start + 8 * PAGE), start + 8 * PAGE);
        let memory = Memory { start, len: 8 * PAGE };
        let tail = memory.part(3, 5);
        let seen = events_of(&source, memory, || assert_eq!(support_brk(start + 3 * PAGE), start + 3 * PAGE));
        assert_eq!(seen, [(Event::Unmap, tail.range())]);
    });
}

/// The bare system call: the allocator's own idea of the break is not touched, and this child allocates nothing between.
#[expect(unsafe_code, reason = "moves the break")]
fn support_brk(to: usize) -> usize {
    // SAFETY: only memory above the allocator's break is given back, and it was taken here.
    unsafe { libc::syscall(libc::SYS_brk, to) as usize }
}

/// What a program does while nobody reads is seen by the probe, from the change until the caller runs again.
#[test]
fn the_probe_is_quiet_again_when_the_caller_has_returned() {
    let Some(source) = source("the_probe_is_quiet_again_when_the_caller_has_returned") else { return };
    let memory = Memory::anonymous(4);
    let _ = source.watch(memory.range()).unwrap();
    memory.unmap();
    // Other tests of this process change memory too, so quiet comes, but not at once.
    wait_until("the probe is quiet", Duration::from_secs(5), || source.probe() == Probe::Quiet);
}

#[test]
fn shared_memory_starts_in_doubt_and_is_cleared_by_a_proof() {
    let Some(source) = source("shared_memory_starts_in_doubt_and_is_cleared_by_a_proof") else { return };
    let fd = memfd(8);
    let memory = Memory::shared(fd, 8);
    assert_eq!(source.watch(memory.range()).unwrap(), Watched::InDoubt);
    wait_until("a proof", Duration::from_secs(20), || source.watch(memory.range()) == Ok(Watched::Covered));
    assert_eq!(source.watch(memory.part(2, 2).range()).unwrap(), Watched::Covered, "a part of what was cleared");
    // An event that unmaps it takes the clearance along.
    memory.part(0, 1).unmap();
    wait_until("the clearance goes", Duration::from_secs(5), || {
        source.watch(memory.part(2, 2).range()) == Ok(Watched::InDoubt)
    });
}

#[test]
fn what_cannot_be_watched_is_refused_with_its_reason() {
    let Some(source) = source("what_cannot_be_watched_is_refused_with_its_reason") else { return };
    let hole = Memory::anonymous(4);
    hole.unmap();
    let error = source.watch(hole.range()).unwrap_err();
    assert!(error.unmapped && error.reason.contains("nothing is mapped"), "{error}");
    let half = Memory::anonymous(4);
    half.part(2, 2).unmap();
    let error = source.watch(half.range()).unwrap_err();
    assert!(error.unmapped && error.reason.contains("nothing is mapped at"), "{error}");

    let other = pagemirror_linux::abi::Uffd::open(false).or_else(|_| pagemirror_linux::abi::Uffd::open(true)).unwrap();
    other.handshake(0).unwrap();
    let taken = Memory::anonymous(4);
    other.register_wp(taken.start as u64, taken.len as u64).unwrap();
    let error = source.watch(taken.range()).unwrap_err();
    assert!(error.reason.contains("another userfaultfd"), "{error}");
}

#[test]
fn a_process_has_one_source() {
    let Some(source) = source("a_process_has_one_source") else { return };
    let again = Userfault::open(pagemirror_linux::Config::default()).unwrap();
    assert!(Arc::ptr_eq(&source, &again));
    let control = pagemirror_linux::Control { ignore_doubt: true, ..Default::default() };
    assert!(matches!(
        Userfault::open(pagemirror_linux::Config { control }),
        Err(pagemirror_linux::OpenError::OtherConfig)
    ));
}
