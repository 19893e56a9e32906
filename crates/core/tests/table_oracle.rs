//! The device page table against a map that holds each page by its number.
#![cfg(not(any(loom, shuttle)))]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_core::notify::Event;
use pagemirror_core::space::AddressSpace;
use pagemirror_core::table::{Commit, Page, PageTable, UNIT_PAGES};
use pagemirror_core::wait::Deadline;
use proptest::prelude::*;

/// Where the pages lie that a test maps: neighbouring units, the next directory, and the last unit that there is.
const PLACES: [u64; 4] = [0, UNIT_PAGES as u64, (UNIT_PAGES as u64) << 9, (1 << 45) - UNIT_PAGES as u64];

#[derive(Debug, Clone)]
enum Action {
    /// Some pages of a place, each valid or not.
    Install {
        place: usize,
        first: u64,
        pages: Vec<(bool, bool)>,
    },
    /// A whole unit that the CPU maps by one entry.
    Whole {
        place: usize,
        writable: bool,
    },
    /// Pages from one place to another, or within one.
    Revoke {
        from: (usize, u64),
        to: (usize, u64),
    },
    All,
}

struct Pair {
    space: Arc<AddressSpace>,
    table: PageTable,
    map: BTreeMap<u64, Page>,
    frames: u64,
}

fn range(first: u64, count: u64) -> PageRange {
    PageRange::covering(VirtAddr::new(first * 4096), count * 4096, 4096).unwrap()
}

impl Pair {
    fn new() -> Self {
        let space = Arc::new(AddressSpace::default());
        Self { table: PageTable::new(&space), space, map: BTreeMap::new(), frames: 0 }
    }

    fn run(&mut self, action: &Action) {
        match action {
            Action::Install { place, first, pages } => {
                let page = |(index, &(valid, writable)): (u64, &(bool, bool))| {
                    // Frames that never follow each other, and now and then an order that promises too much.
                    let page = Page::readable((self.frames + index) * 3).with_write(writable).with_order(9);
                    if valid { page } else { Page::ABSENT }
                };
                let pages: Vec<Page> = (0..).zip(pages).map(page).collect();
                self.frames += pages.len() as u64;
                self.install(PLACES[*place] + first, &pages);
            }
            Action::Whole { place, writable } => {
                let first = Page::readable(self.frames).with_write(*writable).with_order(9);
                let page = |index| Page::readable(first.frame() + index).with_write(*writable).with_order(9);
                let pages: Vec<Page> = (0..UNIT_PAGES as u64).map(page).collect();
                self.frames += pages.len() as u64;
                self.install(PLACES[*place], &pages);
            }
            Action::Revoke { from, to } => {
                let (a, b) = (PLACES[from.0] + from.1, PLACES[to.0] + to.1);
                self.revoke(a.min(b), a.max(b) + 1);
            }
            Action::All => {
                drop(self.space.invalidate_start(PageRange::ALL, Event::Requested));
                self.map.clear();
            }
        }
    }

    fn install(&mut self, first: u64, pages: &[Page]) {
        let range = range(first, pages.len() as u64);
        self.table.prepare(range).unwrap();
        let attempt = self.space.read_begin(range, None, &Deadline::after(Duration::from_secs(1))).unwrap();
        match self.table.lock(range).commit(&attempt) {
            Commit::Permit(permit) => permit.install(pages),
            Commit::Collided(verdict) => panic!("nothing runs beside this, but: {verdict:?}"),
        }
        for (number, page) in (first..).zip(pages) {
            if page.is_valid() {
                self.map.insert(number, *page)
            } else {
                self.map.remove(&number)
            };
        }
    }

    fn revoke(&mut self, first: u64, end: u64) {
        drop(self.space.invalidate_start(range(first, end - first), Event::Requested));
        self.map.retain(|number, _| !(first..end).contains(number));
    }

    fn compare(&self) {
        for place in PLACES {
            for number in place..place + UNIT_PAGES as u64 {
                let expected = self.map.get(&number).copied().unwrap_or(Page::ABSENT);
                assert_eq!(self.table.walk(VirtAddr::new(number * 4096)), expected, "page {number}");
            }
        }
    }
}

fn action() -> impl Strategy<Value = Action> {
    let place = 0..PLACES.len();
    let at = (place.clone(), 0..UNIT_PAGES as u64);
    prop_oneof![
        4 => (place.clone(), 0..UNIT_PAGES as u64 - 70, prop::collection::vec((prop::bool::weighted(0.8), any::<bool>()), 1..70))
            .prop_map(|(place, first, pages)| Action::Install { place, first, pages }),
        2 => (place, any::<bool>()).prop_map(|(place, writable)| Action::Whole { place, writable }),
        3 => (at.clone(), at).prop_map(|(from, to)| Action::Revoke { from, to }),
        1 => Just(Action::All),
    ]
}

proptest! {
    #[test]
    fn the_table_holds_what_the_map_holds(actions in prop::collection::vec(action(), 1..30)) {
        let mut pair = Pair::new();
        for action in &actions {
            pair.run(action);
            pair.compare();
        }
    }
}

#[test]
fn a_range_beyond_every_process_is_refused() {
    let pair = Pair::new();
    let beyond = range((1 << 45) - 1, 2);
    assert!(pair.table.prepare(beyond).is_err());
    assert_eq!(pair.table.walk(VirtAddr::new(u64::MAX)), Page::ABSENT);
}
