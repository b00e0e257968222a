//! Tells the compiler what the program is built from (commit, toolchain, target, profile), and the linker how a
//! release lies in memory; packs what is compiled in.
//!
//! Invariants
//! - Nothing here depends on when or where it is built: equal sources by an equal toolchain give equal facts.
//! - A debug build asks git nothing, so that a commit compiles nothing anew. A release build runs this again
//!   when the checkout or its sources change, so that what it says of them is true.
//! - What is not known is left out, never made up.
//!
//! Not here: how the facts are shown (`src/built.rs`).

use flate2::Compression;
use flate2::write::ZlibEncoder;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// What of a checkout gets into the program.
const SOURCES: [&str; 8] =
    [".cargo", "Cargo.lock", "Cargo.toml", "domain", "ledger", "policies", "proxy", "tokens"];
/// What changes when a checkout moves to another commit.
const MOVES: [&str; 3] = ["HEAD", "logs/HEAD", "packed-refs"];
/// In which order functions are linked; made by `.ci/link_order.py`.
const ORDER: &str = "link/first.ld";
/// What the program has in it compressed.
const PACKED: [&str; 4] = [
    "src/admin/schemas.json",
    "src/admin/dashboard/page.html",
    "src/admin/dashboard/page.css",
    "src/admin/dashboard/page.js",
];
/// Digits of a commit on the line of `--version`.
const SHORT: usize = 12;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    for name in ["BURSAR_COMMIT", "SOURCE_DATE_EPOCH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let release = variable("PROFILE").is_some_and(|profile| profile == "release");
    let checkout = if release { Checkout::find(Path::new("..")) } else { None };
    let facts = Facts::told().and_then(|told| told.filled(checkout.as_ref()));
    match facts {
        Ok(facts) => facts.hand_over(),
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::FAILURE;
        }
    }
    if let Some(checkout) = checkout {
        checkout.watch();
    }
    link();
    for file in PACKED {
        if let Err(problem) = pack(file) {
            eprintln!("cannot pack {file}: {problem}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// What the linker does to a release, in the file and in memory: keeps one of functions that are equal byte for
/// byte, puts what a start and serving run side by side, and packs the addresses that are filled in at a start.
/// Only where the compiler brings the linker, whose options these are (LLD).
fn link() {
    println!("cargo::rerun-if-env-changed=BURSAR_NO_LLD");
    let is = |name, value: &str| variable(name).is_some_and(|found| found == value);
    let brings_lld = is("TARGET", "x86_64-unknown-linux-gnu") && is("HOST", "x86_64-unknown-linux-gnu");
    if !brings_lld || !is("PROFILE", "release") || variable("BURSAR_NO_LLD").is_some() {
        return;
    }
    println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    println!("cargo::rerun-if-changed={ORDER}");
    if let Ok(order) = Path::new(ORDER).canonicalize() {
        println!("cargo::rustc-link-arg-bins=-T");
        println!("cargo::rustc-link-arg-bins={}", order.display());
    }
    if libc_packs() {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Whether the C library of this machine, which the program is linked to, reads packed addresses.
fn libc_packs() -> bool {
    let version = said(Command::new("getconf").arg("GNU_LIBC_VERSION"));
    let version = version.as_deref().and_then(|text| text.strip_prefix("glibc "));
    let parts = version.and_then(|version| version.split_once('.'));
    let numbers = parts.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    numbers.is_some_and(|numbers: (u32, u32)| numbers >= (2, 36))
}

/// A file of the sources, compressed where the program is made of it: under its own name and `.z`.
fn pack(from: &str) -> std::io::Result<()> {
    println!("cargo::rerun-if-changed={from}");
    let name = Path::new(from).file_name().unwrap_or_default().display().to_string();
    let target = PathBuf::from(variable("OUT_DIR").unwrap_or_default()).join(name + ".z");
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&std::fs::read(from)?)?;
    std::fs::write(target, packed.finish()?)
}

fn variable(name: &str) -> Option<String> {
    std::env::var_os(name)?.into_string().ok().filter(|value| !value.is_empty())
}

/// What a program says on its standard output, if it succeeds.
fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// The part of the facts that may be unknown.
#[derive(Default)]
struct Facts {
    commit: Option<String>,
    dirty: Option<bool>,
    /// Seconds since 1970.
    source_date: Option<i64>,
}

impl Facts {
    /// What the environment says: a build without a checkout, as in a container, is told its commit.
    fn told() -> Result<Self, String> {
        let mut told = Self::default();
        if let Some(text) = variable("BURSAR_COMMIT") {
            let commit = text.strip_suffix("-dirty").unwrap_or(&text);
            let hex = commit.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            if !hex || !(40..=64).contains(&commit.len()) {
                return Err(format!(
                    "BURSAR_COMMIT is {text:?}, which is no commit: give what `git rev-parse HEAD` prints, with \
                     -dirty behind it if files are changed, or unset it"
                ));
            }
            told.commit = Some(commit.to_owned());
            told.dirty = Some(commit.len() != text.len());
        }
        if let Some(text) = variable("SOURCE_DATE_EPOCH") {
            let seconds = text.parse().map_err(|_| {
                format!("SOURCE_DATE_EPOCH is {text:?}: give whole seconds since 1970, or unset it")
            })?;
            told.source_date = Some(seconds);
        }
        Ok(told)
    }

    /// What was not told, by the checkout.
    fn filled(mut self, checkout: Option<&Checkout>) -> Result<Self, String> {
        let Some(checkout) = checkout else { return Ok(self) };
        if self.commit.is_none() {
            self.commit = checkout.ask(&["rev-parse", "HEAD"]);
            self.dirty = checkout.dirty();
        }
        if self.source_date.is_none() {
            let text = checkout.ask(&["show", "-s", "--format=%ct", "HEAD"]);
            self.source_date = text.and_then(|text| text.parse().ok());
        }
        Ok(self)
    }

    fn hand_over(&self) {
        let commit = self.commit.as_deref().unwrap_or_default();
        let mut line = variable("CARGO_PKG_VERSION").unwrap_or_default();
        if let Some(short) = commit.get(..SHORT) {
            let state = if self.dirty == Some(true) { ", dirty" } else { "" };
            line.push_str(&format!(" ({short}{state})"));
        }
        let rustc = variable("RUSTC").and_then(|rustc| said(Command::new(rustc).arg("--version")));
        for (name, value) in [
            ("LINE", line),
            ("COMMIT", commit.to_owned()),
            ("DIRTY", self.dirty.map(|dirty| dirty.to_string()).unwrap_or_default()),
            ("SOURCE_DATE", self.source_date.map(|seconds| seconds.to_string()).unwrap_or_default()),
            ("RUSTC", rustc.unwrap_or_default()),
            ("TARGET", variable("TARGET").unwrap_or_default()),
            ("PROFILE", variable("PROFILE").unwrap_or_default()),
        ] {
            println!("cargo::rustc-env=BURSAR_BUILD_{name}={value}");
        }
    }
}

/// A git checkout of this project.
struct Checkout {
    root: PathBuf,
}

impl Checkout {
    /// The checkout whose root this is; sources that lie unpacked in another project's checkout have none.
    fn find(root: &Path) -> Option<Self> {
        let found = Self { root: root.canonicalize().ok()? };
        let top = PathBuf::from(found.ask(&["rev-parse", "--show-toplevel"])?);
        (top.canonicalize().ok()? == found.root).then_some(found)
    }

    fn ask(&self, arguments: &[&str]) -> Option<String> {
        let mut git = Command::new("git");
        // What a hook that builds may have set would name another checkout.
        git.env_remove("GIT_DIR").env_remove("GIT_WORK_TREE").env_remove("GIT_INDEX_FILE");
        said(git.arg("--no-optional-locks").arg("-C").arg(&self.root).args(arguments))
    }

    /// Whether a source differs from the commit, or is not in it.
    fn dirty(&self) -> Option<bool> {
        let arguments = [["status", "--porcelain", "--"].as_slice(), &SOURCES].concat();
        self.ask(&arguments).map(|changes| !changes.is_empty())
    }

    /// Has this run again when what it said may have changed. A path that is not there would have it run always.
    fn watch(&self) {
        let branch = self.ask(&["symbolic-ref", "-q", "HEAD"]);
        let moves = MOVES.into_iter().chain(branch.as_deref());
        let moves = moves.filter_map(|name| self.ask(&["rev-parse", "--git-path", name]));
        let watched = moves.chain(SOURCES.map(str::to_owned)).map(|path| self.root.join(path));
        for path in watched.filter(|path| path.exists()) {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
}
