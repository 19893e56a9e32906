//! The probe tells of a change from before the event can be read until the caller has run again; a use waits that long, and
//! no longer than its deadline.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pagemirror_core::source::{Probe, Source};
use support::{Memory, in_child, pin, run_last, source, wait_until};

/// The event was read long ago, but the caller gets no processor: addresses that it freed may be in use by others, so the
/// change counts as under way.
#[test]
fn a_change_is_under_way_until_its_caller_has_run_again() {
    let name = "a_change_is_under_way_until_its_caller_has_run_again";
    in_child(name, Duration::from_secs(60), || {
        let Some(source) = source(name) else { return };
        if thread::available_parallelism().map_or(1, usize::from) < 2 {
            return support::skipped(name, "a caller cannot be kept waiting on one processor");
        }
        // A round in which this thread itself was kept waiting shows nothing; many in a row would show that nothing is there.
        let delayed = (0..20).map(|_| probes_while_the_caller_waits(&source)).find(|probes| *probes > 0);
        assert!(delayed.is_some(), "the probe was quiet whenever an event was read, though its caller had not run");
        wait_until("the probe is quiet", Duration::from_secs(5), || source.probe() == Probe::Quiet);
    });
}

/// Unmaps on a thread that gets no processor once it was freed. Says how many probes found the change under way after its
/// event had been read.
fn probes_while_the_caller_waits(source: &pagemirror_linux::Userfault) -> u32 {
    let memory = Memory::anonymous(4);
    memory.fill(1);
    let _ = source.watch(memory.range()).unwrap();
    let before = source.stats().unmap;
    let (hogging, stop) = (flag(), flag());
    let (go, running, stopping) = (Arc::clone(&hogging), Arc::clone(&hogging), Arc::clone(&stop));
    let caller = thread::spawn(move || {
        pin(1);
        run_last();
        wait_until("the hog runs", Duration::from_secs(20), || go.load(Ordering::SeqCst));
        memory.unmap();
    });
    let hog = thread::spawn(move || {
        pin(1);
        running.store(true, Ordering::SeqCst);
        while !stopping.load(Ordering::SeqCst) {
            std::hint::spin_loop();
        }
    });
    wait_until("the event is read", Duration::from_secs(30), || source.stats().unmap > before);
    let delayed = (0..200).take_while(|_| source.probe() == Probe::Changing).count();
    stop.store(true, Ordering::SeqCst);
    caller.join().unwrap();
    hog.join().unwrap();
    delayed as u32
}

fn flag() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(false))
}
