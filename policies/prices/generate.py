#!/usr/bin/env python3
"""Writes `builtin.prices`, the price book that is compiled into Bursar.

    generate.py GENAI_PRICES.json LITELLM.json [--out FILE] [--check] [--quiet]

The two files are the public price tables of genai-prices (Pydantic) and LiteLLM (BerriAI), both
MIT licensed; their versions are read from the file names. Prices are read as decimals from the
JSON text, so no float touches them. The output depends on the two files and nothing else.

`--check` writes nothing and exits 1 when FILE differs from what would be written.

Which source a price comes from
- Standard prices, their start dates, times of day and context thresholds: genai-prices. A class or
  a threshold that only LiteLLM knows is taken from LiteLLM, from the start of the current standard
  prices. For Bedrock it is the other way round: LiteLLM tells geographies and regions apart,
  genai-prices only fills in models that LiteLLM does not have. Azure's prices are those of Global
  deployments where a source says so.
- Batch, flex, priority and ultrafast: LiteLLM, again from the start of the current standard
  prices, because LiteLLM has no history: an older tier price is unknown, not today's. A start date
  that genai-prices gives to a tier is the day it was verified, so where both sources agree on
  every class both know, the classes that only genai-prices knows start with the others. A tier
  that only genai-prices knows starts on its own date.
- Prices by the time of day hold from the start of the current standard prices.
- Batch tables of OpenAI publish no cached-input price; genai-prices notes that cached input keeps
  the standard price there. Such a row is written unless it would exceed the plain batch price.
- Geography: LiteLLM's multipliers, plus SUPPLEMENT below.
- OpenRouter passes the prices of FIRST_PARTY vendors on (measured: charges that it sent), with
  their web search fees and modality prices; where its own current prices are the vendor's, the
  vendor's rows are taken with their dates. OpenRouter's own dates are those of an audit.
- CHARGED: prices that charges sent by the provider itself confirm and neither file has.
- Names: ids and `equals` clauses of genai-prices, the value of other clauses as an exact name, and
  every LiteLLM name that falls under a genai-prices model. Patterns are not used, except for the
  private tail of fine-tuned names: a pattern can reach another version of a family.
- LiteLLM's entries by size and quality, by resolution and by provisioned capacity are left out:
  a record does not tell them apart.
"""

import argparse
import json
import os
import re
import sys
from decimal import Decimal

# Our provider: ids of genai-prices, providers of LiteLLM, beginnings that LiteLLM puts before names.
PROVIDERS = {
    "alibaba": ([], ["dashscope"], ["dashscope/"]),
    "anthropic": (["anthropic"], ["anthropic"], []),
    "azure": (["azure"], ["azure", "azure_ai", "azure_text"], ["azure/", "azure_ai/", "azure_text/"]),
    "bedrock": (["aws"], ["bedrock", "bedrock_converse"], ["bedrock/", "bedrock_converse/"]),
    "bedrock-mantle": ([], ["bedrock_mantle"], ["bedrock_mantle/"]),
    "cerebras": (["cerebras"], ["cerebras"], ["cerebras/"]),
    "cohere": (["cohere"], ["cohere", "cohere_chat"], ["cohere/", "cohere_chat/"]),
    "crusoe": ([], ["crusoe"], ["crusoe/"]),
    "deepseek": (["deepseek"], ["deepseek"], ["deepseek/"]),
    "doubleword": (["doubleword"], [], []),
    "fireworks": (["fireworks"], ["fireworks_ai", "fireworks_ai-embedding-models"], ["fireworks_ai/"]),
    "gemini": (["google"], ["gemini"], ["gemini/"]),
    "github-copilot": (["github-copilot"], ["github_copilot"], ["github_copilot/"]),
    "groq": (["groq"], ["groq"], ["groq/"]),
    "mistral": (["mistral"], ["mistral"], ["mistral/"]),
    "moonshot": (["moonshotai"], ["moonshot"], ["moonshot/"]),
    "openai": (["openai"], ["openai", "text-completion-openai"], []),
    "openrouter": (["openrouter"], [], []),
    "perplexity": (["perplexity"], ["perplexity"], ["perplexity/"]),
    "snowflake": ([], ["snowflake"], ["snowflake/"]),
    "together": (["together"], ["together_ai"], ["together_ai/"]),
    "vertex": (["google"], ["vertex_ai"], ["vertex_ai/"]),
    "voyage": (["voyageai"], ["voyage"], ["voyage/"]),
    "xai": (["x-ai"], ["xai"], ["xai/"]),
    "zai": (["zai"], ["zai"], ["zai/"]),
}
# LiteLLM's answer goes before that of genai-prices.
LITELLM_FIRST = {"bedrock"}
# Where LiteLLM's zero is a free model; elsewhere it may be a preview or unknown, and is left out.
ZERO_IS_FREE = {"gemini", "zai"}
# Vendors whose prices OpenRouter passes on: its name of the vendor, our provider.
FIRST_PARTY = {
    "openai": "openai",
    "anthropic": "anthropic",
    "google": "gemini",
    "x-ai": "xai",
    "mistralai": "mistral",
    "voyageai": "voyage",
    "cohere": "cohere",
    "perplexity": "perplexity",
}
# Vendors whose models OpenRouter lets search with the vendor's own engine; all others search with
# the one OpenRouter brings.
NATIVE_SEARCH = {"openai", "anthropic", "google", "x-ai", "perplexity", "meta"}
# A price by a capacity, a size or a quality that no record tells.
UNTOLD = re.compile(r"(^|/)(\d+-x-\d+|max-x-max|low|medium|high|hd|standard|auto|max-steps|\d+-steps|\d+-month-commitment)(/|$)")
REGION = re.compile(r"^(us|eu|us-gov|[a-z]{2}(-gov)?-[a-z]+-\d)$")

