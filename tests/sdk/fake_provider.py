"""A fake provider for the SDK test: OpenAI's, Anthropic's, Gemini's and Bedrock's HTTP APIs, on loopback,
stdlib only. Bedrock's part has a file of its own.

All content is invented. The reply depends on the path and on the model's name, which Gemini's paths hold:

    gpt-4o-mini            a normal reply, served as gpt-4o-mini-2024-07-18
    claude-haiku-4-5       a normal reply, served as claude-haiku-4-5-20251001
    fake-details           cached and reasoning tokens; served as gpt-4o-mini-2024-07-18
    fake-gemini-cached     64 cached tokens
    fake-claude-cache      cache reads and writes; served as claude-haiku-4-5-20251001
    fake-error-STATUS      401, 404, 429 (with retry-after), 500 or 529, in the provider's own shape
    fake-flaky             429, then 500, then a normal reply; counted per case
    fake-endless           a stream that goes on until the client leaves (or 30 s pass)
    fake-slow              a normal stream of about 1.5 s
    fake-late-end          a normal stream whose last chunk follows its last event by 300 ms
    fake-error-midstream   a stream that begins well and then carries an error event
    fake-cut               a stream whose connection closes half-way
    fake-stall             no reply at all until the client leaves (or 10 s pass)
    fake-no-usage          a stream without usage, whatever was asked
    fake-gzip              gzip, plain and streamed, if accept-encoding allows it
    anything else          a normal reply, served under the name that was asked for

Azure's paths, /openai/deployments/NAME/… and /openai/…, lead to OpenAI's replies: a deployment has the name
of its model, streams begin with what the prompt filter found, and errors have Azure's codes.

GET /v1/realtime?model=… with an upgrade is a realtime session: each `response.create` gives a response,
and a client's close ends it. Its log entry has `parts`, one per response.

"tools" in the body gives a tool call; "response_format" of type json_schema gives JSON; "n" gives
that many choices. Chat and legacy streams carry usage only if stream_options.include_usage is true.

Requests are told apart by the header x-test-case. Ids and token counts derive from the case (without
a trailing "/direct"), the prompt and how often both were seen, so that a reply fetched directly
(case "x/direct") and one fetched through a proxy (case "x") are equal byte by byte.

GET /__log returns every request received so far, in order: its head, its JSON body, the SHA-256 of
its bytes, and what was answered: status, request id, model served, usage in the names of a usage
record, whether the usage was sent, bytes of the reply's body and how the exchange ended (`open`,
`complete`, `cut`, `client_gone`).

The process prints "listening 127.0.0.1:PORT" and ends when its standard input does, so it never
outlives the test that started it.
"""

import argparse
import asyncio
import base64
import gzip
import hashlib
import json
import os
import re
import struct
import sys
import urllib.parse
import zlib

import fake_bedrock
import other_provider

HEAD_BYTES_MAX = 64 * 1024
BODY_BYTES_MAX = 8 * 1024 * 1024
IDLE_SECONDS = 60
CREATED = 1_760_000_000
AZURE_CALL = re.compile(r"/openai/(?:deployments/([^/]+)/)?(.+)")
GOOGLE_CALL = re.compile(r"/v1(?:beta)?/models/([^:]+):(\w+)")
WORDS = "The lantern keeper of Vell counts seventeen boats before the tide turns grey .".split()

SERVED = {
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "fake-details": "gpt-4o-mini-2024-07-18",
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
    "fake-claude-cache": "claude-haiku-4-5-20251001",
}


class ClientGone(Exception):
    """The other side closed its connection before the reply had ended."""


