//! The `tierdav` command.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;

use anyhow::Context;
use gateway::cli::{self, Request};
use gateway::config::{Config, Raw};
use gateway::log::Lines;
use gateway::{admin, auth, scrub, serve, tiers, top, transfer};
use http::Method;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::prelude::*;

fn main() -> ExitCode {
    let request = match cli::parse(std::env::args_os()) {
        Ok(request) => request,
        Err(e) => e.exit(),
    };
    match run(request) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tierdav: {error:#}");
            let code = match error.downcast_ref() {
                Some(Interrupted { signal, .. }) => 128 + signal,
                None if error.is::<gateway::config::ConfigError>() => 2,
                None => 1,
            };
            ExitCode::from(code)
        }
    }
}

/// A command was stopped by a signal before its end.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; what is done stays done, nothing is lost: {advice}")]
struct Interrupted {
    signal: u8,
    advice: &'static str,
}

/// Runs `work` to its end, or until the user has had enough. That is as a crash then: the lock in the pools stays, so that the next
/// run shuts this one out, and nothing that is still on its way to the cluster arrives after that.
async fn until_interrupted<T>(
    advice: &'static str,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let kinds = [SignalKind::terminate(), SignalKind::interrupt()];
    let mut signals = [signal(kinds[0])?, signal(kinds[1])?];
    let [terminate, interrupt] = &mut signals;
    let mut work = Box::pin(work);
    let kind = tokio::select! {
        done = &mut work => return done,
        _ = terminate.recv() => kinds[0],
        _ = interrupt.recv() => kinds[1],
    };
    std::mem::forget(work);
    let signal = u8::try_from(kind.as_raw_value())?;
    Err(Interrupted { signal, advice }.into())
}

/// [`until_interrupted`] in a runtime of its own, whose threads are not waited for after an interruption: one may be reading a
/// whole tree, or wait for a cluster that is away.
fn run_until_interrupted<T>(
    advice: &'static str,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let runtime = runtime()?;
    let done = runtime.block_on(until_interrupted(advice, work));
    if done.as_ref().is_err_and(|e| e.is::<Interrupted>()) {
        runtime.shutdown_background();
    }
    done
}

/// Prints. A reader that has seen enough (`| head`) is no error.
fn say(text: std::fmt::Arguments<'_>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        said => said.context("standard output"),
    }
}