# Token classes: genai-prices field, LiteLLM field, our name.
CLASSES = [
    ("input_mtok", "input_cost_per_token", "input"),
    ("output_mtok", "output_cost_per_token", "output"),
    ("cache_read_mtok", "cache_read_input_token_cost", "cached_read"),
    ("cache_write_mtok", "cache_creation_input_token_cost", "cache_write"),
    ("cache_write_1h_mtok", "cache_creation_input_token_cost_above_1hr", "cache_write_1h"),
    ("input_audio_mtok", "input_cost_per_audio_token", "input_audio"),
    ("cache_audio_read_mtok", "cache_read_input_audio_token_cost", "cached_audio"),
    ("output_audio_mtok", "output_cost_per_audio_token", "output_audio"),
    ("input_image_mtok", "input_cost_per_image_token", "input_image"),
    ("cache_image_read_mtok", "cache_read_input_image_token_cost", "cached_image"),
    ("output_image_mtok", "output_cost_per_image_token", "output_image"),
    (None, "output_cost_per_reasoning_token", "output_reasoning"),
]
GENAI_CLASS = {genai: item for genai, _, item in CLASSES if genai}
LITELLM_CLASS = {litellm: item for _, litellm, item in CLASSES}
ITEM_ORDER = {item: place for place, (_, _, item) in enumerate(CLASSES)}
LITELLM_TIERS = {"batches": "batch", "flex": "flex", "priority": "priority", "ultrafast": "ultrafast"}
LITELLM_FIELD = re.compile(
    "^(?P<field>"
    + "|".join(sorted(LITELLM_CLASS, key=len, reverse=True))
    + r")(?:_above_(?P<above>\d+)k_tokens)?(?:_(?P<tier>"
    + "|".join(LITELLM_TIERS)
    + "))?$"
)
FEE_ITEMS = {
    "web_search_requests", "audio_millis", "pages", "images", "input_images", "search_units", "request",
    "medium_search_context", "high_search_context",
}
TIER_ORDER = ["standard", "batch", "flex", "priority", "fast", "ultrafast"]

# Names that neither source spells out although the prices of the model cover them.
EXTRA_NAMES = {
    ("anthropic", "claude-2"): ["claude-2.0", "claude-2.1"],
    ("gemini", "gemini-2.5-pro"): ["gemini-2.5-pro-preview-05-06", "gemini-2.5-pro-preview-06-05"],
    ("vertex", "gemini-2.5-pro"): ["gemini-2.5-pro-preview-05-06", "gemini-2.5-pro-preview-06-05"],
    # What these models call themselves in a reply.
    ("bedrock", "anthropic.claude-v2:1"): ["claude-2.1", "anthropic.claude-v2:1:18k", "anthropic.claude-v2:1:200k"],
    ("bedrock", "anthropic.claude-instant-v1"): ["claude-instant-1.2"],
    ("azure", "Cohere-embed-v3-english"): ["embed-english-v3.0"],
    ("azure", "Cohere-embed-v3-multilingual"): ["embed-multilingual-v3.0"],
    ("azure", "gpt-realtime"): ["gpt-realtime-global-standard"],
    # What Azure-style deployments call a fine-tuned gpt-4o-mini (genai-prices, starts_with).
    ("openai", "ft:gpt-4o-mini-2024-07-18"): ["gpt-4o-mini-2024-07-18.ft-*"],
}
# genai-prices files these under gpt-4o-mini, whose web search costs 10 USD per thousand. Their own
# search tool is the older one at 25 USD per thousand, as LiteLLM has it.
OWN_TABLE = {"gpt-4o-mini-search-preview": ["gpt-4o-mini-search-preview-2025-03-11"]}
# Uplifts that the provider publishes for all newer models but LiteLLM does not list.
SUPPLEMENT = {
    ("anthropic", "claude-fable-5-2"): {"us": (Decimal("1.1"), "platform.claude.com/docs/en/api/service-tiers")},
    ("anthropic", "claude-mythos-5-2"): {"us": (Decimal("1.1"), "platform.claude.com/docs/en/api/service-tiers")},
}

# Token prices per million that a provider charged by what it sent with its replies.
CHARGED = {
    # 2,317 + 53 tokens and one search for 0.0076509169 USD on 2026-08-14.
    ("openrouter", "deepseek/deepseek-chat"): (
        "2026-08-14",
        {("input", 0): Decimal("0.2574"), ("output", 0): Decimal("1.0287")},
        "openrouter-charge@2026-08-14",
    ),
}
# What a search costs that OpenRouter runs itself, by the same charge.
OPENROUTER_SEARCH = (Decimal("0.007"), "openrouter-charge@2026-08-14")
# Fees that providers publish and that neither file has in a usable form; charges confirm them.
FEES = {
    # 2 searches for 0.01 USD beside the tokens (docs.x.ai/docs/models, tools).
    "xai": {"web_search_requests": (Decimal("0.005"), "docs.x.ai/docs/models")},
}

# Fees of single models, by the beginning of their names, by charges that no other price explains.
MODEL_FEES = {
    # One image made from two for 0.07 USD, where one made from none is 0.05.
    ("xai", "grok-imagine-image-quality"): {"input_images": (Decimal("0.01"), "xai-charge@2026-08")},
}

