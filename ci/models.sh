#!/usr/bin/env bash
# Runs the protocols of the core under both model checkers, and the cache under shuttle. Some minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."

# Far above what a run takes, so that only a model that grew without a bound gets there.
limit_seconds=900

run() {
    local checker=$1 package=$2
    echo "== $checker: $package"
    RUSTFLAGS="--cfg $checker" CARGO_TARGET_DIR="target-$checker" \
        timeout "$limit_seconds" cargo test --release -p "$package" --test models
}

run loom pagemirror-core
run shuttle pagemirror-core
run shuttle pagemirror-registration
