//! The mirror over a host that is told what to answer: errors, partial progress, deadlines, bounded collisions.
#![cfg(not(any(loom, shuttle)))]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pagemirror_core::addr::{MIN_PAGE, PageRange, VirtAddr};
use pagemirror_core::error::Error;
use pagemirror_core::gate::LostCause;
use pagemirror_core::mirror::{
    Accessed, FaultErrorKind, HostSpace, Look, MAX_ACCESS_PAGES, MAX_COLLISIONS, Mirror, Need, Refusal, Request, Run,
    Uncached, Vanished,
};
use pagemirror_core::notify::Event;
use pagemirror_core::source::{Probe, Source, WatchError, Watched};
use pagemirror_core::space::AddressSpace;
use pagemirror_core::table::{Page, UNIT_PAGES};
use pagemirror_core::wait::{CancelToken, Deadline};

/// What the host does beside answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// An invalidation of the whole piece, each time.
    Invalidate,
    /// The mappings changed, each time.
    Change,
    /// A discard that was announced long ago is proved to be over while the pages are looked at.
    EndDoubt,
}

#[derive(Debug)]
struct Host {
    space: Arc<AddressSpace>,
    beside: Mutex<Beside>,
    /// The page that is refused, and why.
    refusal: Mutex<Option<(u64, Refusal)>>,
    looks: Mutex<u32>,
    changing: Mutex<bool>,
}

impl Source for Host {
    fn space(&self) -> &Arc<AddressSpace> {
        &self.space
    }
    fn page_size(&self) -> u64 {
        MIN_PAGE
    }
    fn probe(&self) -> Probe {
        if *self.changing.lock().unwrap() { Probe::Changing } else { Probe::Quiet }
    }
    fn watch(&self, _range: PageRange) -> Result<Watched, WatchError> {
        Ok(Watched::Covered)
    }
}

impl HostSpace for Host {
    fn range_fault(&self, range: PageRange, needs: &[Need], pages: &mut [Page]) -> Look {
        *self.looks.lock().unwrap() += 1;
        match *self.beside.lock().unwrap() {
            Beside::Nothing => {}
            Beside::Invalidate => drop(self.space.invalidate_start(range, Event::Requested)),
            Beside::Change => return Look::Changed,
            Beside::EndDoubt => self.space.doubt().end(self.space.doubt().mark()),
        }
        let first = range.start().get() / MIN_PAGE;
        for ((number, page), need) in (first..).zip(pages.iter_mut()).zip(needs) {
            *page = Page::readable(number).with_write(need.writes());
        }
        let refusal = self.refusal.lock().unwrap().clone();
        match refusal.filter(|(page, _)| (first..first + needs.len() as u64).contains(page)) {
            Some((page, why)) => Look::Told { told: (page - first) as usize, in_doubt: false, refused: Some(why) },
            None => Look::Told { told: needs.len(), in_doubt: false, refused: None },
        }
    }

    fn snapshot(&self, range: PageRange, visit: &mut dyn FnMut(Run)) -> Result<(), (VirtAddr, Refusal)> {
        if *self.beside.lock().unwrap() == Beside::Invalidate {
            drop(self.space.invalidate_start(range, Event::Requested));
        }
        visit(Run { range, page: Page::ABSENT });
        Ok(())
    }
}

fn mirror() -> Mirror<Host> {
    Mirror::new(Arc::new(Host {
        space: Arc::default(),
        beside: Mutex::new(Beside::Nothing),
        refusal: Mutex::new(None),
        looks: Mutex::new(0),
        changing: Mutex::new(false),
    }))
}

fn pages(first: u64, count: u64) -> PageRange {
    PageRange::covering(VirtAddr::new(first * MIN_PAGE), count * MIN_PAGE, MIN_PAGE).unwrap()
}

fn soon() -> Deadline<'static> {
    Deadline::after(Duration::from_secs(20))
}

