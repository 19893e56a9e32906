//! The counters of a cache through the facade `metrics`, for a program that exports its figures that way.

use metrics::{counter, gauge};

use crate::cache::RegistrationCache;
use crate::registrar::Registrar;
use crate::stats::WaitCause;

impl<R: Registrar> RegistrationCache<R> {
    /// Hands a copy of the counters to the recorder that the program has installed, under names that begin with
    /// `pagemirror_`, each with the label `cache`. Call it as often as they are to be looked at; nothing else calls it, so hits
    /// and the pump know nothing of the recorder.
    ///
    /// # Blocking
    /// As [`stats`](Self::stats), and as the recorder does. Not inside a submission.
    pub fn publish(&self, cache: &'static str) {
        let stats = self.stats();
        let invalidations = stats.invalidations;
        for (name, value) in [
            ("pagemirror_hits_total", stats.hits),
            ("pagemirror_misses_total", stats.misses),
            ("pagemirror_collisions_total", stats.collisions),
            ("pagemirror_retries_total", stats.retries),
            ("pagemirror_uses_total", stats.uses),
            ("pagemirror_stale_uses_total", stats.stale),
            ("pagemirror_evictions_total", stats.evictions),
            ("pagemirror_register_failures_total", stats.register_failures),
            ("pagemirror_deregister_failures_total", stats.deregister_failures),
            ("pagemirror_revoked_total", invalidations.revoked),
        ] {
            counter!(name, "cache" => cache).absolute(value);
        }
        for (reason, value) in [
            ("doubt", stats.one_shots_in_doubt),
            ("contended", stats.one_shots_contended),
            ("limit", stats.one_shots_over_limit),
        ] {
            counter!("pagemirror_one_shots_total", "cache" => cache, "reason" => reason).absolute(value);
        }
        for (event, value) in [
            ("unmap", invalidations.unmap),
            ("remap", invalidations.remap),
            ("remove", invalidations.remove),
            ("requested", invalidations.requested),
        ] {
            counter!("pagemirror_invalidations_total", "cache" => cache, "event" => event).absolute(value);
        }
        for (cause, waits) in WaitCause::ALL.iter().zip(stats.waits) {
            let cause = cause.name();
            counter!("pagemirror_waits_total", "cache" => cache, "cause" => cause).absolute(waits.count);
            gauge!("pagemirror_wait_p99_seconds", "cache" => cache, "cause" => cause).set(waits.p99.as_secs_f64());
        }
        gauge!("pagemirror_entries", "cache" => cache).set(stats.entries as f64);
        gauge!("pagemirror_bytes", "cache" => cache).set(stats.bytes as f64);
        gauge!("pagemirror_lost", "cache" => cache).set(if stats.lost.is_some() { 1.0 } else { 0.0 });
    }
}
