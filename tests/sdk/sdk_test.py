"""The official Python SDKs, unchanged, through the bursar binary to a fake provider.

    sdk_test.py --bursar target/release/bursar     the test
    sdk_test.py --direct                           the SDKs straight at the fake provider: checks the
                                                   scenarios themselves; no record is checked

Every scenario names itself in a tag and in a header that bursar passes on. After bursar has stopped,
its exported usage records are laid beside the provider's own log, one by one, by the request id that
the provider sent. What a record must say comes from that log, not from bursar.

Prints one line per check and ends with "N passed, M failed"; exit code 1 on any failure or when
nothing was checked. Everything has a timeout; only processes started here are ended, by their id.
"""

import argparse
import asyncio
import contextlib
import gzip
import hashlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import unittest.mock
from collections import defaultdict
from decimal import Decimal

# The SDKs read base URLs, keys, proxies and logging from the environment; the test must not.
for variable in list(os.environ):
    if variable.upper().startswith(
        ("OPENAI_", "ANTHROPIC_", "GOOGLE_", "GEMINI_", "CO_", "COHERE_", "MISTRAL_", "OTEL_", "BURSAR_")
    ) or variable.upper().endswith("_PROXY"):
        del os.environ[variable]

import anthropic  # noqa: E402
import azure_scenarios  # noqa: E402
import bedrock_scenarios  # noqa: E402
import openai  # noqa: E402
import other_scenarios  # noqa: E402
import pydantic  # noqa: E402
from google import genai  # noqa: E402
from google.genai import errors as genai_errors  # noqa: E402
from google.genai import types as genai_types  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
TOTAL_SECONDS = 240
SCENARIO_SECONDS = 30
SDK_SECONDS = 10
START_SECONDS = 20
STOP_SECONDS = 20

# Marked values: they must reach the provider and must not stay anywhere else.
OPENAI_KEY = "sk-canary-openai-4f1d"
ANTHROPIC_KEY = "sk-ant-canary-9b27"
GEMINI_KEY = "AIza-canary-gemini-77c0"
PROMPT = "canaryprompt: how many boats does the keeper count?"
ANSWER_CANARY = "lantern keeper"

# USD per million tokens: (input, cache read, cache write 5 min, cache write 1 h, output).
PRICES = {
    "gpt-4o-mini-2024-07-18": ("0.15", "0.075", "0", "0", "0.60"),
    "claude-haiku-4-5-20251001": ("1", "0.10", "1.25", "2", "5"),
    "text-embedding-3-small": ("0.02", "0", "0", "0", "0"),
}

TEAMS = ("checkout", "search")
WORKLOADS = ("support-bot", "ranker", "nightly")

CHAT_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
MESSAGE_TOOL = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
GEMINI_TOOL = {
    "function_declarations": [
        {
            "name": "weather",
            "description": "Tells the weather.",
            "parameters_json_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
        }
    ]
}
TALK = [{"role": "user", "content": PROMPT}]


class Failed(Exception):
    """A check did not hold."""


class OutOfTime(BaseException):
    """A scenario or the whole test took too long. Not an Exception, so that no SDK catches it."""


def check(holds, *what):
    if not holds:
        raise Failed(" ".join(str(part) for part in what))


def equal(got, wanted, what):
    check(got == wanted, f"{what}: got {got!r}, wanted {wanted!r}")


# === processes ===


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def end(process):
    """Ends a process that was started here, if it still runs."""
    if process and process.poll() is None:
        process.kill()
        process.wait(5)


class FakeProvider:
    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "fake_provider.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        line = self.process.stdout.readline()
        check(line.startswith("listening 127.0.0.1:"), "the fake provider did not start:", line)
        self.port = int(line.rsplit(":", 1)[1])

    def whole_log(self):
        status, _, body = fetch(self.port, "GET", "/__log")
        equal(status, 200, "status of the provider's log")
        return json.loads(body)

    def log(self):
        """Every request that came through, without those that were sent directly to compare."""
        return [entry for entry in self.whole_log() if not entry["case"].endswith("/direct")]

    def stop(self):
        end(self.process)


