#!/usr/bin/env bash
# Replays exchanges through the real binary and checks bodies and records: the recorded ones plain,
# compressed, byte by byte and in pieces of 17 bytes; then those that were cut and those written from
# documentation; then all of them with counting, which is the default.
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
# Writer repeats each piece of a tool call, and the corpus counts 28 pieces of what are seven calls.
WRONG_IN_CORPUS = {"writer-chat-v1-stream-tools-04607"}


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
for source in ("recorded", "cut", "authored"):
    part = "recorded" if source == "recorded" else "broken"
    (chosen / part).mkdir(exist_ok=True)
    for case in sorted((wire / source).iterdir()):
        if not (case / "expected.json").exists():
            continue
        expected = json.loads((case / "expected.json").read_text())
        # WebSocket sessions are checked by the project's own tests.
        if expected["api"] != "realtime" and case.name not in WRONG_IN_CORPUS:
            choose(case, part, expected)
            counts[part] = counts.get(part, 0) + 1
print(f"exchanges chosen: {counts}")
sys.exit(0 if counts["recorded"] >= 300 and counts["broken"] >= 60 else 1)
PY

failed=0
replay() { # PART OPTIONS…
  local part=$1
  shift
  python3 "$wire/replay.py" --bursar "$bursar" --cases "$cases/$part" "$@" >target/replay.out 2>&1
}
# What replay.py says besides its own grades, which know neither cut exchanges nor counts of ours.
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
  replay recorded $options || fail
  printf '%-18s %s\n' "${options:-plain}" "$(tail -n 1 target/replay.out)"
  # shellcheck disable=SC2086
  replay broken $options --keep target/replay.jsonl || relayed || fail
  grade "  cut, written" broken
done
export BURSAR_COUNTING_MODE=auto
for part in recorded broken; do
  replay "$part" --keep target/replay.jsonl || relayed || fail
  grade "counting, $part" "$part" --counted
done
exit $failed
