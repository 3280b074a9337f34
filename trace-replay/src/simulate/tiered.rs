//! What policies do over two devices: movements, busy times and responses.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use tiering::PolicyConfig;
use tiering::sim::{self, Compulsory, Outcome, Request, Run, Setup};

use super::load::Source;
use super::{Args, Candidate, setup};
use crate::parallel;

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
    /// A lower bound of that share for any policy with a cache of this size, even a clairvoyant one. None for traces
    /// that are too long for it.
    pub bound_vs_none: Option<f64>,
    /// What a clairvoyant's plan that fits into this cache needs, as the same share.
    pub clairvoyant_vs_none: Option<f64>,
    /// Head time saved, as a share of what the clairvoyant's plan saves.
    pub saved_of_clairvoyant: Option<f64>,
    /// Busy time of the cache device, seconds.
    pub ssd_busy_s: f64,
    /// Share of the time in which the backing device did nothing.
    pub hdd_idle: f64,
    /// Bytes written to both devices, by clients and by moves, per byte that clients wrote. None if they wrote none.
    pub write_amplification: Option<f64>,
    /// Mean response time, milliseconds.
    pub mean_ms: f64,
    /// Median of the response time, milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of the response time, milliseconds.
    pub p99_ms: f64,
}

/// What hears of every request.
enum Job {
    Run(Box<Run>),
    Compulsory(Compulsory),
    /// Keeps them all, for the bounds.
    Keep(Vec<Request>),
}

impl Job {
    fn step(&mut self, requests: &[Request]) {
        match self {
            Job::Run(run) => requests.iter().for_each(|r| _ = run.step(*r)),
            Job::Compulsory(bound) => requests.iter().for_each(|r| bound.step(*r)),
            Job::Keep(all) => all.extend_from_slice(requests),
        }
    }
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// The rows of one trace: two readings of it, the second for all policies and sizes together.
pub(super) fn rows(
    trace: &str,
    source: &Source,
    candidates: &[&Candidate],
    args: &Args,
) -> anyhow::Result<Vec<Row>> {
    let survey = source.survey()?;
    let set_up = |policy: &PolicyConfig, cache_bytes| Setup {
        hdd: args.hdd,
        ssd: args.ssd,
        ..setup(policy, cache_bytes)
    };
    let sizes = args.cache_size.iter().map(|s| s.bytes(survey.footprint));
    let sizes: Vec<u64> = sizes.collect();
    let none = PolicyConfig::None(Default::default());
    let pairs = sizes
        .iter()
        .flat_map(|bytes| candidates.iter().map(|c| (*bytes, *c)));
    let pairs: Vec<(u64, &Candidate)> = pairs.collect();
    let bounded = survey.requests <= args.bounds_up_to;
    let runs = pairs.iter().map(|(bytes, c)| set_up(&c.config, *bytes));
    let runs = runs.chain([set_up(&none, 0)]);
    let mut jobs: Vec<Job> = runs
        .map(|setup| Job::Run(Box::new(Run::new(setup))))
        .collect();
    jobs.push(Job::Compulsory(Compulsory::new(args.hdd)));
    jobs.extend(bounded.then(|| Job::Keep(Vec::new())));
    let requests = source.requests(&survey)?;
    let (mut outcomes, mut least_s, mut load) = (Vec::new(), 0.0, Vec::new());
    for job in parallel::feed(requests, jobs, |job, requests| job.step(requests))? {
        match job {
            Job::Run(run) => outcomes.push(run.outcome()),
            Job::Compulsory(bound) => least_s = bound.head_time().as_secs_f64(),
            Job::Keep(all) => load = all,
        }
    }
    let without = outcomes.pop().unwrap_or_default();
    let best = |bytes: &u64| {
        let due = Some(set_up(&none, 0).max_dirty_age);
        (*bytes, sim::clairvoyant(args.hdd, *bytes, due, &load))
    };
    let bests: BTreeMap<u64, sim::Clairvoyant> = match bounded {
        true => parallel::map(&sizes, best).into_iter().collect(),
        false => BTreeMap::new(),
    };
    let none_s = without.hdd_busy.as_secs_f64();
    let rows = pairs
        .iter()
        .zip(outcomes)
        .map(|((cache_bytes, policy), out)| {
            let of = Of {
                trace,
                policy: &policy.label,
                cache_bytes: *cache_bytes,
                least_s,
                none_s,
                best: bests.get(cache_bytes),
            };
            row(&of, &out)
        });
    Ok(rows.collect())
}

/// What an outcome is of, and what it is compared with.
struct Of<'a> {
    trace: &'a str,
    policy: &'a str,
    cache_bytes: u64,
    /// Head time that no cache can spare, and that without a cache, seconds.
    least_s: f64,
    none_s: f64,
    best: Option<&'a sim::Clairvoyant>,
}

/// What follows from the outcome of one run.
fn row(of: &Of, out: &Outcome) -> Row {
    let Of { none_s, best, .. } = *of;
    let hdd_busy_s = out.hdd_busy.as_secs_f64();
    let span = out.span.as_secs_f64().max(hdd_busy_s);
    let ms = |share| out.responses.quantile_us(share) as f64 / 1e3;
    let all_written = out.written_bytes + out.promoted_bytes + out.flushed_bytes;
    Row {
        trace: of.trace.to_owned(),
        policy: of.policy.to_owned(),
        cache_bytes: of.cache_bytes,
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
        compulsory_vs_none: ratio(of.least_s, none_s),
        bound_vs_none: best.map(|best| ratio(best.at_least, none_s)),
        clairvoyant_vs_none: best.map(|best| ratio(best.plan, none_s)),
        saved_of_clairvoyant: best.map(|best| ratio(none_s - hdd_busy_s, none_s - best.plan)),
        ssd_busy_s: out.ssd_busy.as_secs_f64(),
        hdd_idle: 1.0 - ratio(hdd_busy_s, span),
        write_amplification: (out.written_bytes > 0)
            .then(|| all_written as f64 / out.written_bytes as f64),
        mean_ms: out.responses.mean_us() / 1e3,
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
    }
}

/// The rows for people.
pub(super) fn text(rows: &[Row]) -> String {
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
                let Some(share) = share.map(|share| share * 100.0) else {
                    continue;
                };
                let _ = writeln!(out, "{name:<13} {:>10.1} {:>7} {share:>7.1}", mib(size), "");
            }
        }
        let saved = row
            .saved_of_clairvoyant
            .map_or_else(|| "-".to_owned(), |saved| format!("{:.1}", saved * 100.0));
        let _ = writeln!(
            out,
            "{:<13} {:>10.1} {:>7.1} {:>7.1} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>7} {:>9.2} {:>9.2}",
            row.policy,
            mib(row.cache_bytes),
            (1.0 - row.miss_ratio) * 100.0,
            row.hdd_busy_vs_none * 100.0,
            mib(row.promoted_bytes),
            mib(row.flushed_bytes),
            mib(row.ssd_written_bytes),
            row.hdd_idle * 100.0,
            saved,
            row.mean_ms,
            row.p99_ms
        );
    }
    out
}
