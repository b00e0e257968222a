#!/bin/sh
# The official Python SDKs through the bursar binary: sets up their virtual environment and runs the
# test. Fails, and never passes vacuously, when python3, pip, the SDKs or the binary are missing.
#
#   tests/sdk/run.sh [path of bursar, default target/release/bursar] [--only NAME] [--keep]
#   tests/sdk/run.sh --direct        without bursar: checks the scenarios and the fake provider
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
venv="$root/target/sdk-venv"
requirements="$here/requirements.txt"

fail() {
    echo "FAIL $1" >&2
    echo "0 passed, 1 failed"
    exit 1
}

bursar="$root/target/release/bursar"
case "${1:-}" in
    --direct) bursar="" ;;
    --bursar) bursar=${2:?"--bursar needs a path"}; shift 2 ;;
    --* | "") ;;
    *) bursar=$1; shift ;;
esac
if [ -n "$bursar" ] && [ ! -x "$bursar" ]; then
    fail "no bursar binary at $bursar: build it with \`cargo build --release\` or name it as the first argument"
fi

command -v python3 >/dev/null 2>&1 || fail "python3 is missing: install Python 3.10 or later"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "python3 is older than 3.10"

# The environment is made anew only when the requirements or the interpreter change.
stamp="$(python3 -c 'import sys; print(sys.version)') $(cksum <"$requirements")"
if [ ! -x "$venv/bin/python" ] || [ "$(cat "$venv/.stamp" 2>/dev/null)" != "$stamp" ]; then
    rm -rf "$venv"
    mkdir -p "$root/target"
    python3 -m venv "$venv" || fail "python3 cannot make a virtual environment: install its venv and pip packages (python3-venv on Debian)"
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || fail "pip is missing in the virtual environment: install python3-pip or python3-venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --timeout 30 --retries 2 -r "$requirements" ||
        fail "pip could not install the SDKs of $requirements"
    printf '%s' "$stamp" >"$venv/.stamp"
fi

if [ -n "$bursar" ]; then
    exec "$venv/bin/python" "$here/sdk_test.py" --bursar "$bursar" "$@"
fi
exec "$venv/bin/python" "$here/sdk_test.py" "$@"
