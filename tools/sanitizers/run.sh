#!/usr/bin/env bash
# Checks the unsafe code of the CPU engine: Miri over the portable kernels, ThreadSanitizer over the thread team.
#
#   tools/sanitizers/run.sh [miri|thread]      default: both
#
# Miri needs:             rustup toolchain install nightly --component miri,rust-src
# ThreadSanitizer needs:  rustup toolchain install nightly --component rust-src
# A check whose toolchain is not installed is skipped with a message, and is no failure.
#
# TOOLCHAIN   another toolchain (default nightly)
# FILTER      only tests whose name contains this (default: all of engine::cpu)
set -euo pipefail
cd "$(dirname "$0")/../.."
toolchain=${TOOLCHAIN:-nightly}
what=${1:-all}
target=${CARGO_TARGET_DIR:-target}/sanitizers

case $what in
    all | miri | thread) ;;
    *) echo "usage: $0 [miri|thread]" >&2; exit 2 ;;
esac

# Whether the toolchain has a component (miri, rust-src). Prints why not.
has() {
    local check=$1 component=$2
    if ! command -v rustup > /dev/null; then
        echo "skipped $check: rustup is not installed"
        return 1
    fi
    if ! rustup toolchain list | grep -q "^$toolchain"; then
        echo "skipped $check: toolchain $toolchain is not installed (rustup toolchain install $toolchain --component miri,rust-src)"
        return 1
    fi
    if ! rustup "+$toolchain" component list --installed 2> /dev/null | grep -q "^$component"; then
        echo "skipped $check: $toolchain has no $component (rustup component add --toolchain $toolchain $component)"
        return 1
    fi
}

# Undefined behaviour: out-of-bounds and uninitialized reads, invalid pointers, data races. Only the portable kernels run,
# on small layers; whole networks are ignored. Tree borrows and permissive provenance because of crossbeam-epoch below
# rayon; leaks are ignored because rayon's threads outlive the tests.
run_miri() {
    has miri miri && has miri rust-src || return 0
    echo "== Miri: portable kernels of the CPU engine"
    CARGO_TARGET_DIR=$target/miri \
        MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-tree-borrows -Zmiri-permissive-provenance -Zmiri-ignore-leaks ${MIRIFLAGS:-}" \
        cargo "+$toolchain" miri test -p proxygrad --features clap --lib -- "${FILTER:-engine::cpu}"
}

# Data races between the threads of a pass, in the thread team and in row-tiled execution. The standard library is rebuilt
# with the sanitizer, or its synchronization would be invisible to it.
run_thread() {
    has "thread sanitizer" rust-src || return 0
    local host
    host=$(rustc "+$toolchain" --version --verbose | sed -n 's/^host: //p')
    case $host in
        x86_64-unknown-linux-gnu | aarch64-unknown-linux-gnu | *-apple-darwin) ;;
        *) echo "skipped thread sanitizer: $host does not support it"; return 0 ;;
    esac
    echo "== ThreadSanitizer: thread team of the CPU engine"
    CARGO_TARGET_DIR=$target/thread \
        RUSTFLAGS="-Zsanitizer=thread ${RUSTFLAGS:-}" \
        TSAN_OPTIONS="suppressions=$PWD/tools/sanitizers/thread.supp halt_on_error=1 ${TSAN_OPTIONS:-}" \
        cargo "+$toolchain" test -Zbuild-std --target "$host" -p proxygrad --features clap --lib -- "${FILTER:-engine::cpu}"
}

if [ "$what" != thread ]; then run_miri; fi
if [ "$what" != miri ]; then run_thread; fi
