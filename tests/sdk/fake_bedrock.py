"""Bedrock's runtime API for the fake provider: JSON replies and binary event streams, stdlib only.

All content is invented. The reply depends on the operation and on the model in the path:

    fake.tide-1            a normal reply of Converse or InvokeModel (the latter in Claude's shape)
    fake.cache-1           the same with cache reads and writes
    fake.error-STATUS      400, 403, 429 or 500, in AWS's own shape
    fake.throttled-1       a stream that begins well and then carries an exception
    fake.cut-1             a stream whose connection closes half-way
"""

import base64
import json
import struct
import urllib.parse
import zlib

EVENT_STREAM = "application/vnd.amazon.eventstream"
ERRORS = {
    400: ("ValidationException", "The provided model identifier is invalid."),
    403: ("AccessDeniedException", "You don't have access to the model with the specified model ID."),
    429: ("ThrottlingException", "Too many requests, please wait before trying again."),
    500: ("InternalServerException", "The fake server had an error."),
}


def is_bedrock(path):
    return path.startswith("/model/")


def message(headers, payload):
    """One message of an event stream."""
    lines = b""
    for name, value in headers.items():
        name, value = name.encode(), value.encode()
        lines += bytes([len(name)]) + name + b"\x07" + struct.pack(">H", len(value)) + value
    prelude = struct.pack(">II", len(lines) + len(payload) + 16, len(lines))
    prelude += struct.pack(">I", zlib.crc32(prelude))
    return prelude + lines + payload + struct.pack(">I", zlib.crc32(prelude + lines + payload))


def event(name, value):
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return message(headers, json.dumps(dict(value, p="abcdefghijk")).encode())


def exception(name, text):
    headers = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return message(headers, json.dumps({"message": text}).encode())


def chunk(value):
    """A model's own event as InvokeModelWithResponseStream sends it."""
    return event("chunk", {"bytes": base64.b64encode(json.dumps(value).encode()).decode()})


def counts(x):
    """Fresh input, reads, writes and output; notes the same figures in the log in a record's names."""
    fresh, output = x.counts()
    read, write_5m, write_1h = (2048, 512, 256) if x.model == "fake.cache-1" else (0, 0, 0)
    x.entry["usage"] = {
        "input_tokens": fresh + read + write_5m + write_1h,
        "output_tokens": output,
        "input_cached_read": read,
        "input_cache_write": write_5m + write_1h,
    }
    if write_5m:
        x.entry["usage"].update(input_cache_write_5m=write_5m, input_cache_write_1h=write_1h)
    return fresh, read, write_5m, write_1h, output


def converse_usage(x):
    fresh, read, write_5m, write_1h, output = counts(x)
    write = write_5m + write_1h
    usage = {"inputTokens": fresh, "outputTokens": output, "totalTokens": fresh + read + write + output}
    # The API sends each cache number under two names.
    usage.update(cacheReadInputTokens=read, cacheReadInputTokenCount=read)
    usage.update(cacheWriteInputTokens=write, cacheWriteInputTokenCount=write)
    if write:
        usage["cacheDetails"] = [{"ttl": "5m", "inputTokens": write_5m}, {"ttl": "1h", "inputTokens": write_1h}]
    return usage


async def converse(x):
    usage = converse_usage(x)
    text = "".join(x.words()).strip()
    await x.json(
        200,
        {
            "metrics": {"latencyMs": 7},
            "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
            "stopReason": "end_turn",
            "usage": usage,
        },
    )


async def start(x):
    x.entry["stream"] = True
    x.head(200, [("content-type", EVENT_STREAM), ("transfer-encoding", "chunked")])
    await x.flush()


async def finish(x, last):
    """The last message, and the end of the body."""
    await x.chunk(last)
    x.entry["ended"] = "complete"
    x.writer.write(b"0\r\n\r\n")
    await x.flush()


