//! `tierdav scrub`: checks the tiers of a gateway that does not serve.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use tiering::FileId;

use crate::cli::Scrub;
use crate::config::Config;
use crate::objects::{PoolScrub, ScrubReport};
use crate::tiers::{self, Tiers};

/// How often it is written down how far a scrub of pools has come.
const NOTE_PERIOD: Duration = Duration::from_secs(5);

/// Checks everything that the configuration names.
///
/// # Errors
/// What could not be opened or read. Damage is no error: it is in the report.
pub async fn run(config: &Config, how: Scrub) -> anyhow::Result<ScrubReport> {
    let tiers = tiers::open(config).await?;
    let report = match tiers.cache.pools() {
        Some(_) => pools(&tiers, how).await,
        None => directory(&tiers, how).await,
    };
    tiers.close().await?;
    report
}

async fn directory(tiers: &Tiers, how: Scrub) -> anyhow::Result<ScrubReport> {
    tiers::learn_paths(&tiers.volume)
        .await
        .context("the tree could not be read")?;
    let report = tiers.cache.scrub(tiers.volume.clone(), how.repair).await;
    report.context("the cache tier could not be checked")
}

async fn pools(tiers: &Tiers, how: Scrub) -> anyhow::Result<ScrubReport> {
    let files = tiers
        .volume
        .pooled_files()
        .await
        .context("the tree could not be read")?;
    // What was deleted before the last end of the gateway has still to go.
    tiers.cache.purge_queued().await?;
    let note = tiers.volume.state_dir().join("scrub");
    let options = PoolScrub {
        repair: how.repair,
        deep: how.deep,
        bytes_per_s: how.rate,
        after: if how.resume { read_note(&note)? } else { None },
    };
    let mut noted = Instant::now();
    let report = tiers
        .cache
        .scrub_pools(files, options, |file| {
            if noted.elapsed() >= NOTE_PERIOD {
                noted = Instant::now();
                if let Err(error) = std::fs::write(&note, file.to_string()) {
                    tracing::warn!(%error, "cannot note how far the scrub has come");
                }
            }
        })
        .await
        .context("the pools could not be checked")?;
    let _ = std::fs::remove_file(&note);
    Ok(report)
}

fn read_note(note: &Path) -> anyhow::Result<Option<FileId>> {
    match std::fs::read_to_string(note) {
        Ok(text) => Ok(u64::from_str_radix(text.trim(), 16).ok().map(FileId)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", note.display())),
    }
}
