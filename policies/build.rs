//! Packs the built-in price book, a tenth of whose size is what the program holds.

use flate2::Compression;
use flate2::write::ZlibEncoder;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

const BOOK: &str = "prices/builtin.prices";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={BOOK}");
    match pack() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("cannot pack {BOOK}: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn pack() -> std::io::Result<()> {
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&std::fs::read(BOOK)?)?;
    let folder = std::env::var_os("OUT_DIR").unwrap_or_default();
    std::fs::write(Path::new(&folder).join("builtin.prices.z"), packed.finish()?)
}
