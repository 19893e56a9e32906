#!/usr/bin/env bash
# Shows that the checks can fail: each planted bug must make its scenario find a violation, and none may without one.
set -euo pipefail
cd "$(dirname "$0")/.."
ulimit -c 0

# One scenario each, though many bugs are found by several: the one that says best what the bug breaks.
core="
number-before-slot          begin_commit_against_start_end
slots-before-head           begin_commit_against_start_end
no-wait                     begin_commit_against_start_end
token-relaxed               begin_commit_against_start_end
busy-load-relaxed           begin_commit_against_start_end
free-load-relaxed           next_owner_of_a_slot_publishes_the_end_of_the_former
clear-relaxed               begin_commit_against_start_end
ends-forgotten              started_and_ended_between_snapshot_and_commit
one-slot-per-thread         nested_invalidations
callback-skips-empty        begin_commit_under_a_device_lock_of_its_own
commit-before-lock          begin_commit_under_a_device_lock_of_its_own
hit-without-fence           hit_field_against_one_writer
hit-against-zero            outrun_and_hit_field
entry-without-claim         entry_of_a_lapped_writer
entry-without-fence         entry_read_beside_its_writer
entry-read-once             entry_read_beside_its_writer
gate-before-section         section_and_gate_against_pump
enter-without-fence         section_and_gate_against_pump
raise-without-fence         section_and_gate_against_pump
read-before-gate            section_and_gate_against_pump
gate-lowered-before-revoke  section_and_gate_against_pump
lost-after-read             overdue_section_against_pump
doubt-after-append          doubt_against_append_and_token
doubt-before-token          doubt_against_append_and_token
hold-without-fence          hold_against_taking_away
give-back-relaxed           hold_against_taking_away
settle-without-fence        hold_in_section_against_taking_away
wake-without-fence          end_with_waiters
release-without-wake        release_with_waiters
table-callback-skips-empty  install_beside_revoke_of_an_empty_table
lock-first-unit-only        install_beside_revoke_of_an_empty_table
entry-relaxed               walk_beside_install
split-clears-first          walk_beside_a_split
pages-under-whole-kept      whole_over_pages_then_revoked
mirror-doubt-after-look     range_fault_against_a_discard
mirror-walk-before-section  access_against_the_pump
snapshot-unchecked          snapshot_against_invalidate
"

registration="
stale-not-checked           get_against_invalidation
undo-forgotten              get_against_invalidation
deregister-before-last-use  last_use_after_revocation
evicts-leased               eviction_and_lease_drop
lease-looks-once            eviction_against_lease_and_use
uses-before-leases          eviction_against_lease_and_use
worker-does-not-settle      begin_against_requested_eviction
"

linux="
running-is-elsewhere          a_thread_that_computes_is_never_proven_and_is_when_it_ends
other-conventions-forgotten   discards::a_caller_by_another_convention_is_not_proven
io-worker-is-a-thread         workers::a_discard_by_io_uring_is_not_taken_for_another_call
any-worker-is-idle            workers::a_discard_by_io_uring_is_not_taken_for_another_call
thread-number-of-own-namespace  the_calling_thread_is_known_under_another_namespace_s_proc
"

# Far above what a scenario takes: one that only runs out of time has found nothing.
limit_seconds=120
# On real threads a bug needs the right moment; a model checker needs one run.
tries_on_real_threads=5
missed=0

# Builds the test once, and runs it once for each bug of the table. A bug that is planted but not in the table would never be
# looked for, so the two must agree.
hunt() {
    local checker=$1 package=$2 test=$3 folder=$4 bugs=$5 finding=$6
    echo "== $package, by ${checker:-real threads}"
    local planted listed program bug scenario said found try tries=1
    [ -n "$checker" ] || tries=$tries_on_real_threads
    planted=$(grep -rhoE 'planted\("[a-z-]+"\)' "crates/$folder" | cut -d'"' -f2 | sort -u)
    listed=$(awk 'NF { print $1 }' <<<"$bugs" | sort -u)
    diff <(echo "$planted") <(echo "$listed") || { echo "the table and the planted bugs differ (< planted, > listed)"; exit 1; }
    program=$(RUSTFLAGS="${checker:+--cfg $checker }--cfg pagemirror_planted" CARGO_TARGET_DIR="target-${checker:+$checker-}planted" \
        cargo test --release -p "$package" --test "$test" --no-run --message-format=json |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
    timeout "$((5 * limit_seconds))" "$program" --quiet || { echo "$package fails without a bug"; exit 1; }
    while read -r bug scenario; do
        for ((try = 1; try <= tries; try++)); do
            # A finding is a panic, which the checker may turn into an abort: its text counts, not the exit status alone.
            said=$( { PAGEMIRROR_PLANTED=$bug timeout "$limit_seconds" "$program" --exact "$scenario"; } 2>&1) || break
        done
        if ((try > tries)) && grep -q SKIPPED <<<"$said"; then
            echo "not hunted here: $bug: $(grep -m1 SKIPPED <<<"$said")"
        elif ((try > tries)); then
            missed=1 && echo "MISSED $bug: $scenario passes"
        elif found=$(grep -m1 -E "$finding" <<<"$said"); then
            echo "caught $bug by $scenario: $found"
        else
            missed=1 && echo "MISSED $bug: $scenario fails, but not by a finding" && tail -n 5 <<<"$said"
        fi
    done < <(awk 'NF' <<<"$bugs")
}

# Hunts the bugs of every tracker with the scenarios of `pagemirror check`, which says by itself what caught what. The
# committed table has to say the same, so that nobody has to believe it.
hunt_in_trackers() {
    echo "== the trackers, by pagemirror check"
    local table program=target-planted/release/pagemirror
    RUSTFLAGS="--cfg pagemirror_planted" CARGO_TARGET_DIR=target-planted cargo build --release
    timeout "$((5 * limit_seconds))" "$program" check >/dev/null || { echo "the check fails without a bug"; exit 1; }
    table=$(mktemp)
    timeout "$((10 * limit_seconds))" "$program" check --planted --markdown "$table" || missed=1
    if ! diff docs/planted-bugs.md "$table"; then
        missed=1 && cp "$table" docs/planted-bugs.md
        echo "docs/planted-bugs.md said something else (< before, > now) and has been rewritten: look, and commit it"
    fi
    rm -f "$table"
}

# The simulator finds each bug that shows under sequentially consistent schedules. Its table in docs/simulator.md names them all;
# the numbers of seeds change with every change of the code, and are not compared.
hunt_by_simulation() {
    echo "== pagemirror sim --planted"
    local said program=target-planted/release/pagemirror
    RUSTFLAGS="--cfg pagemirror_planted" CARGO_TARGET_DIR=target-planted cargo build --release
    said=$(timeout "$((5 * limit_seconds))" "$program" sim --planted) || { missed=1 && echo "MISSED by simulation:"; }
    echo "$said"
    hunted() { awk '$3 ~ /^[0-9,]+$/ { print $1, $2 }'; }
    if ! diff <(hunted <<<"$said") <(sed -n '/^<!-- begin/,/^<!-- end/p' docs/simulator.md | hunted); then
        missed=1 && echo "docs/simulator.md has another table (< found, > in the file)"
    fi
}

unset PAGEMIRROR_PLANTED
hunt loom pagemirror-core models core "$core" 'VIOLATION|deadlock;'
hunt shuttle pagemirror-registration models registration "$registration" 'panicked|deadlock'
hunt "" pagemirror-linux tasks linux "$linux" 'panicked'
hunt_in_trackers
hunt_by_simulation
exit "$missed"