class Bursar:
    """`bursar serve` with a generated configuration in a throwaway directory."""

    def __init__(self, binary, upstream_port, folder):
        self.binary, self.folder = binary, folder
        self.asked_to_stop = False
        self.data = folder / "data"
        self.port, self.admin_port = free_port(), free_port()
        config = folder / "bursar.yaml"
        upstream = f"http://127.0.0.1:{upstream_port}"
        config.write_text(
            f"listen: 127.0.0.1:{self.port}\n"
            f"admin: {{ listen: 127.0.0.1:{self.admin_port} }}\n"
            f"ledger: {{ path: {json.dumps(str(self.data))}, durability: group }}\n"
            "routes:\n"
            f"  - {{ prefix: /openai, upstream: {upstream}, dialect: openai }}\n"
            f"  - {{ prefix: /anthropic, upstream: {upstream}, dialect: anthropic }}\n"
            f"  - {{ prefix: /gemini, upstream: {upstream}, dialect: gemini }}\n"
            f"  - {{ prefix: /azure, upstream: {upstream}, provider: azure }}\n"
            f"  - {{ prefix: /bedrock, upstream: {upstream}, provider: bedrock }}\n"
            + "".join(
                f"  - {{ prefix: /{name}, upstream: {upstream}, provider: {name} }}\n" for name in other_scenarios.ROUTES
            )
        )
        self.output_path = folder / "bursar.log"
        with open(self.output_path, "wb") as output:
            self.process = subprocess.Popen(
                [str(binary), "serve", "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )

    def output(self):
        return self.output_path.read_text(errors="replace")

    def wait_ready(self):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            code = self.process.poll()
            check(code is None, f"bursar ended with exit code {code} before it was ready")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if fetch(self.admin_port, "GET", "/readyz", seconds=2)[0] == 200:
                    return
            time.sleep(0.05)
        raise Failed(f"/readyz was not 200 within {START_SECONDS} s")

    def terminate(self):
        """Asks bursar to stop, once: a second SIGTERM means hurry."""
        if not self.asked_to_stop and self.process.poll() is None:
            self.asked_to_stop = True
            self.process.send_signal(signal.SIGTERM)

    def wait_stopped(self):
        self.terminate()
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise Failed(f"bursar still ran {STOP_SECONDS} s after SIGTERM") from None
        equal(code, 0, "exit code after SIGTERM")

    def ask(self, *arguments):
        """The output of a reading command on the stopped ledger."""
        command = [str(self.binary), *arguments, "--data-dir", str(self.data)]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, cwd=self.folder
        )
        shown = " ".join(arguments)
        check(done.returncode == 0, f"`bursar {shown}` exit code {done.returncode}: {done.stderr.strip()[-500:]}")
        return done.stdout

    def stop(self):
        end(self.process)


def fetch(port, method, path, headers=(), body=None, seconds=SDK_SECONDS):
    """(status, headers, body bytes as sent) of one plain HTTP request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        return response.status, [(n.lower(), v) for n, v in response.getheaders()], response.read()
    finally:
        connection.close()


# === scenarios ===


class Case:
    """One scenario: its identity, its clients, and what its records must say."""

    def __init__(self, world, name, number):
        self.world, self.name = world, name
        self.team = TEAMS[number % len(TEAMS)]
        self.workload = WORKLOADS[number % len(WORKLOADS)]
        self.tags = {"case": name}
        self.customer = self.session = self.trace_id = None
        self.identified = True
        # What the records must say; in the order in which the requests reached the provider.
        self.outcomes = None
        self.requests = 1
        self.bursar_ids = []

    def headers(self):
        """The headers a team would configure once, as `default_headers`."""
        headers = {"x-test-case": self.name}
        if self.identified:
            headers["x-bursar-team"] = self.team
            headers["x-bursar-workload"] = self.workload
            headers.update({f"x-bursar-tag-{name}": value for name, value in self.tags.items()})
        else:
            self.team = self.workload = None
            self.tags = {}
        return headers

    def _options(self, key, retries):
        return {"api_key": key, "max_retries": retries, "timeout": SDK_SECONDS, "default_headers": self.headers()}

    def openai(self, retries=0):
        return openai.OpenAI(base_url=self.world.openai_url, **self._options(OPENAI_KEY, retries))

    def async_openai(self, retries=0):
        return openai.AsyncOpenAI(base_url=self.world.openai_url, **self._options(OPENAI_KEY, retries))

    def anthropic(self, retries=0):
        return anthropic.Anthropic(base_url=self.world.anthropic_url, **self._options(ANTHROPIC_KEY, retries))

    def async_anthropic(self, retries=0):
        return anthropic.AsyncAnthropic(base_url=self.world.anthropic_url, **self._options(ANTHROPIC_KEY, retries))

    def gemini(self):
        options = {"headers": self.headers(), "timeout": SDK_SECONDS * 1000, "base_url": self.world.gemini_url}
        # This SDK's clients close when they are collected, even in the middle of a call.
        self.client = genai.Client(api_key=GEMINI_KEY, http_options=genai_types.HttpOptions(**options))
        return self.client

    def entries(self):
        return [entry for entry in self.world.provider.log() if entry["case"] == self.name]

    def last_usage(self):
        return self.entries()[-1]["usage"]

    def see(self, headers):
        """Notes the id that bursar gave to a reply; its record must have the same."""
        if not self.world.direct:
            value = headers.get("x-bursar-request-id")
            check(value, "the reply has no x-bursar-request-id")
            self.bursar_ids.append(value)

    def wait_ended(self, count=1):
        """Waits until the provider sees the end of this case's exchanges, which the client cut."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            entries = self.entries()
            if len(entries) >= count and all(entry["ended"] != "open" for entry in entries):
                return entries
            time.sleep(0.05)
        raise Failed("the exchange was still open at the provider 10 s after the client had left")


SCENARIOS = []


def scenario(function):
    SCENARIOS.append(function)
    return function


class World:
    """Where the SDKs connect to, and all cases so far."""

    def __init__(self, provider, bursar):
        self.provider, self.bursar = provider, bursar
        self.direct = bursar is None
        port = provider.port if self.direct else bursar.port
        self.port = port
        self.openai_prefix = "" if self.direct else "/openai"
        self.anthropic_prefix = "" if self.direct else "/anthropic"
        self.bedrock_prefix = "" if self.direct else "/bedrock"
        self.openai_url = f"http://127.0.0.1:{port}{self.openai_prefix}/v1"
        self.anthropic_url = f"http://127.0.0.1:{port}{self.anthropic_prefix}"
        self.gemini_prefix = "" if self.direct else "/gemini"
        self.gemini_url = f"http://127.0.0.1:{port}{self.gemini_prefix}"
        self.cases = []

    def case(self, name):
        case = Case(self, name, len(self.cases))
        self.cases.append(case)
        return case


def check_chat_usage(case, usage):
    logged = case.last_usage()
    equal(usage.prompt_tokens, logged["input_tokens"], "prompt tokens seen by the SDK")
    equal(usage.completion_tokens, logged["output_tokens"], "completion tokens seen by the SDK")


def check_message_usage(case, usage):
    logged = case.last_usage()
    writes = usage.cache_creation_input_tokens or 0
    total = usage.input_tokens + (usage.cache_read_input_tokens or 0) + writes
    equal(total, logged["input_tokens"], "input tokens seen by the SDK")
    equal(usage.output_tokens, logged["output_tokens"], "output tokens seen by the SDK")


def check_content_usage(case, usage):
    logged = case.last_usage()
    equal(usage.prompt_token_count, logged["input_tokens"], "input tokens seen by the SDK")
    output = usage.candidates_token_count + usage.thoughts_token_count
    equal(output, logged["output_tokens"], "output tokens seen by the SDK")


def check_injection(case, expected):
    """Whether the provider was asked for usage, compared with whether the SDK asked."""
    if not case.world.direct:
        options = case.entries()[-1]["body"].get("stream_options") or {}
        equal(options.get("include_usage"), expected, "include_usage as the provider got it")


def check_text(text):
    check(text.startswith("The lantern keeper of Vell") and text.rstrip().endswith("."), "text is not whole:", text)


def check_unasked_chunks(chunks):
    check(all(chunk.choices for chunk in chunks), "the SDK saw a chunk with empty choices")
    check(all(getattr(chunk, "usage", None) is None for chunk in chunks), "the SDK saw usage it did not ask for")


# --- OpenAI: chat ---


@scenario
def openai_chat_plain(case):
    raw = case.openai().chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=TALK)
    case.see(raw.headers)
    reply = raw.parse()
    check_text(reply.choices[0].message.content)
    equal(reply.model, "gpt-4o-mini-2024-07-18", "model")
    check_chat_usage(case, reply.usage)


@scenario
async def openai_chat_plain_async(case):
    async with case.async_openai() as client:
        reply = await client.chat.completions.create(model="gpt-4o-mini", messages=TALK)
    check_text(reply.choices[0].message.content)
    check_chat_usage(case, reply.usage)


@scenario
def openai_example_of_the_tagging_guide(case):
    """The guide's Python as it stands; only address, key and the header of this test are put in."""
    case.team, case.workload, case.customer, case.tags = "checkout", "support-bot", "acme", {"feature": "summary"}
    page = (HERE.parent.parent / "docs" / "guide" / "tagging.md").read_text()
    example = page.split("```python\n")[1].split("```")[0]
    check("http://127.0.0.1:4141/openai/v1" in example, "the guide's example has another address")
    plain = openai.OpenAI

    def client(default_headers, **options):
        headers = {**default_headers, "x-test-case": case.name}
        return plain(api_key=OPENAI_KEY, max_retries=0, timeout=SDK_SECONDS, default_headers=headers, **options)

    with unittest.mock.patch.object(openai, "OpenAI", client):
        exec(example.replace("http://127.0.0.1:4141/openai/v1", case.world.openai_url), {})


@scenario
def openai_chat_stream_without_asking_for_usage(case):
    chunks = list(case.openai().chat.completions.create(model="gpt-4o-mini", messages=TALK, stream=True))
    check_unasked_chunks(chunks)
    check_text("".join(chunk.choices[0].delta.content or "" for chunk in chunks))
    check_injection(case, True)


@scenario
async def openai_chat_stream_without_asking_for_usage_async(case):
    async with case.async_openai() as client:
        stream = await client.chat.completions.create(model="gpt-4o-mini", messages=TALK, stream=True)
        chunks = [chunk async for chunk in stream]
    check_unasked_chunks(chunks)
    check_text("".join(chunk.choices[0].delta.content or "" for chunk in chunks))
    check_injection(case, True)


