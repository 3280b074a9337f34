//! `trace-replay simulate`: what each policy would have done with a recorded load.

mod html;
mod kept;
mod load;
mod model;
mod output;
mod plain;
mod tiered;

use std::path::{Path, PathBuf};

use serde::Serialize;
use tiering::sim::{self, Device, Setup};
use tiering::{HIGH_WATERMARK, LOW_WATERMARK, MAX_DIRTY_AGE, PolicyConfig};

use crate::cli;
use crate::read::{Format, Unusable};
use load::Source;
use output::Output;

pub use kept::Load;
pub use model::{PRESETS, device};
pub use tiered::Row;

/// Examples of the command's help; a test runs those that are marked.
pub const EXAMPLES: &str = "Examples:
  trace-replay simulate fixtures/es/local_256.csv.xz
  trace-replay simulate fixtures/es/smoke.csv.xz --policy lru,cost-benefit:theta=2 --hdd 8.2,210 --ssd nvme \\
    --output /tmp/simulated.html --output /tmp/simulated.parquet
  a plain cache, as libCacheSim has it:
    trace-replay simulate fixtures/es/smoke.csv.xz --plain --policy belady,lru,s3-fifo --cache-size 5%,10%";

/// Arguments of `trace-replay simulate`.
#[derive(clap::Args)]
pub struct Args {
    /// Traces of any format that `convert` reads. Each is simulated by itself.
    #[arg(required = true)]
    traces: Vec<PathBuf>,
    /// Format of the traces; else it is told by the content. oracle-general and cache-csv imply --plain.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Policies, separated by commas, with parameters if wanted: cost-benefit:theta=2:half_life_s=60. With --plain
    /// also `belady`, which knows the future.
    #[arg(long, value_delimiter = ',', value_parser = asked,
        default_value = "none,lru,lru-2nd,s3-fifo,recency,cost-benefit")]
    policy: Vec<Asked>,
    /// Cache sizes: a share of the bytes in all objects touched (5%), or bytes (512MiB).
    #[arg(long, value_delimiter = ',', value_parser = size, default_value = "1%,5%,10%,25%")]
    cache_size: Vec<Size>,
    /// Cache sizes in objects, whatever their bytes. Implies --plain.
    #[arg(long, value_delimiter = ',', value_name = "N", conflicts_with = "cache_size",
        value_parser = clap::value_parser!(u64).range(1..))]
    cache_objects: Vec<u64>,
    /// Every object counts as one byte, in misses and sizes. Implies --plain.
    #[arg(long)]
    ignore_object_size: bool,
    /// Plain caches, as papers and libCacheSim have them: no devices, no moves, every miss is fetched at once. Where
    /// libCacheSim defines an algorithm otherwise than we do (lfu, lirs, w-tinylfu), its way is taken unless
    /// parameters are given.
    #[arg(long)]
    plain: bool,
    /// Divides the recorded times: 2 is twice the load.
    #[arg(long, default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    /// The backing device: hdd, ssd, nvme, sd-card, or its milliseconds per positioning and MiB per second (11.5,143).
    /// `trace-replay calibrate` measures them.
    #[arg(long, value_name = "MODEL", value_parser = model::device, default_value = "hdd")]
    hdd: Device,
    /// The cache device, named in the same way.
    #[arg(long, value_name = "MODEL", value_parser = model::device, default_value = "ssd")]
    ssd: Device,
    /// Bounds (what no policy can beat, what a clairvoyant would reach) are found for traces of at most so many
    /// accesses to objects: they need all of them in memory, some 400 bytes for each, while policies need none.
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    bounds_up_to: u64,
    /// Writes the results to a file, too; the ending of its name says how: .json, .csv, .parquet, or .html for a
    /// page with charts. May be repeated.
    #[arg(long, short, value_name = "FILE")]
    output: Vec<Output>,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
    /// Prints CSV instead of text.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

/// How large a cache is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Size {
    Percent(f64),
    Bytes(u64),
}

/// A policy as it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) label: String,
    pub(crate) config: PolicyConfig,
}

/// Whose result is asked for.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    Policy(Candidate),
    /// The clairvoyant that evicts what is used last.
    Belady,
}

impl Asked {
    fn label(&self) -> &str {
        match self {
            Asked::Policy(candidate) => &candidate.label,
            Asked::Belady => "belady",
        }
    }
}

impl Candidate {
    /// With the parameters of libCacheSim where none were given.
    fn as_libcachesim(&self) -> PolicyConfig {
        let mut config = self.config.clone();
        if self.label == config.name() {
            sim::as_libcachesim(&mut config);
        }
        config
    }
}

fn asked(text: &str) -> Result<Asked, String> {
    match text {
        "belady" => Ok(Asked::Belady),
        text => policy(text).map(Asked::Policy),
    }
}

impl Size {
    pub(crate) fn bytes(self, footprint: u64) -> u64 {
        match self {
            Size::Percent(percent) => (footprint as f64 * percent / 100.0) as u64,
            Size::Bytes(bytes) => bytes,
        }
    }
}

