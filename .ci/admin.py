#!/usr/bin/env python3
"""The admin API against its own OpenAPI document.

usage: admin.py BURSAR

Makes a ledger from the examples of the guides, starts the sidecar on it on a port of its own, and has
schemathesis (https://schemathesis.io) ask every operation of the document what the document allows and
what it does not, with every check it has: statuses, types, schemas and headers of answers, refusal of bad
data, of unsupported methods, and of requests without a token. It must find nothing.

What a schema cannot say (that a day exists, that `from` is before `to`, the rules of rows) is refused with
400 or 422, so data that fit the schemas may be answered with these.

A browser then opens the dashboard, with the token as its password: it must show the ledger's teams, and its
script and headers must agree, so that nothing is refused. Without chromium it says SKIPPED.

Needs PyPI for schemathesis (admin-requirements.txt, with hashes), into a directory that is thrown away; where it
cannot be had it says SKIPPED, and fails if BURSAR_CI_STRICT is 1. BURSAR_ADMIN_SECONDS bounds the time of the
random part (60).
"""

import json
import os
import pathlib
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
GUIDE = ROOT / "docs" / "guide"
REQUIREMENTS = ROOT / ".ci" / "admin-requirements.txt"
STRICT = os.environ.get("BURSAR_CI_STRICT") == "1"
SECONDS = os.environ.get("BURSAR_ADMIN_SECONDS", "60")

CONFIG = """
listen: 127.0.0.1:0
admin:
  listen: 127.0.0.1:0
  token_file: {token}
  metrics_public: false
  requests_per_minute: 10000000
ledger: {{ path: {data} }}
budgets:
  - {{ name: month, scope: {{ team: alpha }}, window: month, limit: 5000 USD, thresholds: [80] }}
  - {{ name: day, window: rolling 24h, limit: 200000 tokens, mode: soft }}
"""

CHECKS = """
[auth.openapi.bearer]
bearer = "{token}"
[[operations]]
include-operation-id = ["contract", "addContractEvents"]
parameters = {{ "path.id" = "commit-beta" }}
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "404", "409", "422"]
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "409", "413", "415", "422"]
[checks.missing_required_header]
expected-statuses = ["400", "401", "403", "404", "415", "422"]
"""


def run(*args, ok=True, **more):
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, stdin=subprocess.DEVNULL, **more)
    if ok and done.returncode != 0:
        sys.exit(f"{args}: {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done


def install(dir):
    run(sys.executable, "-m", "venv", dir)
    done = run(dir / "bin" / "python", "-m", "pip", "-q", "install", "--require-hashes", "--only-binary", ":all:",
               "-r", REQUIREMENTS, ok=False)
    if done.returncode != 0:
        if not STRICT and re.search(r"connection|resolve host|name resolution|timed out|no matching distribution", done.stderr, re.I):
            return None
        sys.exit(f"cannot install what {REQUIREMENTS.name} lists: {done.stderr[-2000:]}")
    return dir / "bin" / "schemathesis"


def ledger(bursar, data):
    for what, file in [
        ("usage", "hedging/usage.csv"), ("profiles", "hedging/profiles.jsonl"), ("fixings", "hedging/fixings.csv"),
        ("contracts", "hedging/contracts.json"), ("fx", "roi/fx.csv"), ("revenue", "roi/revenue.csv"),
    ]:
        run(bursar, "import", what, GUIDE / file, "--data-dir", data)


def serve(bursar, dir):
    """Starts the sidecar; returns it and where its admin API is."""
    token = dir / "token"
    token.write_text(secrets.token_hex(32))
    config = dir / "bursar.yaml"
    config.write_text(CONFIG.format(token=token, data=dir / "data"))
    sidecar = subprocess.Popen([bursar, "serve", "--config", config], cwd=dir, text=True,
                               stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    panics = []

    def drain():
        for line in sidecar.stderr:
            if "panic" in line:
                panics.append(line)

    for line in sidecar.stderr:
        if "bursar serves" in line:
            threading.Thread(target=drain, daemon=True).start()
            return sidecar, "http://" + json.loads(line)["admin"], token.read_text(), panics
    sys.exit("the sidecar does not start")


def served(url, token):
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


def dashboard(admin, token, dir):
    """The dashboard in a browser, about the month before this one and this one."""
    browser = os.environ.get("BURSAR_CHROMIUM") or shutil.which("chromium")
    if browser is None:
        print("SKIPPED: the dashboard in a browser (no chromium)")
        return
    page = admin.replace("://", f"://anybody:{token}@")
    done = run(
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={dir / 'browser'}", "--virtual-time-budget=20000", "--enable-logging=stderr", "--dump-dom",
        f"{page}/", cwd=dir, timeout=60,
    )
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    # A team of the configured budget, a state of it, and the time of the figures.
    for shown in ["team alpha", "has room", "healthy", ", as of 20"]:
        if shown not in done.stdout:
            sys.exit(f"the dashboard does not show {shown!r}\n{done.stdout[-6000:]}\n{said}")
    if said or 'class="problem"' in done.stdout.split("<noscript>")[0]:
        sys.exit(f"the dashboard has problems: {said}\n{done.stdout[-6000:]}")
    print("the dashboard shows in a browser")


def main(bursar):
    bursar = pathlib.Path(bursar).resolve()
    with tempfile.TemporaryDirectory() as dir:
        dir = pathlib.Path(dir)
        told = os.environ.get("BURSAR_SCHEMATHESIS")
        tool = pathlib.Path(told) if told else install(dir / "tool")
        if tool is None:
            print("SKIPPED: schemathesis (PyPI cannot be reached)")
            return
        ledger(bursar, dir / "data")
        checks = dir / "schemathesis.toml"
        sidecar, admin, token, panics = serve(bursar, dir)
        try:
            checks.write_text(CHECKS.format(token=token))
            document = served(f"{admin}/api/v1/openapi.json", token)
            if document != (ROOT / "docs" / "reference" / "openapi.json").read_bytes():
                sys.exit("docs/reference/openapi.json is not what the sidecar serves")
            dashboard(admin, token, dir)
            (dir / "openapi.json").write_bytes(document)
            done = run(
                tool, "--config-file", checks, "run", dir / "openapi.json", "--url", admin, "--checks", "all",
                "--max-time", SECONDS, "--max-examples", "40", "--max-response-time", "60",
                "--continue-on-failure", "--no-color", "--suppress-health-check", "all",
                "--generation-database", "none", "--request-timeout", "60", "--seed", "7",
                cwd=dir, ok=False, timeout=int(SECONDS) + 240,
            )
        finally:
            sidecar.terminate()
            ended = sidecar.wait(timeout=60)
    tested = re.search(r"Tested: (\d+)", done.stdout) or re.search(r"Operations:\s+(\d+)", done.stdout)
    summary = done.stdout[done.stdout.find("SUMMARY"):]
    if done.returncode != 0 or panics or ended != 0:
        print(done.stdout[-20000:], done.stderr[-4000:], *panics[:3], sep="\n")
        sys.exit(f"schemathesis: exit {done.returncode}; panics: {len(panics)}; the sidecar ended with {ended}")
    print("\n".join(line for line in summary.splitlines()[1:] if line.strip()))
    if tested is None:
        sys.exit("schemathesis did not say what it tested")


if __name__ == "__main__":
    main(sys.argv[1])
