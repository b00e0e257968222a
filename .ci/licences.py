#!/usr/bin/env python3
"""Checks the dependencies' licences, sources, bans and duplicates against deny.toml without a network.

`cargo deny check` does more (advisories, yanked versions); this needs nothing but cargo and runs in CI everywhere.
"""
import json, pathlib, re, subprocess, sys, tomllib

deny = tomllib.loads(pathlib.Path("deny.toml").read_text())
allowed = set(deny["licenses"]["allow"])
banned = {b["crate"] for b in deny["bans"]["deny"]}
meta = json.loads(subprocess.run(["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"],
                                 check=True, capture_output=True, text=True).stdout)


def satisfied(expression):
    """SPDX expressions of OR, AND, WITH and parentheses; the old slash means OR."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def either():
        value = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            value = both() or value
        return value

    def both():
        value = single()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            value = single() and value
        return value

    def single():
        token = tokens.pop(0)
        if token == "(":
            value = either()
            tokens.pop(0)
            return value
        if tokens[:1] == ["WITH"]:
            tokens.pop(0)
            token += " WITH " + tokens.pop(0)
        return token in allowed

    return either()


def duplicates():
    """Crates of several versions on one of the targets, as (name, version)."""
    found = set()
    for target in deny["graph"]["targets"]:
        tree = subprocess.run(["cargo", "tree", "--workspace", "--locked", "--target", target["triple"], "--prefix", "none", "--format", "{p}"],
                              check=True, capture_output=True, text=True).stdout
        crates = {tuple(line.split()[:2]) for line in tree.splitlines() if line.strip()}
        names = [name for name, _ in crates]
        found |= {(name, version.lstrip("v")) for name, version in crates if names.count(name) > 1}
    return found


def matches(skip, crate):
    """Whether an entry such as `syn@2` names this version: its numbers are the first of the version."""
    name, _, version = skip["crate"].partition("@")
    return name == crate[0] and f"{crate[1]}.".startswith(f"{version}.")


def duplicate_problems():
    found = duplicates()
    skips = deny["bans"]["skip"]
    for skip in skips:
        if not skip.get("reason") or not any(matches(skip, crate) for crate in found):
            yield f"deny.toml: bans.skip has {skip['crate']}, which has no reason or is no duplicate any more"
    for name in sorted({name for name, _ in found}):
        left = [version for other, version in sorted(found) if other == name and not any(matches(skip, (other, version)) for skip in skips)]
        if len(left) > 1:
            yield f"{name}: {len(left)} versions ({', '.join(left)}) and no entry of bans.skip in deny.toml that says why"


problems = list(duplicate_problems())
# The lock file also names optional packages that nobody switched on; `cargo tree` names what is built.
tree = subprocess.run(["cargo", "tree", "--workspace", "--locked", "--prefix", "none", "--format", "{p}"],
                      check=True, capture_output=True, text=True).stdout
built = {tuple(line.split()[:2]) for line in tree.splitlines() if line.strip()}
meta["packages"] = [p for p in meta["packages"] if (p["name"], "v" + p["version"]) in built]
for package in meta["packages"]:
    name = f"{package['name']} {package['version']}"
    if package["source"] is None:
        continue
    if not package["source"].startswith("registry+https://github.com/rust-lang/crates.io-index"):
        problems.append(f"{name}: comes from {package['source']}")
    if package["name"] in banned:
        problems.append(f"{name}: banned in deny.toml")
    if not package["license"] or not satisfied(package["license"]):
        problems.append(f"{name}: licence {package['license']!r} is not in deny.toml")
print(f"{len(meta['packages'])} packages checked, {len(problems)} problems")
print("\n".join(problems))
sys.exit(1 if problems or not meta["packages"] else 0)