# Prices of a source that are slips of it: provider and model; a thousand times those of their siblings. The
# model is unpriced then, which is better than that.
SLIPS = {
    # litellm@1.109.1 has 100 USD per million tokens, where every other embedding of Cohere's costs 0.08 to 0.12.
    ("cohere", "embed-multilingual-light-v3.0"),
}

notes = []


def note(text):
    notes.append(text)


# --- reading ---------------------------------------------------------------------------------


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file, parse_float=Decimal, parse_int=Decimal)


def source_name(path):
    match = re.match(r"^(?P<name>.+)-(?P<version>\d+(?:\.\d+)+)\.json$", os.path.basename(path))
    if match is None:
        sys.exit(f"{path}: expected a file name such as litellm-1.109.1.json")
    return f"{match['name']}@{match['version']}"


def matches(clause, name):
    kind = clause["_kind"]
    if kind == "ClauseEquals":
        return name == clause["equals"]
    if kind == "ClauseStartsWith":
        return name.startswith(clause["starts_with"])
    if kind == "ClauseEndsWith":
        return name.endswith(clause["ends_with"])
    if kind == "ClauseContains":
        return clause["contains"] in name
    if kind == "ClauseRegex":
        return re.search(clause["regex"], name) is not None
    if kind == "ClauseOr":
        return any(matches(inner, name) for inner in clause["or_"])
    if kind == "ClauseAnd":
        return all(matches(inner, name) for inner in clause["and_"])
    sys.exit(f"unknown clause {kind}")


def clause_names(provider, model_id, clause):
    """Exact names that a clause spells out; what it cannot give is noted."""
    kind = clause["_kind"]
    if kind == "ClauseEquals":
        return [clause["equals"]]
    if kind in ("ClauseOr", "ClauseAnd"):
        inner = clause["or_"] if kind == "ClauseOr" else clause["and_"]
        return [name for part in inner for name in clause_names(provider, model_id, part)]
    if kind == "ClauseRegex":
        note(f"clause dropped: {provider}/{model_id} {kind} {clause['regex']!r}")
        return []
    stem = clause.get("starts_with") or clause.get("contains") or clause.get("ends_with")
    exact = kind == "ClauseStartsWith" or provider not in ("anthropic", "openai")
    if not exact or stem.startswith("ft:") or stem[-1] in "-@./" or re.search(r"-20\d\d$", stem):
        note(f"clause dropped: {provider}/{model_id} {kind} {stem!r}")
        return []
    names = [stem.lstrip("/")]
    if provider == "anthropic":
        names.append(f"{stem}-latest")
    note(f"clause narrowed to exact names: {provider}/{model_id} {kind} {stem!r}")
    return names


def without_date(name):
    return re.sub(r"-(20\d\d-\d\d-\d\d|20\d\d[01]\d[0-3]\d)$", "", name)


def genai_prices(where, fields):
    """{(item, above): price}, {quantity item: (price, per)}; tokens per million."""
    tokens, fees = {}, {}
    for field, value in fields.items():
        if value is None or field == "_kind":
            continue
        if field in GENAI_CLASS:
            item = GENAI_CLASS[field]
            if isinstance(value, dict):
                tokens[item, 0] = Decimal(value["base"])
                for tier in value["tiers"]:
                    tokens[item, int(tier["start"])] = Decimal(tier["price"])
            else:
                tokens[item, 0] = Decimal(value)
        elif field == "web_searches_kcount":
            fees["web_search_requests"] = (Decimal(value) / 1000, 1)
        elif field == "audio_hours":
            fees["audio_millis"] = (Decimal(value), 3_600_000)
        elif field == "input_document_kpages":
            fees["pages"] = (Decimal(value) / 1000, 1)
        elif field == "input_audio_hours" and fields.get("audio_hours") == value:
            continue
        else:
            note(f"price dropped, no such quantity is metered: {where} {field} = {value}")
    return tokens, fees


def litellm_prices(where, provider, entry):
    """{tier: {(item, above): price}}, {quantity item: (price, per)}; tokens per million."""
    tiers, fees = {}, {}
    mode = entry.get("mode")
    charged_otherwise = False
    for step in entry.get("tiered_pricing") or []:
        if "range" not in step:
            note(f"price dropped, a step without a range: {where}")
            continue
        above = int(step["range"][0])
        for field, value in step.items():
            if field in LITELLM_CLASS:
                tiers.setdefault("standard", {})[LITELLM_CLASS[field], above] = value * 1_000_000
    for field, value in entry.items():
        match = LITELLM_FIELD.match(field)
        if match and isinstance(value, Decimal):
            tier = LITELLM_TIERS.get(match["tier"], "standard")
            above = int(match["above"] or 0) * 1000
            tiers.setdefault(tier, {})[LITELLM_CLASS[match["field"]], above] = value * 1_000_000
        elif field == "search_context_cost_per_query":
            if provider == "perplexity":
                # Every request searches; without another wish it does so with little context.
                low = value["search_context_size_low"]
                fees["request"] = (low, 1)
                for size in ("medium", "high"):
                    fees[f"{size}_search_context"] = (value[f"search_context_size_{size}"] - low, 1)
            elif len(set(value.values())) == 1:
                fees["web_search_requests"] = (next(iter(value.values())), 1)
            else:
                note(f"price dropped, depends on the search context size: {where} {field}")
        elif field == "input_cost_per_second" and mode == "audio_transcription":
            fees["audio_millis"] = (value, 1000)
        elif field == "ocr_cost_per_page":
            fees["pages"] = (value, 1)
        elif field == "input_cost_per_query" and mode == "rerank":
            fees["search_units"] = (value, 1)
        elif field == "input_cost_per_request":
            fees["request"] = (value, 1)
        elif field in ("output_cost_per_image", "input_cost_per_image") and mode in ("image_generation", "image_edit"):
            fees["images"] = (value, 1)
        elif "cost" in field and isinstance(value, Decimal):
            note(f"price dropped, no such quantity or tier is metered: {where} {field} = {value}")
            charged_otherwise = charged_otherwise or (value > 0 and "grounding" not in field)
    for tokens in tiers.values():
        free = not any(tokens.values())
        told = provider in ZERO_IS_FREE and not fees and not charged_otherwise
        nothing = mode in ("embedding", "rerank") or (free and not told)
        for key in [key for key, price in tokens.items() if nothing and price == 0]:
            # There are no such tokens, so nobody will count them; or nobody knows their price.
            del tokens[key]
    tiers = {tier: tokens for tier, tokens in tiers.items() if tokens}
    if tiers:
        # Two measures of one thing: tokens tell more.
        for item in ("images", "audio_millis"):
            if fees.pop(item, None):
                note(f"price dropped, the model has token prices: {where} {item}")
    return tiers, fees


