"""Clocks that jump, from outside: the binary runs under libfaketime, and no window of a budget turns early, late
or twice (T9).

usage: faketime.py BURSAR

A budget in days of Europe/Paris lets two requests pass. The clock goes an hour back, a day on, over the day on
which summer time ends (25 hours), over a leap day and the end of a year, and back into a day that is used up. The
monotonic clock is not touched. libfaketime is installed, or taken out of Debian's package; where it cannot be had
it says SKIPPED.
"""
import argparse, http.server, json, os, pathlib, re, shutil, subprocess, sys, tempfile, threading, time, urllib.error
import urllib.request

PLACES = ["/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"]
REPLY = json.dumps({
    "id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o-mini-2024-07-18",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500},
}).encode()
ASK = json.dumps({"model": "gpt-4o-mini", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}).encode()

# The clock in UTC, how many requests pass then, and what that shows.
STEPS = [
    ("2026-10-24 10:00:00", 2, "a day begins unused"),
    ("2026-10-24 09:00:00", 0, "an hour back turns nothing"),
    ("2026-10-24 21:59:00", 0, "the day lasts to its end in Paris"),
    ("2026-10-24 22:00:30", 2, "the next day begins then"),
    ("2026-10-25 22:30:00", 0, "it has 25 hours"),
    ("2026-10-25 23:00:30", 2, "and no more"),
    ("2026-10-25 12:00:00", 0, "back into a day that is used up"),
    ("2026-10-26 12:00:00", 0, "and on again: nothing is forgotten"),
    ("2026-10-27 12:00:00", 2, "a day on"),
    ("2028-02-28 23:30:00", 2, "a leap day begins"),
    ("2028-02-29 22:59:00", 0, "it lasts its day"),
    ("2028-02-29 23:00:30", 2, "the month ends behind it"),
    ("2028-12-31 22:59:00", 2, "the last day of a year"),
    ("2028-12-31 23:00:30", 2, "the first of the next"),
    ("2028-12-31 22:30:00", 0, "back into the old year"),
]


class Skipped(Exception):
    pass


def library(tools):
    for place in PLACES:
        if os.path.exists(place):
            return place
    home = tools / "libfaketime"
    found = list(home.glob("usr/lib/*/faketime/libfaketimeMT.so.1"))
    if not found:
        if not shutil.which("apt-get"):
            raise Skipped("libfaketime is not installed, and there is no apt-get to take it from")
        home.mkdir(parents=True, exist_ok=True)
        quietly = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
        got = subprocess.run(["apt-get", "download", "-q", "libfaketime"], cwd=home, **quietly)
        if got.returncode != 0:
            subprocess.run(["apt-get", "update", "-q"], **quietly)
            got = subprocess.run(["apt-get", "download", "-q", "libfaketime"], cwd=home, **quietly)
        archives = sorted(home.glob("*.deb"))
        if got.returncode != 0 or not archives:
            raise Skipped(f"libfaketime is not installed, and apt-get says: {got.stderr.strip()[-200:]}")
        subprocess.run(["dpkg", "-x", archives[-1], home], check=True)
        found = list(home.glob("usr/lib/*/faketime/libfaketimeMT.so.1"))
    if not found:
        raise Skipped("Debian's package of libfaketime has no libfaketimeMT.so.1")
    return str(found[0])


class Upstream(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(REPLY)))
        self.end_headers()
        self.wfile.write(REPLY)

    def log_message(self, *_):
        pass


def fetch(url, data=None):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=20) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def passes(proxy, admin):
    """How many requests pass until one is refused, each settled before the next."""
    for passed in range(5):
        status, body = fetch(f"http://{proxy}/openai/v1/chat/completions", ASK)
        if status == 429:
            return passed
        if status != 200:
            raise SystemExit(f"FAIL {status}: {body}")
        for _ in range(1_000):
            # A request holds something of the budget until it is settled.
            if float(json.loads(fetch(f"http://{admin}/api/v1/budgets")[1])["budgets"][0]["reserved"]) == 0:
                break
            time.sleep(0.01)
        else:
            raise SystemExit("FAIL a request was not settled within 10 s")
    return 5


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("bursar", type=pathlib.Path)
    options = options.parse_args()
    try:
        preload = library(pathlib.Path(__file__).resolve().parent.parent / "target" / "deploy-tools")
    except Skipped as why:
        print(f"SKIPPED: {why}")
        return
    upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    upstream.daemon_threads = True
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    problems = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "bursar.yaml").write_text(
            "listen: 127.0.0.1:0\nadmin: { listen: '127.0.0.1:0' }\nbuiltin_routes: false\nroutes:\n"
            f"  - {{ prefix: /openai, upstream: 'http://127.0.0.1:{upstream.server_port}', provider: openai }}\n"
            "budgets: [ { name: day, window: day, zone: Europe/Paris, limit: 2000 tokens } ]\n"
            "telemetry: { log: { format: json } }\n")
        clock = folder / "clock"

        def turn(to):
            # Another file in its place: a half-written one would be another time.
            (folder / "clock.new").write_text(f"{to}\n")
            (folder / "clock.new").rename(clock)

        turn(STEPS[0][0])
        env = {"LD_PRELOAD": preload, "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1", "TZ": "UTC",
               "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_RESET": "1"}
        log = folder / "log"
        with log.open("w") as errors:
            child = subprocess.Popen([options.bursar.resolve(), "serve", "--config", "bursar.yaml", "--data-dir", "data"],
                                     cwd=folder, env=env, stdin=subprocess.DEVNULL, stderr=errors)
        try:
            for _ in range(400):
                ready = re.search(r'"proxy":"([^"]+)","admin":"([^"]+)"', log.read_text())
                if ready or child.poll() is not None:
                    break
                time.sleep(0.05)
            if not ready:
                sys.exit(f"FAIL the sidecar did not start: {log.read_text()}")
            for at, expected, shows in STEPS:
                turn(at)
                found = passes(ready[1], ready[2])
                print(f"{at}: {found} pass ({shows})")
                if found != expected:
                    problems.append(f"at {at} {found} requests pass, not {expected}: {shows}")
        finally:
            child.terminate()
            code = child.wait(60)
        # Afterwards: what was refused last may be written only at the end.
        export = subprocess.run([options.bursar.resolve(), "export", "usage", "--data-dir", "data", "--format", "jsonl",
                                 "--from", "2026-01-01", "--to", "2030-01-01"],
                                cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        records = [json.loads(line) for line in export.stdout.splitlines()]
        sequences = [record["seq"] for record in records]
        outcomes = [record["outcome"] for record in records]
        if (outcomes.count("ok"), outcomes.count("refused")) != (sum(expected for _, expected, _ in STEPS), len(STEPS)):
            problems.append(f"{len(records)} records: {outcomes}")
        if sequences != sorted(set(sequences)) or len({record["id"] for record in records}) != len(records):
            problems.append("sequences or ids are not unique and rising")
        days = [record["started_at"][:10] for record in records]
        if days[0] != STEPS[0][0][:10]:
            problems.append(f"the clock was not the one that was set: {days[0]}")
        if code != 0:
            problems.append(f"it ended with {code}: {log.read_text()[-500:]}")
    for problem in problems:
        print(f"FAIL {problem}")
    sys.exit(1 if problems else 0)


main()