class Exchange:
    """One request and what is answered to it; the log shows `entry`."""

    def __init__(self, provider, reader, writer, method, target, headers, raw):
        self.reader, self.writer = reader, writer
        self.method = method
        self.path, _, self.query = target.partition("?")
        self.headers = dict(headers)
        self.body = parse_json(raw)
        if not isinstance(self.body, dict):
            self.body = {}
        self.model = str(self.body.get("model", ""))
        self.asked_stream = self.body.get("stream") is True
        self.anthropic = "anthropic-version" in self.headers
        self.google = "x-goog-api-key" in self.headers
        azure = AZURE_CALL.fullmatch(self.path)
        self.azure = azure is not None
        self.operation = f"/v1/{azure[2]}" if azure else self.path
        self.model = azure[1] if azure and azure[1] else self.model
        call = GOOGLE_CALL.fullmatch(self.path)
        self.google_method = call[2] if call else None
        self.model = call[1] if call else self.model
        self.case = self.headers.get("x-test-case", "")
        prompt = json.dumps(
            [self.path, self.model, *(self.body.get(name) for name in ("messages", "input", "prompt", "contents", "requests"))]
        )
        self.nth = provider.count(self.case, prompt)
        seed = f"{self.case.removesuffix('/direct')}|{prompt}|{self.nth}"
        self.digest = hashlib.sha256(seed.encode()).digest()
        self.served = SERVED.get(self.model, self.model)
        self.keep_alive = self.headers.get("connection", "").lower() != "close"
        self.packer = None
        self.entry = {
            "n": len(provider.log),
            "case": self.case,
            "method": method,
            "path": self.path,
            "query": self.query,
            "headers": headers,
            "body": parse_json(raw),
            "model": self.model,
            "body_sha256": hashlib.sha256(raw).hexdigest(),
            "status": None,
            "request_id": None,
            "model_served": None,
            "stream": False,
            "usage": None,
            "usage_sent": False,
            "body_bytes": 0,
            "ended": "open",
        }
        provider.log.append(self.entry)

    def token(self, prefix, length=16):
        """An id that is the same for the same case, prompt and turn."""
        return prefix + self.digest.hex()[:length]

    def counts(self):
        """(input, output) tokens of a normal reply."""
        first, second = struct.unpack(">HH", self.digest[-4:])
        return 100 + first % 1900, 10 + second % 190

    # --- writing -------------------------------------------------------------------------------

    def head(self, status, headers):
        request_id = f"req_fake_{self.entry['n']:05d}"
        if self.google:
            # Google names no request.
            request_id, own = None, [("server-timing", "gfet4t7; dur=7"), ("x-gemini-service-tier", "standard")]
        elif fake_bedrock.is_bedrock(self.path):
            own = [("x-amzn-requestid", request_id)]
        elif self.anthropic:
            own = [("request-id", request_id)]
        else:
            own = [("x-request-id", request_id), ("openai-processing-ms", "7")]
        self.entry["status"], self.entry["request_id"] = status, request_id
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Fake')}"]
        lines += [f"{name}: {value}" for name, value in headers + own]
        if not self.keep_alive:
            lines.append("connection: close")
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    async def flush(self):
        if self.reader.at_eof() or self.writer.is_closing():
            raise ClientGone
        await self.writer.drain()

    def may_gzip(self):
        return self.model == "fake-gzip" and "gzip" in self.headers.get("accept-encoding", "")

    async def json(self, status, value, headers=()):
        """A whole JSON reply."""
        if status == 200:
            self.entry["model_served"] = value.get("model") or value.get("modelVersion")
            self.entry["usage_sent"] = self.entry["usage"] is not None
        payload = json.dumps(value).encode()
        headers = [("content-type", "application/json"), *headers]
        if self.may_gzip():
            payload = gzip.compress(payload, mtime=0)
            headers.append(("content-encoding", "gzip"))
        headers.append(("content-length", str(len(payload))))
        self.head(status, headers)
        self.writer.write(payload)
        self.entry["body_bytes"] = len(payload)
        await self.flush()
        self.entry["ended"] = "complete"

    async def start_stream(self):
        headers = [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache")]
        if self.may_gzip():
            self.packer = zlib.compressobj(wbits=31)
            headers.append(("content-encoding", "gzip"))
        self.entry["stream"] = True
        self.entry["model_served"] = self.served
        self.head(200, headers + [("transfer-encoding", "chunked")])
        await self.flush()

    async def chunk(self, payload):
        if not payload:
            return
        self.entry["body_bytes"] += len(payload)
        self.writer.write(b"%x\r\n%s\r\n" % (len(payload), payload))
        await self.flush()
        await asyncio.sleep(0.05 if self.model == "fake-slow" else 0.001)

    async def event(self, data, name=None, last=False):
        """One server-sent event, one HTTP chunk."""
        text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
        payload = (f"event: {name}\n" if name else "") + f"data: {text}\n\n"
        payload = (payload.replace("\n", "\r\n") if self.google else payload).encode()
        if self.packer:
            payload = self.packer.compress(payload) + self.packer.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)
        await self.chunk(payload)

    async def last_event(self, data, name=None):
        """The event that completes the reply, and the end of the body."""
        await self.event(data, name, last=True)
        # For its reader the reply is complete here; an SDK may close without reading the last chunk.
        self.entry["ended"] = "complete"
        if self.model == "fake-late-end":
            await asyncio.sleep(0.3)
        self.writer.write(b"0\r\n\r\n")
        await self.flush()

    def cut(self):
        self.entry["ended"] = "cut"
        self.keep_alive = False

    def words(self):
        """The pieces of the reply's text."""
        if (self.body.get("response_format") or {}).get("type") == "json_schema":
            return ['{"city":', '"Vell",', '"degrees":', "17}"]
        count = 30 if self.model == "fake-slow" else len(WORDS)
        return [WORDS[i % len(WORDS)] + " " for i in range(count)]

    async def endless(self, event_of):
        """Sends `event_of(word)` until the client leaves."""
        for index in range(1500):
            await self.event(*event_of(WORDS[index % len(WORDS)] + " "))
            await asyncio.sleep(0.02)
        self.cut()


REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    429: "Too Many Requests",
    500: "Internal Server Error",
}


# === OpenAI ===


def openai_usage(x, reasoning_names=("prompt", "completion")):
    """The provider's usage object; notes the same figures in the log in a record's names."""
    first, second = reasoning_names
    tokens_in, tokens_out = x.counts()
    cached, reasoning = 0, 0
    if x.model == "fake-details":
        tokens_in, tokens_out, cached, reasoning = 1500, 90, 1024, 40
    x.entry["usage"] = {
        "input_tokens": tokens_in,
        "output_tokens": tokens_out,
        "input_cached_read": cached,
        "output_reasoning": reasoning,
    }
    return {
        f"{first}_tokens": tokens_in,
        f"{second}_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
        f"{first}_tokens_details": {"cached_tokens": cached},
        f"{second}_tokens_details": {"reasoning_tokens": reasoning},
    }


def wants_usage(x):
    asked = (x.body.get("stream_options") or {}).get("include_usage") is True
    return asked and x.model != "fake-no-usage"


def openai_tool_call(x):
    name = x.body["tools"][0]["function"]["name"]
    return {
        "id": x.token("call_"),
        "type": "function",
        "function": {"name": name, "arguments": '{"city":"Vell"}'},
    }


async def chat(x):
    if x.asked_stream:
        return await chat_stream(x)
    tools = x.body.get("tools")
    choices = []
    for index in range(int(x.body.get("n") or 1)):
        message = {"role": "assistant", "content": "".join(x.words()).strip(), "refusal": None}
        if tools:
            message.update(content=None, tool_calls=[openai_tool_call(x)])
        reason = "tool_calls" if tools else "stop"
        choices.append({"index": index, "message": message, "logprobs": None, "finish_reason": reason})
    await x.json(
        200,
        {
            "id": x.token("chatcmpl-"),
            "object": "chat.completion",
            "created": CREATED,
            "model": x.served,
            "choices": choices,
            "usage": openai_usage(x),
            "service_tier": "default",
            "system_fingerprint": "fp_fake",
        },
    )


