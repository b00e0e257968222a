"""How long the binary takes from its start to the first request that it has served, on a ledger that is there.

usage: start.py BURSAR [--ledger DIR] [--runs 11] [--limit-ms N] [--nginx]

Measures from just before the process is started to the end of the first reply with status 200 through the proxy,
trying to connect all the time; the median, the least and the most of so many runs, each after an end by SIGTERM and
each after an end by SIGKILL just after a request. Without --ledger the ledger is empty. The ledger of a million
records:

  cargo run --release -p bursar-ledger --example month -- 1000000 0 /tmp/million
  python3 .ci/start.py target/release/bursar --ledger /tmp/million --nginx

With --nginx the same is measured of nginx in front of the same provider. With --limit-ms it fails above that.
"""
import argparse, pathlib, re, shutil, socket, statistics, subprocess, sys, tempfile, threading, time

REPLY = b'{"id":"c","object":"chat.completion","model":"gpt-4o-mini","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}'
BODY = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}'
ASK = (b"POST /openai/v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
       b"content-length: %d\r\n\r\n%s" % (len(BODY), BODY))
SECONDS_MAX = 60


def provide(listener):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def answer(connection):
    with connection, connection.makefile("rb") as reader:
        while True:
            length = 0
            line = reader.readline()
            if not line:
                return
            while line not in (b"\r\n", b""):
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
                line = reader.readline()
            reader.read(length)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(REPLY), REPLY))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def first_reply(port, child):
    """Waits for the first 200."""
    ends = time.monotonic() + SECONDS_MAX
    while time.monotonic() < ends and child.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=SECONDS_MAX) as client:
                client.sendall(ASK)
                reply = b""
                while piece := client.recv(65536):
                    reply += piece
                if reply.startswith(b"HTTP/1.1 200 ") and reply.endswith(REPLY):
                    return
                sys.exit(f"FAIL {reply[:300]}")
        except (ConnectionError, TimeoutError):
            time.sleep(0.0002)
    sys.exit("FAIL it never served")


def measure(runs, command, port, cwd, kill=False):
    times = []
    for _ in range(runs):
        began = time.monotonic()
        child = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={})
        try:
            first_reply(port, child)
            times.append((time.monotonic() - began) * 1000)
        finally:
            child.kill() if kill else child.terminate()
            if child.wait(60) != 0 and not kill:
                sys.exit(f"FAIL it ended with {child.returncode}")
    return times


def tell(name, times):
    print(f"{name}: median {statistics.median(times):.1f} ms, {min(times):.1f} to {max(times):.1f}, {len(times)} runs")
    return statistics.median(times)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("bursar", type=pathlib.Path)
    options.add_argument("--ledger", type=pathlib.Path)
    options.add_argument("--runs", type=int, default=11)
    options.add_argument("--limit-ms", type=float)
    options.add_argument("--nginx", action="store_true")
    options = options.parse_args()
    listener = socket.create_server(("127.0.0.1", 0))
    upstream = listener.getsockname()[1]
    threading.Thread(target=provide, args=(listener,), daemon=True).start()
    problems = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        data = options.ledger.resolve() if options.ledger else folder / "data"
        port = free_port()
        (folder / "bursar.yaml").write_text(
            f"listen: 127.0.0.1:{port}\nadmin: {{ listen: '127.0.0.1:{free_port()}' }}\nledger: {{ path: {data} }}\n"
            f"builtin_routes: false\nroutes:\n  - {{ prefix: /openai, upstream: 'http://127.0.0.1:{upstream}', provider: openai }}\n")
        command = [options.bursar.resolve(), "serve", "--config", "bursar.yaml"]
        # The first start reads the disk, and may have an older store to build anew.
        measure(1, command, port, folder)
        about = f"bursar on {options.ledger or 'an empty ledger'}"
        medians = [tell(f"{about}, closed before", measure(options.runs, command, port, folder))]
        measure(1, command, port, folder, kill=True)
        medians.append(tell(f"{about}, killed before", measure(options.runs, command, port, folder, kill=True)))
        measure(1, command, port, folder)
        if options.limit_ms and max(medians) > options.limit_ms:
            problems.append(f"a median is above {options.limit_ms} ms")
        if options.nginx:
            if nginx := shutil.which("nginx"):
                port = free_port()
                (folder / "nginx.conf").write_text(
                    f"daemon off; pid {folder}/nginx.pid; error_log /dev/null; worker_processes 1;\nevents {{}}\n"
                    f"http {{ access_log off; proxy_temp_path {folder}; client_body_temp_path {folder};\n"
                    f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{upstream}; }} }} }}\n")
                tell("nginx", measure(options.runs, [nginx, "-p", folder, "-c", folder / "nginx.conf"], port, folder))
            else:
                print("SKIPPED: nginx is not installed")
    for problem in problems:
        print(f"FAIL {problem}")
    sys.exit(1 if problems else 0)


main()