fn run(request: Request) -> anyhow::Result<ExitCode> {
    match request {
        Request::Serve(raw) => {
            let config = checked(&raw)?;
            let runtime = runtime()?;
            let served = runtime.block_on(serve::serve(config, raw));
            // All is flushed. What may still run waits for a lock of the pools, in a start that was stopped.
            runtime.shutdown_timeout(std::time::Duration::from_secs(1));
            served?;
        }
        Request::CheckConfig(raw) => {
            serve::check_files(&valid(&raw)?)?;
            say(format_args!("{}", raw.render()))?;
        }
        Request::Status { admin, json } => {
            let asked = admin::client::ask(&admin, Method::GET, "/.tierdav/status");
            let body = runtime()?.block_on(admin::client::soon(&admin, asked))?;
            if json {
                say(format_args!("{}\n", String::from_utf8_lossy(&body)))?;
            } else {
                let status: admin::Status =
                    serde_json::from_slice(&body).context("the status makes no sense")?;
                say(format_args!("{}", admin::client::describe(&status)))?;
            }
        }
        Request::Top(top) => runtime()?.block_on(top::run(&top))?,
        Request::Drain {
            admin: Some(admin), ..
        } => {
            let body =
                runtime()?.block_on(admin::client::ask(&admin, Method::POST, "/.tierdav/drain"))?;
            say(format_args!("{}\n", String::from_utf8_lossy(&body)))?;
        }
        Request::Drain { admin: None, raw } => {
            let config = checked(&raw)?;
            let advice = "run it again to flush the rest";
            run_until_interrupted(advice, drain(&config))?;
        }
        Request::Scrub { how, raw } => {
            let config = checked(&raw)?;
            let advice = "with --resume, a scrub of pools goes on where this one was";
            return run_until_interrupted(advice, scrub(&config, how));
        }
        Request::Transfer {
            direction,
            path,
            raw,
        } => {
            let config = checked(&raw)?;
            let advice = "run it again, and it goes on where it was";
            let work = transfer::run(&config, direction, &path);
            let report = run_until_interrupted(advice, work)?;
            say(format_args!("{}\n", serde_json::to_string_pretty(&report)?))?;
            if report.incomplete {
                return Ok(ExitCode::from(3));
            }
        }
        Request::Policy { admin, json, set } => policy(&admin, json, set)?,
        Request::Locks { admin, break_token } => locks(&admin, break_token)?,
        Request::HashPassword { name } => {
            let (mut password, mut input) = (String::new(), std::io::stdin());
            if input.is_terminal() {
                eprint!("Password for {name} (it is shown): ");
                input.read_line(&mut password)?;
            } else {
                let read = input.read_to_string(&mut password);
                read.context("the password on standard input")?;
            }
            let password = password.trim_end_matches(['\r', '\n']);
            anyhow::ensure!(!password.is_empty(), "no password on standard input");
            say(format_args!("{}\n", auth::line(&name, password)?))?;
        }
        Request::Completions(shell) => {
            // Written in one piece: a reader that has seen enough is no error.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut cli::command(), "tierdav", &mut script);
            say(format_args!("{}", String::from_utf8_lossy(&script)))?;
        }
        Request::Man(dir) => {
            std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
            clap_mangen::generate_to(cli::command(), &dir)
                .with_context(|| dir.display().to_string())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start threads")
}

/// The configuration; what it ignored is said on standard error.
fn valid(raw: &Raw) -> anyhow::Result<Config> {
    let config = Config::check(raw)?;
    for warning in raw.warnings() {
        eprintln!("tierdav: ignored: {warning}");
    }
    Ok(config)
}

fn checked(raw: &Raw) -> anyhow::Result<Config> {
    let config = valid(raw)?;
    let filter: tracing_subscriber::filter::Targets =
        config.log_level.parse().context("log_level")?;
    // A log file or journal is no terminal.
    let ansi = std::io::stderr().is_terminal();
    let lines = move || Lines {
        to: std::io::stderr(),
        ansi,
    };
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(lines)
        .with_ansi(ansi);
    let registry = tracing_subscriber::registry();
    if config.log_json {
        registry.with(layer.json().with_filter(filter)).init();
    } else {
        registry.with(layer.with_filter(filter)).init();
    }
    Ok(config)
}

async fn drain(config: &Config) -> anyhow::Result<()> {
    tiers::refuse_unknown(config)?;
    let tiers = tiers::open(config).await?;
    let report = tiers
        .cache
        .drain()
        .await
        .context("not everything could be flushed")?;
    tiers.close().await?;
    say(format_args!("{}\n", serde_json::to_string(&report)?))?;
    anyhow::ensure!(
        report.failed == 0,
        "{} objects or files could not be flushed (the log says why): the cache tier is still needed",
        report.failed
    );
    match &config.pools {
        Some(pools) => say(format_args!("pool {} has everything\n", pools.data_pool))?,
        None => say(format_args!(
            "{} holds plain files only\n",
            config.root.display()
        ))?,
    }
    Ok(())
}

async fn scrub(config: &Config, how: cli::Scrub) -> anyhow::Result<ExitCode> {
    let report = scrub::run(config, how).await?;
    say(format_args!("{}\n", serde_json::to_string_pretty(&report)?))?;
    Ok(if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(3)
    })
}

fn policy(admin: &str, json: bool, set: Vec<(String, String)>) -> anyhow::Result<()> {
    let (method, body) = match set.is_empty() {
        true => (Method::GET, Vec::new()),
        false => {
            let set: BTreeMap<String, String> = set.into_iter().collect();
            (Method::POST, serde_json::to_vec(&set)?)
        }
    };
    let asked = admin::client::send(admin, method.clone(), "/.tierdav/policy", body.into());
    // Another policy is told of all that is cached first.
    let body = match method == Method::GET {
        true => runtime()?.block_on(admin::client::soon(admin, asked))?,
        false => runtime()?.block_on(asked)?,
    };
    let policy: admin::policy::Policy =
        serde_json::from_slice(&body).context("the answer makes no sense")?;
    match json {
        true => say(format_args!("{}\n", serde_json::to_string_pretty(&policy)?))?,
        false => say(format_args!("{}", policy.describe()))?,
    }
    Ok(())
}

fn locks(admin: &str, break_token: Option<String>) -> anyhow::Result<()> {
    let (method, path) = match &break_token {
        None => (Method::GET, "/.tierdav/locks".to_string()),
        Some(token) => {
            let all = percent_encoding::NON_ALPHANUMERIC;
            (
                Method::DELETE,
                format!(
                    "/.tierdav/locks?token={}",
                    percent_encoding::utf8_percent_encode(token, all)
                ),
            )
        }
    };
    let asked = admin::client::ask(admin, method, &path);
    let body = runtime()?.block_on(admin::client::soon(admin, asked))?;
    say(format_args!(
        "{}\n",
        String::from_utf8_lossy(&body).trim_end()
    ))?;
    Ok(())
}
