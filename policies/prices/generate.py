#!/usr/bin/env python3
"""Writes `builtin.csv`, the price book that is compiled into Bursar.

    generate.py GENAI_PRICES.json LITELLM.json [--out FILE] [--check]

The two files are the public price tables of genai-prices (Pydantic) and LiteLLM (BerriAI), both
MIT licensed; their versions are read from the file names. Prices are read as decimals from the
JSON text, so no float touches them. The output depends on the two files and nothing else.

`--check` writes nothing and exits 1 when FILE differs from what would be written.

Which source a price comes from
- Standard prices, their start dates and their context thresholds: genai-prices. A class or a
  threshold that only LiteLLM knows is taken from LiteLLM, from the start of the current standard
  prices.
- Batch, flex, priority and ultrafast: LiteLLM, again from the start of the current standard
  prices, because LiteLLM has no history: an older tier price is unknown, not today's. A start date
  that genai-prices gives to a tier is the day it was verified, so where both sources agree on
  every class both know, the classes that only genai-prices knows start with the others. A tier
  that only genai-prices knows starts on its own date.
- Batch tables of OpenAI publish no cached-input price; genai-prices notes that cached input keeps
  the standard price there. Such a row is written unless it would exceed the plain batch price.
- Geography: LiteLLM's multipliers, plus SUPPLEMENT below.
- Names: ids and `equals` clauses of genai-prices, the value of a `starts_with` clause as an exact
  name, and every LiteLLM name that falls under a genai-prices model. Patterns are not used, except
  for the private tail of fine-tuned names: a pattern can reach another version of a family.
"""

import argparse
import json
import os
import re
import sys
from decimal import Decimal

PROVIDERS = {
    "anthropic": {"anthropic"},
    "openai": {"openai", "text-completion-openai"},
}

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
TIER_ORDER = ["standard", "batch", "flex", "priority", "fast", "ultrafast"]

