#!/usr/bin/env bash
# Runs the protocols of the core under both model checkers. One to two minutes on two cores, without the builds.
set -euo pipefail
cd "$(dirname "$0")/.."

# Far above what a run takes, so that only a model that grew without a bound gets there.
limit_seconds=600

run() {
    local checker=$1
    echo "== $checker"
    RUSTFLAGS="--cfg $checker" CARGO_TARGET_DIR="target-$checker" \
        timeout "$limit_seconds" cargo test --release -p pagemirror-core --test models
}

run loom
run shuttle
