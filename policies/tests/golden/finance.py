#!/usr/bin/env python3
"""Makes finance.json: worked examples computed with exact fractions, independently of the Rust code.

    python3 finance.py > finance.json

Each example states its inputs, what the rules must give, and the rule in words. Rounding is half-even
unless stated; a figure has as many decimals as it is written with.
"""
import itertools
import json
import math
from decimal import Decimal, getcontext
from fractions import Fraction as F

getcontext().prec = 60


def even(x, places):
    """x rounded half-even, as text with exactly so many decimals."""
    scaled = round(F(x) * 10**places)
    sign = "-" if scaled < 0 else ""
    whole, part = divmod(abs(scaled), 10**places)
    return f"{sign}{whole}.{part:0{places}d}" if places else f"{sign}{whole}"


def money(x):
    return even(x, 2)


def plain(x):
    """An exact decimal without trailing zeros."""
    for places in range(13):
        if F(x) * 10**places == round(F(x) * 10**places):
            return even(x, places)
    raise ValueError(x)


def root(x, places):
    """The square root, rounded."""
    x = F(x)
    value = (Decimal(x.numerator) / Decimal(x.denominator)).sqrt()
    return even(F(str(value)), places)


def split(total, weights):
    """Largest remainder in cents; ties to the smaller key, sign last."""
    cents, sign = abs(round(F(total) * 100)), -1 if F(total) < 0 else 1
    whole = sum(F(w) for w in weights.values())
    exact = {k: cents * F(w) / whole for k, w in weights.items()}
    shares = {k: math.floor(v) for k, v in exact.items()}
    left = cents - sum(shares.values())
    for key in sorted(exact, key=lambda k: (-(exact[k] - shares[k]), k))[:left]:
        shares[key] += 1
    return {k: money(F(sign * v, 100)) for k, v in shares.items()}


vectors = []


def vector(id, name, rule, inputs, expected):
    vectors.append({"id": id, "name": name, "rule": rule, "inputs": inputs, "expected": expected})


# === units ===
models = {"big": ("75", "4"), "ref": ("60", "3"), "tiny": ("24", "0.75")}
vector("B1", "quality moves both legs", "P_sit = P·S_ref/S, Q_sit = Q·S/S_ref",
       {"S_ref": "60", "tokens_each": 2000000,
        "models": {n: {"S": s, "price_raw_per_M": p} for n, (s, p) in models.items()}},
       {n: {"sit_per_raw_token": even(F(s) / 60, 12), "price_per_MSIT": even(F(p) * 60 / F(s), 8),
            "MSIT_for_1M_raw": even(2 * F(s) / 60, 12), "cost_check_usd": plain(2 * F(p))}
        for n, (s, p) in models.items()})

per_hour = F("1850") * 3600 * F("0.37") / 10**6
vector("B3", "GPU-hours to tokens", "Mtok per GPU-hour = tokens/s·3600·utilisation/10⁶",
       {"output_tokens_per_s_per_gpu": "1850", "utilisation": "0.37", "gpu_hour_usd": "3.19"},
       {"Mtok_per_gpu_hour": plain(per_hour), "usd_per_Mtok": even(F("3.19") / per_hour, 10),
        "gpu_hours_for_1000_Mtok": even(1000 / per_hour, 10)})

hours = [F(m) * F("0.8") / F("2.5") for m in (2281, 11406)]
lots = [round(h / 730) for h in hours]
vector("B4", "lots are rounded half-even", "lots = round(ratio·hours/730)",
       {"Mtok": 2281, "hedge_ratio": "0.8", "Mtok_per_gpu_hour": "2.5", "lot_gpu_hours": 730,
        "second_case_Mtok": 11406},
       {"hours": even(hours[0] / F("0.8"), 6), "lots": lots[0], "second_hours": even(hours[1] / F("0.8"), 6),
        "second_lots": lots[1], "second_residual_hours": even(hours[1] - lots[1] * 730, 6)})