# --- one model -------------------------------------------------------------------------------


class Table:
    """Everything known about one model."""

    def __init__(self, provider, model):
        self.provider = provider
        self.model = model
        self.names = []
        self.rows = {}  # (region, tier, item, above, from, hours) -> (price, per, source)
        self.uplifts = {}  # region -> (factor, source)

    def add(self, tier, start, tokens, source, region="", hours=""):
        for (item, above), price in tokens.items():
            self.rows.setdefault((region, tier, item, above, start, hours), (price, 1_000_000, source))

    def add_fees(self, tier, start, fees, source, region=""):
        for item, (price, per) in fees.items():
            self.rows.setdefault((region, tier, item, 0, start, ""), (price, per, source))

    def current(self, item):
        """The price of an item now, on the standard tier and without region."""
        found = [
            (start, price)
            for (region, tier, name, above, start, hours), (price, _, _) in self.rows.items()
            if (region, tier, name, above, hours) == ("", "standard", item, 0, "")
        ]
        return max(found)[1] if found else None


def merge_litellm(where, provider, entries):
    """One view of the LiteLLM entries of a model: the first entry that has a price gives it."""
    tiers, fees, uplifts, fast = {}, {}, {}, None
    for name, entry in entries:
        entry_tiers, entry_fees = litellm_prices(name, provider, entry)
        for tier, tokens in entry_tiers.items():
            for key, price in tokens.items():
                known = tiers.setdefault(tier, {}).setdefault(key, price)
                if known != price:
                    note(f"litellm disagrees with itself: {where} {tier} {key}: kept {known}, {name} has {price}")
        for item, fee in entry_fees.items():
            fees.setdefault(item, fee)
        specific = entry.get("provider_specific_entry") or {}
        for region in ("us", "eu"):
            factor = specific.get(region) or entry.get(f"regional_processing_uplift_multiplier_{region}")
            if factor is not None:
                uplifts.setdefault(region, Decimal(factor))
        if entry.get("regional_endpoint_uplift_multiplier") is not None:
            uplifts.setdefault("*", Decimal(entry["regional_endpoint_uplift_multiplier"]))
        fast = fast or specific.get("fast")
    standard = tiers.get("standard", {})
    write = standard.get(("cache_write", 0))
    if write is not None and write < standard.get(("input", 0), Decimal(0)):
        note(f"price dropped, cache writes below plain input: {where} cache_write = {plain(write)}")
        del standard["cache_write", 0]
    for tier, tokens in tiers.items():
        for item, above in list(tokens):
            if above and (item, 0) not in tokens and tier == "standard":
                note(f"price dropped, a threshold without a base price: {where} {tier} {item}>{above}")
                del tokens[item, above]
    return tiers, fees, uplifts, fast


def minutes(text):
    hour, minute = text.split(":")[:2]
    return int(hour) * 60 + int(minute)


def versions_of(model):
    """[(start, prices)] of a genai-prices model, oldest first, and [(hours, prices)]; '' is always."""
    prices = model.get("prices")
    if prices is None:
        return [], []
    if not isinstance(prices, list):
        return [("", prices)], []
    found, clock = [], []
    for conditional in prices:
        constraint = conditional.get("constraint")
        kind = constraint["_kind"] if constraint else "StartDateConstraint"
        if kind == "StartDateConstraint":
            found.append((constraint["start_date"] if constraint else "", conditional["prices"]))
        elif kind == "TimeOfDateConstraint":
            times = [constraint["start_time"], constraint["end_time"]]
            if not all(time.endswith("+00:00") for time in times):
                sys.exit(f"{model['id']}: a time of day that is not UTC: {times}")
            clock.append((f"{times[0][:5]}-{times[1][:5]}", conditional["prices"]))
        else:
            note(f"price dropped, neither a start date nor a time of day: {model['id']} {constraint}")
    return sorted(found, key=lambda version: version[0]), clock


