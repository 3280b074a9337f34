//! `trace-replay tune`: better parameters for recorded loads.

mod case;
mod html;
mod report;
mod search;
mod space;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::cli;
use crate::simulate::{self, Candidate, Size};
use case::Case;
use search::Search;
use space::Space;

/// Examples of the command's help; a test runs the first one.
pub const EXAMPLES: &str = "Examples:
  trace-replay tune fixtures/es/smoke.csv.xz --policy cost-benefit --candidates 9 --toml /tmp/tuned.toml --html /tmp/tuned.html
  trace-replay tune data/cache/trace --policy recency --objective hdd-time --cache-size 64GiB --budget 20m";

/// Arguments of `trace-replay tune`.
#[derive(clap::Args)]
pub struct Args {
    /// Traces, as for `simulate`. What is best for the one that gains least is best.
    #[arg(required = true)]
    traces: Vec<PathBuf>,
    /// The policy, with parameters to begin with if wanted: cost-benefit:theta=2.
    #[arg(long, value_parser = simulate::policy, default_value = "cost-benefit")]
    policy: Candidate,
    /// What is to become less.
    #[arg(long, value_enum, default_value_t)]
    objective: Objective,
    /// How long the search may take: a number with s, m or h.
    #[arg(long, value_parser = duration, default_value = "5m")]
    budget: Duration,
    /// Cache sizes, as for `simulate`; each counts as a trace of its own.
    #[arg(long, value_delimiter = ',', value_parser = simulate::size, default_value = "10%")]
    cache_size: Vec<Size>,
    /// Divides the recorded times: 2 is twice the load.
    #[arg(long, default_value_t = 1.0, value_parser = simulate::speed)]
    speed: f64,
    /// Traces stay in memory, at 24 bytes for each access to an object, while all together have at most so many; those
    /// that do not fit are read again for every setting.
    #[arg(long, value_name = "N", default_value_t = 8_000_000)]
    keep_up_to: u64,
    /// Settings in the first round; else as many as the budget allows. With it and enough time the result does
    /// not depend on the machine.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    candidates: Option<u32>,
    /// Seed of the search.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also writes the settings found to this file.
    #[arg(long, value_name = "FILE")]
    toml: Option<PathBuf>,
    /// Also writes a page with charts of what was tried and what nothing beats.
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
    /// No progress on standard error.
    #[arg(long, short)]
    quiet: bool,
}

/// What is to become less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// Mean response time.
    Latency,
    /// Busy time of the backing device, moves included.
    HddTime,
    /// Bytes promoted and flushed.
    BytesMoved,
    /// All three, multiplied: response time and busy time to the power of 0.4, bytes to that of 0.2.
    #[default]
    Weighted,
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number with s, m or h: 90s, 5m".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let seconds = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
    let year = Duration::from_secs(366 * 86_400);
    (!seconds.is_zero() && seconds <= year)
        .then_some(seconds)
        .ok_or_else(wrong)
}

/// Searches, and answers with the text to print: what is known when the time is over, or `stop` says so.
///
/// # Errors
/// When a trace cannot be read or holds nothing to simulate, or the settings cannot be written.
pub fn tune(args: &Args, stop: &(dyn Fn() -> bool + Sync)) -> anyhow::Result<String> {
    let begin = Instant::now();
    for file in [&args.html, &args.toml].into_iter().flatten() {
        // Not after all that time.
        cli::make_way(file)?;
    }
    let (mut cases, mut room) = (Vec::new(), args.keep_up_to);
    for path in &args.traces {
        let load = Arc::new(simulate::open(path, args.speed, room)?);
        room -= load.kept();
        for size in &args.cache_size {
            let bytes = size.bytes(load.footprint());
            let name = format!("{}, {}", path.display(), report::mib(bytes));
            cases.push(Case::new(name, Arc::clone(&load), bytes));
        }
    }
    let progress = |text: &str| {
        if !args.quiet {
            let seconds = begin.elapsed().as_secs_f64();
            cli::tell(format_args!("{seconds:6.1} s: {text}\n"));
        }
    };
    let mut search = Search {
        cases: &cases,
        objective: args.objective,
        deadline: begin + args.budget,
        stop,
        tried: 0,
        progress: &progress,
    };
    let mut space = Space::new(args.policy.config.clone(), args.seed);
    let first = args.candidates.map(|n| n as usize);
    let all = search.run(&args.policy.config, &mut space, first)?;
    let report = report::Report::new(&args.policy, args.objective, &cases, &all, search.tried)?;
    let page = args.html.as_ref().map(|path| (path, report.html(&space)));
    let settings = args.toml.as_ref().map(|path| (path, report.toml()));
    for (path, text) in page.into_iter().chain(settings) {
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    if args.json {
        return Ok(serde_json::to_string_pretty(&report)? + "\n");
    }
    Ok(report.text(&space))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("0.5m"), Ok(Duration::from_secs(30)));
        for wrong in ["5", "m", "-1s", "0s", "1d", "9999999999h", "nans", ""] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
