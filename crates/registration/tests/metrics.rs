//! What `publish` hands to the recorder.
#![cfg(not(any(loom, shuttle)))]

mod model;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use model::{Device, PAGE, Process, Slots, address, soon};
use pagemirror_core::source::Source;
use pagemirror_registration::{Access, Options, RegistrationCache};
use pagemirror_sync::atomic::AtomicU64;
use pagemirror_sync::{Arc, Mutex};

#[derive(Default)]
struct Value(AtomicU64);

impl CounterFn for Value {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }
    fn absolute(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl GaugeFn for Value {
    fn increment(&self, _: f64) {}
    fn decrement(&self, _: f64) {}
    fn set(&self, value: f64) {
        self.0.store(value as u64, Ordering::Relaxed);
    }
}

/// Keeps the last value of each name with its labels.
struct Kept(Mutex<BTreeMap<String, Arc<Value>>>);

impl Kept {
    fn value(&self, key: &Key) -> Arc<Value> {
        let labels: Vec<_> = key.labels().map(|label| label.value().to_owned()).collect();
        let name = format!("{} {}", key.name(), labels.join(" "));
        Arc::clone(self.0.lock().entry(name).or_default())
    }

    fn get(&self, name: &str) -> Option<u64> {
        self.0.lock().get(name).map(|value| value.0.load(Ordering::Relaxed))
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.value(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.value(key))
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn counters_reach_the_recorder() {
    let process = Process::new(4);
    let device = Device::new(&process, 4);
    let source = Arc::clone(&process) as Arc<dyn Source>;
    let cache = RegistrationCache::new(source, Slots(device), Options::default()).unwrap();
    let kept = Kept(Mutex::new(BTreeMap::new()));
    for _ in 0..3 {
        drop(cache.get(address(0), 2 * PAGE, Access::Read, &soon()).unwrap());
    }
    metrics::with_local_recorder(&kept, || cache.publish("of-a-test"));
    assert_eq!(kept.get("pagemirror_hits_total of-a-test"), Some(2));
    assert_eq!(kept.get("pagemirror_misses_total of-a-test"), Some(1));
    assert_eq!(kept.get("pagemirror_bytes of-a-test"), Some(2 * PAGE));
    cache.evict(address(1), PAGE).unwrap();
    metrics::with_local_recorder(&kept, || cache.publish("of-a-test"));
    assert_eq!(kept.get("pagemirror_invalidations_total of-a-test requested"), Some(1));
    assert_eq!(kept.get("pagemirror_revoked_total of-a-test"), Some(1));
    assert_eq!(kept.get("pagemirror_entries of-a-test"), Some(0));
}