capacity, weighted = 30 * 2500, 31000 + 4 * F("7250.5")
cost = 30 * F("0.85") * 744
used = F(money(cost * weighted / capacity))
vector("B7", "idle provisioned units", "weighted = input + ratio·output; idle = cost − used",
       {"ptu": 30, "input_tpm_per_ptu": 2500, "output_weight": 4, "input_tpm": "31000", "output_tpm": "7250.5",
        "ptu_hour_usd": "0.85", "hours": 744},
       {"capacity_tpm": plain(capacity), "weighted_tpm": plain(weighted),
        "utilisation": even(weighted / capacity, 10), "cost": money(cost), "used_cost": money(used),
        "idle_cost": money(cost - used)})

# === payoffs ===
fixings = ["1.713", "1.729", "1.744"]
average = sum(map(F, fixings)) / 3
vector("C1", "a swap that receives the fixed price", "side·notional·(average − fixed), rounded once",
       {"notional_MSIT": "12345.678", "fixed": "1.80", "fixings": fixings, "side": "receive_fixed"},
       {"floating_avg": even(average, 10), "settlement_usd": money(-F("12345.678") * (average - F("1.80")))})
vector("C2", "spot equal to the index costs the fixed price", "Q·S − H·(S − K) = H·K for Q = H",
       {"notional_MSIT": "5000", "fixed": "3.25", "fixings": ["4.10", "3.90"], "side": "pay_fixed"},
       {"floating_avg": "4", "settlement_usd": "3750.00", "effective_unit_cost_if_spot_equals_index": "3.25"})

prices = [F("3.005"), F("2.9875"), F("3.0625"), F("3.01")]
flows, before = [], F("2.995")
for price in prices:
    flows.append(7 * 730 * (price - before))
    before = price
running, rounded = F(0), []
for flow in flows:
    already = F(money(running))
    running += flow
    rounded.append(money(F(money(running)) - already))
vector("C4", "rounded days sum to the rounded whole", "Σ VM = lots·multiplier·(last − entry)",
       {"lots": 7, "multiplier": 730, "entry": "2.995", "settlements": [plain(p) for p in prices]},
       {"daily_vm": rounded, "sum": money(running)})

value = 4000 * F("1.75")
part = F(root((3 * F("0.70")) ** 2 * F(1, 252), 12))
initial = value * max(F("0.08"), min(F("0.12"), part))
vector("C5", "margin above the ceiling", "IM = V·clamp(α·σ·√T, 8 %, 12 %), MM = 0.75·IM",
       {"lots": 4000, "entry": "1.75", "settle": "1.40", "alpha": "3", "sigma20": "0.70", "T_years": "1/252"},
       {"notional": plain(value), "model_pct": even(part, 8), "IM": money(initial),
        "MM": money(initial * F("0.75")), "pnl": money(4000 * (F("1.40") - F("1.75"))),
        "limit1": [plain(F("1.75") * F("0.85")), plain(F("1.75") * F("1.15"))],
        "limit2": [plain(F("1.75") * F("0.75")), plain(F("1.75") * F("1.25"))], "move_pct": "-20"})

equity, rows = F("1000"), []
for flow in map(F, ["-250.00", "-0.01", "-900.00"]):
    equity += flow
    call = F("1000") - equity if equity < F("750") else F(0)
    equity += call
    rows.append([money(flow), money(call), money(equity)])
vector("C6", "equity at maintenance is not called", "below maintenance, call = IM − equity",
       {"start_equity": "1000.00", "IM": "1000.00", "MM": "750.00", "vm": ["-250.00", "-0.01", "-900.00"]},
       {"rows_vm_call_equity": rows})

settles, payoffs, units = ["1.95", "1.60", "1.20", "1.35"], [], []
for s in map(F, settles):
    paid = 8000 * max(F(0), s - F("1.70")) - 8000 * max(F(0), F("1.35") - s)
    payoffs.append(money(paid))
    units.append(plain((8000 * s - paid) / 8000))