fn read(mirror: &Mirror<Host>, range: PageRange) -> Result<(), (FaultErrorKind, u64)> {
    mirror.range_fault(range, Request::all(Need::READ), &soon()).map(drop).map_err(|error| (error.kind, error.done))
}

fn looks(mirror: &Mirror<Host>) -> u32 {
    *mirror.host().looks.lock().unwrap()
}

fn is_mapped(mirror: &Mirror<Host>, page: u64) -> bool {
    mirror.table().walk(VirtAddr::new(page * MIN_PAGE)).is_valid()
}

#[test]
fn a_refused_page_keeps_what_lies_before_it_and_is_not_asked_for_again() {
    let mirror = mirror();
    let unit = UNIT_PAGES as u64;
    let refused = unit + 3;
    let at = VirtAddr::new(refused * MIN_PAGE);
    for (why, kind) in [
        (Refusal::PermissionDenied, FaultErrorKind::PermissionDenied { at }),
        (Refusal::BadAddress, FaultErrorKind::BadAddress { at }),
        (Refusal::NoMemory, FaultErrorKind::NoMemory { at }),
        (Refusal::Poisoned, FaultErrorKind::Poisoned { at }),
        (Refusal::System(5), FaultErrorKind::System { at, errno: 5 }),
    ] {
        let looked = looks(&mirror);
        *mirror.host().refusal.lock().unwrap() = Some((refused, why));
        assert_eq!(read(&mirror, pages(unit - 2, 10)), Err((kind, 5)));
        assert_eq!(looks(&mirror), looked + 2, "one look at each of the two pieces");
        assert!(is_mapped(&mirror, refused - 1) && !is_mapped(&mirror, refused));
        mirror.forget(PageRange::ALL);
    }
}

#[test]
fn a_range_that_always_changes_is_contended_after_so_many_attempts() {
    for beside in [Beside::Invalidate, Beside::Change] {
        let mirror = mirror();
        *mirror.host().beside.lock().unwrap() = beside;
        assert_eq!(read(&mirror, pages(3, 4)), Err((FaultErrorKind::Contended { collisions: MAX_COLLISIONS }, 0)));
        assert_eq!(looks(&mirror), MAX_COLLISIONS);
        assert!(!is_mapped(&mirror, 3));
        assert_eq!((mirror.stats().collisions, mirror.stats().false_retries), (MAX_COLLISIONS.into(), 0));
    }
}

#[test]
fn a_snapshot_of_what_always_changes_is_contended() {
    let mirror = mirror();
    *mirror.host().beside.lock().unwrap() = Beside::Invalidate;
    let error = mirror.snapshot(pages(0, 8), &soon()).unwrap_err();
    assert_eq!(error.kind, FaultErrorKind::Contended { collisions: MAX_COLLISIONS });
}

#[test]
fn one_deadline_holds_for_all_attempts() {
    let mirror = mirror();
    *mirror.host().beside.lock().unwrap() = Beside::Invalidate;
    let error =
        mirror.range_fault(pages(3, 4), Request::all(Need::READ), &Deadline::after(Duration::ZERO)).unwrap_err();
    assert_eq!(error.kind, FaultErrorKind::Contended { collisions: 1 }, "no second attempt behind the deadline");

    // An invalidation that does not end: the wait is over at the deadline, and the pieces before it are kept.
    *mirror.host().beside.lock().unwrap() = Beside::Nothing;
    let unit = UNIT_PAGES as u64;
    let _running = mirror.table().space().invalidate_start(pages(unit, 1), Event::Requested);
    let begun = Instant::now();
    let error = mirror
        .range_fault(pages(0, 2 * unit), Request::all(Need::READ), &Deadline::after(Duration::from_millis(30)))
        .unwrap_err();
    assert!(matches!(error.kind, FaultErrorKind::Wait(Error::TimedOut { .. })), "{error}");
    assert!(begun.elapsed() >= Duration::from_millis(30));
    assert_eq!(error.done, unit);
    assert!(is_mapped(&mirror, 0));
}

