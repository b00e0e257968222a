"""Checks what belongs to a release beside the program: build facts, completions, manual pages, bill of materials.

usage: release.py BURSAR [--mapped PROGRAM] [--root DIR]

BURSAR is a release build of the checkout, PROGRAM one by release-build.sh, which takes more paths out. Tools that are
not there (shells, groff, PyPI) are said (`SKIPPED`) and fail nothing; the last line says how many checks passed. That
two builds give the same bytes is checked by reproducible.sh, which takes two cold builds and is not part of CI.
"""
import argparse, hashlib, json, os, pathlib, re, shutil, subprocess, sys, tempfile

HERE = pathlib.Path(__file__).resolve().parent
# The goal, and what fails: another compiler may make it a little larger.
BINARY_BYTES_MAX = 25 << 20
SOURCES = [".cargo", "Cargo.lock", "Cargo.toml", "domain", "ledger", "policies", "proxy", "tokens"]
# Completes `bursar ledger verify --d` as readline would, and prints the candidates.
COMPLETE = """
source "$1"
COMP_WORDS=(bursar ledger verify --d)
COMP_CWORD=3
_bursar bursar --d verify
printf '%s\\n' "${COMPREPLY[@]}"
"""
VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())
sys.exit(str(problem)[:2000] if problem else 0)
"""


class Skipped(Exception):
    """A tool is not here."""


def run(*command, **more):
    more = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 120, **more}
    return subprocess.run([str(part) for part in command], **more)


def said(*command, **more):
    done = run(*command, **more)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))} ends with {done.returncode}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def expect(condition, text):
    if not condition:
        raise AssertionError(text)


def tool(name):
    if not shutil.which(name):
        raise Skipped(f"{name} is not installed")
    return name


# === the binary

def check_binary(context):
    size = context.bursar.stat().st_size
    expect(size <= BINARY_BYTES_MAX, f"the binary has {size} bytes, more than {BINARY_BYTES_MAX} (25 MiB)")
    expect(str(context.root).encode() not in context.bursar.read_bytes(), f"the binary names {context.root}: two checkouts differ")
    return f"{size} bytes ({size / (1 << 20):.1f} MiB, at most 25); no path of the checkout in it"


def check_paths(context):
    """What would make two builds differ that lie elsewhere; C files are told in errors as much as those in Rust."""
    if not context.mapped:
        raise Skipped("no --mapped PROGRAM was given (.ci/release-build.sh)")
    held = context.mapped.read_bytes()
    home = pathlib.Path(os.environ.get("CARGO_HOME") or pathlib.Path.home() / ".cargo")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or context.root / "target").resolve()
    for path in (home, home.resolve(), context.root, target):
        expect(os.fsencode(path) not in held, f"{context.mapped} names {path}: builds in two places differ")
    for kind in ("rs", "c"):
        mapped = rb"/cargo/registry/[\w./+-]*\." + kind.encode()
        expect(re.search(mapped, held), f"{context.mapped} names no mapped file in .{kind}: this check proves nothing")
    return f"none of {home}, {context.root} and {target} is in {context.mapped}"


def check_facts(context):
    line = said(context.bursar, "--version")
    expect(line.count("\n") == 1 and line.startswith("bursar "), f"--version says {line!r}")
    told = json.loads(said(context.bursar, "version", "--format", "json"))
    expect(told["profile"] == "release", f"the binary is of the profile {told['profile']}")
    expect(told["rustc"] == said("rustc", "--version").strip(), f"built by {told['rustc']}")
    if not (context.root / ".git").exists():
        raise Skipped("the sources are no checkout; the commit is not compared")
    commit = said("git", "-C", context.root, "rev-parse", "HEAD").strip()
    expect(told.get("commit") == commit, f"the binary is of commit {told.get('commit')}, the checkout of {commit}: build anew")
    changed = said("git", "-C", context.root, "status", "--porcelain", "--", *SOURCES).strip()
    expect(told["dirty"] == bool(changed), f"dirty is {told['dirty']}, and git says {changed or 'nothing'}")
    expect(f"({commit[:12]}" in line, f"--version says {line!r}")
    return f"{line.strip()}, {told['rustc'].split(' (')[0]}, prices {told['prices']['digest']}"


# === completions and manual pages

def check_completions(context):
    checked = []
    for shell, command in [("bash", ["bash", "-n"]), ("zsh", ["zsh", "-n"]), ("fish", ["fish", "--no-execute"])]:
        script = context.folder / f"completions.{shell}"
        script.write_text(said(context.bursar, "completions", shell))
        if shutil.which(shell):
            said(*command, script)
            checked.append(shell)
    for shell in ("elvish", "powershell"):
        expect("--data-dir" in said(context.bursar, "completions", shell), f"{shell}: no options")
    offered = said("bash", "-c", COMPLETE, "bash", context.folder / "completions.bash").split()
    expect(offered == ["--data-dir"], f"bash completes `bursar ledger verify --d` with {offered}")
    return f"five shells; parsed by {', '.join(checked)}; bash completes an option of a command below another"


def check_pages(context):
    folder = context.folder / "man1"
    said(context.bursar, "man", "--out", folder)
    pages = sorted(folder.glob("*.1"))
    expect(len(pages) > 50, f"{len(pages)} pages")
    renderer = ["groff", "-K", "utf-8", "-man", "-Tutf8", "-ww", "-P-cbou"] if shutil.which("groff") else [tool("mandoc"), "-Tutf8", "-Wwarning,stop"]
    for page in pages:
        done = run(*renderer, page)
        problems = [line for line in done.stderr.splitlines() if "can't break line" not in line and "cannot adjust line" not in line]
        expect(done.returncode == 0 and not problems, f"{page.name}: {' '.join(problems)}")
        text = re.sub(".\x08", "", done.stdout)
        for part in ("NAME", "SYNOPSIS", "DESCRIPTION", page.stem.split("-")[0]):
            expect(part in text, f"{page.name}: {part} is not in what {renderer[0]} shows")
    expect(said(context.bursar, "man", "ledger", "verify") == (folder / "bursar-ledger-verify.1").read_text(), "`man ledger verify` is another page")
    return f"{len(pages)} pages, rendered by {renderer[0]} without a warning"


# === bill of materials

def validator(context):
    """A Python with the packages of release-requirements.txt; made once per version of that file."""
    wanted = HERE / "release-requirements.txt"
    home = context.tools / f"venv-{hashlib.sha256(wanted.read_bytes()).hexdigest()[:12]}"
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        shutil.rmtree(home, ignore_errors=True)
        said(sys.executable, "-m", "venv", home)
        done = run(python, "-m", "pip", "install", "-q", "--require-hashes", "--only-binary", ":all:", "-r", wanted, timeout=300)
        if done.returncode != 0:
            raise Skipped(f"the packages of {wanted.name} cannot be had: {done.stderr.strip().splitlines()[-1:]}")
        (home / "complete").touch()
    return python


def check_bill(context):
    bill = context.folder / "bursar.cdx.json"
    said(sys.executable, HERE / "sbom.py", "--binary", context.bursar, "--output", bill)
    again = said(sys.executable, HERE / "sbom.py", "--binary", context.bursar)
    expect(again == bill.read_text(), "two runs of sbom.py differ")
    components = {(one["name"], one["version"]): one for one in json.loads(again)["components"]}
    inside = {crate for crate, one in components.items() if one["scope"] == "required"}
    # Panics tell the place in the source of a dependency: whatever crate the binary names must be in the bill.
    places = re.findall(rb"registry/src/[^/]+/([A-Za-z0-9_-]+?)-(\d+\.\d+\.\d+[0-9A-Za-z.+-]*)/src/", context.bursar.read_bytes())
    named = {(name.decode(), version.decode()) for name, version in places}
    expect(len(named) > 20, f"the binary names {len(named)} crates")
    expect(named <= inside, f"the binary has code of {sorted(named - inside)}, which the bill lacks")
    for crate, one in components.items():
        expect(one["licenses"], f"{crate} has no licence")
        ours = crate[0].startswith("bursar") or not one["purl"].startswith("pkg:cargo/")
        expect(ours or one.get("hashes"), f"{crate} has no checksum")
    done = run(validator(context), "-c", VALIDATE, bill)
    expect(done.returncode == 0, f"the bill is no CycloneDX 1.6: {done.stderr.strip()}")
    return f"{len(inside)} components in the binary, {len(components) - len(inside)} only while building; CycloneDX 1.6, strict"


class Context:
    def __init__(self, options, folder):
        self.bursar, self.root, self.folder = options.bursar.resolve(), options.root.resolve(), folder
        self.mapped = options.mapped and options.mapped.resolve()
        self.tools = self.root / "target" / "release-tools"
        self.tools.mkdir(parents=True, exist_ok=True)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("bursar", type=pathlib.Path)
    options.add_argument("--mapped", type=pathlib.Path)
    options.add_argument("--root", type=pathlib.Path, default=HERE.parent)
    options = options.parse_args()
    passed = failed = skipped = 0
    with tempfile.TemporaryDirectory() as folder:
        context = Context(options, pathlib.Path(folder))
        os.chdir(context.root)
        for check in (check_binary, check_paths, check_facts, check_completions, check_pages, check_bill):
            name = check.__name__.removeprefix("check_")
            try:
                print(f"ok      {name}: {check(context)}", flush=True)
                passed += 1
            except Skipped as reason:
                print(f"SKIPPED {name}: {reason}", flush=True)
                skipped += 1
            except AssertionError as problem:
                print(f"FAIL    {name}: {problem}", flush=True)
                failed += 1
    print(f"release: {passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
