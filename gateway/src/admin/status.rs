//! What `/.tierdav/status` says: gathered once, shown as JSON, as a page and in a terminal.
//!
//! Costs the same however many resources there are: sums that are kept anyway, and a look at the few versions that are
//! used most.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tiering::Tier;
use tiering::policy::PARAMETERS;

use super::Admin;
use crate::config::human_micros;
use crate::metrics::{self, Client, Gauge, RadosPool, Sample};
use crate::objects::{CacheStatus, HotFile, ShadowStatus};

/// Versions shown.
pub const HOT_MAX: usize = 16;
/// Clients shown.
pub const CLIENTS_MAX: usize = 10;
/// Locks shown.
pub const LOCKS_MAX: usize = 10;

/// What `tierdav status` shows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The gateway's version.
    pub version: String,
    /// Where WebDAV is served.
    pub serving: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Whether requests are served.
    pub ready: bool,
    /// Requests under way.
    pub in_flight: u64,
    /// Connections open.
    pub connections: u64,
    /// Locks held.
    pub locks: usize,
    /// The tiers.
    pub tiers: CacheStatus,
    /// Where the tiers are, and whether they answer.
    pub places: Vec<Place>,
    /// How objects are moved.
    pub policy: PolicyStatus,
    /// Addresses with open connections.
    pub client_addresses: usize,
    /// Those with most connections.
    pub clients: Vec<Client>,
    /// What happened since the start.
    pub since_start: Sample,
    /// What happened in the last minute; its percentiles are means of the steps' own.
    pub last_minute: Sample,
    /// What happened in the last hour; likewise.
    pub last_hour: Sample,
    /// The versions that clients use most, hottest first.
    pub hot: Vec<HotFile>,
    /// What other policies would have achieved, if any run beside the one that decides.
    #[serde(default)]
    pub shadow: Option<ShadowStatus>,
    /// The process.
    pub process: Process,
}

/// Where a tier is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// `cache`, `backing` or `root`.
    pub role: String,
    /// `directory` or `Ceph pool`.
    pub kind: String,
    /// Its path or name.
    pub name: String,
    /// Bytes of the file system or pool under it, if it tells.
    pub size_bytes: Option<u64>,
    /// Free bytes there, if it tells.
    pub available_bytes: Option<u64>,
    /// What is wrong with it.
    pub trouble: Option<String>,
}

/// How objects are moved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// The policy's name.
    pub name: String,
    /// Whether `policy = "auto"` chose it, and may choose another.
    #[serde(default)]
    pub by_auto: bool,
    /// Its parameters, and the keys of the configuration beside it.
    pub parameters: Vec<Setting>,
}

impl PolicyStatus {
    /// Who decides, for people.
    pub fn decider(&self) -> String {
        let how = if self.by_auto { ", chosen by auto" } else { "" };
        format!("{}{how}", self.name)
    }
}

/// A setting in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Its name in the configuration.
    pub name: String,
    /// Its value with its unit.
    pub value: String,
    /// What it does.
    pub meaning: String,
}

/// The process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
}