#[test]
fn what_is_in_doubt_is_told_and_not_kept() {
    let mirror = mirror();
    mirror.host().space.doubt().set(pages(2, 1));
    *mirror.host().beside.lock().unwrap() = Beside::EndDoubt;
    let mut answers = [Page::ABSENT; 4];
    let request = Request::all(Need::READ).answering(&mut answers);
    let faulted = mirror.range_fault(pages(0, 4), request, &soon()).unwrap();
    assert_eq!((faulted.installed, faulted.in_doubt), (0, 4));
    assert_eq!(answers.map(Page::frame), [0, 1, 2, 3]);
    assert!(!is_mapped(&mirror, 0), "the pages were looked at while they were in doubt, though that has ended");
    assert_eq!(read(&mirror, pages(0, 4)), Ok(()));
    assert!(is_mapped(&mirror, 2));
}

#[test]
fn an_access_uses_what_meets_its_need_and_faults_once() {
    let mirror = mirror();
    let frames = |need| {
        let accessed =
            mirror.access(pages(7, 2), need, &soon(), |pages| Ok((pages[0].frame(), pages[1].is_writable())));
        match accessed.unwrap() {
            Accessed::Done(found) => found,
            Accessed::Not(why) => panic!("{why:?}"),
        }
    };
    assert_eq!((frames(Need::READ), frames(Need::READ), looks(&mirror)), ((7, false), (7, false), 1));
    assert_eq!((frames(Need::WRITE), frames(Need::READ), looks(&mirror)), ((7, true), (7, true), 2));
    let too_long = mirror.access(pages(0, MAX_ACCESS_PAGES as u64 + 1), Need::READ, &soon(), |_| Ok(())).unwrap_err();
    assert_eq!(too_long.kind, FaultErrorKind::TooLong);
}

#[test]
fn an_access_whose_pages_vanish_asks_again_and_ends() {
    let mirror = mirror();
    let mut calls = 0;
    let accessed = mirror.access(pages(1, 1), Need::READ, &soon(), |_| {
        calls += 1;
        if calls < 3 { Err(Vanished) } else { Ok(()) }
    });
    assert!(matches!(accessed, Ok(Accessed::Done(()))));
    assert_eq!((calls, looks(&mirror), mirror.stats().vanished), (3, 3, 2));
    let never: Result<Accessed<()>, _> = mirror.access(pages(1, 1), Need::READ, &soon(), |_| Err(Vanished));
    assert!(matches!(never, Ok(Accessed::Not(Uncached::Contended))));
}

#[test]
fn a_waiting_access_ends_by_deadline_by_cancellation_and_when_coherence_is_lost() {
    let mirror = mirror();
    *mirror.host().changing.lock().unwrap() = true;
    let access = |by: &Deadline<'_>| mirror.access(pages(1, 1), Need::READ, by, |_| Ok(())).unwrap_err().kind;
    let late = access(&Deadline::after(Duration::from_millis(20)));
    assert!(matches!(late, FaultErrorKind::Wait(Error::TimedOut { .. })), "{late}");
    let token = CancelToken::default();
    token.cancel();
    let cancelled = access(&soon().or_cancelled(&token));
    assert!(matches!(cancelled, FaultErrorKind::Wait(Error::Cancelled { .. })), "{cancelled}");
    *mirror.host().changing.lock().unwrap() = false;
    mirror.table().space().lose(LostCause::SourceClosed);
    let lost = access(&soon());
    assert!(matches!(lost, FaultErrorKind::Wait(Error::Lost { cause: LostCause::SourceClosed, .. })), "{lost}");
    assert!(matches!(read(&mirror, pages(1, 1)), Err((FaultErrorKind::Wait(Error::Lost { .. }), 0))));
}

#[test]
fn a_request_longer_than_its_range_is_refused() {
    let mirror = mirror();
    let needs = [Need::READ; 3];
    let error = mirror.range_fault(pages(0, 2), Request::with_needs(&needs, Need::READ, Need::NOTHING), &soon());
    assert_eq!(error.unwrap_err().kind, FaultErrorKind::TooLong);
}
