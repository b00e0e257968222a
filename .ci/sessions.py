#!/usr/bin/env python3
"""Replays recorded WebSocket sessions through a running proxy binary, and writes one record for each session.

usage: sessions.py BURSAR CASES RECORDS.jsonl

An upstream on loopback answers each handshake, takes what the client sent in the recording and sends what the
provider sent. Both sides compare the frames byte for byte. A session leaves a record for each response and for each
transcription: those of the responses are compared with the case's `lines` and added up, as the corpus does.
Standard library only. Exit status 0 when every frame came through and every session left its records.
"""
import base64
import hashlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ACCEPT = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TIMEOUT_S = 20


def frame(payload, opcode=1, mask=None):
    """One message, as a server sends it, or masked as a client does."""
    head = bytes([0x80 | opcode])
    bit = 0x80 if mask else 0
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) < 1 << 16:
        head += bytes([bit | 126]) + len(payload).to_bytes(2, "big")
    else:
        head += bytes([bit | 127]) + len(payload).to_bytes(8, "big")
    if mask:
        long = (mask * (len(payload) // 4 + 1))[: len(payload)]
        payload = (int.from_bytes(payload, "big") ^ int.from_bytes(long, "big")).to_bytes(len(payload), "big")
        head += mask
    return head + payload


def read_head(stream):
    head = []
    while line := stream.readline().rstrip(b"\r\n"):
        head.append(line.decode("latin1"))
    return head[0], {k.strip().lower(): v.strip() for k, v in (line.split(":", 1) for line in head[1:])}


class Case:
    def __init__(self, folder):
        self.name = folder.name
        self.expected = json.loads((folder / "expected.json").read_text())
        self.request = json.loads((folder / "request.json").read_text())
        frames = self.request["body"]["sent_frames"]
        self.sent = b"".join(frame(json.dumps(f).encode(), mask=os.urandom(4)) for f in frames)
        self.sent += frame((1000).to_bytes(2, "big"), opcode=8, mask=os.urandom(4))
        lines = [line for line in (folder / "response.raw").read_bytes().split(b"\n") if line]
        self.received = b"".join(map(frame, lines)) + frame((1000).to_bytes(2, "big"), opcode=8)


def upstream(cases, problems):
    """Serves every session that comes; returns its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection):
        with connection, connection.makefile("rwb") as stream:
            _, headers = read_head(stream)
            case = cases[headers["x-replay-case"]]
            accept = hashlib.sha1((headers["sec-websocket-key"] + ACCEPT).encode()).digest()
            stream.write(
                b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
                b"sec-websocket-accept: " + base64.b64encode(accept) + b"\r\n\r\n"
            )
            stream.flush()
            if stream.read(len(case.sent)) != case.sent:
                problems.append(f"{case.name}: the provider got other frames than the client sent")
            stream.write(case.received)
            stream.flush()

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.settimeout(TIMEOUT_S)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def session(port, case, problems):
    """Has the session of a case."""
    key = base64.b64encode(os.urandom(16)).decode()
    path = case.request["path"]
    head = [
        f"GET /{case.expected['provider']}{path} HTTP/1.1",
        f"host: 127.0.0.1:{port}",
        "connection: Upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        f"sec-websocket-key: {key}",
        f"x-replay-case: {case.name}",
        f"x-bursar-tag-case: {case.name}",
        "x-bursar-team: replay",
    ]
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        with connection.makefile("rwb") as stream:
            stream.write("\r\n".join(head).encode() + b"\r\n\r\n")
            stream.flush()
            status, _ = read_head(stream)
            if " 101 " not in status:
                problems.append(f"{case.name}: {status}")
                return
            stream.write(case.sent)
            stream.flush()
            if stream.read(len(case.received)) != case.received:
                problems.append(f"{case.name}: the client got other frames than the provider sent")


def whole(case, records, problems):
    """The records of a session as one, and what is wrong with them."""
    lines = [
        (line["normalized"].get("input_tokens"), line["normalized"].get("output_tokens"))
        for line in case.expected["lines"]
    ]
    responses, others = [], []
    for record in records:
        usage = record.get("usage") or {}
        figures = (usage.get("input_tokens"), usage.get("output_tokens"))
        wanted = lines[len(responses)] if len(responses) < len(lines) else None
        (responses if figures == wanted else others).append(record)
    heard = (case.expected.get("server_tool_items") or {}).get("input_transcriptions", 0)
    if len(responses) != len(lines) or len(others) != heard:
        problems.append(
            f"{case.name}: {len(responses)} of {len(lines)} responses and {len(others)} of {heard} transcriptions"
        )
        return None
    total = {}
    for record in responses:
        for key, figure in (record.get("usage") or {}).items():
            total[key] = total.get(key, 0) + float(figure)
    return {**responses[-1], "usage": total, "tags": {"case": case.name}}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as held:
        return held.getsockname()[1]


def main():
    bursar, folder, out = sys.argv[1:4]
    cases = {c.name: c for c in map(Case, sorted(pathlib.Path(folder).iterdir()))}
    problems = []
    provider_port = upstream(cases, problems)
    data_port, admin_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="sessions-") as tmp:
        routes = [
            {"prefix": f"/{name}", "upstream": f"http://127.0.0.1:{provider_port}", "provider": name}
            for name in sorted({case.expected["provider"] for case in cases.values()})
        ]
        config = {
            "listen": f"127.0.0.1:{data_port}",
            "admin": {"listen": f"127.0.0.1:{admin_port}"},
            "ledger": {"path": f"{tmp}/data"},
            "routes": routes,
        }
        pathlib.Path(tmp, "bursar.yaml").write_text(json.dumps(config))  # JSON is YAML
        log = open(f"{tmp}/log", "w")
        process = subprocess.Popen(
            [bursar, "serve", "--config", f"{tmp}/bursar.yaml"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            for _ in range(200):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/readyz", timeout=1)
                    break
                except OSError:
                    time.sleep(0.1)
            for case in cases.values():
                session(data_port, case, problems)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(TIMEOUT_S)
        export = [bursar, "export", "usage", "--format", "jsonl", "--data-dir", f"{tmp}/data"]
        lines = subprocess.run(export, capture_output=True, text=True, check=True).stdout.splitlines()
    records = {}
    for record in map(json.loads, lines):
        records.setdefault(record["tags"]["case"], []).append(record)
    found = [whole(case, records.get(case.name, []), problems) for case in cases.values()]
    pathlib.Path(out).write_text("".join(json.dumps(record) + "\n" for record in found if record))
    print("\n".join(problems))
    print(f"{len(cases)} sessions, {len(lines)} records, {len(problems)} problems")
    sys.exit(1 if problems or not cases else 0)


if __name__ == "__main__":
    main()
