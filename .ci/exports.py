#!/usr/bin/env python3
"""Exports, read by programs that others wrote.

usage: exports.py BURSAR

Makes a ledger from the examples of the guides and a few thousand priced requests, writes every export,
and checks, each against the same ledger's JSON:

- Parquet in DuckDB and in pandas/pyarrow: the same rows, types, nulls, and exact decimals;
- FOCUS 1.4: the rules of the specification for columns, types, nulls, allowed values, and between
  columns (this file has them, `FOCUS_RULES` below); and the FinOps Foundation's focus-validator with the
  newest rules that it brings (1.2: later ones it would fetch from GitHub), over the columns that 1.2 and
  1.4 share;
- XLSX in openpyxl, and in LibreOffice where `soffice` is there or BURSAR_LIBREOFFICE=1 installs it:
  sums of the sheets are the JSON's, those of the reconciliation that of `bursar reconcile`, no formula
  anywhere;
- revenue events in Parquet: amounts to the last digit;
- checksum files with their files.

Needs PyPI for duckdb, pandas, pyarrow, openpyxl and focus-validator, into a directory that is thrown
away; where PyPI cannot be reached it says SKIPPED for what needs them and checks the rest.
"""

import csv
import datetime
import decimal
import hashlib
import io
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile

decimal.getcontext().prec = 60
D = decimal.Decimal
ROOT = pathlib.Path(__file__).resolve().parent.parent
GUIDE = ROOT / "docs" / "guide"
READERS = ["duckdb", "pandas", "pyarrow", "openpyxl"]
# It asks for numpy 1, which newer pyarrow refuses; together pip looks for a way that suits all for minutes.
VALIDATOR, ITS_PYARROW = "focus-validator==2.2.1", "pyarrow==17.0.0"
# In ASCII, which FOCUS 1.2 asks of text.
HOSTILE = ["=cmd()", "+1", "-1", "@sum", "<script>alert(1)</script>", "a,\"b\""]
failures = []


def check(what, good, detail=""):
    if not good:
        failures.append(what)
    if not good or os.environ.get("VERBOSE"):
        print(("ok    " if good else "FAIL  ") + what, detail if not good else "", flush=True)


