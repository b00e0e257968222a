"""Runs the HTTP/2 attacks of the `faults` folder that stands beside the project against the binary, and asserts
that it is still there, still answers, has not grown, and has not spent more than a part of a core on them.

usage: http2_attacks.py SHARED BURSAR [--growth-mib 16] [--cpu-percent 30]

The goal for the processor (T26) is a tenth of a core, by the time that the kernel counts for the process over that of
all attacks; a release build takes some hundredth. More than --cpu-percent fails, which leaves room for a debug build.

The attacks need the Python package `h2`; they run in a virtual environment under target/. The tool starts its
target itself as ./labproxy/target/release/labproxy on port 19200: here that is a wrapper of the binary, on a
free port.
"""
import argparse, http.server, os, pathlib, re, socket, subprocess, sys, tempfile, threading, time

PACKAGES = ["h2==4.3.0"]
SECONDS_MAX = 55
START_SECONDS = 2
CPU_GOAL_PERCENT = 10


class Upstream(http.server.BaseHTTPRequestHandler):
    """Answers everything at once."""
    protocol_version = "HTTP/1.1"

    def answer(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        body = b'{"object":"list","data":[]}'
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


def environment(root):
    venv = root / "target" / "http2-venv"
    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    if subprocess.run([python, "-c", "import h2"], capture_output=True).returncode:
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES], check=True)
    return python


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("shared", type=pathlib.Path)
    options.add_argument("bursar", type=pathlib.Path)
    options.add_argument("--growth-mib", type=int, default=16)
    options.add_argument("--cpu-percent", type=float, default=30)
    options = options.parse_args()
    python = environment(pathlib.Path(__file__).resolve().parent.parent)
    upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    upstream.daemon_threads = True
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        target = f"http://127.0.0.1:{upstream.server_port}"
        (folder / "bursar.yaml").write_text(
            f"listen: 127.0.0.1:{port}\nadmin: {{ listen: '127.0.0.1:0' }}\nledger: {{ path: {folder}/data }}\n"
            f"builtin_routes: false\nroutes:\n  - {{ prefix: /v1, upstream: '{target}/v1', provider: openai }}\n"
            f"  - {{ prefix: /x, upstream: '{target}', provider: openai }}\n")
        wrapper = folder / "labproxy/target/release/labproxy"
        wrapper.parent.mkdir(parents=True)
        wrapper.write_text(f"#!/bin/sh\nexec {options.bursar.resolve()} serve --config {folder}/bursar.yaml 2>{folder}/log\n")
        wrapper.chmod(0o755)
        attacks = (options.shared / "faults/h2atk.py").read_text().replace("19200", str(port))
        # The binary opens a ledger first.
        attacks = attacks.replace("time.sleep(.5)", f"time.sleep({START_SECONDS})")
        (folder / "attacks.py").write_text(attacks)
        began = time.monotonic()
        run = subprocess.Popen([python, "attacks.py"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, start_new_session=True)
        try:
            out, _ = run.communicate(timeout=SECONDS_MAX)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, 9)
            out = (run.communicate()[0] or "") + f"\nstill running after {SECONDS_MAX} s"
        took = time.monotonic() - began - START_SECONDS
        log = (folder / "log").read_text(errors="replace")
    print(out.strip())
    first = re.search(r"^HARD \S+ rss (\d+)", out, re.M)
    last = re.search(r"^alive (\d+) rss (\d+)", out, re.M)
    problems = []
    if not first or not last or last[1] != "200":
        problems.append("the sidecar did not answer after the attacks")
    else:
        grown = (int(last[2]) - int(first[1])) / 1024
        steps = [int(step) / 1024 for step in re.findall(r"rss\+(-?\d+)", out)]
        cpu = [float(seconds) for seconds in re.findall(r"cpu (\d+\.\d+)s", out)]
        percent = 100 * sum(cpu) / took
        print(f"grown by {grown:.1f} MiB, at most {max(steps):.1f} MiB in one attack (at most {options.growth_mib}); {sum(cpu):.2f} s of a "
              f"core in {took:.1f} s: {percent:.1f} % (goal {CPU_GOAL_PERCENT}, at most {options.cpu_percent:.0f})")
        if percent > options.cpu_percent:
            problems.append(f"it took {percent:.1f} % of a core")
        if len(cpu) != len(steps):
            problems.append(f"{len(cpu)} figures of the processor for {len(steps)} attacks")
        if max(grown, *steps) > options.growth_mib:
            problems.append(f"it grew by more than {options.growth_mib} MiB")
        if len(steps) < 7:
            problems.append(f"only {len(steps)} of 7 attacks were made")
    if "panic" in log:
        problems.append(f"something panicked: {log}")
    for problem in problems:
        print(f"FAIL {problem}")
    sys.exit(1 if problems else 0)


main()