vector("C8", "a collar keeps the unit cost between its strikes", "cap − floor",
       {"qty": "8000", "cap": "1.70", "floor": "1.35", "settles": settles},
       {"payoffs": payoffs, "effective_unit": units})

total = 9000 * (F("1.913") - F("2.05"))
inside = F(money(total * F(7001, 9000)))
vector("C9", "an over-hedge that lost", "effective = total·He/H; the rest is nobody's",
       {"hedged": "9000", "consumed": "7001", "settle": "1.913", "fixed": "2.05"},
       {"total": money(total), "effective": money(inside), "over_hedge": money(total - inside),
        "over_hedged_units": "1999", "hedge_ratio": even(F(9000, 7001), 6)})

payoff = F(money(4321 * (F("2.717") - F("2.50"))))
spot = F(money(9876 * F("2.80")))
vector("C11", "an under-hedge leaves the rest at spot", "EC = Q·own − H·(S − K)",
       {"hedged": "4321", "consumed": "9876", "settle": "2.717", "fixed": "2.50", "own_avg_price": "2.80"},
       {"payoff": money(payoff), "spot": money(spot), "effective": money(spot - payoff),
        "unit": even((spot - payoff) / 9876, 10), "basis_per_unit": "0.083"})

vector("C13", "take-or-pay", "K·max(Q, C) up to C, the rest at spot",
       {"committed_Mtok": "3000", "fixed": "0.95", "consumed_Mtok": "2750", "spot": "1.05",
        "second_consumed_Mtok": "3333"},
       {"used_cost": money(2750 * F("0.95")), "unused_cost": money(250 * F("0.95")),
        "effective": money(3000 * F("0.95")), "spot_equivalent": money(2750 * F("1.05")),
        "benefit": money(2750 * F("1.05") - 3000 * F("0.95")),
        "second_effective": money(3000 * F("0.95") + 333 * F("1.05"))})

vector("C15", "a mark is beside the result", "realised = settled; unrealised = open·(mark − K)",
       {"side": "receive_fixed", "fixed": "1.50", "settled": [{"month": "2026-01", "qty": "100", "avg": "1.45"}],
        "open": [{"month": "2026-02", "qty": "200", "mark": "1.52"}, {"month": "2026-03", "qty": "50", "mark": "1.41"}]},
       {"realised": money(100 * F("0.05")), "unrealised": money(-200 * F("0.02") + 50 * F("0.09"))})

vector("C17", "implied exchange rate", "CNY price / USD price; never a settlement rate",
       {"cny_per_M": {"cache_miss": "4", "output": "16"}, "usd_per_M": {"cache_miss": "0.55", "output": "2.19"}},
       {"implied_cache_miss": even(4 / F("0.55"), 6), "implied_output": even(16 / F("2.19"), 6)})

h = F("0.9") * F("0.36") / F("0.48")
vector("C19", "minimum-variance lots", "h* = ρσ_S/σ_F",
       {"rho": "0.9", "sigma_S": "0.36", "sigma_F": "0.48", "exposure_gpu_hours": "73000", "multiplier": 730},
       {"h": plain(h), "lots": round(h * 73000 / 730), "E": "0.81"})

vector("C20", "limits", "|net|/limit; a limit is hard, accountability warns",
       {"net_lots": -5610, "spot_month_limit": 5500, "single_month_accountability": 9000,
        "all_month_accountability": 7000, "all_month_net": -6300, "reportable": 25, "warn_at": "0.90"},
       {"spot_usage": plain(F(5610, 5500)), "spot_status": "limit_exceeded", "all_month_usage": "0.9",
        "all_month_status": "warn", "reportable": True})

vector("C22", "a binary", "n·1{average > strike}; nothing at the strike; no coverage",
       {"qty": 750, "price_paid": "0.613", "strike": "1.9", "monthly_avg": "1.900000000001"},
       {"payoff": "750.00", "net": money(750 - 750 * F("0.613")), "if_avg_equals_strike": money(-750 * F("0.613"))})