async def converse_stream(x):
    usage = converse_usage(x)
    await start(x)
    await x.chunk(event("messageStart", {"role": "assistant"}))
    words = x.words()
    for at, word in enumerate(words):
        if at == len(words) // 2:
            if x.model == "fake.cut-1":
                return x.cut()
            if x.model == "fake.throttled-1":
                return await finish(x, exception("throttlingException", ERRORS[429][1]))
        await x.chunk(event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word}}))
    await x.chunk(event("contentBlockStop", {"contentBlockIndex": 0}))
    await x.chunk(event("messageStop", {"stopReason": "end_turn"}))
    x.entry["usage_sent"] = True
    await finish(x, event("metadata", {"metrics": {"latencyMs": 7}, "usage": usage}))


def claude(x):
    """Claude's reply, and Bedrock's own counts of it as the headers name them."""
    fresh, read, write_5m, write_1h, output = counts(x)
    x.served = "fake-claude-1"
    usage = {
        "input_tokens": fresh,
        "cache_creation_input_tokens": write_5m + write_1h,
        "cache_read_input_tokens": read,
        "output_tokens": output,
    }
    if write_5m:
        usage["cache_creation"] = {"ephemeral_5m_input_tokens": write_5m, "ephemeral_1h_input_tokens": write_1h}
    whole = {
        "id": x.token("msg_bdrk_"),
        "type": "message",
        "role": "assistant",
        "model": x.served,
        "content": [{"type": "text", "text": "".join(x.words()).strip()}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }
    measured = {"input": fresh, "output": output, "cache-read-input": read, "cache-write-input": write_5m + write_1h}
    return whole, measured


async def invoke(x):
    whole, measured = claude(x)
    await x.json(200, whole, [(f"x-amzn-bedrock-{name}-token-count", str(n)) for name, n in measured.items()])


async def invoke_stream(x):
    whole, measured = claude(x)
    x.entry["model_served"] = x.served
    usage = whole["usage"]
    await start(x)
    begun = dict(whole, content=[], stop_reason=None, usage=dict(usage, output_tokens=1))
    await x.chunk(chunk({"type": "message_start", "message": begun}))
    await x.chunk(chunk({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}))
    for word in x.words():
        delta = {"type": "text_delta", "text": word}
        await x.chunk(chunk({"type": "content_block_delta", "index": 0, "delta": delta}))
    await x.chunk(chunk({"type": "content_block_stop", "index": 0}))
    last = {"stop_reason": "end_turn", "stop_sequence": None}
    await x.chunk(chunk({"type": "message_delta", "delta": last, "usage": {"output_tokens": usage["output_tokens"]}}))
    metrics = {
        "inputTokenCount": measured["input"],
        "outputTokenCount": measured["output"],
        "invocationLatency": 7,
        "firstByteLatency": 3,
        "cacheReadInputTokenCount": measured["cache-read-input"],
        "cacheWriteInputTokenCount": measured["cache-write-input"],
    }
    x.entry["usage_sent"] = True
    await finish(x, chunk({"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics}))


async def count_tokens(x):
    await x.json(200, {"inputTokens": x.counts()[0]})


OPERATIONS = {
    "converse": converse,
    "converse-stream": converse_stream,
    "invoke": invoke,
    "invoke-with-response-stream": invoke_stream,
    "count-tokens": count_tokens,
}


async def answer(x):
    """Chooses the reply by model first, then by operation."""
    _, _, rest = x.path.partition("/model/")
    model, _, operation = rest.rpartition("/")
    x.model = x.served = urllib.parse.unquote(model)
    x.entry["model"] = x.model
    if x.model.startswith("fake.error-"):
        status = int(x.model.removeprefix("fake.error-"))
        kind, text = ERRORS[status]
        return await x.json(status, {"message": text}, [("x-amzn-errortype", f"{kind}:http://internal.fake/")])
    await OPERATIONS[operation](x)
