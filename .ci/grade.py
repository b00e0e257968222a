#!/usr/bin/env python3
"""Grades exported records against what a corpus of exchanges says of them.

usage: grade.py CASES RECORDS.jsonl [--counted]

Every key that a case states is compared, and exactly: null says that the provider did not tell, zero that it told
zero. What the corpus has wrong is in proxy/tests/wrong_in_corpus.json, with the reasons. With --counted, a figure
that the provider did not say may be there, if the record marks it as counted, and at least one must be.
"""
import json
import pathlib
import sys

COUNTED = {"tokenizer", "estimate", "provider_partial"}
MAY_BE_COUNTED = {"input_tokens", "output_tokens", "output_reasoning"}
LIST = pathlib.Path(__file__).resolve().parent.parent / "proxy/tests/wrong_in_corpus.json"
WRONG_IN_CORPUS = json.loads(LIST.read_text())


def is_wrong_in_corpus(case, key):
    return any(case.startswith(one["cases"]) and key in one["keys"] for one in WRONG_IN_CORPUS)


def said_of(record, key):
    """What a record says under the corpus's name of a figure."""
    if key == "provider_cost_usd":
        cost = record.get("provider_cost")
        return cost and cost["amount"]
    if key == "service_tier":
        return record.get("tier")
    return (record.get("usage") or {}).get(key)


def is_same(told, got):
    if told is None or got is None or isinstance(told, str):
        return told == got
    return abs(float(told) - float(got)) < 1e-9


def grade(case, said, record, may_count):
    """What is wrong with a record, and how many of its figures are counts of ours."""
    wrong, counted = [], 0
    # Anthropic begins a stream with a placeholder, which a count replaces when the stream is cut.
    is_marked = may_count and record["usage_source"] in COUNTED
    for key, told in said["normalized"].items():
        got = said_of(record, key)
        if is_same(told, got) or is_wrong_in_corpus(case, key):
            continue
        if is_marked and key in MAY_BE_COUNTED and (got or 0) >= (told or 0):
            counted += 1
        else:
            wrong.append((key, told, got, record["usage_source"]))
    for key in ("outcome", "metering", "model_served"):
        if key in said and said[key] != record.get(key):
            wrong.append((key, said[key], record.get(key)))
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
        wrong, marked = grade(case.name, json.loads((case / "expected.json").read_text()), record, may_count)
        counted += marked
        right += not wrong
        failures += [(case.name, *one) for one in wrong]
    for failure in failures:
        print("wrong:", *failure)
    note = f", {counted} figures counted where the provider said none" if may_count else ""
    print(f"{right}/{len(list(cases.iterdir()))} records right{note}")
    sys.exit(1 if failures or (may_count and counted == 0) else 0)


if __name__ == "__main__":
    main()
