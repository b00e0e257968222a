"""Crowds of connections against the binary: many open streams, or many clients that never ask.

usage: crowd.py BURSAR streams [--count 300] [--kib 48] [--cgroup-mib N] [--connections-max N] [--minutes 0] [--ttfb-ms 1000]
       crowd.py BURSAR silent  [--count 300] [--half 200] [--mib 160] [--more-ms 250]

streams (T20, T7)  So many event streams at once, a tenth of which nobody reads. Each may cost so many KiB; the
                   streams end when they are told to, and every one has its record. With --cgroup-mib the process
                   runs in a memory cgroup of that size (version 1 or 2) for so many minutes: it must not be killed
                   for want of memory. What bounds its memory is server.limits.connections_max: whoever comes
                   beyond that is refused.
silent (T19)       So many connections that say nothing and so many that send half a head: all are closed within
                   ten seconds, they cost at most so many MiB, and a client that asks meanwhile is served.

Times have a goal, which is printed, and a bound, which fails: some ten times the goal and more, since a busy machine
must not fail, and what became slow by an order of magnitude must. To hold the goals, on a machine that does nothing
else: --ttfb-ms 50, --more-ms 5.

The provider, and all clients, are in this process. Where a cgroup cannot be made it says SKIPPED.
"""
import argparse, asyncio, json, os, pathlib, re, resource, socket, statistics, subprocess, sys, tempfile, time
import urllib.request

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CLOSED_SECONDS = 10
# Goals (T20, T19): time to the first event beside streams; what a p99 may be beside silent connections.
FIRST_GOAL_MS, TIMES_GOAL, MORE_GOAL_MS = 50, 2, 5
MEMORY = pathlib.Path("/sys/fs/cgroup/memory")
UNIFIED = pathlib.Path("/sys/fs/cgroup")


def chunk(event):
    data = b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def delta(text):
    return chunk({"id": "c", "model": "gpt-4o-mini", "choices": [{"index": 0, "delta": {"content": text}}]})


