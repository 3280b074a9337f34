//! The `trace-replay` tool.

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use trace_replay::{info, read};

/// Describes and replays recorded I/O loads against a WebDAV server, and checks every byte.
#[derive(Parser)]
#[command(version, after_help = "Examples:
  trace-replay info fixtures/es/local_256.csv.xz
  trace-replay replay fixtures/es/smoke.csv.xz --target http://127.0.0.1:4918/ --prefix /run1")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Counts, sizes, working set and reuse of a trace.
    Info {
        /// A CSV trace (plain, .xz or .zst).
        trace: PathBuf,
        /// Prints JSON instead of text.
        #[arg(long)]
        json: bool,
    },
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
    }
}