def variants_of(model):
    """[(tier, start, prices)] of a genai-prices model."""
    for variant in model.get("price_variants", []):
        if not variant.get("prices"):
            continue
        (dimension, value), = variant["when"].items()
        tier = {"batch": "batch", "flex": "flex", "priority": "priority", "fast": "fast"}.get(value)
        if dimension not in ("processing", "service_tier", "speed") or tier is None:
            note(f"variant dropped: {model['id']} when {variant['when']}")
            continue
        constraint = variant.get("constraint")
        yield tier, constraint["start_date"] if constraint else None, variant["prices"]


def image_output(provider, model, tokens):
    """Image models are priced by their image output: genai-prices gives it as the output price."""
    if provider == "openai" and "image" in model and not any(item == "output_image" for item, _ in tokens):
        for (item, above), price in list(tokens.items()):
            if item == "output" and any(other == "input_image" for other, _ in tokens):
                tokens["output_image", above] = price
    return tokens


def build(provider, model_id, model, entries, genai, litellm):
    """`entries` are LiteLLM's: (name, region, entry)."""
    where = f"{provider}/{model_id}"
    table = Table(provider, model_id)
    base = [(name, entry) for name, region, entry in entries if not region]
    lite, lite_fees, lite_uplifts, lite_fast = merge_litellm(where, provider, base)
    versions, clock = versions_of(model) if model else ([], [])
    standard = {}
    known = set()
    for start, fields in versions:
        standard, fees = genai_prices(where, fields)
        standard = image_output(provider, model_id, standard)
        gone = {item for item, _ in known} - {item for item, _ in standard}
        for item in sorted(gone):
            # The book has no way to end a price but by another one; a read or write that is no
            # longer told apart costs what plain input costs.
            note(f"not restated, so plain: {where} {item} from {start}")
            fallback = ("output", 0) if item.startswith("output") else ("input", 0)
            if fallback not in standard:
                sys.exit(f"{where}: {item} not restated from {start}, and there is no plain price")
            standard.update(
                {(item, above): price for (other, above), price in list(standard.items()) if other == fallback[0]}
            )
        known = set(standard)
        table.add("standard", start, standard, genai)
        table.add_fees("standard", start, fees, genai)
    current = versions[-1][0] if versions else ""
    for hours, fields in clock:
        tokens, _ = genai_prices(where, fields)
        table.add("standard", current, tokens, genai, hours=hours)
    # Standard classes that only LiteLLM knows.
    classes = {item for item, _ in standard}
    lite_standard = lite.pop("standard", {})
    bases = {item: price for (item, above), price in lite_standard.items() if not above}
    for (item, above), price in lite_standard.items():
        if item in classes and above and standard[item, 0] == bases.get(item) and (item, above) not in standard:
            # Sources that put the threshold one token apart mean the same threshold.
            if any(other == item and abs(near - above) <= 1 for other, near in standard):
                continue
            table.add("standard", current, {(item, above): price}, litellm)
            note(f"threshold known to litellm only: {where} {item}>{above} = {plain(price)}")
            continue
        if item in classes:
            theirs = standard.get((item, above))
            if theirs != price:
                note(f"sources disagree: {where} {item}>{above}: kept genai {theirs}, litellm has {plain(price)}")
            continue
        if price == 0 and standard:
            continue
        table.add("standard", current, {(item, above): price}, litellm)
    for (item, above), price in standard.items():
        if above and entries and not any(f"above_{above // 1000}k" in field for _, _, e in entries for field in e):
            note(f"sources disagree: {where} {item}>{above}: kept genai {price}, litellm has no threshold")
    genai_fees = {row[2] for row in table.rows if row[2] in FEE_ITEMS}
    for item, fee in lite_fees.items():
        if item in genai_fees:
            kept = next(table.rows[row][0] for row in table.rows if row[2] == item)
            if kept != fee[0]:
                note(f"sources disagree: {where} {item}: kept genai {plain(kept)}, litellm has {plain(fee[0])}")
        else:
            table.add_fees("standard", current, {item: fee}, litellm)
    # Tiers.
    variants = {}
    for tier, start, fields in variants_of(model) if model else []:
        tokens, _ = genai_prices(where, fields)
        variants[tier] = (start, image_output(provider, model_id, tokens))
    for tier in sorted(set(lite) | set(variants)):
        theirs = lite.get(tier, {})
        start, ours = variants.get(tier, (None, {}))
        plain_read, own = standard.get(("cached_read", 0)), ours.get(("input", 0))
        if provider == "openai" and tier == "batch" and own is not None and plain_read is not None:
            if ("cached_read", 0) not in ours and ("cached_read", 0) not in theirs and plain_read <= own:
                ours["cached_read", 0] = plain_read
        differ = {key for key in set(theirs) & set(ours) if theirs[key] != ours[key]}
        if differ:
            note(f"sources disagree: {where} {tier} {sorted(differ)}: litellm until {start}, then genai")
            table.add(tier, current, theirs, litellm)
            table.add(tier, start or current, ours, genai)
        elif theirs:
            near = {(item, above + 1) for item, above in ours} | {(item, above - 1) for item, above in ours}
            table.add(tier, current, {key: price for key, price in theirs.items() if key not in near or not key[1]}, litellm)
            table.add(tier, current, ours, genai)
        else:
            table.add(tier, max(start or current, current), ours, genai)
    if lite_fast and "fast" not in variants:
        note(f"fast mode from a multiplier: {where} x{lite_fast}")
        table.add("fast", current, {key: price * Decimal(lite_fast) for key, price in standard.items()}, litellm)
    for region, factor in lite_uplifts.items():
        table.uplifts[region] = (factor, litellm)
    for region, uplift in SUPPLEMENT.get((provider, model_id), {}).items():
        table.uplifts.setdefault(region, uplift)
    add_regions(table, where, current, entries, litellm)
    own = [fees for (whose, begin), fees in MODEL_FEES.items() if whose == provider and table.model.startswith(begin)]
    for item, (price, source) in [fee for fees in [FEES.get(provider, {}), *own] for fee in fees.items()]:
        if table.rows and not any(row[2] == item for row in table.rows):
            table.add_fees("standard", current, {item: (price, 1)}, source)
    return grounded(table)


