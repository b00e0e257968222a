#!/usr/bin/env bash
# Builds so that equal sources and an equal toolchain give equal bytes, wherever the sources, the registry's copies and
# the target directory lie. A plain `cargo build --release --locked` does too, as long as CARGO_HOME has the same path:
# places in the code of dependencies, which panics tell, are written into the binary with it.
#
#   .ci/release-build.sh [options of cargo build; default: --release --package bursar]
#
# What still counts: the versions of rustc, the C compiler and the linker, the target, and the commit (`bursar version`).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd -P)
target=${CARGO_TARGET_DIR:-$root/target}
home=${CARGO_HOME:-$HOME/.cargo}
[ $# -gt 0 ] || set -- --release --package bursar

# Of several that fit, the last one counts. Flags are separated by a unit separator, so that paths may have blanks.
flags=()
for remap in "$root=/bursar" "$target=/target" "$home=/cargo"; do
  flags+=("--remap-path-prefix=$remap")
done
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; printf '%s' "${flags[*]}")
export CARGO_ENCODED_RUSTFLAGS
unset RUSTFLAGS CARGO_BUILD_RUSTFLAGS
cd "$root"
exec cargo build --locked "$@"