async def chat_stream(x):
    usage, with_usage = openai_usage(x), wants_usage(x)

    def part(choices, last=None):
        value = {
            "id": x.token("chatcmpl-"),
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": x.served,
            "service_tier": "default",
            "system_fingerprint": "fp_fake",
            "choices": choices,
        }
        if with_usage:
            value["usage"] = last
        return value

    def delta(index, change, reason=None):
        return part([{"index": index, "delta": change, "logprobs": None, "finish_reason": reason}])

    await x.start_stream()
    if x.azure:
        safe = {"hate": {"filtered": False, "severity": "safe"}}
        found = [{"prompt_index": 0, "content_filter_results": safe}]
        empty = {"choices": [], "created": 0, "id": "", "model": "", "object": ""}
        await x.event(dict(empty, prompt_filter_results=found))
    choices = range(int(x.body.get("n") or 1))
    for index in choices:
        await x.event(delta(index, {"role": "assistant", "content": None if x.body.get("tools") else ""}))
    if x.model == "fake-endless":
        return await x.endless(lambda word: (delta(0, {"content": word}),))
    if x.body.get("tools"):
        call = openai_tool_call(x)
        start = dict(call, index=0, function=dict(call["function"], arguments=""))
        await x.event(delta(0, {"tool_calls": [start]}))
        for piece in ('{"ci', 'ty":', '"Vell"}'):
            await x.event(delta(0, {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}))
        await x.event(delta(0, {}, "tool_calls"))
    else:
        words = x.words()
        for at, word in enumerate(words):
            if at == len(words) // 2:
                if x.model == "fake-cut":
                    return x.cut()
                if x.model == "fake-error-midstream":
                    error = {"message": "The fake server had an error.", "type": "server_error", "param": None, "code": None}
                    return await x.last_event({"error": error})
            for index in choices:
                await x.event(delta(index, {"content": word}))
        for index in choices:
            await x.event(delta(index, {}, "stop"))
    if with_usage:
        await x.event(part([], usage))
        x.entry["usage_sent"] = True
    await x.last_event("[DONE]")


async def legacy(x):
    usage, with_usage = openai_usage(x), wants_usage(x)

    def value(text, reason, choices=True):
        choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": reason}
        return {
            "id": x.token("cmpl-"),
            "object": "text_completion",
            "created": CREATED,
            "model": x.served,
            "choices": [choice] if choices else [],
        }

    if not x.asked_stream:
        return await x.json(200, dict(value("".join(x.words()).strip(), "stop"), usage=usage))
    await x.start_stream()
    empty = {"usage": None} if with_usage else {}
    for word in x.words():
        await x.event(dict(value(word, None), **empty))
    await x.event(dict(value("", "stop"), **empty))
    if with_usage:
        await x.event(dict(value("", None, choices=False), usage=usage))
        x.entry["usage_sent"] = True
    await x.last_event("[DONE]")


async def responses(x):
    usage = openai_usage(x, ("input", "output"))
    text = "".join(x.words()).strip()
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    item = {"id": x.token("msg_"), "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    whole = {
        "id": x.token("resp_", 32),
        "object": "response",
        "created_at": CREATED,
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "model": x.served,
        "output": [item],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": usage,
        "user": None,
    }
    if not x.asked_stream:
        return await x.json(200, whole)
    await x.start_stream()
    sequence = iter(range(10_000))

    async def send(kind, **fields):
        send_event = x.last_event if kind == "response.completed" else x.event
        await send_event({"type": kind, "sequence_number": next(sequence), **fields}, kind)

    at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    early = dict(whole, status="in_progress", output=[], usage=None, service_tier="auto")
    await send("response.created", response=early)
    await send("response.in_progress", response=early)
    await send("response.output_item.added", output_index=0, item=dict(item, status="in_progress", content=[]))
    await send("response.content_part.added", **at, part=dict(part, text=""))
    for word in x.words():
        await send("response.output_text.delta", **at, delta=word, logprobs=[])
    await send("response.output_text.done", **at, text=text, logprobs=[])
    await send("response.content_part.done", **at, part=part)
    await send("response.output_item.done", output_index=0, item=item)
    x.entry["usage_sent"] = True
    await send("response.completed", response=whole)


async def embeddings(x):
    given = x.body.get("input")
    texts = given if isinstance(given, list) else [given]
    tokens_in, _ = x.counts()
    x.entry["usage"] = {"input_tokens": tokens_in}
    data = []
    for index, _ in enumerate(texts):
        vector = [0.5, -0.25, 0.125, float(index)]
        packed = base64.b64encode(struct.pack("<4f", *vector)).decode()
        value = packed if x.body.get("encoding_format") == "base64" else vector
        data.append({"object": "embedding", "index": index, "embedding": value})
    usage = {"prompt_tokens": tokens_in, "total_tokens": tokens_in}
    await x.json(200, {"object": "list", "data": data, "model": x.served, "usage": usage})


# --- realtime: WebSocket (RFC 6455) by hand, as far as one client needs it ---


