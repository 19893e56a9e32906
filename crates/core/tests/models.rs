//! The protocols of the core under a model checker: each body is written once and runs on three engines.
//!
//! | build | engine | what it is the authority for |
//! |---|---|---|
//! | `--cfg loom` | loom, every interleaving up to a number of preemptions | orderings and interleavings |
//! | `--cfg shuttle` | shuttle, random schedules, sequentially consistent | schedules, never orderings |
//! | otherwise | the machine's own threads, repeated for about a second | that the models run on real primitives |
//!
//! `ci/models.sh` runs the first two; `ci/planted.sh` shows that each planted bug makes a scenario fail. A finding is a
//! panic whose text begins with `VIOLATION`, or a deadlock that the engine reports.
//!
//! # Not covered
//! Deadlines: a model has no clock, so there only cancellation and loss end a wait. They are tested in `waits.rs`.

mod models {
    pub(crate) mod collision;
    pub(crate) mod engine;
    pub(crate) mod entries;
    pub(crate) mod holds;
    pub(crate) mod mirror;
    pub(crate) mod outrun;
    pub(crate) mod table;
    pub(crate) mod uses;
    pub(crate) mod waiters;
    pub(crate) mod world;
}

use models::{collision, engine, entries, holds, mirror, outrun, table, uses, waiters};

/// Explores every interleaving there is; the scenario is small enough.
const ALL: Option<usize> = None;

/// Explores the interleavings with at most this many switches that no thread asked for: as many as some seconds allow.
const fn up_to(preemptions: usize) -> Option<usize> {
    Some(preemptions)
}

/// Names each scenario, how much of it loom explores, and its body.
macro_rules! scenarios {
    ($($name:ident: $preemptions:expr, $body:path;)*) => {
        $(#[test]
        fn $name() {
            engine::check($preemptions, $body);
        })*
    };
}

scenarios! {
    begin_commit_against_start_end: up_to(4), collision::begin_commit_against_start_end;
    begin_commit_under_a_device_lock_of_its_own: ALL, collision::begin_commit_under_a_device_lock_of_its_own;
    started_and_ended_between_snapshot_and_commit: ALL, collision::started_and_ended_between_snapshot_and_commit;
    overlap_chain: up_to(3), collision::overlap_chain;
    overlap_chain_leaves_others_alone: up_to(5), collision::overlap_chain_leaves_others_alone;
    overlap_chain_without_a_free_slot: up_to(3), collision::overlap_chain_without_a_free_slot;
    nested_invalidations: up_to(5), collision::nested_invalidations;
    slot_handed_over_while_it_is_cleared: up_to(5), collision::slot_handed_over_while_it_is_cleared;
    next_owner_of_a_slot_publishes_the_end_of_the_former: up_to(3),
        collision::next_owner_of_a_slot_publishes_the_end_of_the_former;

    entry_of_a_lapped_writer: ALL, entries::entry_of_a_lapped_writer;
    entry_read_beside_its_writer: ALL, entries::entry_read_beside_its_writer;

    outrun_and_hit_field: up_to(3), outrun::outrun_and_hit_field;
    hit_field_against_one_writer: up_to(5), outrun::hit_field_against_one_writer;
    hit_of_the_former_owner: up_to(4), outrun::hit_of_the_former_owner;
    hit_beside_a_late_writer: up_to(3), outrun::hit_beside_a_late_writer;

    gate_alone_against_pump: up_to(5), uses::gate_alone_against_pump;
    section_and_gate_against_pump: ALL, uses::section_and_gate_against_pump;
    two_sections_against_pump: up_to(3), uses::two_sections_against_pump;
    overdue_section_against_pump: ALL, uses::overdue_section_against_pump;
    doubt_against_append_and_token: up_to(4), uses::doubt_against_append_and_token;

    hold_against_taking_away: ALL, holds::hold_against_taking_away;
    hold_in_section_against_taking_away: up_to(4), holds::hold_in_section_against_taking_away;

    install_beside_revoke_of_an_empty_table: up_to(4), table::install_beside_revoke_of_an_empty_table;
    two_installs_beside_revoke: up_to(2), table::two_installs_beside_revoke;
    walk_beside_install: ALL, table::walk_beside_install;
    walk_beside_a_split: ALL, table::walk_beside_a_split;
    whole_over_pages_then_revoked: ALL, table::whole_over_pages_then_revoked;

    range_fault_against_invalidate: up_to(3), mirror::range_fault_against_invalidate;
    two_range_faults_against_invalidate: up_to(2), mirror::two_range_faults_against_invalidate;
    range_fault_against_a_discard: up_to(3), mirror::range_fault_against_a_discard;
    access_against_the_pump: up_to(3), mirror::access_against_the_pump;
    snapshot_against_invalidate: up_to(4), mirror::snapshot_against_invalidate;

    release_with_waiters: ALL, waiters::release_with_waiters;
    end_with_waiters: ALL, waiters::end_with_waiters;
    lowered_gate_with_waiters: ALL, waiters::lowered_gate_with_waiters;
}
