//! Which tier answers: TierDAV's own counters, read once a second while a replay runs.

use crate::client::{Connection, Target};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Time between two looks.
const STEP: Duration = Duration::from_secs(1);
const READS: &str = "tierdav_object_operations_total{";

/// Counters at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// Since the first look.
    pub at_us: u64,
    /// Object reads for clients so far, by tier.
    pub reads: BTreeMap<String, u64>,
}

/// What was seen during a run, its set-up included.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Tiers {
    /// Where the metrics are.
    pub url: String,
    /// In order; what could not be read is left out.
    pub samples: Vec<Sample>,
    /// Looks that failed.
    pub failed: u64,
    /// Why the last of them failed.
    pub error: Option<String>,
}

/// The counters of one server, being watched.
pub struct Watch {
    tiers: Tiers,
    start: Instant,
    connection: Connection,
    path: Arc<str>,
}

impl Watch {
    /// Looks for the first time: what is asked after this is in the later looks.
    pub async fn begin(target: Target, url: String) -> Watch {
        let tiers = Tiers {
            url,
            ..Tiers::default()
        };
        let mut watch = Watch {
            tiers,
            start: Instant::now(),
            path: target.prefix.clone(),
            connection: Connection::new(target),
        };
        watch.look().await;
        watch
    }

    /// Looks until `stop`, and once more then.
    pub async fn until(mut self, mut stop: oneshot::Receiver<()>) -> Tiers {
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + STEP, STEP);
        let mut last = false;
        while !last {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = &mut stop => last = true,
            }
            self.look().await;
        }
        self.tiers
    }

    async fn look(&mut self) {
        // A server that hangs must not keep the report from being written.
        let text = tokio::time::timeout(STEP * 5, get(&mut self.connection, &self.path)).await;
        match text.unwrap_or_else(|_| Err("no answer in 5 s".into())) {
            Ok(text) => self.tiers.samples.push(Sample {
                at_us: self.start.elapsed().as_micros() as u64,
                reads: reads(&text),
            }),
            Err(error) => {
                self.connection.close();
                self.tiers.failed += 1;
                self.tiers.error = Some(error);
            }
        }
    }
}

async fn get(connection: &mut Connection, path: &str) -> Result<String, String> {
    connection.begin("GET", path);
    let status = connection.send(()).await.map_err(|e| e.to_string())?.status;
    let mut body = Vec::new();
    while let Some(piece) = connection.body().await.map_err(|e| e.to_string())? {
        body.extend_from_slice(piece);
    }
    if !(200..300).contains(&status) {
        return Err(format!("status {status}"));
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// The object reads by tier in a Prometheus text.
fn reads(text: &str) -> BTreeMap<String, u64> {
    let lines = text.lines().filter_map(|l| l.strip_prefix(READS));
    let lines = lines.filter(|l| l.contains("op=\"read\""));
    let pair = |line: &str| {
        let tier = line.split_once("tier=\"")?.1.split_once('"')?.0;
        Some((tier.to_string(), line.rsplit_once(' ')?.1.parse().ok()?))
    };
    lines.filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_told_from_writes_and_by_tier() {
        let text = "# TYPE tierdav_object_operations_total counter\n\
            tierdav_object_operations_total{op=\"read\",tier=\"cache\"} 7\n\
            tierdav_object_operations_total{op=\"write\",tier=\"cache\"} 9\n\
            tierdav_object_operations_total{op=\"read\",tier=\"backing\"} 3\n";
        let found = reads(text);
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found.get("cache"), found.get("backing")),
            (Some(&7), Some(&3))
        );
    }
}
