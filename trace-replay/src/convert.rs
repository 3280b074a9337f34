//! `trace-replay convert`: from one trace format to another, entry by entry.

use crate::cli;
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
        out + &self.unusable.text()
    }
}

/// `read d/a at 0.000001 s`, as in messages.
pub(crate) fn describe(entry: &Entry) -> String {
    let seconds = entry.at_us as f64 / 1e6;
    format!("{} {} at {seconds:.6} s", entry.op.name(), entry.path)
}

/// Converts, and says what came of it. On failure nothing is left under the output's name; it is one when there are entries
/// or lines, and none of them is used.
pub fn convert(args: &Args) -> anyhow::Result<Summary> {
    if replaces(&args.output, &args.input) {
        bail!(
            "{}: is what is read, and would be replaced without the lines that cannot be used; name another file",
            args.output.display()
        );
    }
    let output = Output::create(&args.output, args.to)?;
    let mut reader = read::open_as(&args.input, args.from)?;
    cli::tell_columns(&args.input, reader.unusable());
    let summary = output.fill(&mut *reader)?;
    if summary.written == 0 && (!summary.left_out.is_empty() || summary.unusable.lines > 0) {
        bail!(
            "{}: not written, since nothing of {} can be expressed there\n{}",
            args.output.display(),
            args.input.display(),
            summary.text().trim_end()
        );
    }
    output.commit()?;
    Ok(summary)
}

/// Whether `output` is there, and is `input` or one of the segments in it.
fn replaces(output: &Path, input: &Path) -> bool {
    let (Ok(output), Ok(input)) = (output.canonicalize(), input.canonicalize()) else {
        // One of them is not there; opening the input says so if it is that one.
        return false;
    };
    output == input || (output.parent() == Some(&input) && read::is_segment(&output))
}

/// A trace that is being written, and appears under its name when it is complete. Dropped before, it leaves nothing.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    format: write::Format,
}

impl Output {
    /// Makes `path` with `.partial` behind it; without a `format` the name tells it.
    ///
    /// # Errors
    /// When the name does not tell, or the file cannot be made.
    pub fn create(path: &Path, format: Option<write::Format>) -> anyhow::Result<Output> {
        let format = match format {
            Some(format) => format,
            None => by_name(path)?,
        };
        if std::fs::metadata(path).is_ok_and(|m| !m.is_file()) {
            bail!("{}: is no plain file, and is not replaced", path.display());
        }
        let mut partial = OsString::from(path);
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&partial)
            .with_context(|| partial.display().to_string())?;
        Ok(Output {
            path: path.to_path_buf(),
            partial,
            file,
            format,
        })
    }

    /// Whether a load of `level` can be written at all: asked before a load is made or recorded that would be lost.
    ///
    /// # Errors
    /// When the format holds nothing of that level.
    pub fn expect(&self, level: Level) -> anyhow::Result<()> {
        if self.format == write::Format::Parquet && level == Level::FileOperations {
            bail!(
                "{}: segments hold WebDAV requests only, and these are file operations; name a .csv",
                self.path.display()
            );
        }
        Ok(())
    }

    /// Writes all that `reader` has.
    ///
    /// # Errors
    /// What reading or writing reports.
    pub fn fill(&self, reader: &mut dyn Reader) -> anyhow::Result<Summary> {
        let while_writing = || format!("while writing {}", self.path.display());
        let file = self.file.try_clone().with_context(while_writing)?;
        copy(reader, file, self.format).with_context(while_writing)
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn commit(self) -> anyhow::Result<()> {
        std::fs::rename(&self.partial, &self.path).with_context(|| self.path.display().to_string())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // Gone already when it was committed; otherwise the error that is reported is the first one.
        let _ = std::fs::remove_file(&self.partial);
    }
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