impl Admin {
    /// Everything that is shown.
    pub(super) async fn status(self: &Arc<Self>) -> Status {
        let admin = Arc::clone(self);
        let looked = tokio::task::spawn_blocking(move || {
            let find = |file| {
                let (path, bytes) = admin.volume.locate(file)?;
                Some((path.to_string(), bytes))
            };
            let hot = admin.cache.hot(HOT_MAX, find);
            let mut tiers = admin.cache.status();
            for action in &mut tiers.recent {
                action.path = find(action.file).map(|(path, _)| path);
            }
            (hot, tiers)
        });
        let (hot, tiers) = match looked.await {
            Ok(looked) => looked,
            // The runtime is stopping.
            Err(_) => (Vec::new(), self.cache.status()),
        };
        let steps = self.window.steps(&self.metrics);
        let minute = steps.len().saturating_sub(6);
        let (client_addresses, clients) = self.metrics.clients().top(CLIENTS_MAX);
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            serving: self.serving.clone(),
            uptime_s: self.started.elapsed().as_secs(),
            ready: self.ready(),
            in_flight: self.metrics.in_flight(),
            connections: self.metrics.connections(),
            locks: self.dav.locks().len(),
            tiers,
            places: self.places(),
            policy: self.policy(),
            client_addresses,
            clients,
            since_start: self.window.since_start(&self.metrics),
            last_minute: metrics::sum(steps.get(minute..).unwrap_or_default()),
            last_hour: metrics::sum(&steps),
            hot,
            shadow: self.cache.shadow(),
            process: Process {
                resident_bytes: metrics::resident_bytes().unwrap_or(0),
                open_fds: metrics::open_descriptors().unwrap_or(0),
            },
        }
    }

    fn places(&self) -> Vec<Place> {
        let mut places = self.places.lock().clone();
        for place in &mut places {
            let gauges = match (place.kind.as_str(), place.role.as_str()) {
                (DIRECTORY, "cache") => [Gauge::CacheSizeBytes, Gauge::CacheAvailableBytes],
                (DIRECTORY, _) => [Gauge::RootSizeBytes, Gauge::RootAvailableBytes],
                _ => continue,
            };
            let [size, available] = gauges.map(|g| self.metrics.gauge_value(g));
            let known = |v: Option<f64>| v.filter(|v| v.is_finite()).map(|v| v as u64);
            (place.size_bytes, place.available_bytes) = (known(size), known(available));
            place.trouble = match place.available_bytes {
                None => Some("its file system does not answer".to_owned()),
                Some(free) if free < FULL_BYTES => Some("its file system is full".to_owned()),
                Some(_) => None,
            };
        }
        // Which of the disks it was, the log says.
        if self.metrics.gauge_value(Gauge::LogKept) == Some(1.0)
            && let Some(place) = places.iter_mut().find(|p| p.kind == DIRECTORY)
        {
            place.trouble = Some(
                "a sync failed: the intent log is kept, look at the disks and restart".to_owned(),
            );
        }
        places
    }

    /// Asks the pools how they are, if content is in pools. Not part of any request: a cluster that is away answers late.
    pub(super) async fn ask_pools(&self) {
        for tier in [Tier::Cache, Tier::Backing] {
            let Some(asked) = self.cache.pool_space(tier) else {
                continue;
            };
            let role = tier.as_str();
            let space = tokio::time::timeout(Duration::from_secs(5), asked).await;
            let (pool, away) = match tier {
                Tier::Cache => (RadosPool::Cache, self.cache.is_cache_away()),
                Tier::Backing => (RadosPool::Data, false),
            };
            let counts = self.metrics.rados().faults(pool);
            let lately = self.faults.lock()[usize::from(tier == Tier::Backing)].step(counts);
            let mut places = self.places.lock();
            let pools = |p: &&mut Place| p.role == role && p.kind == POOL;
            let Some(place) = places.iter_mut().find(pools) else {
                continue;
            };
            match space {
                Ok(Ok(space)) => {
                    place.size_bytes = Some(space.used + space.available);
                    place.available_bytes = Some(space.available);
                    place.trouble = match (away, lately) {
                        (true, _) => {
                            Some("does not answer: new content goes to the data pool".to_owned())
                        }
                        (false, Some(lately)) => Some(format!(
                            "operations that failed in the last minute: {lately}"
                        )),
                        (false, None) => None,
                    };
                }
                Ok(Err(why)) => place.trouble = Some(why),
                Err(_) => place.trouble = Some("no answer for 5 s".to_owned()),
            }
        }
    }

    fn policy(&self) -> PolicyStatus {
        let options = self.cache.tuning();
        let config = &options.policy;
        let of_policy = PARAMETERS.iter().filter(|p| p.policy == config.name());
        let mut parameters: Vec<Setting> = of_policy
            .filter_map(|p| {
                Some(Setting {
                    name: p.name.to_owned(),
                    value: format!("{} {}", config.get(p.name)?, p.unit)
                        .trim_end()
                        .to_owned(),
                    meaning: p.doc.trim().to_owned(),
                })
            })
            .collect();
        let mut add = |name: &str, value: String, meaning: &str| {
            parameters.push(Setting {
                name: name.to_owned(),
                value,
                meaning: meaning.to_owned(),
            });
        };
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let limit = |value: u64, text: String| match value {
            0 => "unlimited".to_owned(),
            _ => text,
        };
        add(
            "high_watermark",
            percent(options.high_watermark),
            "Objects leave a cache that is fuller.",
        );
        add(
            "low_watermark",
            percent(options.low_watermark),
            "Until it is filled to this.",
        );
        let age = u64::try_from(options.max_dirty_age.as_micros()).unwrap_or(u64::MAX);
        add(
            "max_dirty_age",
            human_micros(age),
            "Dirty data is flushed at this age.",
        );
        add(
            "write_policy",
            self.cache.options().write_policy.as_str().to_owned(),
            "Whether new data may be in the cache tier alone for a while.",
        );
        add(
            "migrate_bandwidth",
            limit(
                options.migrate_bytes_per_s,
                crate::config::human_size(options.migrate_bytes_per_s) + "/s",
            ),
            "Most bytes moved between the tiers.",
        );
        add(
            "migrate_ops",
            limit(
                options.migrate_ops_per_s,
                format!("{} per s", options.migrate_ops_per_s),
            ),
            "Most objects moved between the tiers.",
        );
        PolicyStatus {
            name: config.name().to_owned(),
            by_auto: options.auto.is_some(),
            parameters,
        }
    }
}

/// A file system with fewer free bytes is full: large uploads fail.
const FULL_BYTES: u64 = 16 << 20;
/// The kind of a place on this machine.
const DIRECTORY: &str = "directory";
/// The kind of a place in a cluster.
pub const POOL: &str = "Ceph pool";

/// Where the tiers of a configuration are.
pub fn places_of(config: &crate::config::Config) -> Vec<Place> {
    let place = |role: &str, kind: &str, name: String| Place {
        role: role.to_owned(),
        kind: kind.to_owned(),
        name,
        size_bytes: None,
        available_bytes: None,
        trouble: None,
    };
    let mut places = Vec::new();
    let root = config.root.display().to_string();
    if let Some(dir) = &config.cache_dir {
        places.push(place("cache", DIRECTORY, dir.display().to_string()));
    }
    match &config.pools {
        None => places.push(place("backing", DIRECTORY, root)),
        Some(pools) => {
            if let Some(cache) = &pools.cache_pool {
                places.push(place("cache", POOL, cache.clone()));
            }
            places.push(place("backing", POOL, pools.data_pool.clone()));
            places.push(place("root", DIRECTORY, root));
        }
    }
    places
}
