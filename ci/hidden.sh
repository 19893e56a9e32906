#!/usr/bin/env bash
# Runs the tests on real memory without features of the kernel, one by one and all together: as on an older kernel. Nothing is
# built for it that the ordinary tests have not built.
set -euo pipefail
cd "$(dirname "$0")/.."

without() {
    local hidden=$1
    shift
    echo "== without $hidden: $*"
    PAGEMIRROR_TEST_HIDE=$hidden cargo test --quiet "$@" 2>&1 | grep -vE '^(running|\.+|)$'
}

newer="wp-unpopulated move pagemap-scan procmap-query"
for feature in $newer; do
    without "$feature" -p pagemirror-linux --test events --test hangs
    without "$feature" -p pagemirror-io-uring --test kinds
done
without "$(tr ' ' ',' <<<"$newer")" -p pagemirror-linux --tests
# Without this one files are not watched, so the tests that need them watched have nothing to look at.
without wp-async -p pagemirror-linux --tests
