#!/usr/bin/env bash
# Replays the recorded exchanges through the real binary, plain, compressed, byte by byte and in pieces
# of 17 bytes; and checks the bodies and the records.
# usage: replay.sh SHARED BURSAR
set -euo pipefail
shared=$(cd "$1" && pwd)
bursar=$2
mkdir -p target
cases=$(mktemp -d)
trap 'rm -rf "$cases"' EXIT
python3 - "$shared/cases/wire/recorded" "$cases" <<'PY'
import json, pathlib, sys
recorded, chosen = map(pathlib.Path, sys.argv[1:])
# Writer repeats each piece of a tool call, and the corpus counts 28 pieces of what are seven calls.
WRONG_IN_CORPUS = {"writer-chat-v1-stream-tools-04607"}


def choose(case):
    """Links the case; a path with placeholders that no client could send is sent with their escapes."""
    request = json.loads((case / "request.json").read_text())
    escaped = request["path"].replace("<", "%3C").replace(">", "%3E")
    if escaped == request["path"]:
        (chosen / case.name).symlink_to(case)
        return
    copy = chosen / case.name
    copy.mkdir()
    for file in case.iterdir():
        if file.name != "request.json":
            (copy / file.name).symlink_to(file)
    (copy / "request.json").write_text(json.dumps(dict(request, path=escaped)))


count = 0
for case in sorted(recorded.iterdir()):
    expected = json.loads((case / "expected.json").read_text())
    # WebSocket sessions are checked by the project's own tests.
    if expected["api"] != "realtime" and case.name not in WRONG_IN_CORPUS:
        choose(case)
        count += 1
print(f"{count} recorded exchanges chosen")
sys.exit(0 if count >= 300 else 1)
PY
# The corpus knows what providers said and takes any other figure for wrong. What is counted where they say
# nothing has tests of its own (`tests/counting.rs`, the crate `tokens`).
export BURSAR_COUNTING_MODE=off
failed=0
for options in "" "--gzip" "--split 1" "--split 17"; do
  # shellcheck disable=SC2086  # the options are words
  if ! python3 "$shared/cases/wire/replay.py" --bursar "$bursar" --cases "$cases" $options >target/replay.out 2>&1; then
    failed=1
    cat target/replay.out
  fi
  printf '%-10s %s\n' "${options:-plain}" "$(tail -n 1 target/replay.out)"
done
exit $failed
