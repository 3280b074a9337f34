//! `trace-replay simulate`: what each policy would have done with a recorded load.

mod load;
mod plain;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tiering::sim::{self, Device, Setup};
use tiering::{HIGH_WATERMARK, LOW_WATERMARK, MAX_DIRTY_AGE, PolicyConfig};

use crate::parallel;
use crate::read::Format;

pub use load::{Load, load};

/// Arguments of `trace-replay simulate`.
#[derive(clap::Args)]
pub struct Args {
    /// Traces of any format that `convert` reads. Each is simulated by itself.
    #[arg(required = true)]
    traces: Vec<PathBuf>,
    /// Format of the traces; else it is told by the content. oracle-general implies --plain.
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

/// One policy at one size on one trace.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The trace's path.
    pub trace: String,
    /// The policy, with the parameters that were given.
    pub policy: String,
    /// Bytes that the cache could hold.
    pub cache_bytes: u64,
    /// Reads and writes, counted per object touched.
    pub requests: u64,
    /// Share of the reads that the backing device served.
    pub miss_ratio: f64,
    /// Share of the bytes read that the backing device served.
    pub byte_miss_ratio: f64,
    /// Bytes copied up.
    pub promoted_bytes: u64,
    /// Bytes copied down.
    pub flushed_bytes: u64,
    /// Bytes dropped from the cache.
    pub evicted_bytes: u64,
    /// Bytes written to the SSD.
    pub ssd_written_bytes: u64,
    /// Bytes that only the cache held at the end.
    pub dirty_bytes: u64,
    /// Busy time of the backing device, seconds.
    pub hdd_busy_s: f64,
    /// The same as a share of what it is without a cache.
    pub hdd_busy_vs_none: f64,
    /// A lower bound of that share for any cache of any size: every old object's first read.
    pub compulsory_vs_none: f64,
    /// A lower bound of that share for any policy with a cache of this size, even a clairvoyant one.
    pub bound_vs_none: f64,
    /// What a clairvoyant's plan that fits into this cache needs, as the same share.
    pub clairvoyant_vs_none: f64,
    /// Head time saved, as a share of what the clairvoyant's plan saves.
    pub saved_of_clairvoyant: f64,
    /// Busy time of the cache device, seconds.
    pub ssd_busy_s: f64,
    /// Share of the time in which the backing device did nothing.
    pub hdd_idle: f64,
    /// Mean response time, milliseconds.
    pub mean_ms: f64,
    /// 99th percentile of the response time, milliseconds.
    pub p99_ms: f64,
}

/// Simulates what the arguments ask for and answers with the text to print.
///
/// # Errors
/// When a trace cannot be read or holds nothing to simulate.
pub fn simulate(args: &Args) -> anyhow::Result<String> {
    if plain::wanted(args) {
        let mut rows = Vec::new();
        for path in &args.traces {
            rows.extend(plain::rows(path, args)?);
        }
        return printed(&rows, args, plain::text);
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
        let name = path.display().to_string();
        let load = open_as(path, args.format, args.speed)?;
        rows.extend(trace_rows(&name, &load, &candidates, &args.cache_size));
    }
    printed(&rows, args, text)
}

fn printed<R: Serialize>(
    rows: &[R],
    args: &Args,
    text: impl Fn(&[R]) -> String,
) -> anyhow::Result<String> {
    if args.json {
        return Ok(serde_json::to_string_pretty(&rows)? + "\n");
    }
    if args.csv {
        let mut writer = csv::Writer::from_writer(Vec::new());
        for row in rows {
            writer.serialize(row)?;
        }
        return Ok(String::from_utf8(writer.into_inner()?)?);
    }
    Ok(text(rows))
}

/// Reads a trace in which something is read or written.
pub(crate) fn open(path: &Path, speed: f64) -> anyhow::Result<Load> {
    open_as(path, None, speed)
}

fn open_as(path: &Path, format: Option<Format>, speed: f64) -> anyhow::Result<Load> {
    let load = load(&mut *crate::read::open_as(path, format)?, speed)?;
    let name = path.display();
    anyhow::ensure!(
        load.footprint > 0,
        "{name}: nothing in it reads or writes data"
    );
    Ok(load)
}

/// One piece of work for one core.
enum Done {
    Best(sim::Clairvoyant),
    /// With mean and 99th percentile of the response time, milliseconds.
    Run(Box<sim::Outcome>, f64, f64),
}

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

