//! The `trace-replay` tool.

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use trace_replay::cli::{self, seconds};
use trace_replay::plan::{self, Condition, Shape, Writes};
use trace_replay::replay::{self, On, Speed};
use trace_replay::signals::Signals;
use trace_replay::trace::Level;
use trace_replay::{
    calibrate, calls, capture, compare, convert, info, read, report, simulate, split, synth, tiers,
    tune,
};

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
    /// What a trace holds: operations, sizes, footprint over time, order, reuse, lifetimes, hottest paths.
    #[command(after_help = info::EXAMPLES)]
    Info(info::Args),
    /// Translates a trace from one format to another.
    ///
    /// Streams: memory does not grow with the trace, except for one number per object when oracleGeneral is
    /// written. What cannot be read or expressed is counted by reason and shown on standard error.
    #[command(after_help = convert::EXAMPLES)]
    Convert(convert::Args),
    /// Records what a program does with files, while it runs.
    ///
    /// Ends with the exit status of the command.
    #[command(after_help = capture::EXAMPLES)]
    Capture(capture::Args),
    /// Makes a load from documented distributions: equal seeds give equal traces.
    #[command(after_help = synth::EXAMPLES)]
    Synth(synth::Args),
    /// What each policy would have done with the recorded load: hits, bytes moved, disk time, response times.
    #[command(after_help = simulate::EXAMPLES)]
    Simulate(Box<simulate::Args>),
    /// What positioning and transfer cost on a device: the numbers for `simulate` and for the gateway's policy.
    ///
    /// Writes a file into the directory, or objects into the pool, reads in order and anywhere, passing the page cache and
    /// that of the OSDs by, and removes what it wrote.
    #[command(after_help = calibrate::EXAMPLES)]
    Calibrate(Box<calibrate::Args>),
    /// Searches better parameters of a policy for recorded loads, and prints them as settings of the gateway.
    ///
    /// The search sees the first two thirds of each trace. What it found is then tried on the last third, which it
    /// has not seen: if the gain is gone there, the settings fit the recording and not the load.
    #[command(after_help = tune::EXAMPLES)]
    Tune(Box<tune::Args>),
    /// All policies with their parameters: names, defaults, units, ranges.
    #[command(after_help = "Examples:
    trace-replay policies
    trace-replay policies --json")]
    Policies {
        /// Prints JSON instead of Markdown.
        #[arg(long)]
        json: bool,
    },
    /// Replays the recorded operations on a WebDAV server or a directory, and checks every byte that comes back.
    ///
    /// In every mode a read never overtakes the write that made its bytes, nor a rename its create.
    ///
    /// The exit status is 0 when everything went as recorded, 1 when anything failed or differed, 2 when
    /// nothing could be run.
    #[command(after_help = "Examples:
  as fast as possible, 8 connections:
    trace-replay replay fixtures/es/smoke.csv.xz --target http://127.0.0.1:4918/ --prefix /run1
  with the original timing, three times as fast, as davfs2 would write:
    trace-replay replay fixtures/es/local_256.csv.xz --target http://127.0.0.1:4918/ --speed 3 --writes whole
  WebDAV requests as recorded, numbers for a script:
    trace-replay replay fixtures/es/dav_apache_256_dav.csv.xz --target http://127.0.0.1:4918/ --json
  the same file operations on a mounted file system, in a new directory of it:
    trace-replay replay fixtures/es/smoke.csv.xz --target dir:/tmp --prefix /trace-replay-example
  on a disk that is calculated, three of the load at once, its files twice as large:
    trace-replay replay fixtures/es/smoke.csv.xz --target model:hdd --copies 3 --scale-size 2 --mode timed
  the first minute, without the opening ten seconds, reads and writes of one kind of file only:
    trace-replay replay fixtures/es/local_256.csv.xz --target http://127.0.0.1:4918/ --prefix /run2 --speed 1 \\
      --duration 60 --warmup 10 --filter op=create,write,read,close --filter 'path=**.cfs'")]
    Replay(Box<ReplayArgs>),
    /// Shares a load between a device and its server: both at once, and what each way of sharing takes.
    ///
    /// The load is cut into files (with those they are renamed to or from); each is done in order on one side, and
    /// is durable there before the next. With `auto`, parts go to the side that is through with them first by the
    /// rates measured so far. The exit status is 1 when anything failed or differed.
    #[command(after_help = split::EXAMPLES)]
    Split(Box<split::Args>),
    /// What changed between replays: ratios per operation of p50, p99, mean and throughput.
    ///
    /// The exit status is 1 when --fail-above is exceeded, 2 when something cannot be compared.
    #[command(after_help = compare::EXAMPLES)]
    Compare(compare::Args),
    /// Prints a script that completes commands, options and values in a shell.
    #[command(after_help = "Examples:
    trace-replay completions bash
  for this shell only:
    source <(trace-replay completions bash)")]
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
    /// Writes the manual pages, one for each command, to a directory.
    #[command(after_help = "Examples:
    trace-replay man /tmp/man1
  then:
    man -l /tmp/man1/trace-replay-replay.1")]
    Man {
        /// The directory; it is made when missing.
        dir: PathBuf,
    },
}