async def read_frame(reader):
    """(opcode, payload) of one short, whole frame of a client."""
    first, second = await reader.readexactly(2)
    length = second & 0x7F
    if length == 126:
        length = int.from_bytes(await reader.readexactly(2), "big")
    if not second & 0x80 or not first & 0x80 or length == 127:
        raise ValueError("a frame that this provider does not read")
    mask = await reader.readexactly(4)
    payload = await reader.readexactly(length)
    return first & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def frame(opcode, payload):
    length = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2, "big")
    return bytes([0x80 | opcode]) + length + payload


async def realtime(x):
    query = urllib.parse.parse_qs(x.query)
    model = query.get("deployment" if x.azure else "model", [""])[0]
    accept = hashlib.sha1((x.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode())
    accept = base64.b64encode(accept.digest()).decode()
    x.entry["stream"], x.entry["model_served"], x.entry["parts"] = True, model, []
    x.head(101, [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", accept)])

    async def say(event):
        x.writer.write(frame(1, json.dumps(event).encode()))
        await x.flush()

    await say({"type": "session.created", "session": {"type": "realtime", "id": x.token("sess_"), "model": model}})
    while True:
        opcode, payload = await read_frame(x.reader)
        if opcode == 8:
            x.writer.write(frame(8, payload))
            await x.flush()
            x.entry["ended"], x.keep_alive = "closed", False
            return
        if opcode == 1 and json.loads(payload).get("type") == "response.create":
            await realtime_response(x, say)


async def realtime_response(x, say):
    """One response, which bills the whole conversation again."""
    parts = x.entry["parts"]
    name = x.token(f"resp_{len(parts)}_")
    response = {"object": "realtime.response", "id": name, "status": "in_progress", "output": [], "usage": None}
    await say({"type": "response.created", "response": response})
    for word in x.words():
        await say({"type": "response.output_text.delta", "response_id": name, "delta": word})
    cached, texts, sounds = 64 * len(parts), 70 + 80 * len(parts), 30
    usage = {
        "total_tokens": texts + sounds + 25,
        "input_tokens": texts + sounds,
        "output_tokens": 25,
        "input_token_details": {
            "text_tokens": texts,
            "audio_tokens": sounds,
            "cached_tokens": cached,
            "cached_tokens_details": {"text_tokens": cached, "audio_tokens": 0},
        },
        "output_token_details": {"text_tokens": 5, "audio_tokens": 20},
    }
    parts.append(
        {
            "meter_id": name,
            "usage_sent": True,
            "usage": {
                "input_tokens": texts + sounds,
                "input_cached_read": cached,
                "input_audio": sounds,
                "output_tokens": 25,
                "output_audio": 20,
            },
        }
    )
    await say({"type": "response.done", "response": response | {"status": "completed", "usage": usage}})


async def models(x):
    if x.anthropic:
        model = {"type": "model", "id": "fake-claude-1", "display_name": "Fake", "created_at": "2026-01-01T00:00:00Z"}
        await x.json(200, {"data": [model], "has_more": False, "first_id": model["id"], "last_id": model["id"]})
    else:
        model = {"id": "fake-chat-1", "object": "model", "created": CREATED, "owned_by": "nobody"}
        await x.json(200, {"object": "list", "data": [model]})


# === Anthropic ===


def anthropic_usage(x):
    """The provider's usage object; notes the same figures in the log in a record's names."""
    fresh, tokens_out = x.counts()
    read, write_5m, write_1h = (2048, 512, 256) if x.model == "fake-claude-cache" else (0, 0, 0)
    x.entry["usage"] = {
        "input_tokens": fresh + read + write_5m + write_1h,
        "output_tokens": tokens_out,
        "input_cached_read": read,
        "input_cache_write": write_5m + write_1h,
        "input_cache_write_5m": write_5m,
        "input_cache_write_1h": write_1h,
    }
    return {
        "input_tokens": fresh,
        "cache_creation_input_tokens": write_5m + write_1h,
        "cache_read_input_tokens": read,
        "cache_creation": {"ephemeral_5m_input_tokens": write_5m, "ephemeral_1h_input_tokens": write_1h},
        "output_tokens": tokens_out,
        "service_tier": "standard",
    }


async def messages(x):
    usage = anthropic_usage(x)
    tool = None
    if x.body.get("tools"):
        tool = {"type": "tool_use", "id": x.token("toolu_"), "name": x.body["tools"][0]["name"]}
    text = "".join(x.words()).strip()
    content = [dict(tool, input={"city": "Vell"})] if tool else [{"type": "text", "text": text}]
    whole = {
        "id": x.token("msg_"),
        "type": "message",
        "role": "assistant",
        "model": x.served,
        "content": content,
        "stop_reason": "tool_use" if tool else "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }
    if not x.asked_stream:
        return await x.json(200, whole)
    await x.start_stream()

    async def send(kind, **fields):
        send_event = x.last_event if kind in ("message_stop", "error") else x.event
        await send_event({"type": kind, **fields}, kind)

    def text_delta(word):
        delta = {"type": "text_delta", "text": word}
        return {"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta"

    start = dict(whole, content=[], stop_reason=None, usage=dict(usage, output_tokens=1))
    await send("message_start", message=start)
    block = dict(tool, input={}) if tool else {"type": "text", "text": ""}
    await send("content_block_start", index=0, content_block=block)
    await send("ping")
    if x.model == "fake-endless":
        return await x.endless(text_delta)
    if tool:
        for piece in ("", '{"ci', 'ty": "Vell"}'):
            await send("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": piece})
    else:
        words = x.words()
        for at, word in enumerate(words):
            if at == len(words) // 2:
                if x.model == "fake-cut":
                    return x.cut()
                if x.model == "fake-error-midstream":
                    return await send("error", error={"type": "overloaded_error", "message": "Overloaded"})
            await x.event(*text_delta(word))
    await send("content_block_stop", index=0)
    last = {name: value for name, value in usage.items() if name not in ("cache_creation", "service_tier")}
    await send("message_delta", delta={"stop_reason": whole["stop_reason"], "stop_sequence": None}, usage=last)
    x.entry["usage_sent"] = True
    await send("message_stop")


async def count_tokens(x):
    await x.json(200, {"input_tokens": x.counts()[0]})


# === Gemini ===


def gemini_usage(x):
    """The provider's usage object; notes the same figures in the log in a record's names."""
    prompt, candidates = x.counts()
    cached = 64 if x.model == "fake-gemini-cached" else 0
    thoughts = 17
    x.entry["usage"] = {"input_tokens": prompt, "output_tokens": candidates + thoughts, "output_reasoning": thoughts}
    value = {
        "promptTokenCount": prompt,
        "candidatesTokenCount": candidates,
        "totalTokenCount": prompt + candidates + thoughts,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
        "thoughtsTokenCount": thoughts,
        "serviceTier": "standard",
    }
    if cached:
        x.entry["usage"]["input_cached_read"] = cached
        value["cachedContentTokenCount"] = cached
    return value


def gemini_chunk(x, parts, usage, reason=None):
    candidate = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if reason:
        candidate["finishReason"] = reason
    return {
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": x.served,
        "responseId": x.token("fake-", 20),
    }


def gemini_parts(x):
    """The parts of a reply, one for each chunk of a stream."""
    if x.body.get("tools"):
        name = x.body["tools"][0]["functionDeclarations"][0]["name"]
        return [{"functionCall": {"name": name, "args": {"city": "Vell"}}}]
    return [{"text": word} for word in x.words()]


async def generate_content(x):
    await x.json(200, gemini_chunk(x, gemini_parts(x), gemini_usage(x), "STOP"))


async def stream_generate_content(x):
    usage = gemini_usage(x)
    # Every chunk counts, but the prompt is estimated too long at first and candidates come last.
    early = usage["promptTokenCount"] + 30
    estimate = {"promptTokenCount": early, "totalTokenCount": early, "serviceTier": "standard"}
    await x.start_stream()
    for part in gemini_parts(x):
        await x.event(gemini_chunk(x, [part], estimate))
    x.entry["usage_sent"] = True
    await x.last_event(gemini_chunk(x, [{"text": ""}], usage, "STOP"))


async def embed_contents(x):
    tokens_in, _ = x.counts()
    x.entry["usage"] = {"input_tokens": tokens_in, "output_tokens": 0}
    embeddings = [{"values": [0.5, -0.25, float(index)]} for index, _ in enumerate(x.body.get("requests") or [None])]
    await x.json(200, {"embeddings": embeddings, "usageMetadata": {"promptTokenCount": tokens_in}})


async def gemini_count_tokens(x):
    tokens = x.counts()[0]
    await x.json(200, {"totalTokens": tokens, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}]})


def interaction(x, usage):
    step = {"type": "model_output", "content": [{"type": "text", "text": "".join(x.words()).strip()}]}
    return {
        "id": x.token("v1_", 24),
        "object": "interaction",
        "model": x.served,
        "status": "completed",
        "created": "2026-01-01T00:00:00Z",
        "updated": "2026-01-01T00:00:00Z",
        "service_tier": "standard",
        "steps": [step],
        "usage": usage,
    }


async def interactions(x):
    prompt, output = x.counts()
    x.entry["usage"] = {"input_tokens": prompt, "output_tokens": output + 9, "output_reasoning": 9}
    usage = {
        "total_tokens": prompt + output + 9,
        "total_input_tokens": prompt,
        "total_output_tokens": output,
        "total_thought_tokens": 9,
        "total_cached_tokens": 0,
        "total_tool_use_tokens": 0,
    }
    whole = interaction(x, usage)
    if not x.asked_stream:
        return await x.json(200, whole)
    await x.start_stream()

    async def send(kind, **fields):
        await x.event({**fields, "event_type": kind}, kind)

    early = {name: whole[name] for name in ("id", "object", "model")}
    await send("interaction.created", interaction=dict(early, status="in_progress"))
    await send("step.start", index=0, step={"type": "model_output"})
    for word in x.words():
        await send("step.delta", index=0, delta={"type": "text", "text": word})
    await send("step.stop", index=0)
    last = {name: value for name, value in whole.items() if name != "steps"}
    await send("interaction.completed", interaction=last)
    x.entry["usage_sent"] = True
    await x.last_event("[DONE]", "done")


GOOGLE_METHODS = {
    "generateContent": generate_content,
    "streamGenerateContent": stream_generate_content,
    "batchEmbedContents": embed_contents,
    "countTokens": gemini_count_tokens,
}


# === errors ===

OPENAI_ERRORS = {
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests."),
    500: ("server_error", None, "The fake server had an error."),
    529: ("server_error", "overloaded", "The fake engine is overloaded."),
}
AZURE_ERRORS = {
    404: ("DeploymentNotFound", "The API deployment for this resource does not exist."),
    429: ("429", "Requests have exceeded the call rate limit of your pricing tier."),
}
GOOGLE_ERRORS = {
    401: ("UNAUTHENTICATED", "API key not valid."),
    404: ("NOT_FOUND", "The model is not found for API version v1beta."),
    429: ("RESOURCE_EXHAUSTED", "You exceeded your current quota."),
    500: ("INTERNAL", "An internal error has occurred."),
}
ANTHROPIC_ERRORS = {
    401: ("authentication_error", "invalid x-api-key"),
    404: ("not_found_error", "model: not found"),
    429: ("rate_limit_error", "This request would exceed a rate limit."),
    500: ("api_error", "Internal server error"),
    529: ("overloaded_error", "Overloaded"),
}


async def error(x, status, headers=()):
    """An error reply in the provider's shape."""
    headers = list(headers)
    if status == 429 and not headers:
        headers.append(("retry-after", "7"))
    if x.google:
        kind, text = GOOGLE_ERRORS.get(status, ("INVALID_ARGUMENT", "no such fake path"))
        value = {"error": {"code": status, "message": text, "status": kind}}
    elif x.azure:
        code, text = AZURE_ERRORS.get(status, ("InternalServerError", "no such fake path"))
        value = {"error": {"code": code, "message": text}}
    elif x.anthropic:
        kind, text = ANTHROPIC_ERRORS.get(status, ("invalid_request_error", "no such fake path"))
        value = {"type": "error", "error": {"type": kind, "message": text}, "request_id": None}
    else:
        kind, code, text = OPENAI_ERRORS.get(status, ("invalid_request_error", None, "no such fake path"))
        value = {"error": {"message": text, "type": kind, "param": None, "code": code}}
        if status == 429:
            headers += [("x-ratelimit-limit-requests", "60"), ("x-ratelimit-remaining-requests", "0")]
    await x.json(status, value, headers)


# === the server ===

HANDLERS = {
    ("POST", "/v1/chat/completions"): chat,
    ("POST", "/v1/completions"): legacy,
    ("POST", "/v1/responses"): responses,
    ("POST", "/v1/embeddings"): embeddings,
    ("GET", "/v1/models"): models,
    ("GET", "/v1/realtime"): realtime,
    ("POST", "/v1/messages"): messages,
    ("POST", "/v1/messages/count_tokens"): count_tokens,
    ("POST", "/v1/interactions"): interactions,
}


async def stall(x):
    for _ in range(500):
        if x.reader.at_eof():
            raise ClientGone
        await asyncio.sleep(0.02)
    x.cut()


async def answer(x):
    """Chooses the reply by route and model name first, then by path."""
    if route := x.headers.get("x-test-route"):
        return await other_provider.answer(x, route)
    if fake_bedrock.is_bedrock(x.path):
        return await fake_bedrock.answer(x)
    if x.model == "fake-stall":
        return await stall(x)
    if x.model.startswith("fake-error-") and x.model[11:].isdigit():
        return await error(x, int(x.model[11:]))
    if x.model == "fake-flaky" and x.nth < 2:
        return await error(x, (429, 500)[x.nth], [("retry-after", "1"), ("retry-after-ms", "20")])
    handler = HANDLERS.get((x.method, x.operation)) or GOOGLE_METHODS.get(x.google_method)
    return await (handler(x) if handler else error(x, 404))


def parse_json(raw):
    try:
        return json.loads(raw)
    except ValueError:
        return None


async def read_head(reader):
    """(method, target, headers) or None when the client has closed."""
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), IDLE_SECONDS)
    except (asyncio.IncompleteReadError, asyncio.TimeoutError):
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ", 2)
    headers = []
    for line in lines:
        name, _, value = line.partition(":")
        headers.append([name.strip().lower(), value.strip()])
    return method, target, headers


