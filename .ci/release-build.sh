#!/usr/bin/env bash
# Builds so that equal sources and an equal toolchain give equal bytes, wherever the sources, the registry's copies and
# the target directory lie. A plain `cargo build --release --locked` does too, as long as CARGO_HOME has the same path:
# places in the code of dependencies, which panics tell, are written into the binary with it.
#
#   .ci/release-build.sh [--static] [options of cargo build; default: --release --package bursar]
#
# With --static a program that needs no library of the machine that it runs on, as in the image; Linux only. It lies
# below target/TRIPLE/, as cargo does where a target is named.
#
# What still counts: the versions of rustc, the C compiler and the linker, the target, and the commit (`bursar version`).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd -P)
target=${CARGO_TARGET_DIR:-$root/target}
home=${CARGO_HOME:-$HOME/.cargo}
static=
if [ "${1:-}" = --static ]; then
  static=yes
  shift
fi
[ $# -gt 0 ] || set -- --release --package bursar

# They stand in lists of flags below.
case "$root$target$home" in
  *[\'[:space:]]*) echo "release-build.sh: no path may have a blank or a quote in it: $root, $target, $home" >&2; exit 1 ;;
esac
# Of several that fit, the last one counts. What is written in C names its files in its errors, too.
flags=()
for remap in "$root=/bursar" "$target=/target" "$home=/cargo"; do
  flags+=("--remap-path-prefix=$remap")
  CFLAGS="${CFLAGS:-} -ffile-prefix-map=$remap"
done
export CFLAGS
if [ -n "$static" ]; then
  # Named, so that what runs while building is built without it: procedural macros are loaded by the compiler.
  set -- "$@" --target "$(rustc --version --verbose | sed -n 's/^host: //p')"
  flags+=(-C target-feature=+crt-static)
fi
# Behind those of .cargo/config.toml, whose place flags in the environment would take.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS
list=$(printf "'%s', " "${flags[@]}")
cd "$root"
exec cargo build --locked --config "build.rustflags = [${list%, }]" "$@"