/// When operations start.
#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Mode {
    /// At the recorded times, scaled by --speed. Latency counts from the intended start.
    Timed,
    /// As fast as possible: operations of one client and thread one after the other, as recorded.
    Afap,
    /// As fast as possible with --clients always busy: operations of one client may overtake each other, too,
    /// where their paths allow it.
    Closed,
}

#[derive(clap::Args)]
struct ReplayArgs {
    /// A trace of any format that `convert` reads.
    trace: PathBuf,
    /// Address of a WebDAV server, dir:/path for calls on a mounted directory, or model:DEVICE for one that is calculated.
    ///
    /// DEVICE as for --hdd of `simulate`: hdd, ssd, nvme, sd-card, or milliseconds per positioning and MiB per second.
    #[arg(long, value_name = "URL|dir:PATH|model:DEVICE")]
    target: String,
    /// Collection or directory beneath which everything happens; it is made when missing. A directory must be empty.
    #[arg(long, default_value = "/", value_name = "PATH")]
    prefix: String,
    /// `max`, or a factor on the recorded timing (1 is the original).
    ///
    /// `max` if not given, or 1 with --mode timed.
    #[arg(long)]
    speed: Option<Speed>,
    /// When an operation starts.
    ///
    /// `timed` where --speed is a number, else `afap`.
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Ends the replay after this many seconds, with a report of what was done.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    duration: Option<Duration>,
    /// Counts what starts in the first seconds of the replay apart.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "0")]
    warmup: Duration,
    /// Runs this shell command when the files that existed before the recording are there, and then replays: to bring the
    /// target into the state to measure from.
    #[arg(long, value_name = "COMMAND")]
    after_set_up: Option<String>,
    /// Replays only what fits: `path=GLOB` (`*` in one segment, `**` across, `?`) or `op=NAME,...`.
    ///
    /// Several of one kind add to each other, the two kinds narrow each other. What is left out is as if it had
    /// never been recorded: a file whose create is left out exists from the start.
    #[arg(long, value_name = "CONDITION")]
    filter: Vec<Condition>,
    /// Connections (threads, for a directory), and so operations under way at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// Multiplies offsets and lengths: the same operations on larger or smaller files.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = cli::factor)]
    scale_size: f64,
    /// Runs so many of the load at once, each by clients of its own beneath a path of its own (copy-1, copy-2, ...).
    ///
    /// --filter sees the paths of the trace. Raise --clients with it.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    copies: u16,
    #[command(flatten)]
    login: cli::Login,
    #[command(flatten)]
    content: cli::Content,
    /// How changes of files become PUTs (file operations only).
    #[arg(long, value_enum, default_value_t)]
    writes: Writes,
    /// Writes the report for `compare`, too: JSON to a file, or with histograms into a directory.
    ///
    /// A directory gets report.json, the latencies of each phase and operation as .hgrm files (milliseconds), which
    /// plotters of HdrHistogram take, and all of them in latencies.hlog (its log format, version 2, compressed).
    #[arg(long, value_name = "FILE.json|DIR")]
    report: Option<PathBuf>,
    /// Address of a TierDAV's metrics (http://HOST:4919/.tierdav/metrics): the report holds its reads by tier, once a second.
    #[arg(long, value_name = "URL", requires = "report")]
    metrics: Option<String>,
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
            cli::tell(format_args!("trace-replay: {e:#}\n"));
            ExitCode::from(2)
        }
    }
}