pub(crate) fn policy(text: &str) -> Result<Candidate, String> {
    let mut parts = text.split(':');
    let name = parts.next().unwrap_or_default();
    let known = || format!("known policies: {}", PolicyConfig::NAMES.join(", "));
    let mut config = PolicyConfig::from_name(name).ok_or_else(known)?;
    for part in parts {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| format!("`{part}`: write NAME=VALUE"))?;
        config.set_text(key, value).map_err(|e| e.to_string())?;
    }
    if let Some(wrong) = config.violations().first() {
        return Err(wrong.to_string());
    }
    Ok(Candidate {
        label: text.to_owned(),
        config,
    })
}

pub(crate) fn speed(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|v| v.is_finite());
    let value = value.filter(|v| *v > 0.0);
    value.ok_or_else(|| "a number above 0 is needed".to_owned())
}

pub(crate) fn size(text: &str) -> Result<Size, String> {
    let wrong = || "write a share (5%) or bytes (1048576, 64KiB, 512MiB, 4GiB)".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%');
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let shift = match &text[digits.len()..] {
        "%" if number > 0.0 && number <= 100.0 => return Ok(Size::Percent(number)),
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(wrong()),
    };
    let bytes = number * (1_u64 << shift) as f64;
    if bytes < 1.0 || !bytes.is_finite() {
        return Err(wrong());
    }
    Ok(Size::Bytes(bytes as u64))
}

/// Simulates what the arguments ask for and answers with the text to print.
///
/// # Errors
/// When a trace cannot be read or holds nothing to simulate, or a result cannot be written.
pub fn simulate(args: &Args) -> anyhow::Result<String> {
    for output in &args.output {
        // Not after hours of simulation.
        output.make_way()?;
    }
    if plain::wanted(args) {
        let mut rows = Vec::new();
        for path in &args.traces {
            rows.extend(plain::rows(path, args)?);
        }
        return results(&rows, args, plain::text, html::plain);
    }
    let candidates = args.policy.iter().map(|asked| match asked {
        Asked::Policy(candidate) => Ok(candidate),
        Asked::Belady => anyhow::bail!(
            "belady is a plain cache: add --plain (or --cache-objects). What moves could save at best is in the \
             rows (bound) and (clairvoyant)"
        ),
    });
    let candidates: Vec<&Candidate> = candidates.collect::<anyhow::Result<_>>()?;
    let mut rows = Vec::new();
    for path in &args.traces {
        let source = Source::new(path, args.format, args.speed);
        let name = path.display().to_string();
        rows.extend(tiered::rows(&name, &source, &candidates, args)?);
    }
    results(&rows, args, tiered::text, html::tiered)
}

/// Says on standard error which lines and columns of a trace are not in the numbers.
fn tell_unusable(path: &Path, unusable: &Unusable) {
    cli::tell_columns(path, unusable);
    if unusable.lines > 0 {
        let (name, text) = (path.display(), unusable.text());
        cli::tell(format_args!("trace-replay: {name}:\n{text}"));
    }
}

fn results<R: Serialize>(
    rows: &[R],
    args: &Args,
    text: impl Fn(&[R]) -> String,
    page: impl Fn(&[R]) -> String,
) -> anyhow::Result<String> {
    for output in &args.output {
        output.write(rows, &page)?;
    }
    match (args.json, args.csv) {
        (true, _) => output::json(rows),
        (_, true) => output::csv(rows),
        _ => Ok(text(rows)),
    }
}

/// Reads a trace in which something is read or written; it stays in memory if it has at most `most` accesses.
pub(crate) fn open(path: &Path, speed: f64, most: u64) -> anyhow::Result<Load> {
    Load::open(Source::new(path, None, speed), most)
}

/// The gateway's defaults, over the preset devices.
pub(crate) fn setup(policy: &PolicyConfig, cache_bytes: u64) -> Setup {
    Setup {
        policy: policy.clone(),
        cache_bytes,
        hdd: Device::HDD,
        ssd: Device::SSD,
        high_watermark: HIGH_WATERMARK,
        low_watermark: LOW_WATERMARK,
        max_dirty_age: MAX_DIRTY_AGE.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shares_or_bytes() {
        assert_eq!(size("5%"), Ok(Size::Percent(5.0)));
        assert_eq!(size("4GiB"), Ok(Size::Bytes(4 << 30)));
        assert_eq!(size("17"), Ok(Size::Bytes(17)));
        for wrong in ["", "%", "0%", "101%", "4GB", "-1", "x"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert!(policy("belady").is_err_and(|e| e.contains("cost-benefit")));
        let tuned = policy("cost-benefit:theta=2").map(|c| c.config.get("theta"));
        assert_eq!(tuned, Ok(Some(2.0)));
        assert!(policy("cost-benefit:theta=-1").is_err_and(|e| e.contains("`theta` is -1")));
        assert!(policy("lru:theta=1").is_err());
    }
}
