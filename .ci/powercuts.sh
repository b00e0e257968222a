#!/usr/bin/env bash
# Cuts the power under a writing ledger, again and again, and looks whether anything acknowledged is gone.
# Needs root, loop devices, FUSE and Debian's nbdkit, libnbd-bin, fuse3 and e2fsprogs; says so and passes
# where they are not to be had.
# With `must-fail` the ledger is one that never syncs (feature break-skip-sync): then it is an error if nothing is lost.
# usage: powercuts.sh SHARED POWERCUT [TRIALS [must-fail]]
set -euo pipefail
tool=$1/faults/powercut.sh
powercut=$(realpath "$2")
trials=${3:-8}
expected=${4:-}

skip() { echo "SKIPPED: power cuts ($1)"; exit 0; }
[ "$(id -u)" = 0 ] || skip "they need root"
[ -e /dev/loop-control ] && [ -e /dev/fuse ] || skip "there are no loop devices or no FUSE"
need=()
command -v nbdkit >/dev/null || need+=(nbdkit)
command -v nbdfuse >/dev/null || need+=(libnbd-bin)
command -v fusermount3 >/dev/null || need+=(fuse3)
command -v mkfs.ext4 >/dev/null || need+=(e2fsprogs)
if [ ${#need[@]} -gt 0 ]; then
  { apt-get update -q && apt-get install -y -q "${need[@]}"; } >/dev/null 2>&1 || skip "cannot install ${need[*]}"
fi
losetup -f >/dev/null 2>&1 || skip "no loop device is free"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Failures that are wanted must not read like others.
mark=${expected:+s/^/meant to fail: /}
if bash "$tool" "$trials" "$powercut write {dir}" "$powercut verify {dir} {ack} | tee -a $log" 2>/dev/null | sed "$mark"; then
  lost=no
else
  lost=yes
fi
if [ "$expected" = must-fail ]; then
  [ "$lost" = yes ] && { echo "a ledger that never syncs is caught"; exit 0; }
  echo "a ledger that never syncs was not caught: these cuts prove nothing"
  exit 1
fi
[ "$lost" = no ]
# A trial in which nothing was acknowledged proves nothing.
acknowledged=$(grep -c '^ok [0-9]* records, [0-9]' "$log" || true)
echo "$acknowledged of $trials cuts came after an acknowledgement"
[ "$acknowledged" -gt 0 ]
