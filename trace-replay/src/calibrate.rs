//! `trace-replay calibrate`: what positioning and transfer cost on a device, as `simulate` and the policy want it.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::fs::{Advice, OFlags, fadvise};
use serde::Serialize;

use crate::content::fill;
use crate::simulate::Size;
use crate::synth::Random;

/// Examples of the command's help; a test runs them.
pub const EXAMPLES: &str = "Examples:
  trace-replay calibrate /tmp --size 64MiB --seconds 1
  trace-replay calibrate /tmp --size 64MiB --seconds 1 --json";

/// What direct input and output must be aligned to, whatever the device.
const ALIGNED: usize = 4096;
/// An object, and what is read at once in order.
const LARGE: usize = 4 << 20;

/// Arguments of `trace-replay calibrate`.
#[derive(clap::Args)]
pub struct Args {
    /// A directory on the device: a file is made there, read, and removed.
    dir: PathBuf,
    /// Bytes of the file. On a disk take at least some GiB: heads that need not go far are fast.
    #[arg(long, value_parser = bytes, default_value = "1GiB")]
    size: u64,
    /// How long each of the three kinds of reads goes on.
    #[arg(long, value_name = "SECONDS", value_parser = crate::cli::seconds, default_value = "5")]
    seconds: Duration,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

fn bytes(text: &str) -> Result<u64, String> {
    match crate::simulate::size(text) {
        Ok(Size::Bytes(bytes)) if bytes >= 2 * LARGE as u64 => Ok(bytes),
        _ => Err("write bytes, at least 8MiB (64MiB, 4GiB)".to_owned()),
    }
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Found {
    /// Positioning: the median read of 4 KiB anywhere in the file, less its transfer, milliseconds.
    seek_ms: f64,
    /// Reads of 4 MiB one after the other, MiB per second.
    transfer_mib_per_s: f64,
    /// The writing of the file, the final fsync included, MiB per second.
    write_mib_per_s: f64,
    /// A read of 4 MiB anywhere in the file as the model has it, milliseconds.
    object_predicted_ms: f64,
    /// The same, measured: the median.
    object_measured_ms: f64,
    /// The page cache was passed by. Where it could not be, it was dropped before each kind of reads, and what a
    /// device has in caches of its own makes the numbers too good.
    direct: bool,
}

/// A buffer whose part can be read into directly.
struct Buffer(Vec<u8>);

impl Buffer {
    fn new() -> Self {
        Self(vec![0; LARGE + ALIGNED])
    }

    fn part(&mut self, len: usize) -> &mut [u8] {
        let skip = self.0.as_ptr().align_offset(ALIGNED).min(ALIGNED);
        &mut self.0[skip..skip + len]
    }
}

/// The file, removed at the end whatever happens.
struct Scratch {
    path: PathBuf,
    size: u64,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Scratch {
    /// Writes the file with bytes that nothing can compress; answers with the rate, MiB per second.
    fn write(dir: &Path, size: u64) -> anyhow::Result<(Self, f64)> {
        let path = dir.join(format!(".trace-replay-calibrate-{}", std::process::id()));
        let size = size / LARGE as u64 * LARGE as u64;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("{}", path.display()))?;
        let scratch = Self { path, size };
        let mut block = vec![0; LARGE];
        let begin = Instant::now();
        for at in 0..size / LARGE as u64 {
            fill(0, at * LARGE as u64, &mut block);
            file.write_all(&block)
                .with_context(|| scratch.path.display().to_string())?;
        }
        file.sync_all()
            .with_context(|| scratch.path.display().to_string())?;
        let rate = mib(size) / begin.elapsed().as_secs_f64();
        Ok((scratch, rate))
    }

    /// Opens it for reads that pass the page cache by, if the file system can.
    fn open(&self) -> anyhow::Result<(File, bool)> {
        let mut options = OpenOptions::new();
        options.read(true);
        let direct = options
            .clone()
            .custom_flags(OFlags::DIRECT.bits().cast_signed())
            .open(&self.path);
        if let Ok(file) = direct {
            return Ok((file, true));
        }
        let file = options
            .open(&self.path)
            .with_context(|| format!("{}", self.path.display()))?;
        Ok((file, false))
    }

    /// The median time of reads of `len` bytes at any place.
    fn anywhere(&self, len: usize, lasting: Duration, stream: u64) -> anyhow::Result<f64> {
        let (file, _) = self.open()?;
        self.drop_cached(&file);
        let mut buffer = Buffer::new();
        let places = self.size / len as u64;
        let mut random = Random::new(1, stream);
        let (begin, mut times) = (Instant::now(), Vec::new());
        while begin.elapsed() < lasting {
            let place = random.below(places);
            let start = Instant::now();
            file.read_exact_at(buffer.part(len), place * len as u64)
                .with_context(|| self.path.display().to_string())?;
            times.push(start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        times
            .get(times.len() / 2)
            .copied()
            .context("no time was left for a single read")
    }

    /// The rate of reads in order, MiB per second; at the end of the file they begin anew.
    fn in_order(&self, lasting: Duration) -> anyhow::Result<f64> {
        let (file, _) = self.open()?;
        let mut buffer = Buffer::new();
        let (begin, mut read) = (Instant::now(), 0);
        while begin.elapsed() < lasting || read == 0 {
            let at = read % self.size;
            if at == 0 {
                self.drop_cached(&file);
            }
            file.read_exact_at(buffer.part(LARGE), at)
                .with_context(|| self.path.display().to_string())?;
            read += LARGE as u64;
        }
        Ok(mib(read) / begin.elapsed().as_secs_f64())
    }

    fn drop_cached(&self, file: &File) {
        let _ = fadvise(file, 0, None, Advice::DontNeed);
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

/// Measures, and answers with the text to print.
///
/// # Errors
/// When the file cannot be made or read.
pub fn calibrate(args: &Args) -> anyhow::Result<String> {
    let (scratch, write_mib_per_s) = Scratch::write(&args.dir, args.size)?;
    let (_, direct) = scratch.open()?;
    let transfer_mib_per_s = scratch.in_order(args.seconds)?;
    let small = scratch.anywhere(ALIGNED, args.seconds, 1)?;
    let large = scratch.anywhere(LARGE, args.seconds, 2)?;
    let transfer_ms = |bytes: usize| mib(bytes as u64) / transfer_mib_per_s * 1e3;
    let seek_ms = (small * 1e3 - transfer_ms(ALIGNED)).max(0.0);
    let found = Found {
        seek_ms,
        transfer_mib_per_s,
        write_mib_per_s,
        object_predicted_ms: seek_ms + transfer_ms(LARGE),
        object_measured_ms: large * 1e3,
        direct,
    };
    if args.json {
        return Ok(serde_json::to_string_pretty(&found)? + "\n");
    }
    Ok(text(&found))
}

fn text(found: &Found) -> String {
    let (seek, transfer) = (
        format!("{:.3}", found.seek_ms),
        format!("{:.1}", found.transfer_mib_per_s),
    );
    let mut out = format!(
        "positioning  {seek} ms\ntransfer     {transfer} MiB/s\nwriting      {:.1} MiB/s\n\
         an object of 4 MiB anywhere: {:.2} ms, by the model {:.2} ms\n",
        found.write_mib_per_s, found.object_measured_ms, found.object_predicted_ms
    );
    if !found.direct {
        out += "The page cache could not be passed by here: the numbers may be too good.\n";
    }
    let _ = write!(
        out,
        "\nFor simulate:     --hdd {seek},{transfer}    (or --ssd)\n\
         For the gateway, if this is the backing device:\n\
         cost_benefit_seek_ms = {seek}\ncost_benefit_transfer_mib_per_s = {transfer}\n"
    );
    out
}