/// Prints. A reader that has seen enough (`| head`) is no error.
fn say(text: std::fmt::Arguments<'_>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        said => said.context("standard output"),
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Info(args) => {
            if let Some(file) = &args.html {
                cli::make_way(file)?;
            }
            let mut reader = read::open(&args.trace)?;
            cli::tell_columns(&args.trace, reader.unusable());
            let info = info::collect(&mut *reader)?;
            if let Some(file) = &args.html {
                let name = args.trace.file_name().unwrap_or_default();
                std::fs::write(file, info.html(&name.to_string_lossy()))
                    .with_context(|| file.display().to_string())?;
            }
            if args.json {
                say(format_args!("{}\n", serde_json::to_string_pretty(&info)?))?;
            } else {
                say(format_args!("{}", info.text()))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Convert(args) => {
            let summary = convert::convert(&args)?;
            cli::tell(format_args!("{}", summary.text()));
            Ok(ExitCode::SUCCESS)
        }
        Command::Capture(args) => {
            let captured = capture::capture(&args)?;
            cli::tell(format_args!("{}", captured.summary.text()));
            Ok(ExitCode::from(captured.status))
        }
        Command::Synth(args) => {
            let summary = synth::synth(&args)?;
            cli::tell(format_args!("{}", summary.text()));
            Ok(ExitCode::SUCCESS)
        }
        Command::Simulate(args) => {
            say(format_args!("{}", simulate::simulate(&args)?))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Calibrate(args) => {
            let (_hears, interrupted) = hear()?;
            let said = calibrate::calibrate(&args, &|| *interrupted.borrow())?;
            say(format_args!("{said}"))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Tune(args) => {
            let (_hears, interrupted) = hear()?;
            let said = tune::tune(&args, &|| *interrupted.borrow())?;
            say(format_args!("{said}"))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Policies { json } => {
            if json {
                say(format_args!(
                    "{}\n",
                    serde_json::to_string_pretty(tiering::policy::PARAMETERS)?
                ))?;
            } else {
                say(format_args!("{}", tiering::policy::parameters_markdown()))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "trace-replay", &mut script);
            say(format_args!("{}", String::from_utf8_lossy(&script)))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { dir } => {
            std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
            clap_mangen::generate_to(Cli::command(), &dir)
                .with_context(|| dir.display().to_string())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Replay(args) => run_replay(*args),
        Command::Split(args) => {
            let results = split::split(&args)?;
            if args.json {
                say(format_args!(
                    "{}\n",
                    serde_json::to_string_pretty(&results)?
                ))?;
            } else {
                say(format_args!("{}", results.text()))?;
            }
            Ok(ExitCode::from(u8::from(!results.is_clean())))
        }
        Command::Compare(args) => {
            let comparison = compare::compare(&args)?;
            if args.json {
                say(format_args!(
                    "{}\n",
                    serde_json::to_string_pretty(&comparison)?
                ))?;
            } else {
                say(format_args!("{}", comparison.text()))?;
            }
            Ok(ExitCode::from(u8::from(comparison.failed())))
        }
    }
}

fn run_replay(args: ReplayArgs) -> anyhow::Result<ExitCode> {
    let speed = match (args.mode, args.speed) {
        (None, None) | (Some(Mode::Afap | Mode::Closed), None | Some(Speed::Max)) => Speed::Max,
        (Some(Mode::Timed), None) => Speed::Timed(1.0),
        (None, Some(speed)) | (Some(Mode::Timed), Some(speed @ Speed::Timed(_))) => speed,
        (Some(Mode::Timed), Some(Speed::Max)) => {
            anyhow::bail!("--mode timed needs a number as --speed; `max` is --mode afap")
        }
        (Some(_), Some(Speed::Timed(_))) => {
            anyhow::bail!("--speed with a number goes with --mode timed only")
        }
    };
    if let Some(to) = &args.report {
        // Not after hours of replay.
        report::make_way(to)?;
    }
    let on = match args.target.split_once(':') {
        Some(("dir", dir)) => On::Dir(cli::directory("--target", dir, &args.prefix)?),
        Some(("model", device)) => On::Model(
            simulate::device(device)
                .map_err(|e| anyhow::anyhow!("--target {}: {e}", args.target))?,
        ),
        _ => On::Http(args.login.target("--target", &args.target, &args.prefix)?),
    };
    let metrics = match &args.metrics {
        Some(url) => {
            let mut target = args.login.target("--metrics", url, "")?;
            // The password is for the other server.
            target.authorization = None;
            Some((target, url.clone()))
        }
        None => None,
    };
    let named =
        |value: Option<clap::builder::PossibleValue>| value.map(|v| v.get_name().to_owned());
    let mode = args.mode.unwrap_or(match speed {
        Speed::Max => Mode::Afap,
        Speed::Timed(_) => Mode::Timed,
    });
    let told = serde_json::json!({
        "mode": named(mode.to_possible_value()), "writes": named(args.writes.to_possible_value()),
        "verify": named(args.content.verify.to_possible_value()), "scale_size": args.scale_size, "copies": args.copies,
        "warmup_s": args.warmup.as_secs_f64(),
        "filter": args.filter.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    let mut reader = read::open(&args.trace)?;
    cli::tell_columns(&args.trace, reader.unusable());
    let dav = reader.level() == Level::WebdavRequests;
    let calls = match on {
        On::Http(_) => false,
        On::Dir(_) => true,
        On::Model(_) => !dav,
    };
    if calls && dav {
        anyhow::bail!(
            "{}: holds WebDAV requests, and a directory takes file operations only; replay it against an http:// target",
            args.trace.display()
        );
    }
    let settings = plan::Settings {
        writes: args.writes,
        shape: if calls { Shape::Calls } else { Shape::Requests },
        free_lanes: args.mode == Some(Mode::Closed),
        filter: args.filter.into_iter().collect(),
        reshape: plan::Reshape {
            scale_size: args.scale_size,
            copies: args.copies,
        },
    };
    let plan = plan::plan_with(&mut *reader, &settings)?;
    if plan.requests.is_empty() && (plan.entries > 0 || plan.unusable.lines > 0) {
        let mut why: Vec<_> = plan.not_sent.iter().collect();
        why.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let mut why: Vec<_> = why.iter().map(|(why, n)| format!("{n} {why}")).collect();
        if plan.unusable.lines > 0 {
            why.push(plan.unusable.text().trim_end().into());
        }
        anyhow::bail!(
            "{}: nothing of it is replayed: {}",
            args.trace.display(),
            why.join("; ")
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut report = runtime.block_on(async {
        match &on {
            On::Http(target) => replay::make_prefix(target).await,
            On::Dir(root) => calls::make_root(root),
            On::Model(_) => Ok(()),
        }
        .map_err(anyhow::Error::msg)?;
        let options = replay::Options {
            speed,
            clients: usize::from(args.clients),
            seed: args.content.seed,
            verify: args.content.verify,
            progress: !args.quiet,
            duration: args.duration,
            warmup: args.warmup,
            after_set_up: args.after_set_up,
            interrupt: Some(interrupt()?),
        };
        let Some((target, url)) = metrics else {
            return Ok(tokio::spawn(replay::run(plan, on, options)).await?);
        };
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let watch = tiers::Watch::begin(target, url.clone()).await;
        let watch = tokio::spawn(watch.until(stopped));
        let mut report = tokio::spawn(replay::run(plan, on, options)).await?;
        let _ = stop.send(());
        let tiers = watch.await?;
        if let Some(error) = &tiers.error {
            cli::tell(format_args!(
                "trace-replay: --metrics {url}: {error} ({} times)\n",
                tiers.failed
            ));
        }
        report.tiers = Some(tiers);
        anyhow::Ok(report)
    })?;
    report.settings = told;
    let written = args.report.as_ref().map_or(Ok(()), |to| report.write(to));
    if args.json {
        say(format_args!(
            "{}\n",
            serde_json::to_string_pretty(&report.json())?
        ))?;
    } else {
        say(format_args!("{}", report.text()))?;
    }
    written?;
    Ok(if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// Hears the signals, as [`interrupt`] does, while this thread works; as long as the runtime lives.
fn hear() -> std::io::Result<(tokio::runtime::Runtime, tokio::sync::watch::Receiver<bool>)> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let interrupted = runtime.block_on(async { interrupt() })?;
    Ok((runtime, interrupted))
}

/// The first Ctrl-C (or SIGTERM) ends the run with a report of what was done, the second at once.
fn interrupt() -> std::io::Result<tokio::sync::watch::Receiver<bool>> {
    let mut signals = Signals::new()?;
    let (send, receive) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        signals.next().await;
        // Before anything is said: whoever reads that may be gone or slow.
        send.send_replace(true);
        cli::tell(format_args!(
            "\ntrace-replay: waits for what is under way; Ctrl-C again ends at once\n"
        ));
        std::process::exit(signals.again().await.status());
    });
    Ok(receive)
}