def run(*args, cwd=None, ok=True):
    done = subprocess.run([str(a) for a in args], cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if ok and done.returncode != 0:
        sys.exit(f"{args}: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done


# === the ledgers

def guide_ledger(bursar, dir):
    for what, file in [
        ("usage", "hedging/usage.csv"), ("profiles", "hedging/profiles.jsonl"), ("fixings", "hedging/fixings.csv"),
        ("contracts", "hedging/contracts.json"), ("fx", "roi/fx.csv"), ("revenue", "roi/revenue.csv"),
    ]:
        run(bursar, "import", what, GUIDE / file, "--data-dir", dir)
    return ["--from", "2026-09-01", "--to", "2026-10-01", "--on", "2026-10-01", "--unit", "MSIT"]


def priced_ledger(bursar, dir, rows=3000):
    """Requests of every shape, priced by the built-in book, with names that hurt."""
    random.seed(7)
    models = [("openai", "gpt-5"), ("anthropic", "claude-sonnet-4-5"), ("openai", "no-such-model"), ("gemini", "gemini-2.5-pro")]
    file = dir.parent / "usage.jsonl"
    with file.open("w") as out:
        for number in range(rows):
            provider, model = random.choice(models)
            cached = random.choice([0, 0, 17, 1000])
            usage = {"input_tokens": cached + random.randrange(1, 300_000), "output_tokens": random.randrange(0, 9000)}
            if cached:
                usage["input_cached_read"] = cached
            row = {
                "id": f"r{number}", "started_at": f"2026-09-{1 + number % 30:02}T{number % 24:02}:{number % 60:02}:07.{number:06}Z",
                "team": random.choice(HOSTILE + ["search"]), "workload": random.choice(["bot", "lab"]),
                "provider": provider, "model": model, "usage": usage, "outcome": "ok",
            }
            if number % 9 == 0:
                row["provider_cost"] = {"amount": "0.000000000001", "currency": "USD"}
            out.write(json.dumps(row) + "\n")
    done = run(bursar, "import", "usage", file, "--data-dir", dir, ok=False)
    if done.returncode != 0:
        sys.exit(f"the made-up usage is refused: {done.stderr[:2000]}")
    return ["--from", "2026-09-01", "--to", "2026-10-01", "--on", "2026-10-01"]


def contracts_ledger(bursar, dir, seed=1):
    """Two months of priced requests under contracts of five kinds, some for a month, some for a term."""
    random.seed(seed)
    rows = []
    for number in range(400):
        day = 1 + number % 58
        month, day = (9, day) if day <= 30 else (10, day - 30)
        tokens = random.randrange(1, 4_000_000)
        usage = {"input_tokens": tokens, "output_tokens": random.randrange(0, 900_000)}
        if random.randrange(3) == 0:
            usage["input_cached_read"] = tokens // 3
        provider, model = random.choice([("openai", "gpt-5"), ("openai", "gpt-5-mini"), ("anthropic", "claude-sonnet-4-5")])
        rows.append({
            "id": f"r{number}", "started_at": f"2026-{month:02}-{day:02}T{number % 24:02}:10:00.{number:06}Z",
            "team": random.choice("abc"), "workload": random.choice("xy"), "provider": provider, "model": model,
            "usage": usage, "outcome": "ok",
        })
    months = {"effective_from": "2026-09-01", "effective_until": "2026-11-01", "volumes": "each_month"}
    usual = {"price_currency": "USD", "trade_date": "2026-08-01"}
    contracts = [
        {"position_id": "prepaid", "kind": "prepaid_credit", "quantity": "300", "unit": "USD", **months, "volumes": "spread",
         "effective_until": "2026-12-01", "commitment": {"fulfilment_interval": "term", "benefit_percent": "10"},
         "designation": {"providers": ["openai"]}},
        {"position_id": "units", "kind": "commit_usage", "quantity": "100", "unit": "Mtok", "fixed_price": "2.5", **months,
         "commitment": {"fulfilment_interval": "month", "shortfall": "pro_rata"},
         "designation": {"teams": ["a", "b"], "models": ["gpt-5*"]}},
        {"position_id": "hourly", "kind": "commit_usage", "quantity": "700", "unit": "Mtok", "fixed_price": "1.1", **months,
         "commitment": {"fulfilment_interval": "hour"}, "designation": {"providers": ["anthropic"]}},
        {"position_id": "term", "kind": "voucher", "quantity": "30", "unit": "Mtok", "fixed_price": "0.7", "volumes": "spread",
         "effective_from": "2026-09-10", "effective_until": "2026-10-20", "designation": {"teams": ["c"]},
         "commitment": {"expiry": "2026-10-19", "fulfilment_interval": "term", "shortfall": "owner", "owner": "c"}},
        {"position_id": "swap", "kind": "swap_fixed_float", "side": "pay_fixed", "quantity": "50", "unit": "Mtok",
         "fixed_price": "2.10", "index_id": "TPI", "settlement_rule": "average_business", "fallback": "last_published", **months,
         "premium": {"amount": "12.50", "pay_date": "2026-09-01"}, "fees": [{"event": "settlement", "amount": "2.45"}],
         "designation": {"objective": "fix the price"}},
    ]
    days = [datetime.date(2026, 9, 1) + datetime.timedelta(days=day) for day in range(61)]
    fixings = [{"index": "TPI", "date": str(day), "value": "2.25", "currency": "USD"} for day in days if day.weekday() < 5]
    for what, records in [("usage", rows), ("fixings", fixings), ("contracts", [{**usual, **contract} for contract in contracts])]:
        file = dir.parent / f"{what}.jsonl"
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
        run(bursar, "import", what, file, "--data-dir", dir)
    return [["--from", "2026-09-01", "--to", "2026-10-01", "--on", "2026-11-01"],
            ["--from", "2026-10-01", "--to", "2026-11-01", "--on", "2026-11-01"]]


def bought_is_used(name, rows, position):
    """What usage took of a contract, and what was not used, is what was bought of it."""
    bought = [D(row["BilledCost"]) for row in rows if row["ChargeCategory"] == "Purchase" and row["x_PositionId"] == position]
    used = sum((D(str(element["ContractCommitmentAppliedCost"])) for row in rows if row["ChargeCategory"] != "Purchase"
                for element in elements(row) if element["ContractCommitmentId"] == position), D(0))
    check(f"{name}: what was used and not used of {position} is what was bought", [half_even(used)] == bought, f"{used} {bought}")


# === Parquet

def leaf(row, path):
    for part in path.split("."):
        row = None if row is None else row.get(part)
    return row


MONEY = ["cost.list", "cost.contracted", "cost.billed", "provider_cost.amount"]
COUNTS = ["seq", "usage.input_tokens", "usage.input_cached_read", "usage.output_tokens", "bytes_in"]


def parquet(bursar, ledger, out):
    import duckdb
    import pyarrow
    import pyarrow.parquet as pq

    run(bursar, "export", "usage", "--format", "jsonl", "-o", out / "usage.jsonl", "--data-dir", ledger)
    run(bursar, "export", "usage", "--format", "parquet", "-o", out / "usage.parquet", "--data-dir", ledger)
    rows = [json.loads(line, parse_float=D, parse_int=int) for line in (out / "usage.jsonl").open()]
    file = pq.ParquetFile(out / "usage.parquet")
    check("parquet: zstd", file.metadata.row_group(0).column(0).compression == "ZSTD")
    table = file.read().flatten()
    names = set(table.column_names)
    check("parquet: columns", {"id", "seq", "cost.list", "usage.input_tokens", "started_at"} <= names, names)
    types = {field.name: field.type for field in table.schema}
    check("parquet: money is decimal(38, 12)", all(types[n] == pyarrow.decimal128(38, 12) for n in MONEY), types)
    check("parquet: instants are microseconds in UTC", types["started_at"] == pyarrow.timestamp("us", tz="UTC"), types["started_at"])
    check("parquet: rows", table.num_rows == len(rows), f"{table.num_rows} {len(rows)}")
    frame = table.to_pandas()
    for path in MONEY + COUNTS:
        here = [None if value is None or value != value else value for value in frame[path].tolist()]
        there = [leaf(row, path) for row in rows]
        if path in MONEY:
            there = [None if value is None else D(str(value)) for value in there]
        else:
            here = [None if value is None else int(value) for value in here]
        check(f"pandas: {path} is exactly the JSON's", here == there,
              next(((a, b) for a, b in zip(here, there) if a != b), ""))
    texts = [None if v is None or v != v else v for v in frame["team"].tolist()]
    check("pandas: names are as they were written", texts == [row.get("team") for row in rows])
    base = duckdb.connect()
    for path in MONEY:
        struct = path.replace(".", '"."')
        total = base.execute(f'select sum("{struct}"), count("{struct}") from read_parquet(?)', [str(out / "usage.parquet")]).fetchone()
        values = [D(str(leaf(row, path))) for row in rows if leaf(row, path) is not None]
        expected = sum(values, D(0)) if values else None
        check(f"duckdb: sum of {path} is exact", total == (expected, len(values)), f"{total} {expected} {len(values)}")
    kind = base.execute("select typeof(cost.list), typeof(started_at) from read_parquet(?) limit 1", [str(out / "usage.parquet")]).fetchone()
    check("duckdb: types", kind == ("DECIMAL(38,12)", "TIMESTAMP WITH TIME ZONE"), kind)
    return len(rows)


# === FOCUS 1.4

A, M = "never null", "may be null"
FOCUS_USAGE = {
    "AllocatedMethodDetails": ("json", M), "AllocatedMethodId": ("text", M), "AllocatedResourceId": ("text", M),
    "AllocatedResourceName": ("text", M), "AllocatedTags": ("json", M), "AvailabilityZone": ("text", M),
    "BilledCost": ("decimal", A), "BillingAccountId": ("text", A), "BillingAccountName": ("text", M),
    "BillingAccountType": ("text", A), "BillingCurrency": ("currency", A), "BillingPeriodEnd": ("time", A),
    "BillingPeriodStart": ("time", A), "CapacityReservationId": ("text", M), "CapacityReservationStatus": (["Used", "Unused"], M),
    "ChargeCategory": (["Usage", "Purchase", "Tax", "Credit", "Adjustment"], A), "ChargeClass": (["Correction"], M),
    "ChargeDescription": ("text", M), "ChargeFrequency": (["One-Time", "Recurring", "Usage-Based"], A),
    "ChargePeriodEnd": ("time", A), "ChargePeriodStart": ("time", A), "CommitmentDiscountCategory": (["Spend", "Usage"], M),
    "CommitmentDiscountId": ("text", M), "CommitmentDiscountName": ("text", M), "CommitmentDiscountQuantity": ("decimal", M),
    "CommitmentDiscountStatus": (["Used", "Unused"], M), "CommitmentDiscountType": ("text", M), "CommitmentDiscountUnit": ("text", M),
    "CommitmentProgramEligibilityDetails": ("json", M), "ConsumedQuantity": ("decimal", M), "ConsumedUnit": ("text", M),
    "ContractApplied": ("json", M), "ContractedCost": ("decimal", A), "ContractedUnitPrice": ("price", M),
    "EffectiveCost": ("decimal", A), "HostProviderName": ("text", M), "InvoiceDetailId": ("text", M), "InvoiceId": ("text", M),
    "InvoiceIssuerName": ("text", A), "ListCost": ("decimal", A), "ListUnitPrice": ("price", M),
    "PricingCategory": (["Standard", "Dynamic", "Committed", "Other"], M), "PricingCurrency": ("currency", A),
    "PricingCurrencyContractedUnitPrice": ("price", M), "PricingCurrencyEffectiveCost": ("decimal", A),
    "PricingCurrencyListUnitPrice": ("price", M), "PricingQuantity": ("decimal", M), "PricingUnit": ("text", M),
    "RegionId": ("text", M), "RegionName": ("text", M), "ResourceId": ("text", M), "ResourceName": ("text", M),
    "ResourceType": ("text", M), "ServiceCategory": (["AI and Machine Learning"], A), "ServiceName": ("text", A),
    "ServiceProviderName": ("text", A), "ServiceSubcategory": (["Generative AI"], A), "SkuId": ("text", M), "SkuMeter": ("text", M),
    "SkuPriceDetails": ("json", M), "SkuPriceId": ("text", M), "SubAccountId": ("text", M), "SubAccountName": ("text", M),
    "SubAccountType": ("text", M), "Tags": ("json", M),
}
INTERVALS = ["Hourly", "Daily", "Weekly", "Monthly", "Quarterly", "Semi-Annual", "Annual", "Full Period", "Transactional", "Custom"]
FOCUS_CONTRACTS = {
    "BillingCurrency": ("currency", M), "ContractCommitmentApplicability": ("json", A),
    "ContractCommitmentBenefitCategory": (["Discount", "Entitlement", "Availability", "Other"], A),
    "ContractCommitmentCategory": (["Spend", "Usage"], A), "ContractCommitmentCost": ("decimal", M),
    "ContractCommitmentCreated": ("time", A), "ContractCommitmentDescription": ("text", M),
    "ContractCommitmentDiscountPercentage": ("share", M), "ContractCommitmentDurationType": ("duration", A),
    "ContractCommitmentFulfillmentInterval": (INTERVALS, A), "ContractCommitmentId": ("text", A),
    "ContractCommitmentLastUpdated": ("time", A),
    "ContractCommitmentLifecycleStatus": (["Proposed", "Pending", "Active", "Exhausted", "Expired", "Canceled", "Superseded"], A),
    "ContractCommitmentModel": (["Continuous", "Discontinuous"], A), "ContractCommitmentOfferCategory": (["Negotiated", "Public"], A),
    "ContractCommitmentPaymentInterval": (["One-Time", "Monthly", "Quarterly", "Semi-Annual", "Annual", "Custom"], A),
    "ContractCommitmentPaymentModel": (["No Upfront", "Partial Upfront", "All Upfront"], A),
    "ContractCommitmentPaymentUpfrontPercentage": ("share", A), "ContractCommitmentPeriodEnd": ("time", A),
    "ContractCommitmentPeriodStart": ("time", A), "ContractCommitmentQuantity": ("decimal", M), "ContractCommitmentType": ("text", A),
    "ContractCommitmentUnit": ("text", M), "ContractId": ("text", A), "ContractPeriodEnd": ("time", A), "ContractPeriodStart": ("time", A),
    "InvoiceIssuerName": ("text", A), "PricingCurrency": ("currency", A), "PricingCurrencyContractCommitmentCost": ("decimal", M),
    "ServiceProviderName": ("text", A),
}


def focus_value(kind, value):
    """Whether a value, which is there, is of its type: the formats of the specification."""
    if isinstance(kind, list):
        return value in kind
    if kind == "currency":
        return re.fullmatch(r"[A-Z]{3}", value) is not None
    if kind == "time":
        return re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", value) is not None
    if kind in ("decimal", "price", "share"):
        if re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?", value) is None:
            return False
        return kind == "decimal" or (D(value) >= 0 and (kind == "price" or D(value) <= 1))
    if kind == "duration":
        return re.fullmatch(r"[1-9]\d* (Day|Month|Year)s?", value) is not None
    if kind == "json":
        try:
            return isinstance(json.loads(value), dict)
        except ValueError:
            return False
    return value == value.strip() and value != ""


def same_null(row, *names):
    return len({row[name] == "" for name in names}) == 1


def elements(row):
    return json.loads(row["ContractApplied"], parse_float=D)["Elements"] if row["ContractApplied"] else []


def times(row, price, cost):
    if row[price] == "" or row["PricingQuantity"] == "":
        return True
    return D(row[price]) * D(row["PricingQuantity"]) == D(row[cost])


used = lambda row: row["ChargeCategory"] in ("Usage", "Purchase") and row["ChargeClass"] != "Correction"
FOCUS_RULES = {
    "BC1.7 EC1.6 uncovered usage: EffectiveCost = BilledCost":
        lambda r: r["ChargeCategory"] != "Usage" or r["ContractApplied"] != "" or D(r["EffectiveCost"]) == D(r["BilledCost"]),
    "CF1.4 purchases are not usage-based": lambda r: r["ChargeCategory"] != "Purchase" or r["ChargeFrequency"] != "Usage-Based",
    "EC1.11 covering purchases are not effective": lambda r: r["ChargeCategory"] != "Purchase" or D(r["EffectiveCost"]) == 0,
    "EC1.8 tax and credit": lambda r: r["ChargeCategory"] not in ("Tax", "Credit"),
    "CQ1.3 quantity consumed only of usage": lambda r: r["ChargeCategory"] == "Usage" or r["ConsumedQuantity"] == "",
    "CQ1.3.3 usage says what was consumed":
        lambda r: r["ChargeCategory"] != "Usage" or r["ConsumedQuantity"] != "" or r["ResourceId"] != "",
    "CU1.4 PU1.4 units with quantities":
        lambda r: same_null(r, "ConsumedQuantity", "ConsumedUnit") and same_null(r, "PricingQuantity", "PricingUnit"),
    "SPI1.3 SI1.3 usage and purchases have a SKU and its price": lambda r: not used(r) or (r["SkuId"] != "" and r["SkuPriceId"] != ""),
    "LUP1.3 CUP1.3 PQ1.3 PC1.2 and so a price, a quantity and a category":
        lambda r: same_null(r, "SkuPriceId", "ListUnitPrice", "ContractedUnitPrice", "PricingQuantity", "PricingCategory",
                            "PricingCurrencyListUnitPrice", "PricingCurrencyContractedUnitPrice"),
    "LC1.6 ListCost = ListUnitPrice × PricingQuantity": lambda r: times(r, "ListUnitPrice", "ListCost"),
    "CoC1.6 ContractedCost = ContractedUnitPrice × PricingQuantity": lambda r: times(r, "ContractedUnitPrice", "ContractedCost"),
    "LC1.5.2 CoC1.5.2 without a price, cost is what is billed":
        lambda r: r["ListUnitPrice"] != "" or D(r["ListCost"]) == D(r["ContractedCost"]) == D(r["BilledCost"]),
    "CDI commitment discounts: none": lambda r: all(r[n] == "" for n in FOCUS_USAGE if n.startswith("CommitmentDiscount")),
    "SAN SAT sub accounts have name and type": lambda r: same_null(r, "SubAccountId", "SubAccountName", "SubAccountType"),
    "RN1.3 regions have a name": lambda r: same_null(r, "RegionId", "RegionName"),
    "RT1.3 resources have a type": lambda r: same_null(r, "ResourceId", "ResourceType"),
    "CA2.7 CA2.8 contracts bought or not used are the resource":
        lambda r: r["ResourceId"] == "" or [e["ContractCommitmentId"] for e in elements(r)] == [r["ResourceId"]],
    "CA2 applied contracts name themselves and an amount":
        lambda r: all(e["ContractId"] and e["ContractCommitmentId"] and "ContractCommitmentAppliedCost" in e for e in elements(r)),
    "SPD1.6.10 custom details begin with x_":
        lambda r: all(key.startswith("x_") for key in json.loads(r["SkuPriceDetails"] or "{}")),
    "CPS CPE a period has an end after its start":
        lambda r: r["ChargePeriodStart"] < r["ChargePeriodEnd"] and r["BillingPeriodStart"] < r["BillingPeriodEnd"],
    "charges lie in their billing period":
        lambda r: r["BillingPeriodStart"] <= r["ChargePeriodStart"] and r["ChargePeriodEnd"] <= r["BillingPeriodEnd"],
}
CONTRACT_RULES = {
    "BC1.4 CoCC1.3 spend has a cost and a currency":
        lambda r: r["ContractCommitmentCategory"] != "Spend" or (r["ContractCommitmentCost"] != "" and r["BillingCurrency"] != ""),
    "CCQ1.3 usage has a quantity": lambda r: r["ContractCommitmentCategory"] != "Usage" or r["ContractCommitmentQuantity"] != "",
    "CCU1.4 quantity and unit": lambda r: same_null(r, "ContractCommitmentQuantity", "ContractCommitmentUnit"),
    "CCDP1.3 a discount says how much, availability does not":
        lambda r: (r["ContractCommitmentBenefitCategory"] != "Discount" or r["ContractCommitmentDiscountPercentage"] != "")
        and (r["ContractCommitmentBenefitCategory"] != "Availability" or r["ContractCommitmentDiscountPercentage"] == ""),
    "CCFI1.4 CCM1.4 the full period is discontinuous":
        lambda r: r["ContractCommitmentFulfillmentInterval"] != "Full Period" or r["ContractCommitmentModel"] == "Discontinuous",
    "CCPI1.4 all upfront is paid once":
        lambda r: r["ContractCommitmentPaymentModel"] != "All Upfront" or r["ContractCommitmentPaymentInterval"] == "One-Time",
    "CCPUP1.5-7 upfront percentage and model":
        lambda r: {"All Upfront": D(r["ContractCommitmentPaymentUpfrontPercentage"]) == 1,
                   "No Upfront": D(r["ContractCommitmentPaymentUpfrontPercentage"]) == 0,
                   "Partial Upfront": 0 < D(r["ContractCommitmentPaymentUpfrontPercentage"]) < 1}[r["ContractCommitmentPaymentModel"]],
    "CCLU1.5 updated after it was created": lambda r: r["ContractCommitmentCreated"] <= r["ContractCommitmentLastUpdated"],
    "PCCCC1.3 cost in the currency of prices": lambda r: same_null(r, "ContractCommitmentCost", "PricingCurrencyContractCommitmentCost"),
    "CCA a scope is global, complex, or has rules":
        lambda r: (lambda a: sum(bool(a.get(k)) for k in ("IsGlobalScope", "IsComplexScope", "Inclusions")) == 1
                   and ("Inclusions" not in a or a.get("InclusionOperator") in ("And", "Or")))(json.loads(r["ContractCommitmentApplicability"])),
}


def conform(name, text, columns, rules):
    rows = list(csv.DictReader(io.StringIO(text)))
    header = text.splitlines()[0].split(",")
    check(f"{name}: every column of the specification", set(columns) <= set(header), set(columns) - set(header))
    own = [column for column in header if column not in columns]
    check(f"{name}: custom columns begin with x_", all(column.startswith("x_") for column in own), own)
    for column, (kind, presence) in columns.items():
        for row in rows:
            value = row[column]
            if column in ("SubAccountId", "SubAccountName") and value.startswith("'"):
                value = value[1:]
            good = presence == M if value == "" else focus_value(kind, value)
            if not good:
                check(f"{name}: {column}", False, repr(value))
                break
    for rule, holds in rules.items():
        bad = next((row for row in rows if not holds(row)), None)
        check(f"{name}: {rule}", bad is None, bad)
    return rows


def half_even(amount):
    return amount.quantize(D("0.01"), rounding=decimal.ROUND_HALF_EVEN)


def focus(bursar, ledger, out, period, name):
    path = out / f"{name}.focus.csv"
    run(bursar, "export", "focus", *period, "-o", path, "--data-dir", ledger)
    rows = conform(name, path.read_text(), FOCUS_USAGE, FOCUS_RULES)
    roi = json.loads(run(bursar, "roi", *period, "--by", "team,workload", "--format", "json", "--data-dir", ledger).stdout)
    total = lambda column: half_even(sum((D(row[column]) for row in rows), D(0)))
    book = roi["book"]["cost"]
    for column, expected in [("x_SpotCost", book["billed"]), ("EffectiveCost", book["effective"]), ("x_HedgedCost", roi["book_total"]),
                             ("x_HedgeResidual", roi["residual"]["cost"]["hedged"])]:
        check(f"{name}: {column} sums to the report", total(column) == D(expected), f"{total(column)} {expected}")
    if book["list"] is not None:
        known = sum((D(r["ListCost"]) for r in rows if r["ChargeCategory"] == "Usage" and r["x_ListCostSource"] == "price_book"), D(0))
        check(f"{name}: ListCost sums to the report", half_even(known) == D(book["list"]), f"{known} {book['list']}")
    contracts = run(bursar, "export", "focus", "--dataset", "contract-commitment", *period, "--data-dir", ledger).stdout
    found = conform(f"{name} contracts", contracts, FOCUS_CONTRACTS, CONTRACT_RULES)
    known = {row["ContractCommitmentId"] for row in found}
    applied = {element["ContractCommitmentId"] for row in rows for element in elements(row)}
    check(f"{name}: applied contracts are in the other dataset", applied <= known, applied - known)
    return path, rows


def focus_parquet(bursar, ledger, out, period, rows):
    import pyarrow.parquet as pq

    run(bursar, "export", "focus", "--format", "parquet", *period, "-o", out / "focus.parquet", "--data-dir", ledger)
    table = pq.read_table(out / "focus.parquet").to_pylist()
    same = len(table) == len(rows)
    for here, there in zip(table, rows):
        for column in ("BilledCost", "EffectiveCost", "ListUnitPrice", "PricingQuantity", "x_HedgedCost"):
            same = same and (there[column] == "" if here[column] is None else here[column] == D(there[column]))
    check("FOCUS Parquet says what the CSV says", same)


# What 1.2 asks for and 1.4 no longer has, or asks of columns that it renamed; the validator is told.
SINCE_1_2 = {"ProviderName": "ServiceProviderName", "PublisherName": "HostProviderName"}


APPLIES = ",".join(name + "_SUPPORTED" for name in [
    "MULTIPLE_PRICING_CATEGORIES", "MULTIPLE_SUB_ACCOUNT_TYPES", "MULTIPLE_BILLING_ACCOUNT_TYPES", "NEGOTIATED_PRICING",
    "PUBLIC_PRICE_LIST", "USAGE_MEASUREMENT", "UNIT_PRICING", "SUB_ACCOUNT", "BILLING_BASED_ON_PROVISIONED_RESOURCES",
    "RESOURCE_TYPE_ASSIGNMENT", "PRICING_BILLING_CURRENCY_DIFFERENCES", "VIRTUAL_CURRENCY", "REGION", "TAGGING",
])
# "InvoiceId MUST NOT be null when the charge is associated with either an issued invoice or a pre-generated
# provisional invoice": the validator cannot see the condition and asks for it always. 1.4 has the same
# condition, and a sidecar sees no invoice: null is what the rule beside it (C-004) wants.
NOT_OURS = {"InvoiceId-C-005-C"}


def validator(python, path, out):
    """The FinOps Foundation's validator, with the rules of 1.2, over what 1.2 and 1.4 share."""
    text = path.read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    header = [c for c in text.splitlines()[0].split(",")]
    # It takes whole numbers for integers.
    decimals = [c for c, (kind, _) in FOCUS_USAGE.items() if kind in ("decimal", "price")]
    for row in rows:
        row.update({c: row[c] + ".0" for c in decimals if row[c] and "." not in row[c]})
    older = out / "focus-1.2.csv"
    with older.open("w", newline="") as file:
        writer = csv.DictWriter(file, header + list(SINCE_1_2), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, **{old: row[new] or row["ServiceProviderName"] for old, new in SINCE_1_2.items()}})
    # It looks for its currencies beside itself.
    where = run(python, "-c", "import focus_validator; print(focus_validator.__path__[0])").stdout.strip()
    done = run(python.parent / "focus-validator", "--data-file", older, "--validate-version", "1.2", "--block-download",
               "--focus-dataset", "CostAndUsage", "--applicability-criteria", APPLIES, "--show-violations",
               cwd=pathlib.Path(where).parent, ok=False)
    (out / "validator.log").write_text(done.stdout + done.stderr)
    return done


def corrections(bursar, out):
    """A closed month, what comes late about it, and the open month with its corrections against the rules."""
    ledger = out / "closed-data"
    ledger.mkdir()
    september, october = contracts_ledger(bursar, ledger, seed=3)
    run(bursar, "period", "close", "2026-09", "--on", "2026-11-01", "--data-dir", ledger)
    reported = lambda month: list(csv.DictReader(io.StringIO(
        run(bursar, "export", "focus", "--as", "reported", *month, "--data-dir", ledger).stdout)))
    was = reported(september)
    late = [{"id": f"late{number}", "started_at": f"2026-09-{number:02}T05:10:00Z", "team": "abc"[number % 3], "workload": "x",
             "provider": "openai", "model": "gpt-5", "outcome": "ok", "usage": {"input_tokens": 7_000 * number, "output_tokens": number}}
            for number in range(1, 29)]
    file = out / "late.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in late))
    run(bursar, "import", "usage", file, "--data-dir", ledger)
    check("FOCUS: a closed month stays as it was", reported(september) == was)
    text = run(bursar, "export", "focus", "--as", "reported", *october, "--data-dir", ledger).stdout
    # The charge period of a correction is the original one.
    rules = {name: (lambda r, holds=holds: r["ChargeClass"] == "Correction" or holds(r)) if name == "charges lie in their billing period"
             else holds for name, holds in FOCUS_RULES.items()}
    rows = conform("FOCUS with corrections", text, FOCUS_USAGE, rules)
    corrected = [row for row in rows if row["ChargeClass"] == "Correction"]
    check("FOCUS: there are corrections", len(corrected) > 28, len(corrected))
    restated = [row for month in (september, october)
                for row in csv.DictReader(io.StringIO(run(bursar, "export", "focus", *month, "--data-dir", ledger).stdout))]
    for column in ["BilledCost", "EffectiveCost", "ListCost", "ContractedCost", "ConsumedQuantity", "x_SpotCost", "x_HedgedCost"]:
        total = lambda rows: sum((D(row[column] or "0") for row in rows), D(0))
        check(f"FOCUS: {column} as reported sums to restated", total(was) + total(rows) == total(restated),
              f"{total(was)} + {total(rows)} {total(restated)}")
    applied = lambda rows: sum((D(str(e["ContractCommitmentAppliedCost"])) for row in rows for e in elements(row)), D(0))
    check("FOCUS: what contracts were applied with, too", applied(was) + applied(rows) == applied(restated))


# === XLSX

NUMBER = re.compile(r"-?\d+(\.\d+)?")


def workbook(bursar, ledger, out, period):
    import openpyxl

    path = out / "roi.xlsx"
    run(bursar, "roi", "--by", "team,workload", *period, "--xlsx", path, "--data-dir", ledger)
    book = openpyxl.load_workbook(path)
    wanted = {"Summary", "By team", "By workload", "Rows", "Trend", "Movers", "Revenue", "Reconciliation", "Method and coverage"}
    check("xlsx: sheets", wanted <= set(book.sheetnames), book.sheetnames)
    formulas = [cell.coordinate for sheet in book for row in sheet.iter_rows() for cell in row if cell.data_type == "f"]
    check("xlsx: no formula anywhere", formulas == [], formulas)
    check("xlsx: charts", len(book["Summary"]._charts) == 2, len(book["Summary"]._charts))
    check("xlsx: frozen headers", all(book[name].freeze_panes for name in wanted - {"Method and coverage"}))
    for title, by, keys in [("By team", "team", 1), ("By workload", "workload", 1), ("Rows", "team,workload", 2)]:
        roi = json.loads(run(bursar, "roi", "--by", by, *period, "--format", "json", "--data-dir", ledger).stdout)
        rows = list(book[title].iter_rows(values_only=True))
        place = {name: index for index, name in enumerate(rows[0])}
        for column in ["cost.billed", "cost.hedged", "revenue", "requests"]:
            values = [row[place[column]] for row in rows[1:1 + len(roi["rows"])]]
            expected = [leaf(row, column) for row in roi["rows"]]
            check(f"xlsx: {title}: {column} is the JSON's", [None if v is None else D(str(v)) for v in values]
                  == [None if v is None else D(str(v)) for v in expected], (values[:3], expected[:3]))
        check(f"xlsx: {title}: numbers have formats", book[title].cell(2, 1 + place["cost.billed"]).number_format == "#,##0.00")
    return path


PARTS = ["gap", "unpriced", "estimated", "aborted", "outside", "price", "rounding", "unexplained"]


def reconciled(bursar, out):
    """A workbook with the reconciliation of the guide: its path, and what `bursar reconcile` said."""
    ledger = out / "reconcile-data"
    run(bursar, "import", "usage", GUIDE / "reconcile/usage.csv", "--from-format", "bursar", "--data-dir", ledger)
    said = run(bursar, "reconcile", GUIDE / "reconcile/openai-usage.json", GUIDE / "reconcile/openai-costs.json",
               "--provider", "openai", "--format", "json", "--data-dir", ledger).stdout
    (out / "openai.json").write_text(said)
    period = ["--from", "2026-03-01", "--to", "2026-04-01", "--on", "2026-03-31"]
    run(bursar, "roi", *period, "--xlsx", out / "reconciled.xlsx", "--reconciliation", out / "openai.json", "--data-dir", ledger)
    return out / "reconciled.xlsx", json.loads(said)


def reconciliation_sums(name, rows, found):
    """Rows of the sheet against the document: each figure, and that the rows sum to the total."""
    count = len(found["rows"])
    for column in ["theirs.cost", "ours.billed", "theirs.tokens", "ours.tokens"] + [f"money.{part}" for part in PARTS]:
        number = lambda value: None if value in (None, "") else D(str(value))
        here = [number(row[column]) for row in rows[:count + 1]]
        there = [number(leaf(row, column)) for row in [*found["rows"], found["total"]]]
        check(f"{name}: {column} is the JSON's", here == there, f"{here} {there}")
        check(f"{name}: {column} sums to its total", sum(filter(None, here[:count]), D(0)) == here[count], here)


def reconciliation_sheet(path, found):
    import openpyxl

    sheet = openpyxl.load_workbook(path)["Reconciliation"]
    check("xlsx: the header of the reconciliation is frozen", sheet.freeze_panes)
    head, *rows = sheet.iter_rows(values_only=True)
    reconciliation_sums("xlsx: reconciliation", [dict(zip(head, row)) for row in rows], found)
    place = head.index("money.gap") + 1
    check("xlsx: gaps have digits beyond cents", sheet.cell(2, place).number_format == "#,##0.00####", sheet.cell(2, place).number_format)


def revenue_events(bursar, ledger, out):
    import pyarrow.parquet as pq

    run(bursar, "revenue", "list", "--format", "parquet", "-o", out / "revenue.parquet", "--data-dir", ledger)
    table = pq.read_table(out / "revenue.parquet").to_pylist()
    rows = list(csv.DictReader(io.StringIO(run(bursar, "revenue", "list", "--format", "csv", "--data-dir", ledger).stdout)))
    check("revenue in Parquet: as many as in CSV, and some", len(table) == len(rows) > 0)
    check("revenue in Parquet: exact amounts", [row["amount"] for row in table] == [D(row["amount"]) for row in rows])


def libreoffice(path, out, bursar, ledger, period, beside):
    office = shutil.which("soffice") or shutil.which("libreoffice")
    if office is None and os.environ.get("BURSAR_LIBREOFFICE") == "1":
        run("apt-get", "update", "-q")
        run("apt-get", "install", "-y", "-q", "--no-install-recommends", "libreoffice-calc")
        office = shutil.which("soffice")
    if office is None:
        print("SKIPPED: LibreOffice (soffice is not there; BURSAR_LIBREOFFICE=1 installs it)")
        return
    sheets = out / "sheets"
    # -1 writes every sheet to a file of its own.
    run(office, "--headless", f"-env:UserInstallation=file://{out}/office", "--convert-to",
        "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,false,false,false,false,-1", "--outdir", sheets, path)
    roi = json.loads(run(bursar, "roi", "--by", "team,workload", *period, "--format", "json", "--data-dir", ledger).stdout)
    with (sheets / f"{path.stem}-Rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for column in ["cost.billed", "cost.hedged", "revenue"]:
        here = sum((D(row[column] or "0") for row in rows[:len(roi["rows"])]), D(0))
        there = sum((D(leaf(row, column) or "0") for row in roi["rows"]), D(0))
        check(f"LibreOffice: {column} sums to the JSON's", half_even(here) == there, f"{here} {there}")
    names = {row["team"] for row in rows}
    check("LibreOffice: names are text", set(HOSTILE) <= names, names)
    path, found = beside
    run(office, "--headless", f"-env:UserInstallation=file://{out}/office", "--convert-to",
        "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,false,false,false,false,-1", "--outdir", sheets, path)
    with (sheets / f"{path.stem}-Reconciliation.csv").open(newline="") as file:
        reconciliation_sums("LibreOffice: reconciliation", list(csv.DictReader(file)), found)


# === the rest

def checksums(out):
    for sums in out.glob("*.sha256"):
        digest, name = sums.read_text().rstrip("\n").split("  ", 1)
        check(f"checksum of {name}", hashlib.sha256((out / name).read_bytes()).hexdigest() == digest)


def python_for_validator():
    """focus-validator 2 needs Python 3.12, and numpy 1, which is not built for later ones."""
    candidates = [sys.executable, *filter(None, [shutil.which("python3.12")])]
    candidates += sorted(map(str, pathlib.Path.home().glob(".pyenv/versions/3.12*/bin/python3")))
    for python in candidates:
        done = subprocess.run([python, "-c", "import sys; print(sys.version_info[:2] == (3, 12))"], capture_output=True, text=True)
        if done.stdout.strip() == "True":
            return python
    return None


def install(python, dir, packages):
    run(python, "-m", "venv", dir)
    done = run(dir / "bin" / "python", "-m", "pip", "-q", "install", "--prefer-binary", *packages, ok=False)
    if done.returncode != 0:
        if re.search(r"connection|resolve host|name resolution|timed out", done.stderr, re.I):
            return None
        sys.exit(f"cannot install {packages}: {done.stderr[-2000:]}")
    return dir / "bin" / "python"


def main(bursar):
    bursar = pathlib.Path(bursar).resolve()
    if os.environ.get("BURSAR_EXPORTS_READERS") is None:
        with tempfile.TemporaryDirectory() as dir:
            venv = install(sys.executable, pathlib.Path(dir) / "readers", READERS)
            if venv is None:
                print("SKIPPED: Parquet in DuckDB and pandas, XLSX in openpyxl, focus-validator (PyPI cannot be reached)")
            environment = {**os.environ, "BURSAR_EXPORTS_READERS": "yes" if venv else "no"}
            sys.exit(subprocess.run([str(venv or sys.executable), __file__, str(bursar)], env=environment).returncode)
    readers = os.environ["BURSAR_EXPORTS_READERS"] == "yes"
    with tempfile.TemporaryDirectory() as dir:
        out = pathlib.Path(dir)
        guide, priced, held = out / "guide-data", out / "priced-data", out / "contracts-data"
        guide.mkdir(), priced.mkdir(), held.mkdir()
        september, all_of_it = guide_ledger(bursar, guide), priced_ledger(bursar, priced)
        focus(bursar, guide, out, september, "FOCUS of the guide")
        for number, month in enumerate(contracts_ledger(bursar, held)):
            name = f"FOCUS of contracts, month {number + 1}"
            rows = focus(bursar, held, out, month, name)[1]
            for position in ["units", "hourly"]:
                bought_is_used(name, rows, position)
        corrections(bursar, out)
        path, rows = focus(bursar, priced, out, all_of_it, "FOCUS of priced usage")
        count = 0
        if readers:
            count = parquet(bursar, priced, out)
            parquet(bursar, guide, out)
            focus_parquet(bursar, priced, out, all_of_it, rows)
            book = workbook(bursar, priced, out, all_of_it)
            beside = reconciled(bursar, out)
            reconciliation_sheet(*beside)
            revenue_events(bursar, guide, out)
            libreoffice(book, out, bursar, priced, all_of_it, beside)
            python = python_for_validator()
            venv = install(python, out / "validator", [VALIDATOR]) if python else None
            venv = venv and install(python, out / "validator", [ITS_PYARROW])
            if venv is None:
                print("SKIPPED: focus-validator (Python 3.12, and PyPI, are needed)")
            else:
                validated(validator(venv, path, out))
        checksums(out)
        rules = len(FOCUS_RULES) + len(CONTRACT_RULES) + len(FOCUS_USAGE) + len(FOCUS_CONTRACTS)
        print(f"exports: {count} records in Parquet, {len(rows)} FOCUS rows against {rules} rules of 1.4, {len(failures)} failures")
    sys.exit(1 if failures else 0)


def validated(done):
    found = re.search(r"Total: (\d+) \| Pass: (\d+) \| Fail: (\d+) \| Skipped: (\d+)", done.stdout)
    if found is None:
        check("focus-validator runs", False, (done.stdout + done.stderr)[-3000:])
        return
    # A rule that fails only because its parts do is told by them.
    failed = set(re.findall(r"❌ (\S+): FAIL  (?!.*AND failed)", done.stdout))
    check("focus-validator 2.2.1, rules of 1.2: exactly the rule that needs an invoice fails", failed == NOT_OURS, failed)
    check("focus-validator looked", int(found[2]) > 250, found[0])
    print("focus-validator:", found[0], "(of the failed ones", len(NOT_OURS), "needs an invoice, the others are made of it)")


if __name__ == "__main__":
    main(sys.argv[1])