@scenario
def openai_chat_stream_with_usage_declined(case):
    """The client said include_usage: false; it must not see usage, whatever bursar asks for."""
    stream = case.openai().chat.completions.create(
        model="gpt-4o-mini", messages=TALK, stream=True, stream_options={"include_usage": False}
    )
    check_unasked_chunks(list(stream))


@scenario
def openai_chat_stream_with_usage(case):
    stream = case.openai().chat.completions.create(
        model="gpt-4o-mini", messages=TALK, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    equal(sum(not chunk.choices for chunk in chunks), 1, "chunks with empty choices")
    equal(sum(chunk.usage is not None for chunk in chunks), 1, "chunks with usage")
    check_chat_usage(case, chunks[-1].usage)
    check_injection(case, True)


@scenario
async def openai_chat_stream_with_usage_async(case):
    async with case.async_openai() as client:
        stream = await client.chat.completions.create(
            model="gpt-4o-mini", messages=TALK, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    equal(sum(not chunk.choices for chunk in chunks), 1, "chunks with empty choices")
    check_chat_usage(case, chunks[-1].usage)


@scenario
def openai_chat_stream_closed_at_done(case):
    """The sync SDK closes the connection at [DONE], before the last HTTP chunk: that is no abort."""
    chunks = list(case.openai().chat.completions.create(model="fake-late-end", messages=TALK, stream=True))
    check_unasked_chunks(chunks)


@scenario
def openai_chat_stream_helper(case):
    with case.openai().chat.completions.stream(model="gpt-4o-mini", messages=TALK) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    check("content.delta" in kinds and "content.done" in kinds, "events:", kinds)
    check_text(final.choices[0].message.content)


@scenario
def openai_chat_unknown_model(case):
    reply = case.openai().chat.completions.create(model="fake-chat-1", messages=TALK)
    check_chat_usage(case, reply.usage)


@scenario
def openai_chat_cached_and_reasoning(case):
    reply = case.openai().chat.completions.create(model="fake-details", messages=TALK)
    equal(reply.usage.prompt_tokens_details.cached_tokens, 1024, "cached tokens")
    equal(reply.usage.completion_tokens_details.reasoning_tokens, 40, "reasoning tokens")


@scenario
def openai_chat_tool_call(case):
    reply = case.openai().chat.completions.create(model="gpt-4o-mini", messages=TALK, tools=[CHAT_TOOL])
    call = reply.choices[0].message.tool_calls[0]
    equal((call.function.name, json.loads(call.function.arguments)), ("weather", {"city": "Vell"}), "tool call")


@scenario
def openai_chat_tool_call_stream(case):
    stream = case.openai().chat.completions.create(
        model="gpt-4o-mini", messages=TALK, tools=[CHAT_TOOL], stream=True
    )
    name, arguments = "", ""
    for chunk in stream:
        for call in chunk.choices[0].delta.tool_calls or []:
            name += call.function.name or ""
            arguments += call.function.arguments or ""
    equal((name, json.loads(arguments)), ("weather", {"city": "Vell"}), "tool call")


@scenario
def openai_chat_three_choices(case):
    reply = case.openai().chat.completions.create(model="gpt-4o-mini", messages=TALK, n=3)
    equal([choice.index for choice in reply.choices], [0, 1, 2], "choices")
    check_chat_usage(case, reply.usage)


@scenario
def openai_chat_three_choices_stream(case):
    texts = defaultdict(str)
    for chunk in case.openai().chat.completions.create(model="gpt-4o-mini", messages=TALK, n=3, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    equal(sorted(texts), [0, 1, 2], "choices")
    for text in texts.values():
        check_text(text)


@scenario
def openai_chat_structured(case):
    class Weather(pydantic.BaseModel):
        city: str
        degrees: int

    reply = case.openai().chat.completions.parse(model="gpt-4o-mini", messages=TALK, response_format=Weather)
    equal(reply.choices[0].message.parsed, Weather(city="Vell", degrees=17), "parsed reply")


@scenario
def openai_chat_gzip(case):
    raw = case.openai().chat.completions.with_raw_response.create(model="fake-gzip", messages=TALK)
    equal(raw.headers.get("content-encoding"), "gzip", "content-encoding")
    check_chat_usage(case, raw.parse().usage)


@scenario
def openai_chat_gzip_stream_with_usage(case):
    stream = case.openai().chat.completions.create(
        model="fake-gzip", messages=TALK, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    check_text("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))
    check_chat_usage(case, chunks[-1].usage)


@scenario
def openai_chat_gzip_stream_without_asking_for_usage(case):
    chunks = list(case.openai().chat.completions.create(model="fake-gzip", messages=TALK, stream=True))
    check_unasked_chunks(chunks)
    check_text("".join(chunk.choices[0].delta.content or "" for chunk in chunks))


@scenario
def openai_chat_stream_whose_provider_sends_no_usage(case):
    """Nobody sends usage: the record must hold a count of bursar's own, marked as such."""
    chunks = list(case.openai().chat.completions.create(model="fake-no-usage", messages=TALK, stream=True))
    check_unasked_chunks(chunks)


@scenario
async def openai_chat_forty_at_once(case):
    case.requests = 40
    async with case.async_openai() as client:

        async def one(number):
            talk = [{"role": "user", "content": f"{PROMPT} {number}"}]
            if number % 2:
                return [await client.chat.completions.create(model="gpt-4o-mini", messages=talk)]
            stream = await client.chat.completions.create(model="gpt-4o-mini", messages=talk, stream=True)
            return [chunk async for chunk in stream]

        replies = await asyncio.gather(*(one(number) for number in range(case.requests)))
    check(all(part.choices for reply in replies for part in reply), "the SDK saw a chunk with empty choices")


# --- OpenAI: other APIs ---


@scenario
def openai_responses_plain(case):
    raw = case.openai().responses.with_raw_response.create(model="gpt-4o-mini", input=PROMPT)
    case.see(raw.headers)
    reply = raw.parse()
    check_text(reply.output_text)
    equal(reply.usage.input_tokens, case.last_usage()["input_tokens"], "input tokens seen by the SDK")


@scenario
def openai_responses_stream(case):
    text, final = "", None
    for event in case.openai().responses.create(model="gpt-4o-mini", input=PROMPT, stream=True):
        if event.type == "response.output_text.delta":
            text += event.delta
        if event.type == "response.completed":
            final = event.response
    check_text(text)
    check(final is not None, "no response.completed")
    equal(final.usage.output_tokens, case.last_usage()["output_tokens"], "output tokens seen by the SDK")


@scenario
async def openai_responses_stream_helper_async(case):
    async with case.async_openai() as client:
        async with client.responses.stream(model="gpt-4o-mini", input=PROMPT) as stream:
            async for _ in stream:
                pass
            final = await stream.get_final_response()
    check_text(final.output_text)


def check_realtime(case, events, connection):
    done = [event for event in events if event.type == "response.done"]
    equal([event.response.usage.input_tokens for event in done], [100, 180], "input tokens seen by the SDK")
    case.see(connection._connection.response.headers)
    # A session that the client did not name is named by its handshake.
    case.session = case.bursar_ids[0] if case.bursar_ids else None
    case.requests = 2


@scenario
def openai_realtime(case):
    events = []
    with case.openai().realtime.connect(model="fake-realtime", extra_headers=case.headers()) as connection:
        for _ in range(2):
            connection.response.create()
            for event in connection:
                events.append(event)
                if event.type == "response.done":
                    break
        check_realtime(case, events, connection)


@scenario
async def openai_realtime_async(case):
    events = []
    async with case.async_openai() as client:
        manager = client.realtime.connect(model="fake-realtime", extra_headers=case.headers())
        async with manager as connection:
            for _ in range(2):
                await connection.response.create()
                async for event in connection:
                    events.append(event)
                    if event.type == "response.done":
                        break
            check_realtime(case, events, connection)


@scenario
def openai_legacy_completion(case):
    reply = case.openai().completions.create(model="fake-instruct-1", prompt=PROMPT)
    check_text(reply.choices[0].text)
    check_chat_usage(case, reply.usage)


@scenario
def openai_legacy_completion_stream(case):
    chunks = list(case.openai().completions.create(model="fake-instruct-1", prompt=PROMPT, stream=True))
    check_unasked_chunks(chunks)
    check_text("".join(chunk.choices[0].text for chunk in chunks))


@scenario
def openai_embeddings(case):
    reply = case.openai().embeddings.create(model="text-embedding-3-small", input=[PROMPT, "tide"])
    equal([item.embedding[:2] for item in reply.data], [[0.5, -0.25]] * 2, "vectors")
    equal(reply.usage.prompt_tokens, case.last_usage()["input_tokens"], "prompt tokens seen by the SDK")


@scenario
def openai_models(case):
    equal([model.id for model in case.openai().models.list()], ["fake-chat-1"], "models")


# --- Anthropic ---


@scenario
def anthropic_message_plain(case):
    client = case.anthropic()
    raw = client.messages.with_raw_response.create(model="claude-haiku-4-5", max_tokens=200, messages=TALK)
    case.see(raw.headers)
    reply = raw.parse()
    check_text(reply.content[0].text)
    check_message_usage(case, reply.usage)


@scenario
async def anthropic_message_plain_async(case):
    async with case.async_anthropic() as client:
        reply = await client.messages.create(model="claude-haiku-4-5", max_tokens=200, messages=TALK)
    check_message_usage(case, reply.usage)


@scenario
def anthropic_message_stream(case):
    client = case.anthropic()
    stream = client.messages.create(model="claude-haiku-4-5", max_tokens=200, messages=TALK, stream=True)
    kinds = [event.type for event in stream]
    equal((kinds[0], kinds[-2:]), ("message_start", ["message_delta", "message_stop"]), "events")


@scenario
def anthropic_stream_helper(case):
    with case.anthropic().messages.stream(model="claude-haiku-4-5", max_tokens=200, messages=TALK) as stream:
        check_text("".join(stream.text_stream))
        final = stream.get_final_message()
    check_message_usage(case, final.usage)


@scenario
async def anthropic_stream_helper_async(case):
    async with case.async_anthropic() as client:
        async with client.messages.stream(model="claude-haiku-4-5", max_tokens=200, messages=TALK) as stream:
            final = await stream.get_final_message()
    check_text(final.content[0].text)
    check_message_usage(case, final.usage)


@scenario
def anthropic_cache_reads_and_writes(case):
    reply = case.anthropic().messages.create(model="fake-claude-cache", max_tokens=200, messages=TALK)
    check_message_usage(case, reply.usage)


@scenario
def anthropic_cache_reads_and_writes_stream(case):
    with case.anthropic().messages.stream(model="fake-claude-cache", max_tokens=200, messages=TALK) as stream:
        check_message_usage(case, stream.get_final_message().usage)


@scenario
def anthropic_unknown_model(case):
    reply = case.anthropic().messages.create(model="fake-claude-1", max_tokens=200, messages=TALK)
    check_message_usage(case, reply.usage)


@scenario
def anthropic_tool_use(case):
    reply = case.anthropic().messages.create(
        model="claude-haiku-4-5", max_tokens=200, messages=TALK, tools=[MESSAGE_TOOL]
    )
    block = reply.content[0]
    equal((block.type, block.name, block.input), ("tool_use", "weather", {"city": "Vell"}), "tool use")


@scenario
def anthropic_tool_use_stream(case):
    client = case.anthropic()
    with client.messages.stream(
        model="claude-haiku-4-5", max_tokens=200, messages=TALK, tools=[MESSAGE_TOOL]
    ) as stream:
        block = stream.get_final_message().content[0]
    equal((block.type, block.name, block.input), ("tool_use", "weather", {"city": "Vell"}), "tool use")


@scenario
def anthropic_gzip(case):
    raw = case.anthropic().messages.with_raw_response.create(model="fake-gzip", max_tokens=200, messages=TALK)
    equal(raw.headers.get("content-encoding"), "gzip", "content-encoding")
    check_message_usage(case, raw.parse().usage)


@scenario
def anthropic_gzip_stream(case):
    with case.anthropic().messages.stream(model="fake-gzip", max_tokens=200, messages=TALK) as stream:
        check_message_usage(case, stream.get_final_message().usage)


@scenario
def anthropic_count_tokens(case):
    reply = case.anthropic().messages.count_tokens(model="claude-haiku-4-5", messages=TALK)
    check(reply.input_tokens >= 100, "input tokens:", reply.input_tokens)


@scenario
def anthropic_models(case):
    equal([model.id for model in case.anthropic().models.list()], ["fake-claude-1"], "models")


# --- Gemini ---


@scenario
def gemini_content_plain(case):
    reply = case.gemini().models.generate_content(model="fake-gemini-1", contents=PROMPT)
    case.see(reply.sdk_http_response.headers)
    check_text(reply.text)
    check_content_usage(case, reply.usage_metadata)


@scenario
def gemini_content_cached(case):
    reply = case.gemini().models.generate_content(model="fake-gemini-cached", contents=PROMPT)
    equal(reply.usage_metadata.cached_content_token_count, 64, "cached tokens")


@scenario
def gemini_content_stream(case):
    chunks = list(case.gemini().models.generate_content_stream(model="fake-gemini-1", contents=PROMPT))
    check_text("".join(chunk.text or "" for chunk in chunks))
    check_content_usage(case, chunks[-1].usage_metadata)


@scenario
async def gemini_content_stream_async(case):
    stream = await case.gemini().aio.models.generate_content_stream(model="fake-gemini-1", contents=PROMPT)
    chunks = [chunk async for chunk in stream]
    check_text("".join(chunk.text or "" for chunk in chunks))
    check_content_usage(case, chunks[-1].usage_metadata)


@scenario
def gemini_tool_call(case):
    config = {"tools": [GEMINI_TOOL]}
    reply = case.gemini().models.generate_content(model="fake-gemini-1", contents=PROMPT, config=config)
    call = reply.function_calls[0]
    equal((call.name, call.args), ("weather", {"city": "Vell"}), "function call")


@scenario
def gemini_content_gzip(case):
    reply = case.gemini().models.generate_content(model="fake-gzip", contents=PROMPT)
    check_content_usage(case, reply.usage_metadata)


@scenario
def gemini_embeddings(case):
    reply = case.gemini().models.embed_content(model="fake-embedding-1", contents=[PROMPT, "tide"])
    equal([item.values[:2] for item in reply.embeddings], [[0.5, -0.25]] * 2, "vectors")


@scenario
def gemini_count_tokens(case):
    reply = case.gemini().models.count_tokens(model="fake-gemini-1", contents=PROMPT)
    check(reply.total_tokens >= 100, "tokens:", reply.total_tokens)


@scenario
def gemini_interaction_plain(case):
    reply = case.gemini().interactions.create(model="fake-gemini-1", input=PROMPT)
    equal(reply.usage.total_input_tokens, case.last_usage()["input_tokens"], "input tokens seen by the SDK")


@scenario
def gemini_interaction_stream(case):
    events = list(case.gemini().interactions.create(model="fake-gemini-1", input=PROMPT, stream=True))
    check("interaction.completed" in [event.event_type for event in events], "events:", events)


# --- Bedrock ---

bedrock_scenarios.register(scenario, check, equal, Failed, PROMPT)


# --- errors ---


def gemini_error(case, status, kind):
    case.outcomes = ["error"]
    client = case.gemini()
    try:
        client.models.generate_content(model=f"fake-error-{status}", contents=PROMPT)
    except kind as error:
        equal(error.code, status, "status")
        case.see(error.response.headers)
        return error
    raise Failed(f"{kind.__name__} was not raised")


@scenario
def gemini_error_404(case):
    equal(gemini_error(case, 404, genai_errors.ClientError).status, "NOT_FOUND", "error status")


@scenario
def gemini_error_429(case):
    error = gemini_error(case, 429, genai_errors.ClientError)
    equal(error.status, "RESOURCE_EXHAUSTED", "error status")
    equal(error.response.headers.get("retry-after"), "7", "retry-after")


@scenario
def gemini_error_500(case):
    equal(gemini_error(case, 500, genai_errors.ServerError).status, "INTERNAL", "error status")


@scenario
def gemini_error_of_bursar_itself(case):
    """A refusal that never reached a provider has Google's shape, so that the SDK can read it."""
    case.requests = 0
    if case.world.direct:
        return
    client = case.gemini()
    client._api_client._http_options.base_url = f"http://127.0.0.1:{case.world.port}/gemini/%2e%2e"
    try:
        client.models.generate_content(model="fake-gemini-1", contents=PROMPT)
    except genai_errors.ClientError as error:
        equal((error.code, error.status), (400, "INVALID_ARGUMENT"), "code and status")
        check(error.message.startswith("bursar: "), "message:", error.message)
        return
    raise Failed("ClientError was not raised")


def raises(kind, status, call, case):
    try:
        call()
    except kind as error:
        equal(type(error), kind, "exception class")
        equal(error.status_code, status, "status")
        case.see(error.response.headers)
        return error
    raise Failed(f"{kind.__name__} was not raised")


def openai_error(case, status, kind):
    case.outcomes = ["error"]
    client = case.openai()
    model = f"fake-error-{status}"
    return raises(kind, status, lambda: client.chat.completions.create(model=model, messages=TALK), case)


def anthropic_error(case, status, kind):
    case.outcomes = ["error"]
    client = case.anthropic()
    model = f"fake-error-{status}"
    return raises(kind, status, lambda: client.messages.create(model=model, max_tokens=9, messages=TALK), case)


@scenario
def openai_error_401(case):
    error = openai_error(case, 401, openai.AuthenticationError)
    equal(error.code, "invalid_api_key", "code")


@scenario
def openai_error_404(case):
    error = openai_error(case, 404, openai.NotFoundError)
    equal(error.code, "model_not_found", "code")


@scenario
def openai_error_429(case):
    error = openai_error(case, 429, openai.RateLimitError)
    equal(error.response.headers.get("retry-after"), "7", "retry-after")
    equal(error.response.headers.get("x-ratelimit-remaining-requests"), "0", "x-ratelimit-remaining-requests")
    check(error.request_id and error.request_id.startswith("req_fake_"), "request id:", error.request_id)


@scenario
def openai_error_500(case):
    openai_error(case, 500, openai.InternalServerError)


@scenario
def openai_error_529(case):
    openai_error(case, 529, openai.InternalServerError)


@scenario
def openai_error_429_on_a_stream(case):
    case.outcomes = ["error"]
    client = case.openai()
    raises(
        openai.RateLimitError,
        429,
        lambda: client.chat.completions.create(model="fake-error-429", messages=TALK, stream=True),
        case,
    )


@scenario
def anthropic_error_401(case):
    error = anthropic_error(case, 401, anthropic.AuthenticationError)
    equal(error.body["error"]["type"], "authentication_error", "error type")


@scenario
def anthropic_error_404(case):
    anthropic_error(case, 404, anthropic.NotFoundError)


@scenario
def anthropic_error_429(case):
    error = anthropic_error(case, 429, anthropic.RateLimitError)
    equal(error.response.headers.get("retry-after"), "7", "retry-after")


@scenario
def anthropic_error_500(case):
    anthropic_error(case, 500, anthropic.InternalServerError)


@scenario
def anthropic_error_529(case):
    kind = getattr(anthropic, "OverloadedError", None) or anthropic._exceptions.OverloadedError
    error = anthropic_error(case, 529, kind)
    check(isinstance(error, anthropic.InternalServerError), "exception class:", type(error))
    equal(error.body["error"]["type"], "overloaded_error", "error type")


@scenario
def openai_retries_count_each(case):
    case.requests, case.outcomes = 3, ["error", "error", "ok"]
    reply = case.openai(retries=2).chat.completions.create(model="fake-flaky", messages=TALK)
    check_chat_usage(case, reply.usage)
    equal([entry["status"] for entry in case.entries()], [429, 500, 200], "statuses at the provider")
    counts = [dict(entry["headers"]).get("x-stainless-retry-count") for entry in case.entries()]
    equal(counts, ["0", "1", "2"], "x-stainless-retry-count at the provider")


@scenario
async def anthropic_retries_count_each_async(case):
    case.requests, case.outcomes = 3, ["error", "error", "ok"]
    async with case.async_anthropic(retries=2) as client:
        reply = await client.messages.create(model="fake-flaky", max_tokens=200, messages=TALK)
    check_message_usage(case, reply.usage)


@scenario
def openai_error_inside_a_stream(case):
    case.outcomes = ["error_midstream"]
    stream = case.openai().chat.completions.create(model="fake-error-midstream", messages=TALK, stream=True)
    try:
        seen = 0
        for _ in stream:
            seen += 1
    except openai.APIError as error:
        check("fake server" in error.message and seen > 1, "error after", seen, "chunks:", error.message)
        return
    raise Failed("APIError was not raised")


@scenario
def anthropic_error_inside_a_stream(case):
    case.outcomes = ["error_midstream"]
    try:
        with case.anthropic().messages.stream(model="fake-error-midstream", max_tokens=200, messages=TALK) as stream:
            stream.get_final_message()
    except anthropic.APIStatusError as error:
        equal(error.body["error"]["type"], "overloaded_error", "error type")
        return
    raise Failed("APIStatusError was not raised")


@scenario
def openai_stream_cut_by_the_provider(case):
    case.outcomes = ["error_midstream"]
    stream = case.openai().chat.completions.create(model="fake-cut", messages=TALK, stream=True)
    try:
        for _ in stream:
            pass
    except openai.APIConnectionError:
        return
    raise Failed("APIConnectionError was not raised: the client could not see the cut")


# --- aborts ---


@scenario
def openai_abort(case):
    case.outcomes = ["aborted"]
    stream = case.openai().chat.completions.create(model="fake-endless", messages=TALK, stream=True)
    for count, _ in enumerate(stream):
        if count == 8:
            break
    stream.close()
    equal(case.wait_ended()[0]["ended"], "client_gone", "end at the provider")


@scenario
async def openai_abort_by_cancelling_async(case):
    case.outcomes = ["aborted"]
    seen = asyncio.Event()

    async def read(client):
        count = 0
        async for _ in await client.chat.completions.create(model="fake-endless", messages=TALK, stream=True):
            count += 1
            if count == 8:
                seen.set()

    async with case.async_openai() as client:
        task = asyncio.create_task(read(client))
        await asyncio.wait_for(seen.wait(), SDK_SECONDS)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    equal((await asyncio.to_thread(case.wait_ended))[0]["ended"], "client_gone", "end at the provider")


@scenario
def anthropic_abort(case):
    case.outcomes = ["aborted"]
    with case.anthropic().messages.stream(model="fake-endless", max_tokens=200, messages=TALK) as stream:
        for count, _ in enumerate(stream.text_stream):
            if count == 8:
                break
    equal(case.wait_ended()[0]["ended"], "client_gone", "end at the provider")


@scenario
def openai_client_times_out_before_the_reply(case):
    case.outcomes = ["aborted"]
    client = case.openai()
    try:
        client.with_options(timeout=0.5).chat.completions.create(model="fake-stall", messages=TALK)
    except openai.APITimeoutError:
        equal(case.wait_ended()[0]["ended"], "client_gone", "end at the provider")
        return
    raise Failed("APITimeoutError was not raised")


# --- identity ---


@scenario
def identity_of_one_request(case):
    """Headers of one call refine the client's default headers."""
    case.customer, case.session = "cust-17", "session 4"
    case.trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    case.tags["feature"] = "harbour map"
    case.openai().chat.completions.create(
        model="gpt-4o-mini",
        messages=TALK,
        extra_headers={
            "x-bursar-customer": "cust-17",
            "x-bursar-session": "session 4",
            "x-bursar-tag-feature": "harbour map",
            "traceparent": f"00-{case.trace_id}-00f067aa0ba902b7-01",
        },
    )


@scenario
def identity_absent(case):
    """Nobody said whose request this is: it is recorded as unallocated, not dropped."""
    case.identified = False
    case.openai().chat.completions.create(model="gpt-4o-mini", messages=TALK)


# --- pass-through ---

SHAPES = {
    "chat": ("openai", "/v1/chat/completions", {"model": "gpt-4o-mini", "messages": TALK}),
    "chat-stream": (
        "openai",
        "/v1/chat/completions",
        {"model": "gpt-4o-mini", "messages": TALK, "stream": True, "stream_options": {"include_usage": True}},
    ),
    "chat-gzip": ("openai", "/v1/chat/completions", {"model": "fake-gzip", "messages": TALK}),
    "responses-stream": ("openai", "/v1/responses", {"model": "gpt-4o-mini", "input": PROMPT, "stream": True}),
    "error-429": ("openai", "/v1/chat/completions", {"model": "fake-error-429", "messages": TALK}),
    "message": ("anthropic", "/v1/messages", {"model": "claude-haiku-4-5", "max_tokens": 99, "messages": TALK}),
    "message-stream": (
        "anthropic",
        "/v1/messages",
        {"model": "claude-haiku-4-5", "max_tokens": 99, "messages": TALK, "stream": True},
    ),
    "content": (
        "gemini",
        "/v1beta/models/fake-gemini-1:generateContent",
        {"model": "no", "contents": [{"parts": [{"text": PROMPT}]}]},
    ),
    "content-stream": (
        "gemini",
        "/v1beta/models/fake-gemini-1:streamGenerateContent",
        {"model": "no", "contents": [{"parts": [{"text": PROMPT}]}]},
    ),
    "error-529": ("anthropic", "/v1/messages", {"model": "fake-error-529", "max_tokens": 9, "messages": TALK}),
}
# Differ between two equal replies, or belong to one connection only.
OWN_HEADERS = (
    "date",
    "host",
    "connection",
    "keep-alive",
    "transfer-encoding",
    "x-request-id",
    "request-id",
    "x-test-case",
)


@scenario
def messages_are_the_same_bytes_as_without_bursar(case):
    """The same request directly and through: what the provider got and what the client got."""
    case.requests = len(SHAPES)
    case.outcomes = ["error" if name.startswith("error") else "ok" for name in SHAPES]
    prefixes = {
        "openai": case.world.openai_prefix,
        "anthropic": case.world.anthropic_prefix,
        "gemini": case.world.gemini_prefix,
    }
    keys = {
        "openai": ("authorization", f"Bearer {OPENAI_KEY}"),
        "anthropic": ("x-api-key", ANTHROPIC_KEY),
        "gemini": ("x-goog-api-key", GEMINI_KEY),
    }
    query = "?beta=true&odd=%2Fa+b"
    for name, (dialect, path, body) in SHAPES.items():
        # Key order and spaces that no serializer would choose: they must arrive as they are.
        raw = json.dumps(body, indent=1).replace('"model":', '"model"  :').encode()
        headers = [("content-type", "application/json"), ("accept-encoding", "gzip"), keys[dialect]]
        headers.append(("x-odd-Name", "a, b;c"))
        if dialect == "anthropic":
            headers.append(("anthropic-version", "2023-06-01"))
        through = [(n, v) for n, v in case.headers().items() if n != "x-test-case"]
        straight = fetch(
            case.world.provider.port, "POST", path + query, headers + [("x-test-case", case.name + "/direct")], raw
        )
        proxied = fetch(
            case.world.port, "POST", prefixes[dialect] + path + query, headers + through + [("x-test-case", case.name)], raw
        )
        equal(proxied[0], straight[0], f"{name}: status")
        equal(comparable(proxied[1]), comparable(straight[1]), f"{name}: headers")
        equal(proxied[2], straight[2], f"{name}: body")
        sent, passed = case.world.provider.whole_log()[-2:]
        equal(passed["body_sha256"], hashlib.sha256(raw).hexdigest(), f"{name}: request body's hash at the provider")
        equal(comparable(passed["headers"]), comparable(sent["headers"]), f"{name}: request headers at the provider")
        equal((passed["path"], passed["query"]), (sent["path"], sent["query"]), f"{name}: target at the provider")
        if name == "chat-gzip":
            equal(json.loads(gzip.decompress(proxied[2]))["object"], "chat.completion", "object")


def comparable(headers):
    """Header fields that must be the same with and without bursar."""
    return sorted((n, v) for n, v in headers if n not in OWN_HEADERS and not n.startswith("x-bursar-"))


azure_scenarios.register(scenario, sys.modules[__name__])
other_scenarios.register(scenario, sys.modules[__name__])


# === the end of the run ===


def drain(case):
    """SIGTERM while a stream is running: the stream goes on to its end."""
    stream = case.openai().chat.completions.create(model="fake-slow", messages=TALK, stream=True)
    text = ""
    for count, chunk in enumerate(stream):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        if count == 3:
            case.world.bursar.terminate()
    equal(len(text.split()), 30, "words of a stream that was running at SIGTERM")


# === records ===


def read_records(text):
    records = [json.loads(line, parse_float=Decimal) for line in text.splitlines() if line.strip()]
    check(records, "the export is empty")
    return records


def pair(log, records):
    """([(entry, record)], mistakes): by the request id that the provider sent, by case for those without.

    A realtime session has an entry and a record per response.
    """
    log = [entry | part for entry in log for part in entry.get("parts") or [{}]]
    by_id, rest = defaultdict(list), defaultdict(list)
    for record in records:
        upstream_id = record.get("upstream_request_id")
        if upstream_id:
            part = record.get("meter_id") if record.get("api") == "realtime" else None
            by_id[(upstream_id, part)].append(record)
        else:
            rest[(record.get("tags") or {}).get("case")].append(record)
    pairs, wrong = [], []
    for entry in log:
        if entry["request_id"]:
            found = by_id.pop((entry["request_id"], entry.get("meter_id")), [])
        else:
            waiting = rest[entry["case"]]
            found = [waiting.pop(0)] if waiting else []
        if len(found) == 1:
            pairs.append((entry, found[0]))
        else:
            wrong.append(f"{entry['case']} {entry['request_id'] or '(no reply)'}: {len(found)} records")
    spare = [r.get("id") for group in [*by_id.values(), *rest.values()] for r in group]
    if spare:
        wrong.append(f"{len(spare)} records without a request at the provider: {spare[:5]}")
    return pairs, wrong


def check_pairs(pairs, wrong):
    check(pairs, "no record belongs to a request")
    check(not wrong, "; ".join(wrong[:10]))


def amount(value):
    return None if value is None else Decimal(str(value))


def expected_cost(entry):
    prices = [Decimal(price) for price in PRICES[entry["model_served"]]]
    usage = entry["usage"]
    read = usage.get("input_cached_read", 0)
    short, long = usage.get("input_cache_write_5m", 0), usage.get("input_cache_write_1h", 0)
    fresh = usage["input_tokens"] - read - short - long
    parts = (fresh, read, short, long, usage.get("output_tokens", 0))
    return sum(count * price for count, price in zip(parts, prices)) / 1_000_000


def check_record(case, entry, record, outcome):
    equal(record.get("outcome"), outcome, "outcome")
    equal(record.get("http_status"), entry["status"], "http_status")
    equal(record.get("stream"), entry["stream"], "stream")
    for name in ("team", "workload", "customer", "session", "trace_id"):
        equal(record.get(name) or None, getattr(case, name), name)
    equal(record.get("tags") or {}, case.tags, "tags")
    equal(record.get("route"), route_of(entry), "route")
    if entry["method"] == "POST":
        equal(record.get("model_requested"), entry["model"], "model_requested")
    if entry["model_served"]:
        equal(record.get("model_served"), entry["model_served"], "model_served")
    if entry["ended"] == "complete":
        equal(record.get("bytes_out"), entry["body_bytes"], "bytes_out")
    check_usage(entry, record, outcome)
    check_cost(entry, record)


def route_of(entry):
    """The route by what the SDK sends, or by the header that those without anything of their own send."""
    if bedrock_scenarios.is_bedrock(entry):
        return "/bedrock"
    if azure_scenarios.is_azure(entry):
        return "/azure"
    known = "gemini" if entry_is_google(entry) else "anthropic" if entry_is_anthropic(entry) else "openai"
    return "/" + dict(entry["headers"]).get("x-test-route", known)


def entry_is_anthropic(entry):
    return "anthropic-version" in dict(entry["headers"])


def entry_is_google(entry):
    return "x-goog-api-key" in dict(entry["headers"])


def check_usage(entry, record, outcome):
    usage, source = record.get("usage") or {}, record.get("usage_source")
    if entry["status"] is None:
        # The client left before any reply: whether the provider charges the prompt is not known.
        check(source in ("tokenizer", "estimate", "absent"), "usage_source without a reply:", source)
        return
    if entry["status"] not in (101, 200) or entry["usage"] is None:
        equal(record.get("metering"), "never", "metering")
        return
    if entry["usage_sent"]:
        equal(source, "provider", "usage_source")
        for name, count in entry["usage"].items():
            equal(usage.get(name), count, f"usage.{name}")
        tools = (entry["body"] or {}).get("tools")
        if tools:
            equal(usage.get("tool_calls"), 1, "usage.tool_calls")
        check(record.get("metering") in ("count", "once-per-id"), "metering:", record.get("metering"))
        return
    # The provider's final figure never came: what it had said by then is kept, and what it had not is
    # counted from the text that passed. The invented models have no known vocabulary.
    check(record.get("counted_by"), "the record does not say what counted its tokens")
    if entry_is_anthropic(entry):
        equal(source, "provider_partial", "usage_source after message_start")
        equal(usage.get("input_tokens"), entry["usage"]["input_tokens"], "usage.input_tokens, known from message_start")
        check(record["counted_by"].startswith("output: "), "counted_by:", record["counted_by"])
    else:
        equal(source, "estimate", "usage_source of a stream that never told")
        check((usage.get("input_tokens") or 0) > 0, "no input tokens were counted:", usage)
    check((usage.get("output_tokens") or 0) > 0, "no output tokens were counted:", usage)


def check_cost(entry, record):
    cost = record.get("cost") or {}
    if not entry["usage_sent"]:
        return
    if entry["model_served"] not in PRICES:
        equal(cost.get("status"), "unpriced", "cost.status of an invented model")
        check(not amount(cost.get("billed")), "an unpriced record has a cost:", cost.get("billed"))
        return
    equal(cost.get("status"), "priced", "cost.status of a known model")
    equal(cost.get("currency"), "USD", "cost.currency")
    for name in ("list", "billed"):
        equal(amount(cost.get(name)), expected_cost(entry), f"cost.{name}")
    check(cost.get("price_rows"), "cost.price_rows is empty")


def check_case_records(case, pairs):
    """All records of one case, in the order in which the provider got the requests."""
    mine = [(entry, record) for entry, record in pairs if entry["case"] == case.name]
    equal(len(mine), case.requests, "requests with exactly one record")
    outcomes = case.outcomes or ["ok"] * case.requests
    for (entry, record), outcome in zip(mine, outcomes, strict=True):
        try:
            check_record(case, entry, record, outcome)
        except Failed as failed:
            raise Failed(f"{failed} ({entry['path']}, {entry['request_id']}, record {record.get('id')})") from None
    ids = [record.get("id") for _, record in mine]
    for seen in case.bursar_ids:
        check(seen in ids, f"x-bursar-request-id {seen} names none of the records {ids}")


def check_forwarding(log):
    """What reached the provider: credentials unchanged, bursar's own headers gone."""
    for entry in log:
        headers = dict(entry["headers"])
        own = [name for name in headers if name.startswith("x-bursar-")]
        check(not own, f"{entry['case']}: the provider got {own}")
        if bedrock_scenarios.is_bedrock(entry):
            bedrock_scenarios.check_credentials(entry, check)
            continue
        # Anthropic's SDK sends its key as a bearer token since 2.x, as x-api-key before; both are legal.
        key = GEMINI_KEY if entry_is_google(entry) else ANTHROPIC_KEY if entry_is_anthropic(entry) else OPENAI_KEY
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        got = bearer or headers.get("x-api-key") or headers.get("x-goog-api-key") or headers.get("api-key")
        equal(got, key, f"{entry['case']}: credential at the provider")
    names = {name for entry in log for name, _ in entry["headers"]}
    if any(entry["case"].startswith("messages-are-the-same") for entry in log):
        check({"authorization", "x-api-key"} <= names, "one kind of credential was never sent")


def check_sequence(records):
    ids = [record.get("id") for record in records]
    equal(len(set(ids)), len(ids), "distinct record ids")
    sequence = sorted(record.get("seq") for record in records)
    equal(len(set(sequence)), len(sequence), "distinct sequence numbers")
    check(len({record.get("ledger") for record in records}) == 1, "records name more than one ledger")


def dig(row, name):
    """`name` in a report row, or one level down."""
    if name in row:
        return row[name]
    for value in row.values():
        if isinstance(value, dict) and name in value:
            return value[name]
    return None


def group_name(value):
    return None if value in (None, "", "unallocated") else value


def check_report(text, records):
    """`usage --by team,workload` must say per group what the records add up to."""
    report = json.loads(text, parse_float=Decimal)
    rows = report if isinstance(report, list) else report["rows"]
    figures = ("requests", "input_tokens", "output_tokens", "billed")
    wanted = defaultdict(lambda: [0, 0, 0, Decimal(0)])
    for record in records:
        sums = wanted[(group_name(record.get("team")), group_name(record.get("workload")))]
        sums[0] += 1
        if record.get("metering") != "never":
            usage = record.get("usage") or {}
            sums[1] += usage.get("input_tokens") or 0
            sums[2] += usage.get("output_tokens") or 0
            sums[3] += amount((record.get("cost") or {}).get("billed")) or 0
    got = {}
    for row in rows:
        key = (group_name(dig(row, "team")), group_name(dig(row, "workload")))
        check(key not in got, f"the report has two rows for {key}")
        got[key] = [amount(dig(row, name)) or 0 for name in figures]
    for key in sorted({*wanted, *got}, key=str):
        check(key in got, f"the report has no row for {key}")
        check(key in wanted, f"the report has a row for {key}, no record has")
        for name, in_report, in_records in zip(figures, got[key], wanted[key]):
            equal(in_report, in_records, f"{name} of {key}")


def check_privacy(folder):
    """No key, prompt or answer stays in the ledger, the log or any other file bursar wrote."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    check(files, "bursar wrote no file at all")
    for path in files:
        content = path.read_bytes()
        secrets = (OPENAI_KEY, ANTHROPIC_KEY, GEMINI_KEY, *bedrock_scenarios.SECRETS)
        for secret in (*secrets, "canaryprompt", ANSWER_CANARY):
            check(secret.encode() not in content, f"{secret!r} is in {path.relative_to(folder)}")


# === running ===


class Tally:
    def __init__(self):
        self.passed = self.failed = 0

    def run(self, name, call, *arguments):
        """One check: prints its line; returns what it returned, or None if it failed."""
        started = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, SCENARIO_SECONDS)
        try:
            result = call(*arguments)
            if asyncio.iscoroutine(result):
                result = asyncio.run(asyncio.wait_for(result, SCENARIO_SECONDS - 2))
        except (Exception, OutOfTime) as failed:  # noqa: BLE001 - every failure is a line
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.failed += 1
            print(f"FAIL {name}: {describe(failed)}", flush=True)
            return None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        self.passed += 1
        print(f"ok   {name} ({time.monotonic() - started:.2f} s)", flush=True)
        return result


def describe(error):
    if isinstance(error, Failed):
        return str(error)
    where = traceback.extract_tb(error.__traceback__)
    mine = [frame for frame in where if frame.filename == __file__]
    line = f" at line {mine[-1].lineno}" if mine else ""
    return f"{type(error).__name__}: {error}{line}"


def out_of_time(*_):
    raise OutOfTime(f"more than {SCENARIO_SECONDS} s")


def run_scenarios(tally, world, only):
    chosen = [function for function in SCENARIOS if not only or only in function.__name__]
    for function in chosen:
        tally.run(function.__name__, function, world.case(function.__name__.replace("_", "-")))
    if not chosen:
        tally.failed += 1
        print(f"FAIL no scenario's name contains {only!r}")


def run_record_checks(tally, world, bursar):
    log = world.provider.log()
    tally.run("forwarded headers", check_forwarding, log)
    export = tally.run("export usage", bursar.ask, "export", "usage", "--format", "jsonl")
    records = tally.run("export is JSON lines", read_records, export) if export is not None else None
    if records is None:
        return
    tally.run("ids and sequence numbers are unique", check_sequence, records)
    pairs, wrong = pair(log, records)
    tally.run("one record per request", check_pairs, pairs, wrong)
    for case in world.cases:
        tally.run(f"records of {case.name}", check_case_records, case, pairs)
    report = tally.run("usage by team and workload", bursar.ask, "usage", "--format", "json", "--by", "team,workload")
    if report is not None:
        tally.run("the report equals the records", check_report, report, records)
    tally.run("no secret or prompt at rest", check_privacy, bursar.folder)


def run(options, tally):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bursar-sdk-"))
    provider = bursar = None
    try:
        provider = tally.run("fake provider starts", FakeProvider)
        if provider is None:
            return
        if options.direct:
            run_scenarios(tally, World(provider, None), options.only)
            return
        bursar = Bursar(options.bursar, provider.port, folder)
        ready = tally.failed
        tally.run("bursar is ready", bursar.wait_ready)
        if tally.failed == ready:
            world = World(provider, bursar)
            run_scenarios(tally, world, options.only)
            tally.run("SIGTERM lets a running stream end", drain, world.case("drain"))
            tally.run("bursar stops", bursar.wait_stopped)
            bursar.stop()
            run_record_checks(tally, world, bursar)
        if tally.failed:
            print("--- last lines of bursar's output ---")
            print("\n".join(bursar.output().splitlines()[-30:]))
    finally:
        for process in (bursar, provider):
            if process:
                process.stop()
        if options.keep:
            print(f"kept {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def watchdog():
    """The last resort: ends this process; the fake provider ends with its standard input."""
    print(f"FAIL the whole test: more than {TOTAL_SECONDS} s", flush=True)
    for process in STARTED:
        with contextlib.suppress(OSError):
            process.kill()
    os._exit(1)


STARTED = []


class Popen(subprocess.Popen):
    """Remembers what was started, for the watchdog."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        STARTED.append(self)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--bursar", type=pathlib.Path, help="path of the bursar binary")
    how.add_argument("--direct", action="store_true", help="without bursar: check the scenarios themselves")
    parser.add_argument("--only", help="run only scenarios whose name contains this")
    parser.add_argument("--keep", action="store_true", help="keep the folder with bursar's data and output")
    options = parser.parse_args()
    if options.bursar:
        options.bursar = options.bursar.resolve()
        if not os.access(options.bursar, os.X_OK):
            print(f"FAIL no bursar binary at {options.bursar}: build it with `cargo build --release`")
            print("0 passed, 1 failed")
            return 1
    subprocess.Popen = Popen
    signal.signal(signal.SIGALRM, out_of_time)
    timer = threading.Timer(TOTAL_SECONDS, watchdog)
    timer.daemon = True
    timer.start()
    sdks = f"openai {openai.__version__}, anthropic {anthropic.__version__}, google-genai {genai.__version__}"
    print(f"{sdks}, boto3 {bedrock_scenarios.boto3.__version__}, python {sys.version.split()[0]}")
    tally = Tally()
    try:
        run(options, tally)
    except (Exception, OutOfTime) as failed:  # noqa: BLE001 - the last line must come
        tally.failed += 1
        print(f"FAIL the test itself: {describe(failed)}")
    if options.direct:
        print("direct mode: bursar was not involved, no record was checked")
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed or not tally.passed else 0


if __name__ == "__main__":
    sys.exit(main())
