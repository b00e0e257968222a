#!/usr/bin/env bash
# Replays exchanges through the real binary and checks bodies and records, every key that the corpus states: the
# recorded ones plain, compressed, byte by byte and in pieces of 17 bytes; then those that were cut and those
# written from documentation; then all of them with counting, which is the default; then the sessions.
# usage: replay.sh SHARED BURSAR
set -euo pipefail
shared=$(cd "$1" && pwd)
bursar=$2
wire=$shared/cases/wire
mkdir -p target
cases=$(mktemp -d)
trap 'rm -rf "$cases"' EXIT
python3 - "$wire" "$cases" <<'PY'
import json, pathlib, sys
wire, chosen = map(pathlib.Path, sys.argv[1:])

def choose(case, part, expected):
    """Links the case, but for what has to be put differently."""
    request = json.loads((case / "request.json").read_text())
    told = dict(expected)
    # Pages written by hand leave out what cut ones call otherwise.
    told.setdefault("stream", "-stream" in case.name)
    told.setdefault("normalized", told.get("normalized_known_so_far", {}))
    # The name that records have for a stream that ends too early.
    if told.get("outcome") == "truncated":
        told["outcome"] = "error_midstream"
    own = {}
    if told != expected:
        own["expected.json"] = told
    # No client can send a path with placeholders as it stands.
    escaped = request["path"].replace("<", "%3C").replace(">", "%3E")
    if escaped != request["path"]:
        own["request.json"] = dict(request, path=escaped)
    target = chosen / part / case.name
    target.mkdir()
    for file in case.iterdir():
        if file.name not in own:
            (target / file.name).symlink_to(file)
    for name, content in own.items():
        (target / name).write_text(json.dumps(content))


counts = {}
(chosen / "sessions").mkdir()
for source in ("recorded", "cut", "authored"):
    part = "recorded" if source == "recorded" else "broken"
    (chosen / part).mkdir(exist_ok=True)
    for case in sorted((wire / source).iterdir()):
        if not (case / "expected.json").exists():
            continue
        expected = json.loads((case / "expected.json").read_text())
        kind = "sessions" if expected["api"] == "realtime" else part
        choose(case, kind, expected)
        counts[kind] = counts.get(kind, 0) + 1
print(f"exchanges chosen: {counts}")
enough = counts["recorded"] >= 300 and counts["broken"] >= 60 and counts["sessions"] >= 8
sys.exit(0 if enough else 1)
PY

failed=0
replay() { # PART OPTIONS…
  local part=$1
  shift
  python3 "$wire/replay.py" --bursar "$bursar" --cases "$cases/$part" "$@" >target/replay.out 2>&1
}
# What replay.py says besides its own grades, which know neither cut exchanges nor counts of ours, and take null
# for zero.
relayed() {
  tail -n 1 target/replay.out | grep -q ' 0 bodies differ, 0 failed, 0 twice'
}
grade() { # TITLE PART OPTIONS…
  local title=$1 part=$2
  shift 2
  python3 .ci/grade.py "$cases/$part" target/replay.jsonl "$@" >target/grade.out || {
    failed=1
    cat target/grade.out
  }
  printf '%-18s %s\n' "$title" "$(tail -n 1 target/grade.out)"
}
fail() {
  failed=1
  cat target/replay.out
}

# The corpus knows what providers said and takes any other figure for wrong: so without counting first.
export BURSAR_COUNTING_MODE=off
for options in "" "--gzip" "--split 1" "--split 17"; do
  # shellcheck disable=SC2086  # the options are words
  replay recorded $options --keep target/replay.jsonl || relayed || fail
  printf '%-18s %s\n' "${options:-plain}" "$(tail -n 1 target/replay.out)"
  grade "  every key" recorded
  # shellcheck disable=SC2086
  replay broken $options --keep target/replay.jsonl || relayed || fail
  grade "  cut, written" broken
done
export BURSAR_COUNTING_MODE=auto
for part in recorded broken; do
  replay "$part" --keep target/replay.jsonl || relayed || fail
  grade "counting, $part" "$part" --counted
done
python3 .ci/sessions.py "$bursar" "$cases/sessions" target/sessions.jsonl >target/replay.out 2>&1 || fail
printf '%-18s %s\n' "sessions" "$(tail -n 1 target/replay.out)"
cp target/sessions.jsonl target/replay.jsonl
grade "  every key" sessions
exit $failed