def add_regions(table, where, current, entries, litellm):
    """What costs something else in one region."""
    for region in sorted({region for _, region, _ in entries if region}):
        there = [(name, entry) for name, other, entry in entries if other == region]
        tiers, fees, _, _ = merge_litellm(f"{where}[{region}]", table.provider, there)
        for tier, tokens in tiers.items():
            same = {
                (item, above): price
                for (place, name, item, above, start, _), (price, _, _) in table.rows.items()
                if (place, name, start) == ("", tier, current)
            }
            if any(same.get(key) != price for key, price in tokens.items()):
                table.add(tier, current, tokens, litellm, region=region)
        for item, fee in fees.items():
            if not any(row[2] == item and value[0] == fee[0] for row, value in table.rows.items()):
                table.add_fees("standard", current, {item: fee}, litellm, region=region)


def grounded(table):
    """Google charges older models per grounded prompt, newer ones per search."""
    if table.provider in ("gemini", "vertex"):
        for row in [row for row in table.rows if row[2] == "web_search_requests"]:
            region, tier, _, above, start, hours = row
            if table.rows[row][0] == Decimal("0.035"):
                table.rows[region, tier, "grounded_request", above, start, hours] = table.rows.pop(row)
    return table


# --- all models ------------------------------------------------------------------------------


def local_name(provider, name):
    """LiteLLM's name as the provider's: (name, region); None for what no record tells."""
    for beginning in PROVIDERS[provider][2]:
        if name.startswith(beginning):
            name = name[len(beginning) :]
            break
    if name in ("model-router", "model_router") or re.match(r"(fireworks|together)-ai-", name):
        # A charge on top of the model that it chose; a class of sizes.
        return None
    if UNTOLD.search(name) or "*" in name or " " in name:
        return None
    head, slash, tail = name.partition("/")
    if provider in ("azure", "bedrock", "bedrock-mantle") and slash:
        if REGION.match(head):
            return tail, head
        if head in ("global", "global-standard"):
            return tail, ""
        if provider != "azure" or head in ("claude_platform",):
            return None
    if slash and provider in ("openai", "anthropic"):
        return None
    return name, ""


def is_entry_of(provider, entry):
    theirs = entry.get("litellm_provider") or ""
    wanted = PROVIDERS[provider][1]
    return theirs in wanted or (provider == "vertex" and theirs.startswith("vertex_ai-"))


def tables_of(provider, genai_models, litellm_rows, genai, litellm):
    rows = {}  # name -> [(LiteLLM's name, region, entry)]
    for name, entry in litellm_rows.items():
        if not is_entry_of(provider, entry):
            continue
        local = local_name(provider, name)
        if local is None:
            note(f"litellm name dropped, priced per size, quality or capacity: {provider} {name}")
            continue
        if (provider, local[0]) in SLIPS:
            note(f"litellm name dropped, its price is a slip: {provider} {name}")
            continue
        rows.setdefault(local[0], []).append((name, local[1], entry))
    # An entry under the provider's own beginning goes before one without.
    for entries in rows.values():
        entries.sort(key=lambda entry: (entry[1], not any(entry[0].startswith(p) for p in PROVIDERS[provider][2]), entry[0]))
    owner = {}  # name -> genai-prices id
    by_id = {}
    for model in genai_models:
        if model["id"].startswith("ft:") or ".ft-" in model["id"]:
            note(f"model dropped, fine-tuned names come from litellm: {provider}/{model['id']}")
            continue
        if "verify against OpenAI pricing" in (model.get("price_comments") or ""):
            note(f"model dropped, not the provider's price: {provider}/{model['id']}")
            continue
        if provider == "gemini" and model["id"].startswith("claude"):
            continue
        if provider == "bedrock" and model["id"].startswith("regional."):
            continue
        if not versions_of(model)[0]:
            if provider != "openrouter" or not model["id"].endswith(":free"):
                note(f"model dropped, no price in genai: {provider}/{model['id']}")
                continue
        by_id[model["id"]] = model
    own = {name for first, others in OWN_TABLE.items() for name in [first, *others]} if provider == "openai" else set()
    for name in rows:
        if name.startswith("ft:") or name in own:
            continue
        if name in by_id:
            owner[name] = name
            continue
        for candidate in (name, without_date(name)):
            found = next((m["id"] for m in by_id.values() if matches(m["match"], candidate)), None)
            if found is not None:
                owner[name] = found
                break
    if provider in LITELLM_FIRST:
        for covered in set(owner.values()):
            note(f"model dropped, litellm tells its prices in more detail: {provider}/{covered}")
            del by_id[covered]
        owner = {}
    tables, taken = [], {}

    def finish(table, names):
        for name in [table.model, *names, *EXTRA_NAMES.get((provider, table.model), [])]:
            other = taken.setdefault(name, table.model)
            if other != table.model:
                note(f"name dropped, it belongs to {other}: {provider}/{table.model} {name}")
            elif name != table.model and name not in table.names:
                table.names.append(name)
        if table.rows:
            tables.append(table)
        else:
            note(f"model dropped, nothing that is metered has a price: {provider}/{table.model}")

    for model_id in by_id:
        taken[model_id] = model_id
    for model_id, model in by_id.items():
        names = [n for n in clause_names(provider, model_id, model["match"]) if n not in own and n not in by_id]
        mine = [name for name in rows if owner.get(name) == model_id]
        first = [n for n in [model_id, *names] if n in mine]
        order = list(dict.fromkeys([*first, *sorted(mine)]))
        table = build(provider, model_id, model, [entry for n in order for entry in rows[n]], genai, litellm)
        if provider == "openrouter" and model_id.endswith(":free"):
            free = {("input", 0): Decimal(0), ("output", 0): Decimal(0)}
            table.add("standard", "", free, genai)
        finish(table, [*names, *sorted(mine)])
    for name in sorted(set(rows) - set(owner)):
        if provider == "openai" and any(name in others for others in OWN_TABLE.values()):
            continue
        if provider == "openai" and name in OWN_TABLE:
            model = next(m for m in by_id.values() if matches(m["match"], name))
            table = build(provider, name, without_fees(model), rows[name], genai, litellm)
            finish(table, OWN_TABLE[name])
        elif rows[name][0][2].get("mode") == "moderation":
            table = Table(provider, name)
            table.add_fees("standard", "", {"request": (Decimal(0), 1)}, litellm)
            finish(table, [])
        elif name not in taken:
            private = [f"{name}:*"] if name.startswith("ft:") and provider == "openai" else []
            finish(build(provider, name, None, rows[name], genai, litellm), private)
        else:
            note(f"litellm name dropped, it belongs to {taken[name]}: {provider} {name}")
    if provider not in ("openai", "anthropic"):
        tables = joined(provider, tables)
    return sorted(tables, key=lambda table: table.model)