fn trace_rows(trace: &str, load: &Load, candidates: &[&Candidate], sizes: &[Size]) -> Vec<Row> {
    let requests = || load.requests.iter().copied();
    let none = PolicyConfig::None(Default::default());
    let none_s = sim::run(&setup(&none, 0), requests())
        .hdd_busy
        .as_secs_f64();
    let bound = sim::compulsory_head_time(Device::HDD, requests()).as_secs_f64();
    let ratio = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    let sizes: Vec<u64> = sizes.iter().map(|s| s.bytes(load.footprint)).collect();
    // The bounds take longest: they come first, so that all cores are busy to the end.
    let jobs = sizes.iter().map(|bytes| (*bytes, None));
    let runs = sizes
        .iter()
        .flat_map(|bytes| candidates.iter().map(|c| (*bytes, Some(*c))));
    let jobs: Vec<(u64, Option<&Candidate>)> = jobs.chain(runs).collect();
    let done = parallel::map(&jobs, |&(cache_bytes, candidate)| match candidate {
        Some(candidate) => {
            let mut out = sim::run(&setup(&candidate.config, cache_bytes), requests());
            let (mean_ms, p99_us) = (out.mean_us() / 1e3, out.quantile_us(0.99));
            // Results of all runs are held until the end: these are the large part.
            out.response_us = Vec::new();
            Done::Run(Box::new(out), mean_ms, f64::from(p99_us) / 1e3)
        }
        None => {
            let like = setup(&none, cache_bytes);
            let rule = Some(like.max_dirty_age);
            Done::Best(sim::clairvoyant(
                like.hdd,
                cache_bytes,
                rule,
                &load.requests,
            ))
        }
    });
    let mut rows = Vec::new();
    let mut bests = BTreeMap::new();
    for (&(cache_bytes, candidate), done) in jobs.iter().zip(done) {
        let (out, mean_ms, p99_ms) = match done {
            Done::Best(best) => {
                bests.insert(cache_bytes, best);
                continue;
            }
            Done::Run(out, mean_ms, p99_ms) => (out, mean_ms, p99_ms),
        };
        if let (Some(policy), Some(best)) = (candidate, bests.get(&cache_bytes)) {
            let hdd_busy_s = out.hdd_busy.as_secs_f64();
            let span = out.span.as_secs_f64().max(hdd_busy_s);
            rows.push(Row {
                trace: trace.to_owned(),
                policy: policy.label.clone(),
                cache_bytes,
                requests: out.requests,
                miss_ratio: ratio(out.read_misses as f64, out.reads as f64),
                byte_miss_ratio: ratio(out.read_miss_bytes as f64, out.read_bytes as f64),
                promoted_bytes: out.promoted_bytes,
                flushed_bytes: out.flushed_bytes,
                evicted_bytes: out.evicted_bytes,
                ssd_written_bytes: out.ssd_written_bytes,
                dirty_bytes: out.dirty_bytes,
                hdd_busy_s,
                hdd_busy_vs_none: ratio(hdd_busy_s, none_s),
                compulsory_vs_none: ratio(bound, none_s),
                bound_vs_none: ratio(best.at_least, none_s),
                clairvoyant_vs_none: ratio(best.plan, none_s),
                saved_of_clairvoyant: ratio(none_s - hdd_busy_s, none_s - best.plan),
                ssd_busy_s: out.ssd_busy.as_secs_f64(),
                hdd_idle: 1.0 - ratio(hdd_busy_s, span),
                mean_ms,
                p99_ms,
            });
        }
    }
    rows
}

fn text(rows: &[Row]) -> String {
    let mut out = String::new();
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    let (mut trace, mut size) = ("", 0);
    for row in rows {
        if row.trace != trace {
            trace = &row.trace;
            size = 0;
            let bound = row.compulsory_vs_none * 100.0;
            let _ = writeln!(
                out,
                "{trace}: {} requests; no cache can go below {bound:.1} % HDD time\n\
                 {:<13} {:>10} {:>7} {:>7} {:>8} {:>8} {:>8} {:>8} {:>7} {:>9} {:>9}",
                row.requests,
                "policy",
                "cache MiB",
                "hit %",
                "HDD %",
                "up MiB",
                "down MiB",
                "SSD MiB",
                "idle %",
                "saved %",
                "mean ms",
                "p99 ms"
            );
        }
        if row.cache_bytes != size {
            size = row.cache_bytes;
            for (name, share) in [
                ("(bound)", row.bound_vs_none),
                ("(clairvoyant)", row.clairvoyant_vs_none),
            ] {
                let share = share * 100.0;
                let _ = writeln!(out, "{name:<13} {:>10.1} {:>7} {share:>7.1}", mib(size), "");
            }
        }
        let _ = writeln!(
            out,
            "{:<13} {:>10.1} {:>7.1} {:>7.1} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>7.1} {:>9.2} {:>9.2}",
            row.policy,
            mib(row.cache_bytes),
            (1.0 - row.miss_ratio) * 100.0,
            row.hdd_busy_vs_none * 100.0,
            mib(row.promoted_bytes),
            mib(row.flushed_bytes),
            mib(row.ssd_written_bytes),
            row.hdd_idle * 100.0,
            row.saved_of_clairvoyant * 100.0,
            row.mean_ms,
            row.p99_ms
        );
    }
    out
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
