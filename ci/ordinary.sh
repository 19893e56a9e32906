#!/usr/bin/env bash
# Runs the tests that meet the kernel as an ordinary user: the programs that `cargo test` has built, as nobody. The others do not
# notice who runs them; `ci/ordinary.sh --workspace` runs them all the same.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(-p pagemirror-linux -p pagemirror-io-uring -p pagemirror-registration -p pagemirror -p pagemirror-cli -p pagemirror-allocators)
if [ "${1:-}" = --workspace ]; then packages=(--workspace); fi

if [ "$(id -u)" != 0 ]; then
    echo "this is an ordinary user already: cargo test has shown it"
    exit 0
fi
nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all)
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
chmod 755 "$home" && chown 65534:65534 "$home"
# The limit that a login has, whatever the builder's is.
ulimit -l 8192

# Paths of the build directory are compiled into some tests, so it must be open to others.
if ! "${nobody[@]}" test -r Cargo.toml -a -x target/debug; then
    echo "SKIPPED: ordinary user: $PWD is not open to others"
    exit 0
fi
cargo test "${packages[@]}" --no-run --message-format=json 2>/dev/null |
    sed -nE 's/.*"manifest_path":"([^"]*)\/Cargo.toml".*"executable":"([^"]*)".*/\1 \2/p' |
    grep /deps/ >"$home/programs"
[ -s "$home/programs" ]
failed=0
while read -r folder program; do
    # A program that root has made is copied, as some tests write beside themselves.
    cp "$program" "$home/program" && chmod 755 "$home/program"
    echo "== $(basename "$program") as nobody"
    (cd "$folder" && env HOME="$home" TMPDIR="$home" timeout 600 "${nobody[@]}" "$home/program" --quiet </dev/null) ||
        { failed=1 && echo "FAILED as nobody: $program"; }
done <"$home/programs"
exit "$failed"