def without_fees(model):
    """A model of genai-prices without its per-call fees."""
    def strip(prices):
        return {field: value for field, value in prices.items() if not field.endswith("_kcount")}

    copy = dict(model)
    prices = model["prices"]
    copy["prices"] = strip(prices) if isinstance(prices, dict) else [dict(p, prices=strip(p["prices"])) for p in prices]
    return copy


GEOGRAPHY = re.compile(r"^(us-gov|us|eu|apac|jp|au|ca|in|global|regional)\.")


def stem_of(name):
    """The name without geography, version and date: names of one stem may share a table."""
    name = GEOGRAPHY.sub("", name.lower()).rpartition("/")[2]
    name = re.sub(r"(-v\d+)?(:\d+)?$", "", re.sub(r"@.*$", "", name))
    return re.sub(r"-(latest|001|\d{4})$", "", without_date(name))


def joined(provider, tables):
    """Tables of one model under several names become one."""
    kept = {}
    for table in sorted(tables, key=lambda table: (len(table.model), table.model)):
        prices = frozenset((key, price) for key, (price, _, _) in table.rows.items())
        factors = frozenset((region, factor) for region, (factor, _) in table.uplifts.items())
        first = kept.setdefault((stem_of(table.model), prices, factors), table)
        if first is not table:
            first.names.extend(name for name in [table.model, *table.names] if name not in first.names)
    if provider == "bedrock":
        used = {name for table in kept.values() for name in [table.model, *table.names]}
        for table in kept.values():
            for name in [table.model, *table.names]:
                # A body names the model without its vendor.
                short = re.sub(r"-v\d+(:\d+)?$", "", name.partition(".")[2])
                if name.startswith("anthropic.") and short and short not in used:
                    used.add(short)
                    table.names.append(short)
    return list(kept.values())


def openrouter(tables, books, genai):
    """OpenRouter's own prices, or those it passes on."""
    for vendor, provider in FIRST_PARTY.items():
        by_name = {name: table for table in books[provider] for name in [table.model, *table.names]}
        for table in tables:
            head, _, tail = table.model.partition("/")
            theirs = by_name.get(tail) or by_name.get(tail.replace(".", "-"))
            if head != vendor or theirs is None:
                continue
            if any(table.current(item) != theirs.current(item) for item in ("input", "output")):
                note(f"openrouter has prices of its own: {table.model}")
                continue
            passed_on(table, theirs, vendor)
        known = {name for table in tables for name in [table.model, *table.names]}
        for theirs in books[provider]:
            # Models that OpenRouter does not list (any more) are still served, as fallbacks too.
            names = [f"{vendor}/{name}" for name in [theirs.model, *theirs.names]]
            if any(name in known or "*" in name or "/ft:" in name or "/models/" in name for name in names):
                continue
            table = Table("openrouter", names[0])
            table.names = names[1:]
            passed_on(table, theirs, vendor)
            if table.rows:
                tables.append(table)
    for table in tables:
        head = table.model.partition("/")[0].lstrip("~")
        priced = any(row[2] == "web_search_requests" for row in table.rows)
        if head not in NATIVE_SEARCH and not priced and not table.model.endswith(":free"):
            table.add_fees("standard", "", {"web_search_requests": (OPENROUTER_SEARCH[0], 1)}, OPENROUTER_SEARCH[1])
        charged = CHARGED.get(("openrouter", table.model))
        if charged:
            start, tokens, source = charged
            table.add("standard", start, tokens, source)
    return sorted(tables, key=lambda table: table.model)


