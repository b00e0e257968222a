#!/usr/bin/env python3
"""Writes the software bill of materials of the binary: CycloneDX 1.6, JSON.

usage: sbom.py [--target TRIPLE] [--features LIST] [--no-default-features] [--binary FILE] [--output FILE]

What is in it: every crate that `cargo tree` says is built for `bursar` with these features on this target, with its
version, licence, package URL, and the checksum that Cargo.lock holds it to; the standard library; and the price lists
that the built-in book was made from. What only runs while building (build scripts, procedural macros, what they need)
has the scope `excluded`, everything else `required`. With --binary its SHA-256 too.

The same sources give the same bytes: the time is SOURCE_DATE_EPOCH or the commit's, or is left out, and the serial
number is made from the content. Needs cargo and nothing else; which commit it is comes from git or BURSAR_COMMIT.
"""
import argparse, datetime, hashlib, json, os, pathlib, re, subprocess, sys, tomllib, uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"
SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
LINE = re.compile(r"(\d+)\|(\S+) v(\S+)(.*)")


def host():
    return re.search(r"^host: (\S+)$", said("rustc", "--version", "--verbose"), re.M)[1]


def said(*command, needed=True):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        if not needed:
            return None
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()


def tree(options, edges):
    """What is built, as a graph: (name, version) → the set of what it needs itself."""
    command = ["cargo", "tree", "--locked", "--package", "bursar", "--target", options.target, "--edges", edges,
               "--prefix", "depth", "--format", "|{p}"]
    if options.features:
        command += ["--features", options.features]
    if options.no_default_features:
        command += ["--no-default-features"]
    graph, path = {}, []
    for line in said(*command).splitlines():
        depth, name, version, _ = LINE.fullmatch(line).groups()
        crate = (name, version)
        del path[int(depth):]
        graph.setdefault(crate, set())
        if path:
            graph[path[-1]].add(crate)
        path.append(crate)
    return graph


def packages(target):
    """What cargo knows of each crate; of those for other platforms nothing has to be fetched."""
    platforms = sum((["--filter-platform", one] for one in sorted({target, host()})), [])
    meta = json.loads(said("cargo", "metadata", "--format-version", "1", "--locked", *platforms))
    return {(package["name"], package["version"]): package for package in meta["packages"]}


def checksums():
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    return {(package["name"], package["version"]): package.get("checksum") for package in lock["package"]}


def purl(crate):
    name, version = crate
    return f"pkg:cargo/{name}@{version.replace('+', '%2B')}"


def licence(text):
    """An SPDX expression; the old slash means OR."""
    return [{"expression": re.sub(r"\s*/\s*", " OR ", text)}] if text else []


def component(crate, package, checksum, scope):
    if package["source"] not in (None, CRATES_IO):
        sys.exit(f"{crate}: comes from {package['source']}, for which there is no package URL")
    told = {"type": "library", "bom-ref": purl(crate), "name": crate[0], "version": crate[1], "scope": scope}
    if package["description"]:
        told["description"] = " ".join(package["description"].split())
    if checksum:
        told["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    told |= {"licenses": licence(package["license"]), "purl": purl(crate)}
    if package["repository"]:
        told["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return told


def standard_library(rustc):
    version = rustc.split()[1]
    return {"type": "library", "bom-ref": f"pkg:generic/rust-std@{version}", "name": "rust-std", "version": version,
            "scope": "required", "description": f"The standard library of {rustc}", "licenses": licence("MIT OR Apache-2.0"),
            "purl": f"pkg:generic/rust-std@{version}"}


def price_lists():
    """The lists that the book names as its sources, with the licence that it says they are under."""
    head = (ROOT / "policies/prices/builtin.prices").read_text(errors="strict").splitlines()[1]
    found = re.findall(r"([a-z-]+)@([\d.]+) \(([^)]+)\)", head)
    if not found or not head.endswith("both MIT licensed."):
        sys.exit(f"policies/prices/builtin.prices: cannot read the sources in {head!r}")
    for name, version, maker in found:
        reference = f"pkg:pypi/{name}@{version}"
        yield {"type": "data", "bom-ref": reference, "supplier": {"name": maker}, "name": name, "version": version,
               "scope": "required", "description": "Prices in the built-in book", "licenses": licence("MIT"), "purl": reference}


def about(options, package, rustc):
    """The program itself."""
    told = {"type": "application", "bom-ref": purl(("bursar", package["version"])), "name": "bursar", "version": package["version"],
            "licenses": licence(package["license"]), "purl": purl(("bursar", package["version"]))}
    if options.binary:
        told["hashes"] = [{"alg": "SHA-256", "content": hashlib.sha256(options.binary.read_bytes()).hexdigest()}]
    commit = os.environ.get("BURSAR_COMMIT") or said("git", "rev-parse", "HEAD", needed=False)
    defaults = [] if options.no_default_features else package["features"]["default"]
    features = sorted({*defaults, *filter(None, options.features.split(","))})
    facts = {"commit": commit, "target": options.target, "rustc": rustc, "features": ",".join(features)}
    told["properties"] = [{"name": f"bursar:{name}", "value": value} for name, value in facts.items() if value]
    return told


def source_date():
    seconds = os.environ.get("SOURCE_DATE_EPOCH") or said("git", "show", "-s", "--format=%ct", "HEAD", needed=False)
    if not seconds:
        return {}
    return {"timestamp": datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}


def document(options):
    rustc = said("rustc", "--version")
    known, sums = packages(options.target), checksums()
    inside, built = tree(options, "normal,no-proc-macro"), tree(options, "normal,build")
    program = next(crate for crate in built if crate[0] == "bursar")
    components = [component(crate, known[crate], sums[crate], "required" if crate in inside else "excluded")
                  for crate in sorted(built) if crate != program]
    beside = [standard_library(rustc), *price_lists()]
    needs = {purl(crate): sorted(purl(other) for other in others) for crate, others in built.items()}
    needs[purl(program)] = sorted(needs[purl(program)] + [one["bom-ref"] for one in beside])
    needs |= {one["bom-ref"]: [] for one in beside}
    told = {
        "$schema": SCHEMA, "bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": "", "version": 1,
        "metadata": {
            **source_date(),
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": [{"type": "application", "name": ".ci/sbom.py", "version": program[1]}]},
            "component": about(options, known[program], rustc),
        },
        "components": components + beside,
        "dependencies": [{"ref": ref, "dependsOn": others} for ref, others in sorted(needs.items())],
    }
    told["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(told, sort_keys=True)).urn
    return told


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--target", default=None)
    options.add_argument("--features", default="")
    options.add_argument("--no-default-features", action="store_true")
    options.add_argument("--binary", type=pathlib.Path)
    options.add_argument("--output", type=pathlib.Path)
    options = options.parse_args()
    options.target = options.target or host()
    text = json.dumps(document(options), indent=1, ensure_ascii=False) + "\n"
    if options.output:
        options.output.write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
