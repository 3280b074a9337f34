//! `tierdav import` and `tierdav export`: moves content between plain files under the root and Ceph pools.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use parking_lot::Mutex;
use serde::Serialize;
use tiering::FileId;

use crate::config::Config;
use crate::objects::{CacheError, PooledTree, Unseen};
use crate::tiers;
use crate::volume::{Kind, ResourcePath, Transfer, Volume, VolumeError, Walked};

/// How often it is said how far it has come.
const PROGRESS_PERIOD: Duration = Duration::from_secs(10);

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Plain files into pools.
    Import,
    /// Pools into plain files.
    Export,
}

/// What was moved.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Files moved.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were there already.
    pub already: u64,
    /// Files and directories whose names are not UTF-8, and files that may not be read: they stay where they are, with what is in
    /// them.
    pub unseen: Vec<String>,
    /// Files with several names, which stay where they are.
    pub linked: Vec<String>,
    /// Files whose content is damaged or gone; they stay as they were.
    pub damaged: Vec<String>,
    /// Whether content could not be moved that should have been.
    #[serde(skip)]
    pub incomplete: bool,
}

/// Moves everything at and below `path`. Interrupted, it goes on where it was when it is run again.
///
/// # Errors
/// There are no pools, or a file could not be moved for another reason than damage of its own: it is named, and is whole
/// where it was.
pub async fn run(config: &Config, direction: Direction, path: &str) -> anyhow::Result<Report> {
    anyhow::ensure!(
        config.pools.is_some(),
        "there are no pools to move content into or out of: set data_pool"
    );
    let path =
        ResourcePath::parse(path).with_context(|| format!("{path:?} is no path below the root"))?;
    match direction {
        // Plain files that no gateway has served yet may be taken into pools.
        Direction::Import => anyhow::ensure!(
            config.root.is_dir(),
            "root = {}: no such directory",
            config.root.display()
        ),
        Direction::Export => tiers::refuse_unknown(config)?,
    }
    let tiers = tiers::open(config).await?;
    // What an interrupted run left goes first.
    let PooledTree { files, unseen } = tiers.volume.pooled_files().await?;
    let hidden = unseen.iter().any(|name| name.is_pooled);
    let taken = files.into_iter().map(|file| file.file).collect();
    tiers.cache.purge_queued().await?;
    let moved = below(&tiers.volume, direction, path, &unseen, taken).await;
    let moved = moved.map(|report| Report {
        unseen: unseen.into_iter().map(|name| name.path).collect(),
        incomplete: !report.damaged.is_empty()
            || direction == Direction::Export && (hidden || !report.linked.is_empty()),
        ..report
    });
    tiers.cache.purge_queued().await?;
    if moved.is_ok() && direction == Direction::Export && !tiers.volume.leave_pools().await? {
        tracing::warn!("the root still has content in the pools: it cannot be served without them");
    }
    tiers.close().await?;
    moved
}

async fn below(
    volume: &Volume,
    direction: Direction,
    path: ResourcePath,
    unseen: &[Unseen],
    taken: HashSet<FileId>,
) -> anyhow::Result<Report> {
    let is_unseen = |path: &ResourcePath| {
        let path = path.to_string();
        unseen.iter().any(|unseen| unseen.path == path)
    };
    let taken = Arc::new(Mutex::new(taken));
    let mut report = Report::default();
    let mut said = Instant::now();
    let mut left = vec![path];
    let mut walked = Walked::default();
    while let Some(path) = left.pop() {
        let kind = volume.stat(&path).await?.kind;
        if kind == Kind::Collection {
            let members = match volume.list_once(&path, &mut walked).await {
                Err(VolumeError::Forbidden { .. }) if is_unseen(&path) => continue,
                members => members?,
            };
            for (name, _) in members {
                left.push(path.join(&name)?);
            }
            continue;
        }
        let moved = match direction {
            Direction::Import => volume.import(&path, &taken).await,
            Direction::Export => volume.export(&path).await,
        };
        let moved = match moved {
            Err(VolumeError::Forbidden { .. }) if is_unseen(&path) => continue,
            // No other file suffers from it.
            Err(VolumeError::Cache(error @ CacheError::Damaged { .. })) => {
                tracing::error!(%path, %error, "stays as it was");
                report.damaged.push(path.to_string());
                continue;
            }
            moved => moved.with_context(|| format!("{path} stays as it was"))?,
        };
        match moved {
            Transfer::Moved(bytes) => {
                report.files += 1;
                report.bytes += bytes;
            }
            Transfer::Already => report.already += 1,
            Transfer::Linked => report.linked.push(path.to_string()),
        }
        if said.elapsed() >= PROGRESS_PERIOD {
            said = Instant::now();
            tracing::info!(files = report.files, bytes = report.bytes, "moved so far");
        }
    }
    Ok(report)
}
