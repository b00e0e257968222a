#!/usr/bin/env python3
"""Which functions run when the sidecar starts and serves: the order in which a release is linked.

usage: link_order.py BURSAR MAP > proxy/link/first.ld

A page of the program that is never touched takes no memory, but the kernel maps sixteen at once, so a few functions
here and there bring in nearly all of it. Linked side by side, what a start needs is 3 MiB instead of 10. The file
names functions without the hashes that compilers put into them, so it stays of use when these change; a name that
nothing has any more does no harm. Make it anew when a start has come to touch much else:

  cargo rustc --release --locked -p bursar --bin bursar -- -C link-arg=-Wl,-Map=/tmp/bursar.map
  python3 .ci/link_order.py target/release/bursar /tmp/bursar.map > proxy/link/first.ld

Needs valgrind and Linux on x86-64. MAP is that of the same binary, as LLD writes it.
"""
import bisect, collections, http.client, json, pathlib, re, signal, socket, subprocess, sys, tempfile, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Names of which less runs than this share of their bytes stay where they are, as their other instances would come
# along; unless these are small.
SHARE_LEAST = 0.1
SMALL_BYTES = 16_000
READY_SECONDS = 120
ROUNDS = 30
# Where valgrind puts a program; it knows functions of `.text` as the program's, by their place in the file, and those
# that an order put before it as nobody's, by their place in memory.
BASE = 0x108000

USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
PLAIN = {"id": "c", "object": "chat.completion", "model": "gpt-4o-mini", "choices": [], "usage": USAGE}
CHUNK = {"id": "c", "object": "chat.completion.chunk", "model": "gpt-4o-mini",
         "choices": [{"index": 0, "delta": {"content": "word "}}]}
HEAD = "/* What a start of the sidecar runs, then what serving runs, side by side. Made by .ci/link_order.py. */"


class Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        events = [CHUNK] * 20 + [{**CHUNK, "choices": [], "usage": USAGE}]
        stream = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
        body = (stream if asked.get("stream") else json.dumps(PLAIN)).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if asked.get("stream") else "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def trace(binary, provider, serve):
    """The addresses in the program that a run from start to end executes."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        proxy, admin, out = free_port(), free_port(), folder / "trace"
        config = {"listen": f"127.0.0.1:{proxy}", "admin": {"listen": f"127.0.0.1:{admin}"},
                  "ledger": {"path": str(folder / "ledger")}, "server": {"workers": 1},
                  "routes": [{"prefix": "/v1", "upstream": f"http://127.0.0.1:{provider}/v1", "dialect": "openai"}]}
        (folder / "bursar.yaml").write_text(json.dumps(config))
        options = ["--tool=callgrind", "--dump-instr=yes", "--compress-pos=no", "--compress-strings=no"]
        child = subprocess.Popen(["valgrind", *options, f"--callgrind-out-file={out}", binary, "serve", "--config",
                                  str(folder / "bursar.yaml")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until = time.monotonic() + READY_SECONDS
            while ask(admin, "GET", "/readyz") != 200:
                if child.poll() is not None or time.monotonic() > until:
                    sys.exit("the sidecar did not get ready under valgrind")
                time.sleep(0.2)
            time.sleep(3)
            for number in range(ROUNDS if serve else 0):
                body = json.dumps({"model": "gpt-4o-mini", "stream": number % 2 == 0,
                                   "messages": [{"role": "user", "content": "hello"}]})
                if ask(proxy, "POST", "/v1/chat/completions", body) != 200:
                    sys.exit("the sidecar did not serve under valgrind")
            if serve:
                ask(admin, "GET", "/metrics")
        finally:
            child.send_signal(signal.SIGINT)
            child.wait()
        return executed(out, binary)


def ask(port, method, path, body=None):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request(method, path, body, {"content-type": "application/json", "x-bursar-team": "search"})
        reply = connection.getresponse()
        reply.read()
        return reply.status
    except OSError:
        return None


def executed(path, binary):
    found, offset = set(), None
    offsets = {str(pathlib.Path(binary).resolve()): 0, "???": BASE}
    with open(path) as lines:
        for line in lines:
            if line.startswith("ob="):
                offset = offsets.get(line[3:].strip())
            elif offset is not None and line.startswith("0x"):
                found.add(int(line.split(maxsplit=1)[0], 16) - offset)
    return found


def functions(path):
    """Start, size and section of every function in the map, by start."""
    found, section = [], None
    for line in open(path, errors="replace"):
        row = re.match(r"\s*([0-9a-f]+)\s+[0-9a-f]+\s+([0-9a-f]+)\s+\d+\s(\s*)(.*)$", line)
        if not row:
            continue
        if not row[3]:
            section = row[4]
        elif len(row[3]) == 8 and section.startswith(".text"):
            found.append((int(row[1], 16), int(row[2], 16), row[4].rsplit(":(", 1)[-1].rstrip(")")))
    return sorted(found)


def pattern(section):
    """The section's name without what differs between compilers."""
    section = re.sub(r"17h[0-9a-f]{16}E", "17h*E", section)
    section = re.sub(r"Cs[0-9A-Za-z]+_", "Cs*_", section)
    return re.sub(r"\.llvm\.\d+", ".llvm.*", section)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    binary, all_functions = sys.argv[1], functions(sys.argv[2])
    starts = [start for start, _, _ in all_functions]
    sizes = collections.Counter()
    for _, size, section in all_functions:
        sizes[pattern(section)] += size
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(HEAD)
    print("SECTIONS {\n  .text.first : {")
    said = {".text"}
    for serve in (False, True):
        runs = {}
        for address in sorted(trace(binary, server.server_port, serve)):
            start, size, section = all_functions[bisect.bisect_right(starts, address) - 1]
            if start <= address < start + size:
                runs[start] = (pattern(section), size)
        ran = collections.Counter()
        for name, size in runs.values():
            ran[name] += size
        wanted = [name for name in ran if name not in said
                  and (ran[name] >= SHARE_LEAST * sizes[name] or sizes[name] <= SMALL_BYTES)]
        for name in sorted(wanted):
            print(f"    *({name})")
        said.update(wanted)
        print(f"{'serve' if serve else 'start'}: {len(wanted)} names, {sum(sizes[name] for name in wanted)} bytes",
              file=sys.stderr)
    print("  }\n}\nINSERT BEFORE .text;")


main()
