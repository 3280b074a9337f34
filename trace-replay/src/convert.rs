//! `trace-replay convert`: from one trace format to another, entry by entry.

use crate::read::{self, ReadError, Reader, Unusable};
use crate::trace::{Entry, Level};
use crate::write::{self, CsvWriter, FioWriter, Kept, OracleWriter, Writer};
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use tiering::trace::TraceError;

/// Examples of the command's help; a test runs them.
pub const EXAMPLES: &str = "Examples:
  trace-replay convert fixtures/es/smoke.csv.xz -o /tmp/smoke.fio
  trace-replay convert fixtures/es/local_256.csv.xz -o /tmp/local.oracleGeneral
  trace-replay convert fixtures/es/dav_restart_dav.csv.xz -o /tmp/restart.parquet --to parquet";

/// Arguments of `trace-replay convert`.
#[derive(clap::Args)]
pub struct Args {
    /// The trace: a file (plain, .gz, .xz or .zst) or a directory of segments.
    input: PathBuf,
    /// Where the result goes. It appears under this name when it is complete.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Format of the input; else it is told by the content.
    #[arg(long, value_enum, value_name = "FORMAT")]
    from: Option<read::Format>,
    /// Format of the output; else it is told by the name's end: .parquet, .csv, .oracleGeneral, .fio, .iolog.
    #[arg(long, value_enum, value_name = "FORMAT")]
    to: Option<write::Format>,
}

impl Args {
    /// What the command line would say.
    pub fn new(input: &Path, output: &Path) -> Args {
        Args {
            input: input.into(),
            output: output.into(),
            from: None,
            to: None,
        }
    }
}

/// What was converted, and what was not.
#[derive(Debug)]
pub struct Summary {
    /// What kind of load it is.
    pub level: Level,
    /// Entries in the output.
    pub written: u64,
    /// Entries that the output cannot express, by reason.
    pub left_out: BTreeMap<&'static str, u64>,
    /// The first entry left out for each reason.
    pub examples: BTreeMap<&'static str, String>,
    /// Lines of the input that could not be used.
    pub unusable: Unusable,
}

impl Summary {
    fn count(&mut self, entry: &Entry, kept: Kept) {
        match kept {
            Kept::Yes => self.written += 1,
            Kept::No(why) => {
                *self.left_out.entry(why).or_default() += 1;
                self.examples.entry(why).or_insert_with(|| describe(entry));
            }
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "{} entries written ({})", self.written, self.level);
        for (why, count) in &self.left_out {
            let example = self.examples.get(why).map_or("", |e| e);
            let _ = writeln!(out, "{count} entries left out: {why}; first: {example}");
        }
        for (why, count) in &self.unusable.reasons {
            let _ = writeln!(out, "{count} lines not used: {why}");
        }
        for example in &self.unusable.examples {
            let _ = writeln!(out, "  {example}");
        }
        out
    }
}

fn describe(entry: &Entry) -> String {
    let seconds = entry.at_us as f64 / 1e6;
    format!("{} {} at {seconds:.6} s", entry.op.name(), entry.path)
}

/// Converts, and says what came of it. On failure nothing is left under the output's name.
pub fn convert(args: &Args) -> anyhow::Result<Summary> {
    let to = match args.to {
        Some(to) => to,
        None => by_name(&args.output)?,
    };
    let mut reader = read::open_as(&args.input, args.from)?;
    let mut partial = OsString::from(&args.output);
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&partial)
        .with_context(|| partial.display().to_string())?;
    let result = copy(&mut *reader, file, to)
        .with_context(|| format!("while writing {}", args.output.display()))
        .and_then(|summary| {
            std::fs::rename(&partial, &args.output)
                .with_context(|| args.output.display().to_string())?;
            Ok(summary)
        });
    if result.is_err() {
        // The error that is reported is the first one; the left-over is named in it by its own name.
        let _ = std::fs::remove_file(&partial);
    }
    result
}

fn by_name(output: &Path) -> anyhow::Result<write::Format> {
    let extension = output.extension().and_then(|e| e.to_str());
    Ok(match extension.map(str::to_ascii_lowercase).as_deref() {
        Some("parquet") => write::Format::Parquet,
        Some("csv") => write::Format::Csv,
        Some("oraclegeneral") => write::Format::OracleGeneral,
        Some("fio" | "iolog") => write::Format::Fio,
        _ => bail!(
            "{}: the name does not tell the format; add --to parquet, csv, oracle-general or fio",
            output.display()
        ),
    })
}

fn copy(reader: &mut dyn Reader, file: File, to: write::Format) -> anyhow::Result<Summary> {
    let mut summary = Summary {
        level: reader.level(),
        written: 0,
        left_out: BTreeMap::new(),
        examples: BTreeMap::new(),
        unusable: Unusable::default(),
    };
    let buffered = |file| BufWriter::with_capacity(1 << 16, file);
    let mut writer: Box<dyn Writer> = match to {
        write::Format::Parquet => {
            parquet(reader, file, &mut summary)?;
            summary.unusable = reader.unusable().clone();
            return Ok(summary);
        }
        write::Format::Csv => Box::new(CsvWriter::new(file, summary.level)?),
        write::Format::OracleGeneral => Box::new(OracleWriter::new(file)),
        write::Format::Fio => Box::new(FioWriter::new(buffered(file))?),
    };
    while let Some(entry) = reader.next_entry() {
        let entry = entry?;
        let kept = writer.write(&entry)?;
        summary.count(&entry, kept);
    }
    writer.finish()?;
    summary.unusable = reader.unusable().clone();
    Ok(summary)
}

fn parquet(reader: &mut dyn Reader, file: File, summary: &mut Summary) -> anyhow::Result<()> {
    let mut failed: Option<ReadError> = None;
    let entries = std::iter::from_fn(|| match reader.next_entry()? {
        Ok(entry) => Some(Ok(entry)),
        Err(e) => {
            let text = e.to_string();
            failed = Some(e);
            Some(Err(TraceError::Sealed(text)))
        }
    });
    let written = write::write_parquet(file, entries, |entry, kept| summary.count(entry, kept));
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(written?),
    }
}
