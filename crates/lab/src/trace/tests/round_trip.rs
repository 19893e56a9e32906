//! Random traces come back as they were.

use std::collections::BTreeMap;

use pagemirror_core::addr::{PageRange, VirtAddr};
use proptest::prelude::*;

use crate::trace::{Access, Discard, Event, Header, Operation, SpaceId, ThreadId, Trace};

const PAGE: u64 = 16384;

pub(super) fn header() -> Header {
    let text = |text: &str| Header::text(text);
    Header {
        command: text("prog --with 'an argument'\n\u{e4}\u{1b}[2J"),
        page: PAGE,
        machine: text("x86_64"),
        kernel: text("Linux 6.12.1"),
        recorded: text(""),
        tool: text("nothing"),
        attribution: text("none"),
        dropped: BTreeMap::from([("advice".to_owned(), 7), ("mlock".to_owned(), 1)]),
    }
}

fn range() -> impl Strategy<Value = PageRange> {
    let last = u64::MAX / PAGE;
    (prop_oneof![0..1_u64 << 35, last - 2000..last - 1000], 1..1000_u64)
        .prop_map(|(first, count)| PageRange::covering(VirtAddr::new(first * PAGE), count * PAGE, PAGE).unwrap())
}

/// What a step does, and which of the living threads does it.
#[derive(Debug, Clone)]
enum Step {
    Change(Operation),
    AppearAlone,
    AppearBeside,
    Fork,
    Thread,
    Exec,
    Exit,
}

fn step() -> impl Strategy<Value = Step> {
    let access = any::<(bool, bool, bool)>();
    let rights = |(read, write, execute)| Access { read, write, execute };
    let change =
        prop_oneof![
            range().prop_map(Operation::Map),
            range().prop_map(Operation::Replace),
            range().prop_map(Operation::Unmap),
            range().prop_map(Operation::Grow),
            range().prop_map(Operation::Shrink),
            (range(), range(), any::<bool>(), any::<bool>())
                .prop_map(|(old, new, replaces, keeps_old)| Operation::Remap { old, new, replaces, keeps_old }),
            (range(), access).prop_map(move |(range, access)| Operation::Protect(range, rights(access))),
            (range(), proptest::sample::select(&Discard::ALL[..]))
                .prop_map(|(range, kind)| Operation::Discard(range, kind)),
        ];
    let lives = proptest::sample::select(vec![
        Step::AppearAlone,
        Step::AppearBeside,
        Step::Fork,
        Step::Thread,
        Step::Exec,
        Step::Exit,
    ]);
    prop_oneof![4 => change.prop_map(Step::Change), 1 => lives]
}

/// The living threads and where they are, as a second and simpler book-keeping than the reader's.
#[derive(Debug, Default)]
struct World {
    living: Vec<(ThreadId, SpaceId)>,
    threads: u32,
    spaces: u32,
}

impl World {
    fn space(&mut self) -> SpaceId {
        self.spaces += 1;
        SpaceId(self.spaces - 1)
    }

    fn thread_in(&mut self, space: SpaceId) -> ThreadId {
        let thread = ThreadId(self.threads);
        self.threads += 1;
        self.living.push((thread, space));
        thread
    }

    fn act(&mut self, step: Step, pick: usize) -> Event {
        if self.living.is_empty() || matches!(step, Step::AppearAlone) {
            let space = self.space();
            let thread = self.thread_in(space);
            return Event { at_us: 0, space, thread, operation: Operation::Appear };
        }
        let acting = pick % self.living.len();
        let (mut thread, space) = self.living[acting];
        let last = self.living.iter().filter(|(_, other)| *other == space).count() == 1;
        let operation = match step {
            Step::Change(operation) => operation,
            Step::AppearAlone | Step::AppearBeside => {
                thread = self.thread_in(space);
                Operation::Appear
            }
            Step::Fork => {
                let space = self.space();
                Operation::Fork { space, thread: self.thread_in(space) }
            }
            Step::Thread => Operation::Thread(self.thread_in(space)),
            Step::Exec => {
                let into = self.space();
                self.living[acting].1 = into;
                Operation::Exec { into, last }
            }
            Step::Exit => {
                self.living.remove(acting);
                Operation::Exit { last }
            }
        };
        Event { at_us: 0, space, thread, operation }
    }
}

pub(super) fn trace() -> impl Strategy<Value = Trace> {
    let since = prop_oneof![0..100_u64, any::<u32>().prop_map(u64::from)];
    proptest::collection::vec((step(), any::<usize>(), since), 0..60).prop_map(|steps| {
        let mut world = World::default();
        let mut at_us = 0;
        let event = |(step, pick, since)| {
            at_us += since;
            Event { at_us, ..world.act(step, pick) }
        };
        Trace::new(header(), steps.into_iter().map(event).collect()).unwrap()
    })
}

pub(super) fn written(trace: &Trace) -> Vec<u8> {
    let mut bytes = Vec::new();
    trace.write(&mut bytes).unwrap();
    bytes
}

proptest! {
    #[test]
    fn what_is_written_is_read(trace in trace()) {
        let bytes = written(&trace);
        let read = Trace::read(&bytes[..]).unwrap();
        prop_assert_eq!(&read, &trace);
        prop_assert_eq!(written(&read), bytes);
    }
}

#[test]
fn what_could_not_be_read_again_is_not_made() {
    let unmap = |first: u64| Operation::Unmap(PageRange::covering(VirtAddr::new(first), 4096, 4096).unwrap());
    let event = |at_us, operation| Event { at_us, space: SpaceId(0), thread: ThreadId(0), operation };
    let appear = event(9, Operation::Appear);
    let made = |events: &[Event]| Trace::new(header(), events.to_vec()).map_err(|error| error.line());
    assert!(made(&[appear, event(9, Operation::Exit { last: true })]).is_ok());
    assert_eq!(made(&[event(9, Operation::Exit { last: true })]), Err(11), "of a thread that does not exist");
    assert_eq!(made(&[appear, event(9, Operation::Exit { last: false })]), Err(12), "it was the last one");
    assert_eq!(made(&[appear, event(8, Operation::Exit { last: true })]), Err(12), "before the first");
    assert_eq!(made(&[appear, event(9, unmap(4096))]), Err(12), "no multiple of the page size");
    let two_lines = Header { command: "a\nb".to_owned(), ..header() };
    assert!(Trace::new(two_lines, Vec::new()).is_err());
}
