//! The `trace-replay` tool.

use anyhow::Context;
use base64::Engine;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use trace_replay::client::Target;
use trace_replay::exchange::Verify;
use trace_replay::plan::{self, Writes};
use trace_replay::replay::{self, Speed};
use trace_replay::{convert, info, read, simulate, tune};

/// Describes and replays recorded I/O loads against a WebDAV server, and checks every byte.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  trace-replay info fixtures/es/local_256.csv.xz
  trace-replay replay fixtures/es/smoke.csv.xz --target http://127.0.0.1:4918/ --prefix /run1"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Counts, sizes, working set and reuse of a trace.
    Info {
        /// A trace of any format that `convert` reads.
        trace: PathBuf,
        /// Prints JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Translates a trace from one format to another.
    ///
    /// Streams: memory does not grow with the trace, except for one number per object when oracleGeneral is
    /// written. What cannot be read or expressed is counted by reason and shown on standard error.
    #[command(after_help = convert::EXAMPLES)]
    Convert(convert::Args),
    /// What each policy would have done with the recorded load: hits, bytes moved, disk time, response times.
    Simulate(Box<simulate::Args>),
    /// Searches better parameters of a policy for recorded loads, and prints them as settings of the gateway.
    ///
    /// The search sees the first two thirds of each trace. What it found is then tried on the last third, which it
    /// has not seen: if the gain is gone there, the settings fit the recording and not the load.
    #[command(after_help = tune::EXAMPLES)]
    Tune(Box<tune::Args>),
    /// All policies with their parameters: names, defaults, units, ranges.
    Policies {
        /// Prints JSON instead of Markdown.
        #[arg(long)]
        json: bool,
    },
    /// Sends the recorded operations as WebDAV requests and checks every byte that comes back.
    ///
    /// The exit status is 0 when everything went as recorded, 1 when anything failed or differed, 2 when
    /// nothing could be run.
    #[command(after_help = "Examples:
  as fast as possible, 8 connections:
    trace-replay replay fixtures/es/smoke.csv.xz --target http://127.0.0.1:4918/ --prefix /run1
  with the original timing, three times as fast, as davfs2 would write:
    trace-replay replay fixtures/es/local_256.csv.xz --target http://127.0.0.1:4918/ --speed 3 --writes whole
  WebDAV requests as recorded, numbers for a script:
    trace-replay replay fixtures/es/dav_apache_256_dav.csv.xz --target http://127.0.0.1:4918/ --json")]
    Replay(Box<ReplayArgs>),
}

#[derive(clap::Args)]
struct ReplayArgs {
    /// A trace of any format that `convert` reads.
    trace: PathBuf,
    /// Address of the server, http:// only.
    #[arg(long, value_name = "URL")]
    target: String,
    /// Collection beneath which everything happens; it is made when missing and should be empty.
    #[arg(long, default_value = "/", value_name = "PATH")]
    prefix: String,
    /// `max`, or a factor on the recorded timing (1 is the original).
    #[arg(long, default_value = "max")]
    speed: Speed,
    /// Connections.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// Basic authentication; NAME alone takes the password from --password-file.
    #[arg(long, value_name = "NAME[:PASSWORD]")]
    user: Option<String>,
    /// File whose first line is the password.
    #[arg(long, requires = "user", value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Seed of the content.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How much of what comes back is compared.
    #[arg(long, value_enum, default_value_t)]
    verify: Verify,
    /// How changes of files become PUTs (file operations only).
    #[arg(long, value_enum, default_value_t)]
    writes: Writes,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
    /// No progress on standard error.
    #[arg(long, short)]
    quiet: bool,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("trace-replay: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Info { trace, json } => {
            let mut reader = read::open(&trace)?;
            let info = info::collect(&mut *reader)?;
            if json {
                println!("{}", serde_json::to_string_pretty(&info)?);
            } else {
                print!("{}", info.text());
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Convert(args) => {
            let summary = convert::convert(&args)?;
            eprint!("{}", summary.text());
            Ok(ExitCode::SUCCESS)
        }
        Command::Simulate(args) => {
            print!("{}", simulate::simulate(&args)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Tune(args) => {
            print!("{}", tune::tune(&args)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Policies { json } => {
            if json {
                println!(
                    "{}",
                    serde_json::to_string_pretty(tiering::policy::PARAMETERS)?
                );
            } else {
                print!("{}", tiering::policy::parameters_markdown());
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Replay(args) => run_replay(*args),
    }
}

fn run_replay(args: ReplayArgs) -> anyhow::Result<ExitCode> {
    let mut target = Target::parse(&args.target, &args.prefix).map_err(anyhow::Error::msg)?;
    if let Some(user) = &args.user {
        target.authorization = Some(authorization(user, args.password_file.as_deref())?);
    }
    let plan = plan::plan(&mut *read::open(&args.trace)?, args.writes)?;
    let options = replay::Options {
        speed: args.speed,
        clients: usize::from(args.clients),
        seed: args.seed,
        verify: args.verify,
        progress: !args.quiet,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(async {
        replay::make_prefix(&target)
            .await
            .map_err(anyhow::Error::msg)?;
        anyhow::Ok(replay::run(plan, target, options).await)
    })?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report.json())?);
    } else {
        print!("{}", report.text());
    }
    Ok(if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

fn authorization(
    user: &str,
    password_file: Option<&std::path::Path>,
) -> anyhow::Result<http::HeaderValue> {
    let credentials = match password_file {
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
            format!("{user}:{}", text.lines().next().unwrap_or_default())
        }
        None => user.to_string(),
    };
    let encoded = base64::engine::general_purpose::STANDARD.encode(credentials);
    let mut value = http::HeaderValue::from_str(&format!("Basic {encoded}"))?;
    value.set_sensitive(true);
    Ok(value)
}
