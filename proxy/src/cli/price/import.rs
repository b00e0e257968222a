//! `bursar price import`: another tool's price file becomes an overlay file, whole or not at all.
//!
//! Not here: how such files read (`bursar_policies::price::overlay::import`).

use super::{ImportArgs, builtin};
use anyhow::{Context, bail};
use bursar_policies::price::overlay::import::{self, ImportFormat, Imported};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Says what the file holds and, with `--output`, writes it. Exit code 3 when a row is bad.
pub(super) fn run(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(&args.file)
        .with_context(|| format!("cannot read {}", args.file.display()))?;
    let format = match &*args.format {
        "litellm" => ImportFormat::LiteLlm,
        "models.dev" => ImportFormat::ModelsDev,
        _ => ImportFormat::detect(&text).with_context(|| {
            format!(
                "{} is neither LiteLLM's map nor models.dev's catalogue: say --format",
                args.file.display()
            )
        })?,
    };
    let stem = args.file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let source = args.source.clone().unwrap_or(stem);
    let imported = match import::import(&text, format, &source) {
        Ok(imported) => imported,
        Err(errors) => {
            eprintln!("{errors}");
            eprintln!("bursar: {} bad rows; nothing was imported", errors.0.len());
            return Ok(ExitCode::from(3));
        }
    };
    let builtin = builtin()?;
    if let Err(errors) = builtin.with_overlay(&imported.file) {
        eprintln!("{errors}");
        eprintln!("bursar: {} bad rows; nothing was imported", errors.0.len());
        return Ok(ExitCode::from(3));
    }
    tell(&imported, format, &builtin)?;
    match &args.output {
        None => eprintln!("bursar: nothing was written; --output FILE writes the overlay"),
        Some(path) => write_new(path, &import::render(&imported.file))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What would be imported.
fn tell(
    imported: &Imported,
    format: ImportFormat,
    builtin: &bursar_policies::price::PriceBook,
) -> anyhow::Result<()> {
    let models: BTreeSet<(&str, &str)> =
        imported.file.rows.iter().map(|row| (&*row.provider, &*row.model)).collect();
    let providers: BTreeSet<&str> = models.iter().map(|(provider, _)| *provider).collect();
    let known = models.iter().filter(|(provider, model)| builtin.sheet(provider, model).is_some()).count();
    let mut out = std::io::stdout().lock();
    writeln!(out, "format: {}", format.name())?;
    writeln!(out, "rows: {}", imported.file.rows.len())?;
    writeln!(
        out,
        "models: {} of {} providers, {known} of them in the built-in book",
        models.len(),
        providers.len()
    )?;
    writeln!(out, "models at a price of zero: {}", imported.free_models)?;
    writeln!(out, "prices rounded half-even to what can be billed: {}", imported.rounded.len())?;
    for line in &imported.rounded {
        writeln!(out, "  {line}")?;
    }
    writeln!(out, "left out, for the book has no place for it: {} kinds", imported.left_out.len())?;
    for (what, count) in &imported.left_out {
        writeln!(out, "  {count} × {what}")?;
    }
    Ok(())
}

/// Writes a file that is not there yet; it appears only when complete.
fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    if path.exists() {
        bail!("{} is there already: move it away, or name another file", path.display());
    }
    let name = path.file_name().with_context(|| format!("--output {} names no file", path.display()))?;
    let mut partial = std::ffi::OsString::from(".");
    partial.push(name);
    partial.push(".partial");
    let partial = path.with_file_name(partial);
    let written = std::fs::write(&partial, text).and_then(|()| std::fs::rename(&partial, path));
    if written.is_err() {
        // What is there is not whole; if it cannot be removed its name still says so.
        let _ = std::fs::remove_file(&partial);
    }
    written.with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("bursar: {} bytes written", text.len());
    Ok(())
}
