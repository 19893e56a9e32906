//! The interval index against a list that is searched from end to end.
#![cfg(not(any(loom, shuttle)))]

use std::collections::BTreeSet;

use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_core::interval::{EntryId, IntervalIndex, Spare};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Action {
    Insert(PageRange),
    /// Retires one entry, counted round.
    Retire(usize),
    RetireOverlapping(PageRange),
    TakeRetired,
    /// Offers a spare with room for so many entries, larger than what there is or not.
    Reserve(usize),
    /// Compares what the two find for a range.
    Find(PageRange),
    /// Goes one step on round all entries.
    Step,
}

/// The index beside its oracle. Values are numbers that are given out once, so that a value names its entry.
#[derive(Default)]
struct Pair {
    index: IntervalIndex<u32>,
    list: Vec<(EntryId, PageRange, u32)>,
    retired: BTreeSet<u32>,
    next: u32,
    cursor: usize,
}

impl Pair {
    fn run(&mut self, action: &Action) {
        match *action {
            Action::Insert(range) => self.insert(range),
            Action::Retire(nth) => {
                if !self.list.is_empty() {
                    let (id, _, value) = self.list.swap_remove(nth % self.list.len());
                    self.index.retire(id);
                    self.retired.insert(value);
                }
            }
            Action::RetireOverlapping(range) => self.retire_overlapping(range),
            Action::TakeRetired => match self.index.take_retired() {
                Some(value) => assert!(self.retired.remove(&value), "{value} was not retired, or was taken before"),
                None => assert!(self.retired.is_empty(), "{:?} were retired and are not handed out", self.retired),
            },
            Action::Reserve(room) => drop(self.index.reserve_from(Spare::with_capacity(room))),
            Action::Find(range) => self.find(range),
            Action::Step => self.step(),
        }
        assert_eq!(self.index.len(), self.list.len());
        assert_eq!(self.index.is_empty(), self.list.is_empty());
        assert_eq!(self.index.has_retired(), !self.retired.is_empty());
    }

    fn insert(&mut self, range: PageRange) {
        if !self.index.has_room() {
            let spare = Spare::with_capacity(self.index.larger());
            drop(self.index.reserve_from(spare));
        }
        assert!(self.index.has_room(), "a spare of the size that was asked for makes room");
        let id = self.index.insert(range, self.next);
        assert!(self.list.iter().all(|(other, ..)| *other != id), "two entries share a name");
        self.list.push((id, range, self.next));
        self.next += 1;
    }

    fn retire_overlapping(&mut self, range: PageRange) {
        let mut seen = BTreeSet::new();
        let count = self.index.retire_overlapping(range, |value| assert!(seen.insert(*value), "{value} is seen twice"));
        let gone: BTreeSet<_> =
            self.list.extract_if(.., |entry| entry.1.overlaps(range)).map(|entry| entry.2).collect();
        assert_eq!((count, &seen), (gone.len(), &gone), "retired for {range}");
        self.retired.extend(gone);
    }

    fn find(&self, range: PageRange) {
        let mut overlapping = Vec::new();
        self.index.for_each_overlapping(range, |id, range, value| overlapping.push((id, range, *value)));
        assert!(overlapping.is_sorted_by_key(|entry| entry.1.start()), "entries are visited by their start");
        let expected = self.list.iter().filter(|entry| entry.1.overlaps(range));
        assert_eq!(by_value(&overlapping), by_value(expected), "overlapping {range}");
        for fits in [|_: &u32| true, |value: &u32| value.is_multiple_of(2), |_: &u32| false] {
            let right = |entry: &&(EntryId, PageRange, u32)| entry.1.contains(range) && fits(&entry.2);
            match self.index.find_containing(range, fits) {
                Some((id, value)) => {
                    let entry = self.list.iter().find(|entry| entry.0 == id).unwrap();
                    assert!(right(&entry) && entry.2 == *value, "{entry:?} was found for {range}");
                }
                None => assert_eq!(self.list.iter().find(right), None, "contains {range} and was not found"),
            }
        }
    }

