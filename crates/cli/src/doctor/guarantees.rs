//! What follows from the answers: which guarantees hold, and which tiers there are.

use serde::Serialize;

use super::survey::Check;

/// Whether a guarantee holds here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Holds {
    Yes,
    /// For a part of what it says.
    Partly,
    No,
}

/// One of G1 to G6 on this machine.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Guarantee {
    pub(crate) name: &'static str,
    pub(crate) promise: &'static str,
    pub(crate) holds: Holds,
    /// What it rests on here, or why not.
    pub(crate) because: String,
}

/// A way to be coherent, and whether it is to be had.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Tier {
    pub(crate) tier: u8,
    pub(crate) what: &'static str,
    pub(crate) holds: Holds,
    pub(crate) because: String,
}

/// The answers that anything follows from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    source: bool,
    event: bool,
    probe: bool,
    proof: bool,
    fork: bool,
    all_kinds: bool,
    queries: bool,
    scan: bool,
    seal: bool,
    file_seals: bool,
}

impl Facts {
    pub(crate) fn of(checks: &[Check]) -> Self {
        let has = |name: &str| checks.iter().any(|check| check.name == name && check.is_there());
        Self {
            source: has("source"),
            event: has("event"),
            probe: has("probe"),
            proof: has("proof-of-return"),
            fork: has("fork"),
            all_kinds: has("WP_ASYNC"),
            queries: has("PROCMAP_QUERY"),
            scan: has("PAGEMAP_SCAN"),
            seal: has("mseal"),
            file_seals: has("file-seals"),
        }
    }
}

fn guarantee(name: &'static str, promise: &'static str, holds: Holds, because: impl Into<String>) -> Guarantee {
    Guarantee { name, promise, holds, because: because.into() }
}

pub(crate) fn guarantees(facts: &Facts) -> Vec<Guarantee> {
    let g1 = match (facts.source && facts.event, facts.all_kinds) {
        (false, _) => (Holds::No, "no event arrives"),
        (true, true) => (Holds::Yes, "the event of an munmap arrived; which kinds of memory have them stands above"),
        (true, false) => (Holds::Partly, "for anonymous memory; what cannot be watched is refused, never cached"),
    };
    let g2 = match facts.probe {
        true => (Holds::Yes, "the probe answers"),
        false => (Holds::No, "the probe does not answer"),
    };
    let g3 = match facts.source {
        true => (Holds::Yes, "wherever there is a source; shown by types and models, not by this run"),
        false => (Holds::No, "there is no source"),
    };
    let g5 = match (facts.source, facts.proof) {
        (false, _) => (Holds::No, "there is no source"),
        (true, true) => {
            (Holds::Yes, "shown by tests; and the end of a discard was proven, so what was discarded is cached again")
        }
        (true, false) => (Holds::Yes, "but what was discarded once is served uncached from then on"),
    };
    let g6 = match (facts.source, facts.fork) {
        (false, _) => (Holds::No, "there is no source"),
        (true, true) => {
            (Holds::Yes, "the caller was released, a forked child knew; the rest is shown by tests, not by this run")
        }
        (true, false) => (Holds::Partly, "a forked child does not know that nothing is told there"),
    };
    vec![
        guarantee("G1", "after the call has returned, no use that starts later gets the old pages", g1.0, g1.1),
        guarantee("G2", "nor does who is given the addresses before it has returned", g2.0, g2.1),
        guarantee("G3", "what is kept was true since its attempt began", g3.0, g3.1),
        guarantee("G4", "what does not overlap makes nobody retry", g3.0, g3.1),
        guarantee("G5", "every wait has a deadline, every request is served", g5.0, g5.1),
        guarantee("G6", "nobody stays blocked, and a loss is declared", g6.0, g6.1),
    ]
}

pub(crate) fn tiers(facts: &Facts) -> Vec<Tier> {
    let arena = match (facts.file_seals, facts.seal) {
        (true, true) => (Holds::Yes, "mseal and the seals of a memfd"),
        (true, false) => (Holds::Partly, "its file is sealed; its mapping is not: no mseal"),
        (false, _) => (Holds::No, "a memfd cannot be sealed"),
    };
    let watched = match (facts.source, facts.queries, facts.scan) {
        (false, ..) => (Holds::No, "there is no source"),
        (true, true, true) => (Holds::Yes, "protection, file and guard pages are checked on request"),
        (true, _, true) => (Holds::Partly, "checks of protection and file read the text of /proc/self/maps: slow"),
        (true, ..) => (Holds::Partly, "guard pages cannot be checked"),
    };
    vec![
        Tier { tier: 1, what: "an arena of the library's own, sealed", holds: arena.0, because: arena.1.into() },
        Tier { tier: 2, what: "any watched range, with checks", holds: watched.0, because: watched.1.into() },
        Tier { tier: 3, what: "a log that the kernel writes (BPF)", holds: Holds::No, because: "not built".into() },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Facts = Facts {
        source: true,
        event: true,
        probe: true,
        proof: true,
        fork: true,
        all_kinds: true,
        queries: true,
        scan: true,
        seal: true,
        file_seals: true,
    };

    fn holds(facts: &Facts) -> Vec<Holds> {
        guarantees(facts).iter().map(|guarantee| guarantee.holds).collect()
    }

    #[test]
    fn everything_holds_where_everything_answers() {
        assert_eq!(holds(&ALL), [Holds::Yes; 6]);
    }

    #[test]
    fn nothing_is_promised_without_a_source() {
        let facts = Facts { source: false, event: false, probe: false, proof: false, ..ALL };
        assert_eq!(holds(&facts), [Holds::No; 6]);
    }

    #[test]
    fn an_old_kernel_and_a_silent_one_lose_what_they_lack_only() {
        assert_eq!(holds(&Facts { all_kinds: false, ..ALL })[0], Holds::Partly);
        assert_eq!(holds(&Facts { event: false, ..ALL })[..2], [Holds::No, Holds::Yes]);
        assert_eq!(holds(&Facts { probe: false, ..ALL })[..2], [Holds::Yes, Holds::No]);
        assert_eq!(tiers(&Facts { seal: false, ..ALL })[0].holds, Holds::Partly);
        assert_eq!(tiers(&Facts { scan: false, ..ALL })[1].holds, Holds::Partly);
    }
}
