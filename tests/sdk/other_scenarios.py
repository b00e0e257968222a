"""Scenarios of the official SDKs of Cohere and Mistral. Not run by itself: see sdk_test.py."""

import cohere
import cohere.errors
import httpx
from mistralai.client import Mistral
from mistralai.client import errors as mistral_errors

ROUTES = ("cohere", "mistral")

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def register(scenario, test):
    """Adds the scenarios; `test` is the module with the checks and the marked values."""

    def http(case, route):
        headers = {**case.headers(), "x-test-route": route}

        def see(response):
            case.see(response.headers)

        return httpx.Client(headers=headers, timeout=test.SDK_SECONDS, event_hooks={"response": [see]})

    def url(case, route):
        return f"http://127.0.0.1:{case.world.port}" + ("" if case.world.direct else f"/{route}")

    def cohere_client(case):
        return cohere.ClientV2(
            api_key=test.OPENAI_KEY, base_url=url(case, "cohere"), httpx_client=http(case, "cohere"), max_retries=0
        )

    def mistral_client(case):
        return Mistral(api_key=test.OPENAI_KEY, server_url=url(case, "mistral"), client=http(case, "mistral"))

    def check_tokens(case, got_in, got_out):
        logged = case.last_usage()
        test.equal(int(got_in), logged["input_tokens"], "input tokens seen by the SDK")
        test.equal(int(got_out), logged["output_tokens"], "output tokens seen by the SDK")

    @scenario
    def cohere_chat_plain(case):
        reply = cohere_client(case).chat(model="fake-command", messages=test.TALK)
        test.check_text(reply.message.content[0].text)
        check_tokens(case, reply.usage.tokens.input_tokens, reply.usage.tokens.output_tokens)

    @scenario
    def cohere_chat_stream(case):
        events = list(cohere_client(case).chat_stream(model="fake-command", messages=test.TALK))
        words = [e.delta.message.content.text for e in events if e.type == "content-delta"]
        test.check_text("".join(words))
        test.equal(events[-1].type, "message-end", "last event")
        tokens = events[-1].delta.usage.tokens
        check_tokens(case, tokens.input_tokens, tokens.output_tokens)

    @scenario
    def cohere_chat_of_the_first_version(case):
        client = cohere.Client(
            api_key=test.OPENAI_KEY, base_url=url(case, "cohere"), httpx_client=http(case, "cohere"), max_retries=0
        )
        reply = client.chat(model="fake-command", message=test.PROMPT)
        test.check_text(reply.text)
        check_tokens(case, reply.meta.tokens.input_tokens, reply.meta.tokens.output_tokens)

    @scenario
    def cohere_tool_call(case):
        reply = cohere_client(case).chat(model="fake-command", messages=test.TALK, tools=[TOOL])
        test.equal(reply.message.tool_calls[0].function.name, "weather", "tool")
        check_tokens(case, reply.usage.tokens.input_tokens, reply.usage.tokens.output_tokens)

    @scenario
    def cohere_embed(case):
        reply = cohere_client(case).embed(
            model="fake-embed", texts=[test.PROMPT], input_type="search_query", embedding_types=["float"]
        )
        test.equal(reply.embeddings.float_, [[0.5, -0.25]], "embeddings")

    @scenario
    def cohere_rerank(case):
        reply = cohere_client(case).rerank(model="fake-rerank", query=test.PROMPT, documents=["a", "b"])
        test.equal([result.index for result in reply.results], [1, 0], "ranking")
        test.equal(reply.meta.billed_units.search_units, 1, "search units")

    @scenario
    def cohere_error_404(case):
        case.outcomes = ["error"]
        try:
            cohere_client(case).chat(model="fake-error-404", messages=test.TALK)
        except cohere.errors.NotFoundError as error:
            test.equal(error.status_code, 404, "status")
            return
        raise test.Failed("NotFoundError was not raised")

    @scenario
    def mistral_chat_plain(case):
        reply = mistral_client(case).chat.complete(model="fake-mistral", messages=test.TALK)
        test.check_text(reply.choices[0].message.content)
        check_tokens(case, reply.usage.prompt_tokens, reply.usage.completion_tokens)

    @scenario
    def mistral_chat_stream(case):
        text, usage = "", None
        with mistral_client(case).chat.stream(model="fake-mistral", messages=test.TALK) as events:
            for event in events:
                text += "".join(choice.delta.content or "" for choice in event.data.choices)
                usage = event.data.usage or usage
        test.check_text(text)
        check_tokens(case, usage.prompt_tokens, usage.completion_tokens)

    @scenario
    def mistral_tool_call(case):
        reply = mistral_client(case).chat.complete(model="fake-mistral", messages=test.TALK, tools=[TOOL])
        test.equal(reply.choices[0].message.tool_calls[0].function.name, "weather", "tool")
        check_tokens(case, reply.usage.prompt_tokens, reply.usage.completion_tokens)

    @scenario
    def mistral_embeddings(case):
        reply = mistral_client(case).embeddings.create(model="fake-embed", inputs=[test.PROMPT])
        test.equal(reply.data[0].embedding, [0.5, -0.25], "embedding")

    @scenario
    def mistral_ocr(case):
        document = {"type": "document_url", "document_url": "https://documents.example/boats.pdf"}
        reply = mistral_client(case).ocr.process(model="fake-ocr", document=document)
        test.equal(reply.usage_info.pages_processed, 2, "pages")

    @scenario
    def mistral_error_404(case):
        case.outcomes = ["error"]
        try:
            mistral_client(case).chat.complete(model="fake-error-404", messages=test.TALK)
        except mistral_errors.SDKError as error:
            test.equal(error.status_code, 404, "status")
            return
        raise test.Failed("SDKError was not raised")
