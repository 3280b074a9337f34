//! `tierdav scrub`: checks the tiers of a gateway that does not serve.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::cli::Scrub;
use crate::config::Config;
use crate::objects::{Checked, PoolScrub, Problem, ScrubReport};
use crate::tiers::{self, Tiers};

/// How often it is written down how far a scrub of pools has come.
const NOTE_PERIOD: Duration = Duration::from_secs(5);

/// How far a scrub of pools came, and what it was asked for.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    deep: bool,
    repair: bool,
    checked: Checked,
}

impl Note {
    /// Whether a scrub that is asked for `how` may leave out what this one did.
    fn covers(&self, how: Scrub) -> bool {
        self.deep >= how.deep && self.repair >= how.repair
    }
}

/// Checks everything that the configuration names.
///
/// # Errors
/// What could not be opened or read. Damage is no error: it is in the report.
pub async fn run(config: &Config, how: Scrub) -> anyhow::Result<ScrubReport> {
    tiers::refuse_unknown(config)?;
    let tiers = tiers::open(config).await?;
    let report = match tiers.cache.pools() {
        Some(_) => pools(&tiers, how).await,
        None => directory(&tiers, how).await,
    };
    tiers.close().await?;
    report
}

async fn directory(tiers: &Tiers, how: Scrub) -> anyhow::Result<ScrubReport> {
    let forbidden = tiers::learn_paths(&tiers.volume)
        .await
        .context("the tree could not be read")?;
    let report = tiers.cache.scrub(tiers.volume.clone(), how.repair).await;
    let mut report = report.context("the cache tier could not be checked")?;
    for path in forbidden {
        report.add(Problem::Unreadable, path.to_string(), false);
    }
    Ok(report)
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
        checked: match how.resume {
            true => resumed(&note, how)?,
            false => None,
        },
    };
    let mut noted = Instant::now();
    let report = tiers
        .cache
        .scrub_pools(files, options, |checked| {
            if noted.elapsed() >= NOTE_PERIOD {
                noted = Instant::now();
                if let Err(error) = write_note(&note, how, checked) {
                    tracing::warn!(%error, "cannot note how far the scrub has come");
                }
            }
        })
        .await
        .context("the pools could not be checked")?;
    let _ = std::fs::remove_file(&note);
    Ok(report)
}

/// Where an interrupted scrub is gone on with: nowhere, if it did less than this one is asked for.
fn resumed(note: &Path, how: Scrub) -> anyhow::Result<Option<Checked>> {
    let text = match std::fs::read_to_string(note) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", note.display())),
    };
    let read: Option<Note> = serde_json::from_str(&text).ok();
    let usable = read.filter(|note| note.covers(how));
    if usable.is_none() {
        tracing::warn!("the interrupted scrub was not as thorough as this one, which begins anew");
    }
    Ok(usable.map(|note| note.checked))
}

fn write_note(note: &Path, how: Scrub, checked: &Checked) -> anyhow::Result<()> {
    let whole = Note {
        deep: how.deep,
        repair: how.repair,
        checked: checked.clone(),
    };
    // Whole or not at all.
    let aside = note.with_extension("new");
    std::fs::write(&aside, serde_json::to_vec(&whole)?)?;
    Ok(std::fs::rename(&aside, note)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use tiering::FileId;

    use super::*;

    #[test]
    fn a_scrub_goes_on_only_with_one_that_was_as_thorough() {
        let dir = tempfile::tempdir().unwrap();
        let note = dir.path().join("scrub");
        let how = |deep, repair| Scrub {
            deep,
            repair,
            resume: true,
            rate: 0,
        };
        assert_eq!(resumed(&note, how(false, false)).unwrap(), None);
        let checked = Checked {
            up_to: FileId(7),
            found: ScrubReport {
                problems: 2,
                ..ScrubReport::default()
            },
        };
        for (was, asked, goes_on) in [
            ((false, false), (false, false), true),
            ((true, false), (false, false), true),
            ((false, false), (true, false), false),
            ((true, false), (true, true), false),
            ((true, true), (true, false), true),
        ] {
            write_note(&note, how(was.0, was.1), &checked).unwrap();
            let got = resumed(&note, how(asked.0, asked.1)).unwrap();
            assert_eq!(got, goes_on.then(|| checked.clone()), "{was:?} {asked:?}");
        }
        // That of an earlier release, or half a file.
        std::fs::write(&note, "0000000000000007").unwrap();
        assert_eq!(resumed(&note, how(false, false)).unwrap(), None);
    }
}
