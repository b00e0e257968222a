#!/usr/bin/env bash
# Builds the commit that is checked out twice, under different paths, time zones, languages and masks, and fails unless
# both results have the same bytes and name none of these paths. Files that are not committed are left out.
#
#   .ci/reproducible.sh                         the release binary: two cold builds
#   .ci/reproducible.sh ARTEFACT OPTIONS…       another file below the target directory, and how cargo builds it:
#   .ci/reproducible.sh debug/examples/price_rate --package bursar-policies --example price_rate
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd -P)
artefact=${1:-release/bursar}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- --release --package bursar
home=${CARGO_HOME:-$HOME/.cargo}
commit=$(git -C "$root" rev-parse HEAD)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Differing lengths of paths matter: a path that is written down moves everything behind it.
first=$work/a
second=$work/second/with/a/longer/path
ln -s "$home" "$work/other-cargo-home"

build() { # checkout, cargo's home, variables…
  local checkout=$1 cargo_home=$2
  shift 2
  git clone -q --no-checkout "$root" "$checkout"
  git -C "$checkout" checkout -q --detach "$commit"
  env -u BURSAR_COMMIT -u SOURCE_DATE_EPOCH CARGO_HOME="$cargo_home" CARGO_TARGET_DIR="$checkout-target" "$@" < /dev/null
}

build "$first" "$home" TZ=UTC LC_ALL=C bash "$first/.ci/release-build.sh" "$@"
(umask 077; build "$second" "$work/other-cargo-home" TZ=Asia/Tokyo LC_ALL=C.UTF-8 bash "$second/.ci/release-build.sh" "$@")

one=$first-target/$artefact
other=$second-target/$artefact
sha256sum "$one" "$other"
if ! cmp "$one" "$other"; then
  echo "FAIL: two builds of $commit differ in $( (cmp -l "$one" "$other" || true) | wc -l) bytes; sections that differ in size:"
  diff <(size -A "$one" | tail -n +2) <(size -A "$other" | tail -n +2) || true
  exit 1
fi
for path in "$work" "$home"; do
  if grep -q -a -F "$path" "$one"; then
    echo "FAIL: the binary names $path"
    exit 1
  fi
done
echo "reproducible: $commit, $artefact, $(stat -c %s "$one") bytes"
