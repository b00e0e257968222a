"""The fake provider's APIs beside OpenAI's and Anthropic's: Cohere's and Mistral's.

The route is in the header x-test-route, which the SDKs are configured to send: two providers share a
path. All content is invented.
"""


def note(x, **usage):
    """What a record must say, in its own names."""
    x.entry["usage"] = usage


def called(x):
    """A call of the first tool that was offered."""
    return {"name": x.body["tools"][0]["function"]["name"], "arguments": '{"city": "Vell"}'}


# === Cohere ===


def cohere_usage(x):
    tokens_in, tokens_out = x.counts()
    billed_in, billed_out = max(tokens_in - 62, 1), tokens_out - 1
    note(
        x,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        input_cached_read=16,
        billed_input_tokens=billed_in,
        billed_output_tokens=billed_out,
    )
    return {
        "billed_units": {"input_tokens": billed_in, "output_tokens": billed_out},
        "tokens": {"input_tokens": tokens_in, "output_tokens": tokens_out},
        "cached_tokens": 16,
    }


async def cohere_chat(x):
    usage = cohere_usage(x)
    reply_id = x.token("cohere-")
    if x.body.get("tools"):
        call = {"id": "call_1", "type": "function", "function": called(x)}
        message = {"role": "assistant", "tool_plan": "", "tool_calls": [call]}
        return await x.json(200, {"id": reply_id, "finish_reason": "TOOL_CALL", "message": message, "usage": usage})
    if not x.asked_stream:
        content = [{"type": "text", "text": "".join(x.words()).strip()}]
        message = {"role": "assistant", "content": content}
        return await x.json(
            200, {"id": reply_id, "finish_reason": "COMPLETE", "message": message, "usage": usage}
        )
    await x.start_stream()
    x.entry["model_served"] = None

    async def send(kind, **fields):
        await x.event({"type": kind, **fields}, kind)

    empty = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    await send("message-start", id=reply_id, delta={"message": empty})
    start = {"message": {"content": {"type": "text", "text": ""}}}
    await send("content-start", index=0, delta=start)
    for word in x.words():
        await send("content-delta", index=0, delta={"message": {"content": {"text": word}}})
    await send("content-end", index=0)
    await send("message-end", delta={"finish_reason": "COMPLETE", "usage": usage})
    x.entry["usage_sent"] = True
    await x.last_event("[DONE]")


async def cohere_chat_v1(x):
    usage = cohere_usage(x)
    meta = {"api_version": {"version": "1"}, **usage}
    reply = {"response_id": x.token("cohere-"), "generation_id": x.token("gen-"), "finish_reason": "COMPLETE"}
    await x.json(200, {**reply, "text": "".join(x.words()).strip(), "meta": meta})


async def cohere_embed(x):
    tokens_in, _ = x.counts()
    note(x, input_tokens=tokens_in, output_tokens=0, billed_input_tokens=tokens_in)
    texts = x.body.get("texts") or []
    await x.json(
        200,
        {
            "id": x.token("embed-"),
            "embeddings": {"float": [[0.5, -0.25] for _ in texts]},
            "texts": texts,
            "response_type": "embeddings_by_type",
            "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": tokens_in}},
        },
    )


async def cohere_rerank(x):
    note(x, search_units=1)
    results = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]
    meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
    await x.json(200, {"id": x.token("rerank-"), "results": results, "meta": meta})


# === Mistral ===


def mistral_usage(x):
    tokens_in, tokens_out = x.counts()
    note(x, input_tokens=tokens_in, output_tokens=tokens_out)
    return {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}


async def mistral_chat(x):
    usage = mistral_usage(x)

    def value(kind, choice):
        return {
            "id": x.token("mistral-"),
            "object": kind,
            "created": 1_760_000_000,
            "model": x.served,
            "choices": [{"index": 0, **choice}],
        }

    if x.body.get("tools"):
        call = {"id": "call00001", "type": "function", "index": 0, "function": called(x)}
        message = {"role": "assistant", "content": "", "tool_calls": [call]}
        whole = value("chat.completion", {"message": message, "finish_reason": "tool_calls"})
        return await x.json(200, dict(whole, usage=usage))
    if not x.asked_stream:
        message = {"role": "assistant", "content": "".join(x.words()).strip(), "tool_calls": None}
        whole = value("chat.completion", {"message": message, "finish_reason": "stop"})
        return await x.json(200, dict(whole, usage=usage))
    await x.start_stream()
    for word in x.words():
        await x.event(value("chat.completion.chunk", {"delta": {"content": word}, "finish_reason": None}))
    # Unasked, with the finish.
    last = value("chat.completion.chunk", {"delta": {"content": ""}, "finish_reason": "stop"})
    await x.event(dict(last, usage=usage))
    x.entry["usage_sent"] = True
    await x.last_event("[DONE]")


async def mistral_embeddings(x):
    tokens_in, _ = x.counts()
    note(x, input_tokens=tokens_in, output_tokens=0)
    texts = x.body.get("input") or []
    data = [{"object": "embedding", "index": at, "embedding": [0.5, -0.25]} for at, _ in enumerate(texts)]
    usage = {"prompt_tokens": tokens_in, "completion_tokens": 0, "total_tokens": tokens_in}
    value = {"id": x.token("embed-"), "object": "list", "data": data, "model": x.served, "usage": usage}
    await x.json(200, value)


async def mistral_ocr(x):
    note(x, pages=2)
    pages = [
        {"index": at, "markdown": "Seventeen boats.", "images": [], "dimensions": None} for at in range(2)
    ]
    info = {"pages_processed": 2, "doc_size_bytes": 300}
    await x.json(200, {"pages": pages, "model": x.served, "usage_info": info})


HANDLERS = {
    ("cohere", "/v1/chat"): cohere_chat_v1,
    ("cohere", "/v2/chat"): cohere_chat,
    ("cohere", "/v2/embed"): cohere_embed,
    ("cohere", "/v2/rerank"): cohere_rerank,
    ("mistral", "/v1/chat/completions"): mistral_chat,
    ("mistral", "/v1/embeddings"): mistral_embeddings,
    ("mistral", "/v1/ocr"): mistral_ocr,
}


async def answer(x, route):
    """The reply on one of these routes."""
    if x.model.startswith("fake-error-") and x.model[11:].isdigit():
        status = int(x.model[11:])
        if route == "cohere":
            return await x.json(status, {"id": x.token("error-"), "message": "no such model"})
        return await x.json(status, {"object": "error", "message": "no such model", "type": "invalid_model", "code": "1500"})
    handler = HANDLERS.get((route, x.path))
    await (handler(x) if handler else x.json(404, {"message": "no such fake path"}))