    fn step(&mut self) {
        match self.index.step(self.cursor) {
            Some((id, value, next)) => {
                assert!(self.list.iter().any(|entry| (entry.0, entry.2) == (id, *value)), "{id:?} is not in the index");
                self.cursor = next;
            }
            None => assert!(self.list.is_empty(), "a round found none of {}", self.list.len()),
        }
    }

    /// One round of steps sees each entry once.
    fn round(&self) {
        let mut cursor = self.cursor;
        let mut seen = BTreeSet::new();
        for _ in 0..self.list.len() {
            let (_, value, next) = self.index.step(cursor).unwrap();
            assert!(seen.insert(*value), "{value} is seen twice in one round");
            cursor = next;
        }
        assert_eq!(seen, self.list.iter().map(|entry| entry.2).collect());
    }
}

fn by_value<'a>(entries: impl IntoIterator<Item = &'a (EntryId, PageRange, u32)>) -> Vec<(u32, PageRange)> {
    let mut sorted: Vec<_> = entries.into_iter().map(|entry| (entry.2, entry.1)).collect();
    sorted.sort_by_key(|entry| entry.0);
    sorted
}

fn ranges() -> impl Strategy<Value = PageRange> {
    // Few starts and few lengths, so that equal ranges, neighbours and nested ones are common.
    let small = (0_u64..24, 1_u64..6);
    let long = (0_u64..8, 8_u64..32);
    prop_oneof![4 => small, 1 => long]
        .prop_map(|(first, count)| PageRange::covering(VirtAddr::new(first << 12), count << 12, 4096).unwrap())
}

fn actions() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => ranges().prop_map(Action::Insert),
        3 => any::<usize>().prop_map(Action::Retire),
        1 => ranges().prop_map(Action::RetireOverlapping),
        3 => Just(Action::TakeRetired),
        1 => (0_usize..64).prop_map(Action::Reserve),
        5 => ranges().prop_map(Action::Find),
        2 => Just(Action::Step),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_index_agrees_with_a_list(script in prop::collection::vec(actions(), 1..200)) {
        let mut pair = Pair::default();
        for action in &script {
            pair.run(action);
        }
        pair.round();
        // Whatever is left comes out once.
        pair.run(&Action::RetireOverlapping(PageRange::ALL));
        while pair.index.has_retired() {
            pair.run(&Action::TakeRetired);
        }
        prop_assert!(pair.index.is_empty() && pair.retired.is_empty());
    }
}

#[test]
#[should_panic(expected = "without room reserved")]
fn an_insertion_without_room_is_a_bug_of_the_caller() {
    let range = PageRange::covering(VirtAddr::new(0), 1, 4096).unwrap();
    IntervalIndex::default().insert(range, ());
}

/// Room is what the caller allocated outside the lock, no more: as many insertions as the spare had places.
#[test]
fn a_spare_gives_room_and_gives_the_old_slab_back() {
    let range = |page: u64| PageRange::covering(VirtAddr::new(page << 12), 1, 4096).unwrap();
    let mut index = IntervalIndex::default();
    assert!(!index.has_room());
    drop(index.reserve_from(Spare::with_capacity(index.larger())));
    let mut ids = Vec::new();
    while index.has_room() {
        ids.push(index.insert(range(ids.len() as u64), ids.len()));
    }
    assert!(index.larger() > ids.len());
    drop(index.reserve_from(Spare::with_capacity(1)));
    assert!(!index.has_room(), "a smaller spare changes nothing");

    index.retire(ids[3]);
    assert!(!index.has_room(), "a retired value still lies in its place");
    assert_eq!(index.take_retired(), Some(3));
    assert!(index.has_room());

    drop(index.reserve_from(Spare::with_capacity(index.larger())));
    for (page, id) in ids.iter().enumerate().filter(|(page, _)| *page != 3) {
        let found = index.find_containing(range(page as u64), |_| true);
        assert_eq!(found, Some((*id, &page)), "names and values survive the move");
    }
}