async def read_body(reader, headers):
    headers = dict(headers)
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            if len(body) + size > BODY_BYTES_MAX:
                raise ValueError("request body too large")
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
        return body
    length = int(headers.get("content-length", "0"))
    if length > BODY_BYTES_MAX:
        raise ValueError("request body too large")
    return await reader.readexactly(length)


class Provider:
    """The log, and one task per connection."""

    def __init__(self):
        self.log = []
        self.seen = {}

    def count(self, case, prompt):
        """How often this prompt was seen before in this case."""
        nth = self.seen.get((case, prompt), 0)
        self.seen[(case, prompt)] = nth + 1
        return nth

    async def connection(self, reader, writer):
        try:
            while await self.request(reader, writer):
                pass
        except (OSError, ValueError, EOFError, asyncio.LimitOverrunError, asyncio.TimeoutError):
            pass
        finally:
            writer.close()

    async def request(self, reader, writer):
        """Answers one request; whether another may follow on the connection."""
        head = await asyncio.wait_for(read_head(reader), IDLE_SECONDS + 1)
        if head is None:
            return False
        method, target, headers = head
        raw = await asyncio.wait_for(read_body(reader, headers), 10)
        if target == "/__log":
            payload = json.dumps(self.log).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n")
            writer.write(b"content-length: %d\r\n\r\n%s" % (len(payload), payload))
            await writer.drain()
            return False
        x = Exchange(self, reader, writer, method, target, headers, raw)
        try:
            await answer(x)
        except (ClientGone, OSError):
            if x.entry["ended"] == "open":
                x.entry["ended"] = "client_gone"
            return False
        return x.keep_alive


async def serve(port):
    server = await asyncio.start_server(Provider().connection, "127.0.0.1", port, limit=HEAD_BYTES_MAX)
    print(f"listening 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    # Reading in a thread: standard input may be a pipe, a file or a terminal.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    # Open connections are of no use to anyone now; closing them one by one would only add noise.
    os._exit(0)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="a fake LLM provider on loopback")
    arguments.add_argument("--port", type=int, default=0, help="0 picks a free one")
    asyncio.run(serve(arguments.parse_args().port))