paid = 90 * F("6.50")
vector("C23", "a voucher", "benefit = redeemed·(spot − locked); the rest lapses at the locked price",
       {"tokens_Mtok": "90", "locked": "6.50", "redeemed": [{"Mtok": "31", "spot": "7.25"}, {"Mtok": "40", "spot": "6.50"}],
        "expired_Mtok": "19"},
       {"paid": money(paid), "benefit": [money(31 * F("0.75")), "0.00"], "unused": money(19 * F("6.50")),
        "effective_unit_on_redeemed": even(paid / 71, 10)})

# === commitments ===
vector("D2", "use it or lose it", "used + unused = billed",
       {"commit_gpu_hours": "1600", "price": "3.45", "used_gpu_hours": "1000"},
       {"used": "3450.00", "unused": money(600 * F("3.45")), "billed": "5520.00", "utilisation": "0.625",
        "effective_per_used_hour": "5.52"})
vector("D3", "prepaid with a benefit", "effective = list·(1 − b); the balance falls by it",
       {"purchase": "1000.00", "input_tokens": 40000000, "output_tokens": 3000000, "prices_per_M": ["1.25", "10.00"],
        "benefit": "0.15"},
       {"list_input": "50", "list_output": "30", "effective_input": "42.5", "effective_output": "25.5", "balance": "932.00"})
vector("D5", "earliest expiry first", "what is left at expiry is breakage",
       {"lots": [{"id": "L2", "usd": "300.00", "expires": "2027-01-31"}, {"id": "L1", "usd": "200.00", "expires": "2026-06-30"}],
        "use": [["2026-06-30", "120.50"], ["2026-07-01", "99.99"]]},
       {"log": [["2026-06-30", "L1", "120.50"], ["expire", "L1", "79.50"], ["2026-07-01", "L2", "99.99"]],
        "breakage": "79.50", "balance_L2": "200.01"})

# === allocation ===
cases = {"case1": ("0.10", {"a": 1, "b": 1, "c": 1}), "case2": ("-100.00", {"a": 2, "b": 2, "c": 3}),
         "case4": ("0.99", {"alpha": "1.5", "beta": "2.25", "gamma": "0.75"})}
inputs = {k: {"total": t, "weights": list(w.values())} for k, (t, w) in cases.items()}
expected = {k: split(t, w) for k, (t, w) in cases.items()}
inputs["case3"] = {"total": "-1.00", "weights": [0, 0]}
expected["case3"] = {"shares": {"a": "0.00", "b": "0.00"}, "residual": "-1.00"}
vector("E1", "largest remainder", "floors, leftovers to the largest remainders, ties to the smaller key", inputs, expected)

spot = {"ops": "7001.005", "search": "1234.567891", "voice": "98.765432"}
volume = {"ops": "3501.5", "search": "612.25", "voice": "50"}
total = F(money(5000 * (F("1.873") - F("1.95"))))
inside = F(money(total * sum(map(F, volume.values())) / 5000))
shares = {"payoff": split(inside, volume), "premium": split("333.33", volume), "fees": split("12.34", volume)}
book = F(money(sum(map(F, spot.values()))))
floors = {k: F(math.floor(F(v) * 100), 100) for k, v in spot.items()}
left = round((book - sum(floors.values())) * 100)
for k in sorted(spot, key=lambda k: (floors[k] - F(spot[k]), k))[:left]:
    floors[k] += F(1, 100)
unused = {"voice": F("45.67")}
effective = {k: floors[k] - F(shares["payoff"][k]) + F(shares["premium"][k]) + F(shares["fees"][k]) + unused.get(k, 0)
             for k in spot}
book_total = book - total + F("333.33") + F("12.34") + F("45.67")
assert sum(effective.values()) + (inside - total) == book_total
vector("E3", "a book after a falling price", "Σ EC + residual = book",
       {"spot_usd": spot, "hedge_units": volume, "hedged": "5000", "settle": "1.873", "fixed": "1.95",
        "premium": "333.33", "fees": "12.34", "unused_commitment": {"voice": "45.67"}},
       {"spot": {k: money(v) for k, v in floors.items()}, "payoff_effective": shares["payoff"],
        "premium": shares["premium"], "fees": shares["fees"],
        "effective_cost": {k: money(v) for k, v in effective.items()}, "residual_over_hedge": money(inside - total),
        "book_total": money(book_total), "spot_total": money(book), "payoff_total": money(total)})

