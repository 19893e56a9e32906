#!/usr/bin/env bash
# Shows that the models can fail: each planted bug must make its scenario find a violation, and none may without one.
set -euo pipefail
cd "$(dirname "$0")/.."
ulimit -c 0

# One scenario each, though many bugs are found by several: the one that says best what the bug breaks.
bugs="
number-before-slot          begin_commit_against_start_end
slots-before-head           begin_commit_against_start_end
no-wait                     begin_commit_against_start_end
token-relaxed               begin_commit_against_start_end
slot-load-relaxed           begin_commit_against_start_end
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
wake-without-fence          end_with_waiters
release-without-wake        release_with_waiters
"

# Far above what a scenario takes: a model that only runs out of time has found nothing.
limit_seconds=120

# A bug that is planted but not in the table would never be looked for.
planted=$(grep -rhoE 'planted\("[a-z-]+"\)' crates/core/src crates/core/tests | cut -d'"' -f2 | sort -u)
listed=$(awk 'NF { print $1 }' <<<"$bugs" | sort -u)
diff <(echo "$planted") <(echo "$listed") || { echo "the table and the planted bugs differ (< planted, > listed)"; exit 1; }

models=$(RUSTFLAGS="--cfg loom --cfg pagemirror_planted" CARGO_TARGET_DIR=target-loom-planted \
    cargo test --release -p pagemirror-core --test models --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')

unset PAGEMIRROR_PLANTED
timeout "$((5 * limit_seconds))" "$models" --quiet || { echo "the models fail without a bug"; exit 1; }

missed=0
while read -r bug scenario; do
    # A finding is a panic, which the checker may turn into an abort: its text counts, not the exit status alone.
    if said=$( { PAGEMIRROR_PLANTED=$bug timeout "$limit_seconds" "$models" --exact "$scenario"; } 2>&1); then
        missed=1 && echo "MISSED $bug: $scenario passes"
    elif found=$(grep -m1 -oE '(VIOLATION|deadlock;).*' <<<"$said"); then
        echo "caught $bug by $scenario: $found"
    else
        missed=1 && echo "MISSED $bug: $scenario fails, but not by a finding" && tail -n 5 <<<"$said"
    fi
done < <(awk 'NF' <<<"$bugs")
exit "$missed"
