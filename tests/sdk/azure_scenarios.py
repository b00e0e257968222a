"""Scenarios of the OpenAI SDK's Azure client. Not run by itself: see sdk_test.py."""

import openai

VERSION = "2025-04-01-preview"


def is_azure(entry):
    return entry["path"].startswith("/openai/")


def register(scenario, test):
    """Adds the scenarios; `test` is the module with the checks and the marked values."""

    def options(case):
        root = f"127.0.0.1:{case.world.port}" + ("" if case.world.direct else "/azure")
        return {
            "azure_endpoint": f"http://{root}",
            "websocket_base_url": f"ws://{root}/openai",
            "api_key": test.OPENAI_KEY,
            "api_version": VERSION,
            "max_retries": 0,
            "timeout": test.SDK_SECONDS,
            "default_headers": case.headers(),
        }

    def client(case):
        return openai.AzureOpenAI(**options(case))

    def check_target(case, path):
        entry = case.entries()[-1]
        test.equal(entry["path"], path, "path at the provider")
        test.equal(entry["query"], f"api-version={VERSION}", "query at the provider")

    @scenario
    def azure_chat_plain(case):
        raw = client(case).chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=test.TALK)
        case.see(raw.headers)
        reply = raw.parse()
        test.check_text(reply.choices[0].message.content)
        test.check_chat_usage(case, reply.usage)
        check_target(case, "/openai/deployments/gpt-4o-mini/chat/completions")

    @scenario
    def azure_chat_stream_without_asking_for_usage(case):
        chunks = list(client(case).chat.completions.create(model="gpt-4o-mini", messages=test.TALK, stream=True))
        test.equal(chunks[0].choices, [], "the prompt filter's chunk, which has no choices")
        test.check(chunks[0].prompt_filter_results, "what the prompt filter found is gone")
        test.check_unasked_chunks(chunks[1:])
        test.check_text("".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices))
        test.check_injection(case, True)

    @scenario
    async def azure_chat_stream_with_usage_async(case):
        async with openai.AsyncAzureOpenAI(**options(case)) as azure:
            stream = await azure.chat.completions.create(
                model="gpt-4o-mini", messages=test.TALK, stream=True, stream_options={"include_usage": True}
            )
            chunks = [chunk async for chunk in stream]
        test.equal(sum(not chunk.choices for chunk in chunks), 2, "chunks without choices: filter and usage")
        test.check_chat_usage(case, chunks[-1].usage)

    @scenario
    def azure_chat_tool_call(case):
        reply = client(case).chat.completions.create(model="gpt-4o-mini", messages=test.TALK, tools=[test.CHAT_TOOL])
        test.equal(len(reply.choices[0].message.tool_calls), 1, "tool calls")
        test.check_chat_usage(case, reply.usage)

    @scenario
    def azure_responses_plain(case):
        reply = client(case).responses.create(model="gpt-4o-mini", input=test.PROMPT)
        test.check_text(reply.output_text)
        test.equal(reply.usage.input_tokens, case.last_usage()["input_tokens"], "input tokens seen by the SDK")
        check_target(case, "/openai/responses")

    @scenario
    def azure_embeddings(case):
        reply = client(case).embeddings.create(model="text-embedding-3-small", input=[test.PROMPT, "tide"])
        test.equal([item.embedding[:2] for item in reply.data], [[0.5, -0.25]] * 2, "vectors")
        check_target(case, "/openai/deployments/text-embedding-3-small/embeddings")

    @scenario
    def azure_realtime(case):
        events = []
        with client(case).realtime.connect(model="fake-realtime", extra_headers=case.headers()) as connection:
            for _ in range(2):
                connection.response.create()
                for event in connection:
                    events.append(event)
                    if event.type == "response.done":
                        break
            test.check_realtime(case, events, connection)

    @scenario
    def azure_error_404(case):
        case.outcomes = ["error"]
        try:
            client(case).chat.completions.create(model="fake-error-404", messages=test.TALK)
        except openai.NotFoundError as error:
            test.equal(error.code, "DeploymentNotFound", "code")
            return
        raise test.Failed("NotFoundError was not raised")

    @scenario
    def azure_abort(case):
        """The client leaves in the middle of a stream."""
        case.outcomes = ["aborted"]
        stream = client(case).chat.completions.create(model="fake-endless", messages=test.TALK, stream=True)
        for count, _ in enumerate(stream):
            if count == 5:
                break
        stream.close()
        case.wait_ended()
