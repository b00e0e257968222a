"""Sends requests of several kinds through the binary and asserts that its memory stays within its bound.

usage: memory.py BURSAR [--requests 20000] [--limit-mib 32] [--idle-mib 16]

Plain and streamed chats, small and large, over 64 connections, with a mock provider in this process. The bound
is of VmHWM: the most that the process ever held, start included. What it holds before the first request has a bound
of its own.
"""
import argparse, asyncio, json, pathlib, re, subprocess, sys, tempfile, time, urllib.request

CONNECTIONS = 64
SECONDS_MAX = 240
# What starting leaves behind is given back within this time.
SETTLE_SECONDS = 3

PLAIN = json.dumps({
    "id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o-mini-2024-07-18",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * 400}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150},
}).encode()
EVENT = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-4o-mini-2024-07-18"}


def event(**more):
    return b"data: " + json.dumps({**EVENT, **more}).encode() + b"\n\n"


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


STREAM = b"".join(
    chunk(event(choices=[{"index": 0, "delta": {"content": f"word {n} "}}], usage=None)) for n in range(20)
) + chunk(event(choices=[], usage={"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120})) + chunk(
    b"data: [DONE]\n\n") + b"0\r\n\r\n"
PLAIN_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(PLAIN)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


LAST_CHUNK = b"\r\n0\r\n\r\n"


async def read_body(reader, head):
    """The body behind this head; of one in chunks, with its chunk sizes."""
    length = re.search(rb"content-length: (\d+)", head, re.I)
    if length:
        return await reader.readexactly(int(length[1]))
    if b"transfer-encoding" in head.lower():
        return await reader.readuntil(LAST_CHUNK)
    return b""


async def provide(reader, writer):
    """The mock provider: one connection."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await read_body(reader, head)
            stream = b'"stream": true' in body
            writer.write(STREAM_HEAD + STREAM if stream else PLAIN_HEAD + PLAIN)
            await writer.drain()
    except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
        pass
    finally:
        writer.close()


def request(number):
    """Mostly small and plain; one in four is a stream, one in sixteen has 8 KB, one in 256 has 400 KB."""
    text = "x" * (400_000 if number % 256 == 255 else 8_000 if number % 16 == 15 else 100)
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}]}
    if number % 4 == 3:
        body["stream"] = True
    body = json.dumps(body).encode()
    head = (f"POST /openai/v1/chat/completions HTTP/1.1\r\nhost: sidecar\r\ncontent-type: application/json\r\n"
            f"x-bursar-team: team-{number % 50}\r\nx-bursar-workload: bot-{number % 7}\r\n"
            f"content-length: {len(body)}\r\n\r\n")
    return head.encode() + body, number % 4 == 3


async def ask(port, numbers):
    """One client connection; returns how many replies were right."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    right = 0
    for number in numbers:
        message, stream = request(number)
        writer.write(message)
        head = await reader.readuntil(b"\r\n\r\n")
        body = await read_body(reader, head)
        ok = head.startswith(b"HTTP/1.1 200 ")
        right += ok and (body.endswith(b"data: [DONE]\n\n" + LAST_CHUNK) if stream else body == PLAIN)
    writer.close()
    return right


def kib(pid, field):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB", status, re.M)[1])


async def drive(options, folder):
    provider = await asyncio.start_server(provide, "127.0.0.1", 0, limit=1 << 20)
    upstream = provider.sockets[0].getsockname()[1]
    config = folder / "bursar.yaml"
    config.write_text(
        f"listen: 127.0.0.1:0\nadmin: {{ listen: '127.0.0.1:0' }}\nledger: {{ path: {folder}/data }}\n"
        f"builtin_routes: false\nroutes:\n"
        f"  - {{ prefix: /openai, upstream: 'http://127.0.0.1:{upstream}', provider: openai }}\n"
        "telemetry: { log: { format: json } }\n")
    log = folder / "log"
    with log.open("w") as errors:
        sidecar = subprocess.Popen([options.bursar, "serve", "--config", config], stdin=subprocess.DEVNULL, stderr=errors)
    try:
        for _ in range(200):
            ready = re.search(r'"proxy":"127.0.0.1:(\d+)","admin":"(127.0.0.1:\d+)"', log.read_text())
            if ready or sidecar.poll() is not None:
                break
            await asyncio.sleep(0.05)
        if not ready:
            return [f"the sidecar did not start: {log.read_text()}"]
        await asyncio.sleep(SETTLE_SECONDS)
        idle, began = kib(sidecar.pid, "VmRSS"), time.monotonic()
        shares = [range(n, options.requests, CONNECTIONS) for n in range(CONNECTIONS)]
        asked = asyncio.gather(*(ask(int(ready[1]), share) for share in shares))
        right = sum(await asyncio.wait_for(asked, SECONDS_MAX))
        seconds = time.monotonic() - began
        most, now = kib(sidecar.pid, "VmHWM"), kib(sidecar.pid, "VmRSS")
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://{ready[2]}/metrics", timeout=5).read().decode())
    finally:
        sidecar.terminate()
        code = sidecar.wait(30)
    settled = sum(int(count) for count in re.findall(r"^bursar_requests_total\{.*\} (\d+)", page, re.M))
    print(f"{right} of {options.requests} replies right in {seconds:.0f} s; memory: idle {idle / 1024:.1f}, "
          f"at the end {now / 1024:.1f}, most {most / 1024:.1f} MiB (at most {options.limit_mib})")
    problems = []
    if right != options.requests or settled != options.requests:
        problems.append(f"{right} right replies and {settled} records of {options.requests} requests")
    if idle > options.idle_mib * 1024:
        problems.append(f"idle it held {idle / 1024:.1f} MiB, more than {options.idle_mib}")
    if most > options.limit_mib * 1024:
        problems.append(f"it held {most / 1024:.1f} MiB, more than {options.limit_mib}")
    if code != 0:
        problems.append(f"it ended with {code}")
    return problems


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("bursar", type=pathlib.Path)
    options.add_argument("--requests", type=int, default=20_000)
    options.add_argument("--limit-mib", type=int, default=32)
    options.add_argument("--idle-mib", type=int, default=16)
    options = options.parse_args()
    options.bursar = options.bursar.resolve()
    with tempfile.TemporaryDirectory() as folder:
        problems = asyncio.run(drive(options, pathlib.Path(folder)))
    for problem in problems:
        print(f"FAIL {problem}")
    sys.exit(1 if problems else 0)


main()