FIRST, MORE = delta("Hel"), delta("x" * 700)
END = chunk({"id": "c", "model": "gpt-4o-mini", "choices": [],
             "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}) + chunk(b"[DONE]") + b"0\r\n\r\n"
BODY = json.dumps({"model": "gpt-4o-mini", "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()
ASK = (b"POST /openai/v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
       b"content-length: %d\r\n\r\n%s" % (len(BODY), BODY))


class Provider:
    """Streams an event a second until all streams are told to end."""

    def __init__(self):
        self.ends, self.asked = asyncio.Event(), 0

    async def serve(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(re.search(rb"content-length: (\d+)", head, re.I)[1]))
                self.asked += 1
                writer.write(HEAD + FIRST)
                while not self.ends.is_set():
                    try:
                        await asyncio.wait_for(self.ends.wait(), 1)
                    except asyncio.TimeoutError:
                        writer.write(MORE)
                        await writer.drain()
                writer.write(END)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()


class Skipped(Exception):
    pass


class Cgroup:
    """A memory cgroup for one process, of either version."""

    def __init__(self, mib):
        self.version = 1 if (MEMORY / "memory.limit_in_bytes").exists() else 2
        parent = MEMORY if self.version == 1 else UNIFIED
        if self.version == 2 and "memory" not in (parent / "cgroup.controllers").read_text().split():
            raise Skipped("there is no memory controller")
        self.path = parent / f"bursar-crowd-{os.getpid()}"
        try:
            if self.version == 2:
                (parent / "cgroup.subtree_control").write_text("+memory")
            self.path.mkdir()
            limit = "memory.limit_in_bytes" if self.version == 1 else "memory.max"
            (self.path / limit).write_text(str(mib << 20))
        except OSError as error:
            self.remove()
            raise Skipped(f"no memory cgroup can be made here: {error}") from None

    def kills(self):
        events = self.path / ("memory.oom_control" if self.version == 1 else "memory.events")
        return int(re.search(r"^oom_kill (\d+)", events.read_text(), re.M)[1])

    def most_kib(self):
        most = self.path / ("memory.max_usage_in_bytes" if self.version == 1 else "memory.peak")
        return int(most.read_text()) // 1024 if most.exists() else 0

    def remove(self):
        if self.path.exists():
            self.path.rmdir()


class Sidecar:
    """The binary, perhaps in a cgroup."""

    def __init__(self, options, folder, upstream, cgroup, settings=""):
        config = folder / "bursar.yaml"
        config.write_text(
            f"listen: 127.0.0.1:0\nadmin: {{ listen: '127.0.0.1:0' }}\nledger: {{ path: {folder}/data }}\n{settings}"
            f"builtin_routes: false\nroutes:\n"
            f"  - {{ prefix: /openai, upstream: 'http://127.0.0.1:{upstream}', provider: openai }}\n"
            "telemetry: { log: { format: json, level: 'info,bursar::request=off' } }\n")
        self.log = folder / "log"
        enter = f"echo $$ > {cgroup.path}/cgroup.procs && " if cgroup else ""
        with self.log.open("w") as errors:
            self.child = subprocess.Popen(["/bin/sh", "-c", f'{enter}exec "$0" serve --config "$1"', options.bursar, config],
                                          stdin=subprocess.DEVNULL, stderr=errors)
        for _ in range(200):
            ready = re.search(r'"proxy":"127.0.0.1:(\d+)","admin":"(127.0.0.1:\d+)"', self.log.read_text())
            if ready or self.child.poll() is not None:
                break
            time.sleep(0.05)
        if not ready:
            raise SystemExit(f"FAIL the sidecar did not start: {self.log.read_text()}")
        self.port, self.admin, self.pid = int(ready[1]), ready[2], self.child.pid

    def kib(self, field="VmRSS"):
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+) kB", status, re.M)[1])

    def metrics(self):
        return urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=10).read().decode()

    def end(self):
        self.child.terminate()
        return self.child.wait(60)


async def open_stream(port, read):
    """A stream whose first event has come, or None when it was refused."""
    sock = socket.socket()
    sock.setblocking(False)
    if not read:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    try:
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
        began = time.monotonic()
        writer.write(ASK)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            writer.close()
            return None
        await reader.readuntil(b"Hel")
        return reader, writer, time.monotonic() - began
    except (asyncio.IncompleteReadError, ConnectionError):
        sock.close()
        return None


async def read_on(reader):
    last = b""
    while piece := await reader.read(4096):
        last = (last + piece)[-16:]
        if last.endswith(b"0\r\n\r\n"):
            return True
    return False


async def streams(options, folder):
    provider = Provider()
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0, backlog=4096)
    cgroup = Cgroup(options.cgroup_mib) if options.cgroup_mib else None
    problems = []
    try:
        settings = f"server: {{ limits: {{ connections_max: {options.connections_max} }} }}\n" if options.connections_max else ""
        sidecar = Sidecar(options, folder, server.sockets[0].getsockname()[1], cgroup, settings)
        idle = sidecar.kib()
        opened, refused, base = [], 0, None
        for start in range(0, options.count, 100):
            numbers = range(start, min(start + 100, options.count))
            for stream in await asyncio.gather(*(open_stream(sidecar.port, number % 10 != 0) for number in numbers)):
                refused += stream is None
                opened += [stream] if stream else []
            # What the first of them cost once is not what each costs.
            base = base or (sidecar.kib(), len(opened))
        readers = [asyncio.create_task(read_on(stream[0])) for at, stream in enumerate(opened) if at % 10]
        ends = time.monotonic() + max(3, options.minutes * 60)
        most = 0
        while time.monotonic() < ends and sidecar.child.poll() is None:
            most = max(most, sidecar.kib())
            await asyncio.sleep(0.5)
        probes = [stream[2] for stream in (await asyncio.gather(*(open_stream(sidecar.port, True) for _ in range(20)))) if stream]
        kills = cgroup.kills() if cgroup else 0
        alive = sidecar.child.poll() is None
        page = await asyncio.to_thread(sidecar.metrics) if alive else ""
        provider.ends.set()
        whole = sum(await asyncio.wait_for(asyncio.gather(*readers), 120))
        for stream in opened:
            stream[1].close()
        code = sidecar.end()
        each = (most - base[0]) / max(1, len(opened) - base[1])
        first = statistics.quantiles(probes, n=100)[-1] * 1000 if len(probes) > 1 else 0
        print(f"{len(opened)} streams open, {refused} refused; memory: idle {idle / 1024:.1f}, most {most / 1024:.1f} MiB, "
              f"{each:.1f} KiB per stream (at most {options.kib}); time to the first event beside them: p99 {first:.0f} ms (goal {FIRST_GOAL_MS}, at most {options.ttfb_ms:.0f})"
              + (f"; cgroup of {options.cgroup_mib} MiB: at most {cgroup.most_kib() / 1024:.0f} MiB, {kills} killed" if cgroup else ""))
        if not alive or kills:
            problems.append(f"the process was killed ({kills} by the cgroup)")
        if code != 0:
            problems.append(f"it ended with {code}: {sidecar.log.read_text()[-500:]}")
        if not options.connections_max and refused:
            problems.append(f"{refused} streams were refused")
        # In a cgroup of little memory, and where there are no places left, time is not what is measured.
        if not (options.cgroup_mib or options.connections_max):
            middle = statistics.median(probes) * 1000 if probes else float("inf")
            if len(probes) < 20 or first > options.ttfb_ms or middle > 10 * FIRST_GOAL_MS:
                problems.append(f"{len(probes)} of 20 streams began beside them: median {middle:.0f} ms, p99 {first:.0f} ms")
        if each > options.kib:
            problems.append(f"a stream costs {each:.1f} KiB")
        if options.connections_max and len(opened) + 100 < min(options.count, options.connections_max):
            problems.append(f"only {len(opened)} streams were let in")
        if whole != len(readers):
            problems.append(f"{whole} of {len(readers)} streams that were read came whole")
        if not re.search(r"^bursar_requests_in_flight \d+", page, re.M):
            problems.append("metrics were not served meanwhile")
        export = subprocess.run([options.bursar, "export", "usage", "--format", "jsonl", "--data-dir", folder / "data"],
                                capture_output=True, text=True, stdin=subprocess.DEVNULL)
        records = len(export.stdout.splitlines())
        if records != provider.asked:
            problems.append(f"{records} records of {provider.asked} requests that the provider had")
    finally:
        if cgroup:
            for _ in range(50):
                try:
                    cgroup.remove()
                    break
                except OSError:
                    await asyncio.sleep(0.1)
    return problems


class Open:
    """How many of them are open, and were at most."""

    def __init__(self, expected):
        self.now, self.most, self.expected, self.all = 0, 0, expected, asyncio.Event()

    def opened(self):
        self.now, self.expected = self.now + 1, self.expected - 1
        self.most = max(self.most, self.now)
        if self.expected == 0:
            self.all.set()


async def closes(port, text, crowd):
    """After how long the sidecar closes a connection on which only `text` is sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
    began = time.monotonic()
    crowd.opened()
    writer.write(text)
    try:
        while await reader.read(4096):
            pass
    except ConnectionError:
        pass
    took = time.monotonic() - began
    crowd.now -= 1
    writer.close()
    return took


async def ask_once(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.monotonic()
    writer.write(b"GET /nowhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    reply = await reader.read()
    writer.close()
    return reply.startswith(b"HTTP/1.1 404 "), (time.monotonic() - began) * 1000


async def silent(options, folder):
    connections = options.count + options.half + 100
    sidecar = Sidecar(options, folder, 1, None, f"server: {{ limits: {{ connections_max: {connections} }} }}\n")
    idle = sidecar.kib()
    alone = [await ask_once(sidecar.port) for _ in range(100)]
    texts = [b""] * options.count + [b"POST /openai/v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-half: "] * options.half
    crowd = Open(len(texts))
    waiting = [asyncio.create_task(closes(sidecar.port, text, crowd)) for text in texts]
    # All have been opened before anybody else asks.
    await asyncio.wait_for(crowd.all.wait(), 60)
    beside, most = [], 0
    for _ in range(100):
        beside.append(await ask_once(sidecar.port))
        most = max(most, sidecar.kib())
    times = await asyncio.gather(*waiting)
    code = sidecar.end()
    p99 = [statistics.quantiles([took for _, took in asked], n=100)[-1] for asked in (alone, beside)]
    medians = [statistics.median(took for _, took in asked) for asked in (alone, beside)]
    goal = max(TIMES_GOAL * p99[0], p99[0] + MORE_GOAL_MS)
    most_ms = max(TIMES_GOAL * p99[0], p99[0] + options.more_ms)
    # A busy machine moves the slowest, and hardly the middle.
    median_most = max(10 * TIMES_GOAL * medians[0], medians[0] + 10 * MORE_GOAL_MS)
    print(f"{options.count} silent and {options.half} half heads, {crowd.most} at once: closed after {max(times):.1f} s at most; memory: idle {idle / 1024:.1f}, "
          f"most {most / 1024:.1f} MiB; a client's p99 alone {p99[0]:.1f}, beside them {p99[1]:.1f} ms "
          f"(goal {goal:.1f}, at most {most_ms:.1f}), medians {medians[0]:.1f} and {medians[1]:.1f} ms (at most {median_most:.1f})")
    problems = []
    if max(times) > CLOSED_SECONDS:
        problems.append(f"one was closed only after {max(times):.1f} s")
    if most - idle > options.mib * 1024:
        problems.append(f"they took {(most - idle) / 1024:.1f} MiB")
    if p99[1] > most_ms or medians[1] > median_most:
        problems.append(f"a client's p99 was {p99[1]:.1f} ms beside them, its median {medians[1]:.1f} ms")
    if not all(right for right, _ in alone + beside):
        problems.append("a client that asked was not served")
    if code != 0:
        problems.append(f"it ended with {code}: {sidecar.log.read_text()[-500:]}")
    return problems


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("bursar", type=pathlib.Path)
    options.add_argument("crowd", choices=["streams", "silent"])
    options.add_argument("--count", type=int, default=300)
    options.add_argument("--half", type=int, default=200)
    options.add_argument("--kib", type=int, default=48)
    options.add_argument("--mib", type=int, default=160)
    options.add_argument("--ttfb-ms", type=float, default=1000)
    options.add_argument("--more-ms", type=float, default=250)
    options.add_argument("--cgroup-mib", type=int)
    options.add_argument("--connections-max", type=int)
    options.add_argument("--minutes", type=float, default=0)
    options = options.parse_args()
    options.bursar = options.bursar.resolve()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Each process has its own: here the provider's and the clients' ends, there those towards both.
    needed = (2 * options.count if options.crowd == "streams" else options.count + options.half) + 500
    if hard != resource.RLIM_INFINITY and hard < needed:
        sys.exit(f"SKIPPED: {needed} open files are needed and {hard} are allowed (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    with tempfile.TemporaryDirectory() as folder:
        try:
            problems = asyncio.run((streams if options.crowd == "streams" else silent)(options, pathlib.Path(folder)))
        except Skipped as why:
            print(f"SKIPPED: {why}")
            return
    for problem in problems:
        print(f"FAIL {problem}")
    sys.exit(1 if problems else 0)


main()