# === effectiveness ===
offsets = [("-8000", "10000"), ("1250.01", "-1000"), ("1", "-3"), ("5", "0")]
results = []
for hedge, item in offsets:
    r = None if F(item) == 0 else -F(hedge) / F(item)
    results.append({"ratio": r if r is None else even(r, 8),
                    "pass_": None if r is None else F("0.8") <= r <= F("1.25")})
vector("F1", "dollar offset", "−ΔHedge/ΔItem within 0.80 to 1.25",
       {"cases": [{"d_hedge": a, "d_item": b} for a, b in offsets]}, {"results": results})


def variance(xs):
    xs = [F(x) for x in xs]
    mean = sum(xs) / len(xs)
    return sum((x - mean) ** 2 for x in xs) / (len(xs) - 1)


without, with_ = ["51.5", "48.25", "60", "44.75", "55"], ["50.5", "49.75", "53", "48", "51.5"]
u, w = variance(without), variance(with_)
vector("F4", "variance and volatility reduction", "sample variances; two numbers, two names",
       {"unhedged_monthly_cost": without, "hedged_monthly_cost": with_},
       {"var_unhedged": even(u, 8), "var_hedged": even(w, 8), "var_reduction": even(1 - w / u, 8),
        "vol_reduction": even(1 - F(root(w / u, 20)), 8)})
es, targets = ["0.5", "0.64", "0.99"], ["0.1", "0.5"]
wanted = [1 - (1 - F(v)) ** 2 for v in targets]
vector("F5", "what a correlation can reach", "1 − √(1 − ρ²)",
       {"E": es, "target_vol_reduction": targets, "paper_sd": ["2.40", "1.50"]},
       {"vol_reduction": [even(1 - F(root(1 - F(x), 20)), 6) for x in es],
        "rho_for_target": [root(x, 6) for x in wanted], "E_for_target": [plain(x) for x in wanted],
        "paper_vol_reduction": even(1 - F("1.5") / F("2.4"), 6), "paper_var_reduction": even(1 - (F("1.5") / F("2.4")) ** 2, 6)})

# === attribution ===
touches = [["a", "2026-02-01T00:00:00Z"], ["b", "2026-02-01T00:00:01Z"], ["c", "2026-02-03T00:00:00Z"]]
vector("G1", "first", "all to the earliest", {"revenue": "77.77", "touches": touches}, {"a": "77.77", "b": "0.00", "c": "0.00"})
vector("G2", "last", "all to the latest", {"revenue": "77.77", "touches": "as G1"}, {"a": "0.00", "b": "0.00", "c": "77.77"})
vector("G3", "linear", "1/n each", {"revenue": "77.77", "touches": "as G1"}, split("77.77", {"a": 1, "b": 1, "c": 1}))
ages = {"a": "0.5", "b": "3.0", "c": "13.25"}
two = Decimal(2)
weights = {k: math.floor(F(str(two ** (-Decimal(v) / Decimal(3)))) * 10**9 + F(1, 2)) for k, v in ages.items()}
vector("G5", "time decay", "weights at 10⁹, half-up", {"revenue": "500.05", "age_days": ages, "half_life_days": 3},
       {"int_weights": weights, "credit": split("500.05", weights)})


def position(n):
    if n < 3:
        return {f"w{i}": 1 for i in range(1, n + 1)}
    return {f"w{i}": F(40) if i in (1, n) else F(20, n - 2) for i in range(1, n + 1)}


vector("G6", "position", "40/20/40", {"revenue": "99.99", "n": [1, 2, 3, 6, 9]},
       {str(n): split("99.99", position(n)) for n in (1, 2, 3, 6, 9)})