# Names that neither source spells out although the prices of the model cover them.
EXTRA_NAMES = {
    ("anthropic", "claude-2"): ["claude-2.0", "claude-2.1"],
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
    if kind == "ClauseOr":
        return [name for inner in clause["or_"] for name in clause_names(provider, model_id, inner)]
    if kind == "ClauseStartsWith":
        stem = clause["starts_with"]
        if stem.startswith("ft:") or stem[-1] in "-@." or re.search(r"-20\d\d$", stem):
            note(f"clause dropped: {provider}/{model_id} starts_with {stem!r}")
            return []
        names = [stem]
        if provider == "anthropic":
            names.append(f"{stem}-latest")
        note(f"clause narrowed to exact names: {provider}/{model_id} starts_with {stem!r}")
        return names
    note(f"clause dropped: {provider}/{model_id} {kind} {clause.get('regex') or clause.get('contains')!r}")
    return []


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
        elif field == "input_audio_hours" and fields.get("audio_hours") == value:
            continue
        else:
            note(f"price dropped, no such quantity is metered: {where} {field} = {value}")
    return tokens, fees


def litellm_prices(where, entry):
    """{tier: {(item, above): price}}, {quantity item: (price, per)}; tokens per million."""
    tiers, fees = {}, {}
    for field, value in entry.items():
        match = LITELLM_FIELD.match(field)
        if match and isinstance(value, Decimal):
            tier = LITELLM_TIERS.get(match["tier"], "standard")
            above = int(match["above"] or 0) * 1000
            tiers.setdefault(tier, {})[LITELLM_CLASS[match["field"]], above] = value * 1_000_000
        elif field == "search_context_cost_per_query":
            if len(set(value.values())) == 1:
                fees["web_search_requests"] = (next(iter(value.values())), 1)
            else:
                note(f"price dropped, depends on the search context size: {where} {field}")
        elif "cost" in field and isinstance(value, Decimal):
            note(f"price dropped, no such quantity or tier is metered: {where} {field} = {value}")
    return tiers, fees


# --- one model -------------------------------------------------------------------------------


class Table:
    """Everything known about one model."""

    def __init__(self, provider, model):
        self.provider = provider
        self.model = model
        self.names = []
        self.rows = {}  # (region, tier, item, above, from) -> (price, per, source)
        self.uplifts = {}  # region -> (factor, source)

    def add(self, tier, start, tokens, source):
        for (item, above), price in tokens.items():
            self.rows.setdefault(("", tier, item, above, start), (price, 1_000_000, source))

    def add_fees(self, tier, start, fees, source):
        for item, (price, per) in fees.items():
            self.rows.setdefault(("", tier, item, 0, start), (price, per, source))


def merge_litellm(where, entries):
    """One view of the LiteLLM entries of a model: the first entry that has a price gives it."""
    tiers, fees, uplifts, fast = {}, {}, {}, None
    for name, entry in entries:
        entry_tiers, entry_fees = litellm_prices(name, entry)
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
        fast = fast or specific.get("fast")
    standard = tiers.get("standard", {})
    write = standard.get(("cache_write", 0))
    if write is not None and write < standard.get(("input", 0), Decimal(0)):
        note(f"price dropped, cache writes below plain input: {where} cache_write = {plain(write)}")
        del standard["cache_write", 0]
    return tiers, fees, uplifts, fast


def versions_of(model):
    """[(start, prices)] of a genai-prices model, oldest first; '' is the beginning of time."""
    prices = model.get("prices")
    if prices is None:
        return []
    if not isinstance(prices, list):
        return [("", prices)]
    found = []
    for conditional in prices:
        constraint = conditional.get("constraint")
        if constraint is not None and constraint["_kind"] != "StartDateConstraint":
            note(f"price dropped, not a start date: {model['id']} {constraint}")
            continue
        found.append((constraint["start_date"] if constraint else "", conditional["prices"]))
    return sorted(found)


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
    where = f"{provider}/{model_id}"
    table = Table(provider, model_id)
    lite, lite_fees, lite_uplifts, lite_fast = merge_litellm(where, entries)
    versions = versions_of(model) if model else []
    standard = {}
    known = set()
    for start, fields in versions:
        standard, fees = genai_prices(where, fields)
        standard = image_output(provider, model_id, standard)
        gone = {item for item, _ in known} - {item for item, _ in standard}
        if gone:
            sys.exit(f"{where}: {gone} not restated from {start}: the book has no way to end a price")
        known = set(standard)
        table.add("standard", start, standard, genai)
        table.add_fees("standard", start, fees, genai)
    current = versions[-1][0] if versions else ""
    # Standard classes that only LiteLLM knows.
    classes = {item for item, _ in standard}
    lite_standard = lite.pop("standard", {})
    bases = {item: price for (item, above), price in lite_standard.items() if not above}
    for (item, above), price in lite_standard.items():
        if item in classes and above and standard[item, 0] == bases.get(item) and (item, above) not in standard:
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
        if above and entries and not any(f"above_{above // 1000}k" in field for _, e in entries for field in e):
            note(f"sources disagree: {where} {item}>{above}: kept genai {price}, litellm has no threshold")
    genai_fees = {row[2] for row in table.rows if row[2] in ("web_search_requests", "audio_millis")}
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
        base, own = standard.get(("cached_read", 0)), ours.get(("input", 0))
        if provider == "openai" and tier == "batch" and own is not None and base is not None:
            if ("cached_read", 0) not in ours and ("cached_read", 0) not in theirs and base <= own:
                ours["cached_read", 0] = base
        differ = {key for key in set(theirs) & set(ours) if theirs[key] != ours[key]}
        if differ:
            note(f"sources disagree: {where} {tier} {sorted(differ)}: litellm until {start}, then genai")
            table.add(tier, current, theirs, litellm)
            table.add(tier, start or current, ours, genai)
        elif theirs:
            table.add(tier, current, theirs, litellm)
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
    return table


# --- all models ------------------------------------------------------------------------------


def tables_of(provider, genai_models, litellm_rows, genai, litellm):
    rows = {
        name: entry
        for name, entry in litellm_rows.items()
        if entry.get("litellm_provider") in PROVIDERS[provider]
    }
    for name in [name for name in rows if "/" in name]:
        note(f"litellm name dropped, priced per size and quality: {name}")
        del rows[name]
    owner = {}  # LiteLLM name -> genai-prices id
    by_id = {}
    for model in genai_models:
        if model["id"].startswith("ft:") or ".ft-" in model["id"]:
            note(f"model dropped, fine-tuned names come from litellm: {provider}/{model['id']}")
            continue
        if "verify against OpenAI pricing" in (model.get("price_comments") or ""):
            note(f"model dropped, not the provider's price: {provider}/{model['id']}")
            continue
        if not versions_of(model):
            note(f"model dropped, no price in genai: {provider}/{model['id']}")
            continue
        by_id[model["id"]] = model
    own = {name for first, others in OWN_TABLE.items() for name in [first, *others]}
    for name in rows:
        if name.startswith("ft:") or name in own:
            continue
        for candidate in (name, without_date(name)):
            found = next((m["id"] for m in by_id.values() if matches(m["match"], candidate)), None)
            if found is not None:
                owner[name] = found
                break
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
        names = [n for n in clause_names(provider, model_id, model["match"]) if n not in own]
        mine = [name for name in rows if owner.get(name) == model_id]
        first = [n for n in [model_id, *names] if n in mine]
        order = list(dict.fromkeys([*first, *sorted(mine)]))
        finish(build(provider, model_id, model, [(n, rows[n]) for n in order], genai, litellm), [*names, *sorted(mine)])
    for name in sorted(set(rows) - set(owner)):
        if any(name in others for others in OWN_TABLE.values()):
            continue
        if name in OWN_TABLE:
            model = next(m for m in by_id.values() if matches(m["match"], name))
            table = build(provider, name, without_fees(model), [(name, rows[name])], genai, litellm)
            finish(table, OWN_TABLE[name])
        elif rows[name].get("mode") == "moderation":
            table = Table(provider, name)
            table.add_fees("standard", "", {"request": (Decimal(0), 1)}, litellm)
            finish(table, [])
        else:
            private = [f"{name}:*"] if name.startswith("ft:") else []
            finish(build(provider, name, None, [(name, rows[name])], genai, litellm), private)
    return sorted(tables, key=lambda table: table.model)


def without_fees(model):
    """A model of genai-prices without its per-call fees."""
    def strip(prices):
        return {field: value for field, value in prices.items() if not field.endswith("_kcount")}

    copy = dict(model)
    prices = model["prices"]
    copy["prices"] = strip(prices) if isinstance(prices, dict) else [dict(p, prices=strip(p["prices"])) for p in prices]
    return copy


# --- writing ---------------------------------------------------------------------------------


def plain(price):
    text = format(price.normalize(), "f")
    return text if "." not in text else text.rstrip("0").rstrip(".")


def lines_of(table):
    head = f"{table.provider}/{table.model}"
    yield f"model,{table.provider},{table.model},{' '.join(sorted(table.names))}"
    for region, (factor, source) in sorted(table.uplifts.items()):
        yield f"uplift,{head}[{region}]/uplift={plain(factor)},{table.provider},{table.model},{region},,,,{plain(factor)},,,,{source}"

    def place(row):
        (_, tier, item, above, start), _ = row
        return TIER_ORDER.index(tier), ITEM_ORDER.get(item, len(ITEM_ORDER)), item, above, start

    for (region, tier, item, above, start), (price, per, source) in sorted(table.rows.items(), key=place):
        if per == 1_000_000 and price != round(price, 6):
            note(f"price dropped, finer than 6 decimals per million: {head} {tier} {item} = {price}")
            continue
        row_id = head
        row_id += f"/{tier}" if tier != "standard" else ""
        row_id += f"/{item}"
        row_id += f">{above}" if above else ""
        row_id += f"@{start}" if start else ""
        row_id += f"={plain(price)}"
        row_id += f"/{per}" if per not in (1, 1_000_000) else ""
        yield (
            f"price,{row_id},{table.provider},{table.model},{region},{tier},{item},{above or ''},"
            f"{plain(price)},{per},USD,{start},{source}"
        )


HEADER = """\
# The built-in price book. Written by generate.py; do not edit.
# Sources: {genai} (Pydantic Services Inc.) and {litellm} (BerriAI), both MIT licensed.
# model,provider,model,other names
# uplift,id,provider,model,region,,,,factor on token prices,,,from,source
# price,id,provider,model,region,tier,item,above context,price,per units,currency,from,source
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("genai")
    parser.add_argument("litellm")
    default = os.path.join(os.path.dirname(os.path.abspath(__file__)), "builtin.csv")
    parser.add_argument("--out", default=default)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the file differs")
    options = parser.parse_args()
    genai_data, litellm_data = load(options.genai), load(options.litellm)
    genai, litellm = source_name(options.genai), source_name(options.litellm)
    text = HEADER.format(genai=genai, litellm=litellm)
    counts = {}
    for provider in sorted(PROVIDERS):
        models = next(p["models"] for p in genai_data if p["id"] == provider)
        for table in tables_of(provider, models, litellm_data, genai, litellm):
            for line in lines_of(table):
                counts[line.split(",", 1)[0]] = counts.get(line.split(",", 1)[0], 0) + 1
                text += line + "\n"
    for line in sorted(set(notes)):
        print(line, file=sys.stderr)
    print(f"{counts}, {len(text)} bytes", file=sys.stderr)
    if options.check:
        with open(options.out, encoding="utf-8") as file:
            if file.read() != text:
                sys.exit(f"{options.out} is not what {os.path.basename(__file__)} writes: run it again")
        return
    with open(options.out, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


if __name__ == "__main__":
    main()
