//! `trace-replay split`: one load shared by a device and its server, and what each way of sharing takes.

mod balance;
mod report;
mod run;
mod units;

pub use balance::{Share, Side};
pub use report::{Outcome, Results, SideOutcome};

use crate::plan::{Condition, Filter, Plan, Settings, Shape, plan_with};
use crate::trace::Level;
use crate::{cli, read, replay};
use anyhow::bail;
use std::path::PathBuf;
use std::sync::Arc;

/// Examples of the command's help; a test runs them.
pub const EXAMPLES: &str = "Examples:
  device alone, server alone, half and half, and shared by measured rates:
    trace-replay split fixtures/es/smoke.csv.xz --device dir:/tmp --pod http://127.0.0.1:4918/ --prefix /split-example
  only the last one, with more at once on the server's side, numbers for a script:
    trace-replay split fixtures/es/smoke.csv.xz --device dir:/tmp --pod http://127.0.0.1:4918/ \\
      --prefix /split-example --share auto --pod-clients 8 --json";

/// Arguments of `trace-replay split`.
#[derive(clap::Args)]
pub struct Args {
    /// A trace of file operations.
    trace: PathBuf,
    /// Where the device's part goes: calls beneath a directory of this machine.
    #[arg(long, value_name = "dir:PATH")]
    device: String,
    /// Where the pod's part goes: the address of a WebDAV server (http:// only).
    #[arg(long, value_name = "URL")]
    pod: String,
    /// Directory and collection beneath which everything happens; one for each way, removed at its end.
    #[arg(long, default_value = "/trace-replay-split", value_name = "PATH")]
    prefix: String,
    /// Ways to share, one run for each: the device's part from 0 to 1, or `auto` for what measured rates suggest.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1,0,0.5,auto",
        value_name = "SHARE,..."
    )]
    share: Vec<Share>,
    /// How often each way is tried, in turns; medians are shown.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Parts under way at once on the device.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    device_clients: u16,
    /// Connections to the pod, and so parts under way at once there.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    pod_clients: u16,
    /// Takes part of the trace only, as for `replay`.
    #[arg(long, value_name = "CONDITION")]
    filter: Vec<Condition>,
    #[command(flatten)]
    login: cli::Login,
    #[command(flatten)]
    content: cli::Content,
    /// Prints JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// A part of the load, planned for either side.
struct Part {
    cost: balance::Cost,
    /// For the device and for the pod.
    plans: [Arc<Plan>; 2],
}

/// Runs each way of sharing.
///
/// # Errors
/// When the trace cannot be split, or a side cannot be reached.
pub fn split(args: &Args) -> anyhow::Result<Results> {
    let Some(root) = args.device.strip_prefix("dir:") else {
        bail!("--device {}: expected dir:/path", args.device);
    };
    let root = cli::directory("--device", root, &args.prefix)?;
    let target = args.login.target("--pod", &args.pod, &args.prefix)?;
    let mut reader = read::open(&args.trace)?;
    cli::tell_columns(&args.trace, reader.unusable());
    if reader.level() == Level::WebdavRequests {
        bail!(
            "{}: holds WebDAV requests, and a device takes file operations only",
            args.trace.display()
        );
    }
    let filter: Filter = args.filter.iter().cloned().collect();
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry() {
        let entry = entry?;
        if filter.takes(&entry) {
            entries.push(entry);
        }
    }
    entries.sort_by_key(|e| e.at_us);
    let total = entries.len() as u64;
    let cut = units::cut(entries).map_err(|e| anyhow::anyhow!("{}: {e}", args.trace.display()))?;
    let parts = cut
        .units
        .into_iter()
        .map(part)
        .collect::<Result<Vec<_>, _>>()?;
    let sides = run::Sides {
        root,
        target,
        workers: [args.device_clients, args.pod_clients].map(usize::from),
        seed: args.content.seed,
        verify: args.content.verify,
    };
    let parts: Arc<[Part]> = parts.into();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let made = !sides.root.exists();
    // Before anything is written to the device.
    runtime
        .block_on(replay::make_prefix(&sides.target))
        .map_err(anyhow::Error::msg)?;
    let mut outcomes = Vec::new();
    for _ in 0..args.rounds {
        for share in &args.share {
            outcomes.push(runtime.block_on(run::run(&sides, parts.clone(), *share))?);
        }
    }
    // Only if it is empty, and never a directory that was there before.
    if made {
        let _ = std::fs::remove_dir(&sides.root);
    }
    Ok(Results {
        entries: total,
        parts: parts.len() as u64,
        left_out: cut.left_out,
        unusable: reader.unusable().clone(),
        outcomes,
    })
}

fn part(unit: units::Unit) -> Result<Part, read::ReadError> {
    let cost = balance::Cost {
        ops: unit.entries.len() as f64,
        bytes: unit.bytes as f64,
    };
    let plan = |shape| {
        let settings = Settings {
            shape,
            ..Settings::default()
        };
        plan_with(&mut units::Listed::new(unit.entries.clone()), &settings).map(Arc::new)
    };
    let plans = [plan(Shape::Calls)?, plan(Shape::Requests)?];
    Ok(Part { cost, plans })
}