v = {"0": 0, "a": 12, "b": 6, "c": 0, "d": 1, "a+b": 20, "a+c": 15, "a+d": 13, "b+c": 9, "b+d": 8, "c+d": 2,
     "a+b+c": 26, "a+b+d": 22, "a+c+d": 17, "b+c+d": 12, "a+b+c+d": 30}
names, phi = "abcd", {n: F(0) for n in "abcd"}
for order in itertools.permutations(names):
    have = ""
    for name in order:
        before = v["+".join(sorted(have)) or "0"]
        have += name
        phi[name] += F(v["+".join(sorted(have))] - before, 24)
vector("G7", "Shapley of four", "mean marginal value over orders", {"v": v},
       {"phi": {k: even(x, 10) for k, x in phi.items()}, "sum": plain(sum(phi.values())), "credit_of_1000": split(1000, phi)})
vector("G9", "look-back", "0 ≤ age ≤ window", {"window_days": 14, "age_days": {"w1": "14.0", "w2": "14.001", "w3": 7},
                                               "revenue": "10.01", "model": "linear"},
       {"in_window": ["w1", "w3"], "credit": split("10.01", {"w1": 1, "w3": 1})})
original = split("123.45", position(5))
reversal = split("-23.46", original)
vector("G10", "a refund takes back what was given", "weights = remaining credit",
       {"original": "123.45", "model": "position n=5", "refund": "-23.46"},
       {"original": original, "reversal": reversal, "net": {k: money(F(original[k]) + F(reversal[k])) for k in original}})
then, now = F(money(F("-33.33") * F("1.2345"))), F(money(F("-33.33") * F("1.1999")))
vector("G12", "a refund at the original rate", "the difference to today's rate is a line of its own",
       {"amount": "100.01", "ccy": "GBP", "usd_per_eur": "1.2345", "refund": "-33.33", "rate_at_refund": "1.1999"},
       {"usd": money(F("100.01") * F("1.2345")), "refund_original_rate": money(then),
        "refund_settlement_rate": money(now), "fx_difference": money(now - then)})

# === ROI ===
tokens, revenue, savings, s, c = 1234567890, F("4321.09"), F("100.00"), F("1500.50"), F("1625.25")
m = F(tokens, 10**6)
vector("H1", "a hedge that cost", "same value, two costs",
       {"tokens": str(tokens), "revenue": money(revenue), "savings": money(savings), "spot_cost": money(s), "effective_cost": money(c)},
       {"cost_per_M_spot": even(s / m, 10), "cost_per_M_effective": even(c / m, 10),
        "roi_spot": even((revenue + savings - s) / s, 10), "roi_effective": even((revenue + savings - c) / c, 10),
        "net_per_M_spot": even((revenue + savings - s) / m, 10), "net_per_M_effective": even((revenue + savings - c) / m, 10),
        "net_per_1k_effective": even((revenue + savings - c) / m / 1000, 12), "hedge_uplift_usd": money(s - c),
        "gross_margin_effective_revenue_only": even((revenue - c) / revenue, 10), "roi_revenue_only": even((revenue - c) / c, 10)})
vector("H2", "undefined ROI", "null with a reason",
       {"cases": [{"value": "0.00", "cost": "0.00"}, {"value": "5.00", "cost": "4.00"}, {"value": "0.00", "cost": "-0.01"},
                  {"value": "3.00", "cost": "2.00", "tokens": "0"}]},
       {"roi": [None, "0.25", None, "0.5"], "flags": ["zero_cost", "", "negative_cost", "zero_tokens"]})
vector("H4", "cost per outcome", "failures stay in the cost", {"effective_cost": "777.77", "attempts": 311, "successes": 123},
       {"cost_per_attempt": even(F("777.77") / 311, 10), "cost_per_success": even(F("777.77") / 123, 10)})

print(json.dumps({"version": 1, "made_by": "finance.py, with exact fractions", "count": len(vectors), "vectors": vectors},
                 ensure_ascii=False, indent=1))
