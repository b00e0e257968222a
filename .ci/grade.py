#!/usr/bin/env python3
"""Grades exported records against what a corpus of exchanges says of them.

usage: grade.py CASES RECORDS.jsonl [--counted]

Only what a case says is compared. With --counted, a figure that the provider did not say may be there, if the
record marks it as counted, and at least one must be.
"""
import json
import pathlib
import sys

FIELDS = [
    "input_tokens", "input_cached_read", "input_cache_write", "input_cache_write_5m", "input_cache_write_1h",
    "input_audio", "output_tokens", "output_reasoning", "output_audio", "web_search_requests", "tool_calls",
]
COUNTED = {"tokenizer", "estimate", "provider_partial"}


def grade(said, record, may_count):
    """What is wrong with a record, and how many of its figures are counts of ours."""
    wrong, counted = [], 0
    usage = record.get("usage") or {}
    # Anthropic begins a stream with a placeholder, which a count replaces when the stream is cut.
    is_marked = may_count and record["usage_source"] in COUNTED
    for field in FIELDS:
        told, got = said["normalized"].get(field), usage.get(field)
        if (told or 0) == (got or 0):
            continue
        if is_marked and field in ("input_tokens", "output_tokens", "output_reasoning"):
            counted += 1
        else:
            wrong.append((field, told, got, record["usage_source"]))
    for field in ("outcome", "metering", "model_served"):
        if field in said and said[field] != record.get(field):
            wrong.append((field, said[field], record.get(field)))
    return wrong, counted


def main():
    may_count = "--counted" in sys.argv
    cases, records = map(pathlib.Path, sys.argv[1:3])
    by_case = {r["tags"]["case"]: r for r in map(json.loads, records.read_text().splitlines())}
    right, counted, failures = 0, 0, []
    for case in sorted(cases.iterdir()):
        record = by_case.get(case.name)
        if record is None:
            failures.append((case.name, "no record"))
            continue
        wrong, marked = grade(json.loads((case / "expected.json").read_text()), record, may_count)
        counted += marked
        right += not wrong
        failures += [(case.name, *one) for one in wrong]
    for failure in failures:
        print("wrong:", *failure)
    note = f", {counted} figures counted where the provider said none" if may_count else ""
    print(f"{right}/{len(list(cases.iterdir()))} records right{note}")
    sys.exit(1 if failures or (may_count and counted == 0) else 0)


main()
