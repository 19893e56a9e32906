//! Closing a cache is bounded, whoever holds what; and it says whether the device has let go.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use pagemirror_io_uring::FixedBuffers;
use pagemirror_linux::{Config, Userfault};
use pagemirror_registration::{Access, Options, RegistrationCache};
use support::{Memory, PAGE, ring_or_skip, skipped, soon};

const LIMIT: Duration = Duration::from_millis(100);
/// What the machine's own scheduling may add.
const SLACK: Duration = Duration::from_secs(5);

#[test]
fn closing_is_bounded() {
    let test = "closing_is_bounded";
    let Some(ring) = ring_or_skip(test) else { return };
    let source = match Userfault::open(Config::default()) {
        Ok(source) => source,
        Err(error) => return skipped(test, error),
    };
    let make = || {
        let buffers = FixedBuffers::new(&ring, 8).unwrap();
        RegistrationCache::new(Arc::clone(&source) as _, buffers, Options::default()).unwrap()
    };
    let memory = Memory::new(4 * PAGE).filled(1);

    // Nobody holds anything: everything is let go.
    let cache = make();
    let (using, ()) = cache.begin_at(memory.address(), memory.len(), Access::Write, &soon(), |_| ()).unwrap();
    using.complete();
    assert!(cache.close(SLACK), "the device did not let go");

    // A use is under way: closing waits its time and says no. When the use ends, so does the table.
    let cache = make();
    let (using, ()) = cache.begin_at(memory.address(), memory.len(), Access::Write, &soon(), |_| ()).unwrap();
    let using = using.into_owned();
    let since = Instant::now();
    assert!(!cache.close(LIMIT), "a use is still under way");
    assert!((LIMIT..LIMIT + SLACK).contains(&since.elapsed()), "{:?}", since.elapsed());
    using.complete();

    let since = Instant::now();
    while FixedBuffers::new(&ring, 8).is_err() {
        assert!(since.elapsed() < SLACK, "the table was never given back");
        std::thread::sleep(Duration::from_millis(1));
    }
}
