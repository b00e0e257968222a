#!/usr/bin/env bash
# Feeds every fuzz target its seeds, the corpus that earlier runs left, and what the fuzzer makes of them.
# A finding ends the run with an error and names the input.
#
#   tests/fuzz/run.sh SECONDS [TARGET...]         all targets unless some are named; SECONDS for each
#   KEEP=1 tests/fuzz/run.sh SECONDS [TARGET...]  then keeps what covers something, as corpus.tar.xz
#
# Needs cargo-fuzz (`cargo install cargo-fuzz --locked`). Without a sanitizer, which code without `unsafe`
# can spare, the usual compiler does.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:?"how many seconds for each target?"}
shift
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  for file in tests/fuzz/targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
command -v cargo-fuzz >/dev/null || { echo "FAIL cargo-fuzz is missing: cargo install cargo-fuzz --locked" >&2; exit 1; }

fuzz() { cargo fuzz "$1" -s none --fuzz-dir tests/fuzz "${@:2}"; }

fuzz build
mkdir -p tests/fuzz/corpus
if [ -e tests/fuzz/corpus.tar.xz ]; then
  tar --extract --xz --skip-old-files --file tests/fuzz/corpus.tar.xz --directory tests/fuzz
fi
for target in "${targets[@]}"; do
  corpus=tests/fuzz/corpus/$target
  mkdir -p "$corpus"
  log=$(mktemp)
  if ! fuzz run "$target" "$corpus" "tests/fuzz/seeds/$target" -- \
    -max_total_time="$seconds" -timeout=120 -dict=tests/fuzz/json.dict >"$log" 2>&1; then
    tail -n 40 "$log"
    echo "FAIL fuzz target $target: the input is named above"
    exit 1
  fi
  echo "ok   $target: $(tail -n 1 "$log"), $(find "$corpus" -type f | wc -l) inputs kept"
  rm -f "$log"
done
if [ -n "${KEEP:-}" ]; then
  for target in "${targets[@]}"; do fuzz cmin "$target" "tests/fuzz/corpus/$target" >/dev/null 2>&1; done
  tar --create --xz --sort=name --owner=0 --group=0 --mtime=@0 --file tests/fuzz/corpus.tar.xz --directory tests/fuzz corpus
fi