def passed_on(table, theirs, vendor):
    """Takes the vendor's rows; classes that only OpenRouter prices stay."""
    kept = {item for (region, tier, item, *_) in theirs.rows if not region and tier == "standard"}
    rows = {
        row: value
        for row, value in theirs.rows.items()
        if not row[0] and row[1] != "batch" and not (vendor == "google" and row[2] in ("web_search_requests", "grounded_request"))
    }
    for row, value in table.rows.items():
        if row[2] not in kept:
            rows[row] = value
    table.rows = rows


# --- writing ---------------------------------------------------------------------------------


def plain(price):
    text = format(price.normalize(), "f")
    return text if "." not in text else text.rstrip("0").rstrip(".")


def usable(head, tier, item, price, per):
    """The price as the book can hold it, or None."""
    if per == 1_000_000 and price > 1_000:
        note(f"price dropped, no token costs that much (a price per thousand?): {head} {tier} {item} = {price}")
        return None
    if per == 1_000_000 and price != round(price, 6):
        # Digits that a division left over; a real price is not that fine.
        rounded = round(price, 6)
        if abs(rounded - price) > price / 100_000:
            note(f"price dropped, finer than 6 decimals per million: {head} {tier} {item} = {price}")
            return None
        note(f"price rounded half-even to 6 decimals per million: {head} {tier} {item} = {price}")
        return rounded
    if per != 1_000_000 and price != round(price, 12):
        note(f"price rounded half-even to 12 decimals: {head} {tier} {item} = {price}")
        return round(price, 12)
    return price


def lines_of(table, sources):
    head = f"{table.provider}/{table.model}"
    everything = [table.model, *sorted(table.names)]
    if any(re.search(r"[\s|]", name) for name in everything):
        sys.exit(f"a name that the file cannot hold: {head}: {everything}")
    groups = {}
    for (region, tier, item, above, start, hours), (price, per, source) in table.rows.items():
        price = usable(head, tier, item, price, per)
        if price is not None:
            group = (region != "", region, TIER_ORDER.index(tier), start, hours, sources.index(source))
            groups.setdefault(group, []).append((ITEM_ORDER.get(item, len(ITEM_ORDER)), item, above, price, per))
    if not groups:
        return
    yield "=" + " ".join(everything)
    for region, (factor, source) in sorted(table.uplifts.items()):
        yield f"{sources.index(source)} *[{region}] uplift={plain(factor)}"
    for (_, region, tier, start, hours, source), items in sorted(groups.items()):
        place = TIER_ORDER[tier] + (f"[{region}]" if region else "") + (f"@{start}" if start else "")
        place += f"#{hours}" if hours else ""
        prices = " ".join(
            item + (f">{above}" if above else "") + f"={plain(price)}" + (f"/{per}" if per not in (1, 1_000_000) else "")
            for _, item, above, price, per in sorted(items)
        )
        yield f"{source} {place} {prices}"


HEADER = """\
# The built-in price book. Written by generate.py; do not edit.
# Sources: {genai} (Pydantic Services Inc.) and {litellm} (BerriAI), both MIT licensed.
# source number name
# @provider
# =model other names
# number tier[region]@from#hours of the day, UTC  item>above context=price/per units ...  in USD
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("genai")
    parser.add_argument("litellm")
    default = os.path.join(os.path.dirname(os.path.abspath(__file__)), "builtin.prices")
    parser.add_argument("--out", default=default)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the file differs")
    parser.add_argument("--quiet", action="store_true", help="do not list what was dropped or disagrees")
    options = parser.parse_args()
    genai_data, litellm_data = load(options.genai), load(options.litellm)
    genai, litellm = source_name(options.genai), source_name(options.litellm)
    litellm_data = {name: entry for name, entry in litellm_data.items() if entry.get("litellm_provider")}
    books = {}
    for provider in sorted(PROVIDERS):
        wanted = PROVIDERS[provider][0]
        models = [model for p in genai_data if p["id"] in wanted for model in p["models"]]
        books[provider] = tables_of(provider, models, litellm_data, genai, litellm)
    books["openrouter"] = openrouter(books["openrouter"], books, genai)
    tables = [table for provider in sorted(books) for table in books[provider]]
    sources = [genai, litellm]
    for table in tables:
        named = [row[2] for row in table.rows.values()] + [source for _, source in table.uplifts.values()]
        sources.extend(source for source in sorted(set(named)) if source not in sources)
    text = HEADER.format(genai=genai, litellm=litellm)
    text += "".join(f"source {number} {name}\n" for number, name in enumerate(sources))
    for provider in sorted(books):
        taken = {name for table in books[provider] for name in [table.model, *table.names]}
        text += f"@{provider}\n"
        names = [name for table in books[provider] for name in [table.model, *table.names]]
        if len(names) != len(taken):
            sys.exit(f"{provider}: names of two models: {sorted(name for name in taken if names.count(name) > 1)}")
        for table in books[provider]:
            # A name in other letters is the same name where that is not another one.
            for name in [table.model, *table.names]:
                if name.lower() not in taken:
                    taken.add(name.lower())
                    table.names.append(name.lower())
            text += "".join(line + "\n" for line in lines_of(table, sources))
    if not options.quiet:
        for line in sorted(set(notes)):
            print(line, file=sys.stderr)
    counts = {provider: len(tables) for provider, tables in books.items()}
    print(f"{counts}, {len(tables)} models, {len(text)} bytes", file=sys.stderr)
    if options.check:
        with open(options.out, encoding="utf-8") as file:
            if file.read() != text:
                sys.exit(f"{options.out} is not what {os.path.basename(__file__)} writes: run it again")
        return
    with open(options.out, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


if __name__ == "__main__":
    main()
