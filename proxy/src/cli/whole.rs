//! Files that appear only when they are complete, with their checksums, and the progress of long ones.
//!
//! Invariants
//! - A file is written beside its place and renamed into it, so that nobody reads half of one.
//! - Progress is shown on a terminal only, on standard error.
//! - Bytes for programs are never written to a terminal.
//!
//! Not here: what is written (`export`, `focus`, `roi`).

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Rows between two looks at the clock of the terminal.
const ROWS_PER_TICK: u64 = 1_024;

/// Writes beside the file and renames it into place; returns its size.
pub(super) fn whole_file(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let partial = beside(path, ".", ".partial")?;
    let result = (|| {
        let file = std::fs::File::create(&partial)?;
        let mut out = BufWriter::new(file);
        write(&mut out)?;
        out.flush()?;
        out.get_ref().sync_all()?;
        let bytes = out.get_ref().metadata()?.len();
        std::fs::rename(&partial, path)?;
        anyhow::Ok(bytes)
    })();
    if result.is_err() {
        // What is there is not whole; if it cannot be removed its name still says so.
        let _ = std::fs::remove_file(&partial);
    }
    result.with_context(|| format!("cannot write {}", path.display()))
}

/// A file in the same place whose name has more around it.
fn beside(path: &Path, before: &str, after: &str) -> anyhow::Result<PathBuf> {
    let name = path.file_name().with_context(|| format!("{} names no file", path.display()))?;
    let mut other = OsString::from(before);
    other.push(name);
    other.push(after);
    Ok(path.with_file_name(other))
}

/// Writes an export to `path` with its checksum beside it (`FILE.sha256`, as `sha256sum -c` reads it), or
/// to standard output; `binary` bytes do not go to a terminal.
pub(super) fn export(
    path: Option<&Path>,
    binary: bool,
    write: impl FnOnce(&mut dyn Write, &Progress) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let Some(path) = path else {
        if binary && std::io::stdout().is_terminal() {
            bail!("this format is for programs, not for a terminal: name a file with --output FILE");
        }
        let mut out = BufWriter::new(std::io::stdout().lock());
        write(&mut out, &Progress::none())?;
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    };
    let sums = beside(path, "", ".sha256")?;
    let progress = Progress::shown();
    let mut hash = String::new();
    // A checksum that is there must be that of the file that is there.
    match std::fs::remove_file(&sums) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot write {}", sums.display()));
        }
        _ => {}
    }
    let bytes = whole_file(path, |out| {
        let mut hashed = Hashed { out, hash: Sha256::new() };
        write(&mut hashed, &progress)?;
        hash = hashed.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(())
    });
    progress.end();
    let bytes = bytes?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    whole_file(&sums, |out| Ok(writeln!(out, "{hash}  {name}")?))?;
    eprintln!("bursar: {bytes} bytes written, SHA-256 {hash} in {}", sums.display());
    Ok(ExitCode::SUCCESS)
}

/// Bytes on their way to a file, and their checksum.
struct Hashed<'a> {
    out: &'a mut dyn Write,
    hash: Sha256,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// How far an export is, for whoever looks at a terminal.
pub(super) struct Progress(Option<ProgressBar>);

impl Progress {
    fn none() -> Self {
        Self(None)
    }

    fn shown() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::none();
        }
        Self(Some(ProgressBar::new_spinner()))
    }

    /// So many rows have passed.
    pub(super) fn rows(&self, count: u64) {
        if let Some(bar) = self.0.as_ref().filter(|_| count.is_multiple_of(ROWS_PER_TICK)) {
            bar.set_message(format!("{count} rows"));
            bar.tick();
        }
    }

    /// `out`, whose bytes are told as they pass.
    pub(super) fn of_bytes<'a>(&'a self, out: &'a mut dyn Write) -> impl Write + 'a {
        Counted { out, progress: self, bytes: 0 }
    }

    fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

struct Counted<'a> {
    out: &'a mut dyn Write,
    progress: &'a Progress,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes = self.bytes.saturating_add(u64::try_from(written).unwrap_or(0));
        if let Some(bar) = &self.progress.0 {
            bar.set_message(format!("{} KiB", self.bytes / 1_024));
            bar.tick();
        }
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_export_leaves_neither_a_file_nor_a_part_nor_an_old_checksum() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.csv");
        export(Some(&path), false, |out, _| Ok(out.write_all(b"abc")?)).unwrap();
        let sums = std::fs::read_to_string(dir.path().join("out.csv.sha256")).unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sums, format!("{abc}  out.csv\n"));
        let failed = export(Some(&path), false, |out, _| {
            out.write_all(b"half")?;
            bail!("no more")
        });
        assert!(failed.is_err());
        let left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["out.csv"]);
        assert_eq!(std::fs::read(&path).unwrap(), b"abc", "what was whole stays");
    }
}
