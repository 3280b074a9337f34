//! Settings: where they come from, what they mean, and what is wrong with them.
//!
//! Sources in rising order of precedence: the default, the TOML file, the environment, the flags. All of them are text
//! until [`Config::check`], which reports every fault at once with the key, the value, where it came from and what
//! is allowed.

mod keys;
mod live;
mod policies;
mod units;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use tiering::PolicyConfig;
use tiering::sim::Device;

use crate::objects::{Durability, Tuning, WritePolicy};
use crate::volume::Symlinks;

pub use keys::{KEYS, Key, find};
pub use live::{Change, InForce, Live, Reread};
pub use units::{duration, human_micros, human_size, size};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// A flag.
    Flag(String),
    /// Set while the gateway runs.
    Live,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Env(name) => write!(f, "environment {name}"),
            Source::Flag(flag) => f.write_str(flag),
            Source::Live => f.write_str("set while running"),
        }
    }
}

/// Settings as text, with their sources.
#[derive(Debug, Clone, Default)]
pub struct Raw {
    /// The configuration file, to be read again.
    path: Option<PathBuf>,
    values: BTreeMap<&'static str, (String, Source)>,
    faults: Vec<String>,
    warnings: Vec<String>,
}

/// What is wrong with the settings; one line per fault.
#[derive(Debug, thiserror::Error)]
#[error("the configuration has {} fault(s):\n{}", .0.len(), .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

impl Raw {
    /// Reads a TOML file.
    pub fn read_file(&mut self, path: &Path) {
        self.path = Some(path.to_path_buf());
        match std::fs::read_to_string(path) {
            Ok(text) => self.file(path, &text),
            Err(e) => self
                .faults
                .push(format!("  config file {}: {e}", path.display())),
        }
    }

    /// Takes the settings of TOML text that was read from `path`.
    pub fn file(&mut self, path: &Path, text: &str) {
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(e) => {
                self.faults.push(format!(
                    "  {}: {}",
                    path.display(),
                    e.to_string().trim_end().replace('\n', "\n    ")
                ));
                return;
            }
        };
        for (name, value) in table {
            match text_of(&value) {
                Some(text) => self.set(&name, text, Source::File(path.to_path_buf())),
                None => self.faults.push(format!(
                    "  {name} in {}: must be a plain value",
                    path.display()
                )),
            }
        }
    }

    /// The same settings after the file has been read again.
    pub fn reread(&self) -> Raw {
        let mut new = Raw::default();
        if let Some(path) = &self.path {
            new.read_file(path);
        }
        for (key, (value, source)) in &self.values {
            if !matches!(source, Source::File(_)) {
                new.values.insert(key, (value.clone(), source.clone()));
            }
        }
        new
    }

    /// Takes every `TIERDAV_…` variable. `TIERDAV_CONFIG` and `TIERDAV_ADMIN` belong to the command line.
    pub fn environment<T: Into<OsString>>(&mut self, vars: impl Iterator<Item = (T, T)>) {
        // A name that is no text is none of ours.
        let ours = |(name, value): (T, T)| {
            let name = name.into().into_string().ok()?;
            name.starts_with("TIERDAV_").then(|| (name, value.into()))
        };
        let mut vars: Vec<(String, OsString)> = vars.filter_map(ours).collect();
        vars.sort();
        for (name, value) in vars {
            if matches!(
                name.as_str(),
                "TIERDAV_CONFIG" | "TIERDAV_ADMIN" | "TIERDAV_CEPH_DIR"
            ) {
                continue;
            }
            let key = name.trim_start_matches("TIERDAV_").to_ascii_lowercase();
            match value.into_string() {
                Ok(value) => self.set(&key, value, Source::Env(name)),
                Err(value) if find(&key).is_some() => self.faults.push(format!(
                    "  {key} = \"{}\" (environment {name}): must be UTF-8",
                    value.display()
                )),
                Err(_) => {}
            }
        }
    }

    /// Sets one key; an unknown one is a fault with a suggestion.
    pub fn set(&mut self, name: &str, value: String, source: Source) {
        match find(name) {
            Some(key) => {
                self.values.insert(key.name, (value, source));
            }
            None => {
                let near = KEYS.iter().map(|k| (distance(name, k.name), k.name)).min();
                let hint = match near {
                    Some((d, k)) if d <= 3 => format!("; did you mean {k}?"),
                    _ => "; `tierdav check-config` lists them all".into(),
                };
                let text = format!("{name} ({source}): no such key{hint}");
                // Kubernetes sets TIERDAV_PORT and the like for a Service of this name: no reason not to start.
                match source {
                    Source::Env(_) => self.warnings.push(text),
                    _ => self.faults.push(format!("  {text}")),
                }
            }
        }
    }

    fn value(&self, key: &'static str) -> (&str, Source) {
        match self.values.get(key) {
            Some((v, s)) => (v.as_str(), s.clone()),
            None => (find(key).map_or("", |k| &k.default), Source::Default),
        }
    }

    /// Environment variables that look like keys but are none; they are ignored.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The effective settings as TOML, each with its source. Of the policies' parameters there are those of the
    /// chosen policy, and what was set of others.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let policy = policies::shown(self.value("policy").0);
        for key in KEYS.iter() {
            let (value, source) = self.value(key.name);
            let foreign = key.parameter.is_some_and(|p| p.policy != policy);
            if foreign && source == Source::Default {
                continue;
            }
            let live = if key.live { "; may change live" } else { "" };
            let line = format!("{} = {}", key.name, toml::Value::String(value.to_string()));
            let line = if value.is_empty() {
                format!("# {line}")
            } else {
                line
            };
            let _ = writeln!(
                out,
                "# {}: {}{live}\n{line}  # {source}\n",
                key.doc, key.allowed
            );
        }
        out
    }
}

/// A plain value of the file as text; lists have commas.
pub(crate) fn text_of(value: &toml::Value) -> Option<String> {
    Some(match value {
        toml::Value::String(s) => s.clone(),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => {
            value.to_string()
        }
        toml::Value::Array(items) => {
            let texts: Vec<String> = items
                .iter()
                .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_string))
                .collect();
            texts.join(",")
        }
        toml::Value::Table(_) | toml::Value::Datetime(_) => return None,
    })
}

/// Edit distance, for suggestions.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let cost = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Settings that have been checked.
#[derive(Debug, Clone)]
#[expect(
    missing_docs,
    reason = "each field is the key of the same name, documented in the table of keys"
)]
pub struct Config {
    pub root: PathBuf,
    pub cache_dir: Option<PathBuf>,
    pub pools: Option<PoolSettings>,
    pub listen: SocketAddr,
    pub admin_listen: Option<SocketAddr>,
    pub allow_anonymous: bool,
    pub users_file: Option<PathBuf>,
    pub tls: Option<TlsFiles>,
    pub public_base_url: Vec<Uri>,
    pub durability: Durability,
    pub write_policy: Option<WritePolicy>,
    pub policy: PolicyConfig,
    /// `policy = "auto"`: how often it compares. `policy` is then what it begins with.
    pub auto: Option<Duration>,
    pub shadow: Vec<PolicyConfig>,
    pub backing: Device,
    /// `None`: chosen from the free space at start.
    pub cache_capacity: Option<u64>,
    pub high_watermark: f64,
    pub low_watermark: f64,
    pub max_dirty_age: Duration,
    pub object_size: u32,
    pub migrate_bandwidth: u64,
    pub migrate_ops: u64,
    pub migrate_in_flight: usize,
    pub symlinks: Symlinks,
    pub quota: Option<u64>,
    pub allow_infinite_depth: bool,
    /// Whether requests are answered from memory on the thread that has them.
    pub in_place: bool,
    pub trace: bool,
    pub trace_segment_size: u64,
    pub trace_segment_age: Duration,
    pub trace_retention: u64,
    pub max_connections: usize,
    pub http_threads: NonZeroUsize,
    pub max_header_bytes: usize,
    pub max_xml_bytes: usize,
    pub max_body_bytes: Option<u64>,
    pub header_timeout: Duration,
    pub body_idle_timeout: Duration,
    pub lock_timeout_max: Duration,
    pub shutdown_grace: Duration,
    pub log_json: bool,
    pub log_level: String,
}

/// Where content lives, if not below the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    /// The cluster's configuration file.
    pub conf: PathBuf,
    /// The client's name, such as `client.tierdav`.
    pub user: String,
    /// Pool of the cache tier, if there is one.
    pub cache_pool: Option<String>,
    /// Pool of the backing tier.
    pub data_pool: String,
    /// Namespace in both pools.
    pub namespace: String,
    /// Longest wait for an operation.
    pub op_timeout: Duration,
}

/// The files that make TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// CA of clients that need no password, PEM.
    pub client_ca: Option<PathBuf>,
}

/// Reads values and gathers what is wrong with them.
struct Checker<'a> {
    raw: &'a Raw,
    faults: Vec<String>,
}

impl Checker<'_> {
    fn get<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let (value, source) = self.raw.value(key);
        let parsed = parse(value.trim());
        if parsed.is_none() {
            let allowed = find(key).map_or("", |k| &k.allowed);
            self.faults.push(format!(
                "  {key} = \"{value}\" ({source}): must be {allowed}"
            ));
        }
        parsed
    }

    /// Refuses paths that end otherwise than they are read: `/srv ` and `/srv` are two directories. A line's end is nobody's name.
    fn look_for_spaces(&mut self) {
        for key in PATHS {
            let lines = self.raw.value(key).0.trim_matches(['\n', '\r']);
            if lines != lines.trim() {
                self.fault(key, "begins or ends with white space");
            }
        }
    }

    fn fault(&mut self, key: &'static str, why: &str) {
        let (value, source) = self.raw.value(key);
        self.faults
            .push(format!("  {key} = \"{value}\" ({source}): {why}"));
    }
}

const PATHS: [&str; 7] = [
    "root",
    "cache_dir",
    "ceph_conf",
    "users_file",
    "tls_cert",
    "tls_key",
    "tls_client_ca",
];

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

fn pool(text: &str) -> Option<String> {
    let plain = !text.is_empty() && !text.contains(char::is_whitespace);
    plain.then(|| text.to_owned())
}

fn optional<T>(parse: impl FnOnce(&str) -> Option<T>) -> impl FnOnce(&str) -> Option<Option<T>> {
    unless("none", parse)
}

/// `None` when nothing is said, or this word.
fn unless<T>(
    word: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> impl FnOnce(&str) -> Option<Option<T>> {
    move |text| match text.is_empty() || text == word {
        true => Some(None),
        false => parse(text).map(Some),
    }
}

fn within<T: PartialOrd + Copy>(value: T, low: T, high: T) -> Option<T> {
    (low..=high).contains(&value).then_some(value)
}

impl Config {
    /// What of this may change while the gateway runs.
    pub fn tuning(&self) -> Tuning {
        Tuning {
            policy: self.policy.clone(),
            high_watermark: self.high_watermark,
            low_watermark: self.low_watermark,
            max_dirty_age: self.max_dirty_age,
            migrate_bytes_per_s: self.migrate_bandwidth,
            migrate_ops_per_s: self.migrate_ops,
            migrate_in_flight: self.migrate_in_flight,
            auto: self.auto,
            shadow: self.shadow.clone(),
            backing: self.backing,
        }
    }

    /// Checks everything and reports all faults together.
    ///
    /// # Errors
    /// [`ConfigError`] with one line per fault.
    pub fn check(raw: &Raw) -> Result<Config, ConfigError> {
        let mut c = Checker {
            raw,
            faults: raw.faults.clone(),
        };
        c.look_for_spaces();
        let config = Config::gather(&mut c);
        match config {
            Some(config) if c.faults.is_empty() => Ok(config),
            _ => Err(ConfigError(c.faults)),
        }
    }

    fn gather(c: &mut Checker<'_>) -> Option<Config> {
        let time = |t: &str| units::duration(t);
        let time_above_0 = |t: &str| units::duration(t).filter(|t| !t.is_zero());
        let time_from_1s = |t: &str| units::duration(t).filter(|t| t.as_secs() > 0);
        let flag = |t: &str| t.parse::<bool>().ok();
        // Every key is read before the first `?`, so that all faults are seen.
        let root = c.get("root", path);
        let cache_dir = c.get("cache_dir", optional(path));
        let ceph_conf = c.get("ceph_conf", path);
        let ceph_user = c.get("ceph_user", |t| {
            let (kind, name) = t.split_once('.')?;
            (kind == "client" && !name.is_empty()).then(|| t.to_owned())
        });
        let data_pool = c.get("data_pool", optional(pool));
        let cache_pool = c.get("cache_pool", optional(pool));
        let namespace = c.get("ceph_namespace", pool);
        let op_timeout = c.get("ceph_op_timeout", |t| {
            within(
                units::duration(t)?,
                Duration::from_secs(1),
                Duration::from_secs(600),
            )
        });
        let listen = c.get("listen", |t| t.parse::<SocketAddr>().ok());
        let admin_listen = c.get("admin_listen", optional(|t| t.parse::<SocketAddr>().ok()));
        let allow_remote_admin = c.get("allow_remote_admin", flag);
        let allow_anonymous = c.get("allow_anonymous", flag);
        let users_file = c.get("users_file", optional(path));
        let tls_cert = c.get("tls_cert", optional(path));
        let tls_key = c.get("tls_key", optional(path));
        let client_ca = c.get("tls_client_ca", optional(path));
        let public_base_url = c.get("public_base_url", |t| {
            let urls = t.split(',').map(str::trim).filter(|u| !u.is_empty());
            urls.map(|u| {
                u.parse::<Uri>()
                    .ok()
                    .filter(|u| u.scheme().is_some() && u.host().is_some())
            })
            .collect()
        });
        let durability = c.get("durability", |t| match t {
            "commit" => Some(Durability::Commit),
            "relaxed" => Some(Durability::Relaxed),
            _ => None,
        });
        let write_policy = c.get("write_policy", |t| match t {
            "auto" => Some(None),
            "around" => Some(Some(WritePolicy::Around)),
            "back" => Some(Some(WritePolicy::Back)),
            "through" => Some(Some(WritePolicy::Through)),
            _ => None,
        });
        let policies = policies::check(c);
        let cache_capacity = c.get("cache_capacity", unless("auto", units::size));
        let high_watermark = c.get("high_watermark", |t| within(t.parse().ok()?, 0.1, 1.0));
        let low_watermark = c.get("low_watermark", |t| within(t.parse().ok()?, 0.05, 1.0));
        let max_dirty_age = c.get("max_dirty_age", time);
        let object_size = c.get("object_size", |t| {
            let n = within(units::size(t)?, 64 << 10, 64 << 20)?;
            n.is_power_of_two().then_some(n as u32)
        });
        let migrate_bandwidth = c.get("migrate_bandwidth", units::size);
        let migrate_ops = c.get("migrate_ops", |t| t.parse::<u64>().ok());
        let migrate_in_flight = c.get("migrate_in_flight", |t| within(t.parse().ok()?, 1, 256));
        let symlinks = c.get("symlinks", |t| match t {
            "refuse" => Some(Symlinks::Refuse),
            "inside-root" => Some(Symlinks::InsideRoot),
            _ => None,
        });
        let quota = c.get("quota", optional(units::size));
        let allow_infinite_depth = c.get("allow_infinite_depth", flag);
        let in_place = c.get("in_place", flag);
        let trace = c.get("trace", flag);
        let trace_segment_size = c.get("trace_segment_size", |t| {
            within(units::size(t)?, 64 << 10, 1 << 40)
        });
        let trace_segment_age = c.get("trace_segment_age", time_above_0);
        let trace_retention = c.get("trace_retention", units::size);
        let max_connections = c.get("max_connections", |t| within(t.parse().ok()?, 1, 1_000_000));
        let http_threads = c.get("http_threads", |t| match t {
            "auto" => {
                let cores = std::thread::available_parallelism().ok();
                let fewer = cores.and_then(|n| NonZeroUsize::new(n.get() - 1));
                Some(fewer.unwrap_or(NonZeroUsize::MIN))
            }
            t => within(t.parse().ok()?, 1, 1024).and_then(NonZeroUsize::new),
        });
        let max_header_bytes = c.get("max_header_bytes", |t| {
            within(units::size(t)?, 8 << 10, 1 << 20)
        });
        let max_xml_bytes = c.get("max_xml_bytes", |t| {
            within(units::size(t)?, 4 << 10, 64 << 20)
        });
        let max_body_bytes = c.get("max_body_bytes", optional(units::size));
        let header_timeout = c.get("header_timeout", time_above_0);
        let body_idle_timeout = c.get("body_idle_timeout", time_above_0);
        let lock_timeout_max = c.get("lock_timeout_max", time_from_1s);
        let shutdown_grace = c.get("shutdown_grace", time);
        let log_json = c.get("log_format", |t| match t {
            "text" => Some(false),
            "json" => Some(true),
            _ => None,
        });
        let log_level = c.get("log_level", |t| {
            t.parse::<tracing_subscriber::filter::Targets>()
                .ok()
                .map(|_| t.to_string())
        });
        if let (Some(low), Some(high)) = (low_watermark, high_watermark)
            && low > high
        {
            c.fault("low_watermark", "must not be above high_watermark");
        }
        let pools = match (data_pool?, cache_pool?) {
            (Some(data_pool), cache_pool) => {
                // An object has one name in both pools: in one pool, the copy that is evicted would be the only one.
                if cache_pool.as_ref() == Some(&data_pool) {
                    c.fault(
                        "cache_pool",
                        "must be another pool than data_pool; leave it out to do without a cache",
                    );
                }
                Some(PoolSettings {
                    conf: ceph_conf?,
                    user: ceph_user?,
                    cache_pool,
                    data_pool,
                    namespace: namespace?,
                    op_timeout: op_timeout?,
                })
            }
            (None, Some(_)) => {
                c.fault(
                    "cache_pool",
                    "needs data_pool: the content above which it is a cache",
                );
                None
            }
            (None, None) => None,
        };
        let mut cache_dir = cache_dir?;
        // Whoever chooses a cache directory wants it to be used.
        let chosen = c.raw.value("cache_dir").0 != Raw::default().value("cache_dir").0;
        let write_policy = write_policy?.or(chosen.then_some(WritePolicy::Back));
        if pools.is_some() {
            if cfg!(not(feature = "rados")) {
                c.fault(
                    "data_pool",
                    "this tierdav was built without Ceph: build it with --features rados",
                );
            }
            if c.raw.value("cache_dir").1 == Source::Default {
                cache_dir = None;
            } else if cache_dir.is_some() {
                c.fault(
                    "cache_dir",
                    "content in Ceph pools has its cache in cache_pool: say cache_dir = \"none\", or leave it out",
                );
            }
        }
        let tls = match (tls_cert?, tls_key?, client_ca?) {
            (Some(cert), Some(key), client_ca) => Some(TlsFiles {
                cert,
                key,
                client_ca,
            }),
            (None, None, None) => None,
            (None, _, _) => {
                c.fault(
                    "tls_cert",
                    "is needed, since tls_key or tls_client_ca is set",
                );
                None
            }
            (_, None, _) => {
                c.fault("tls_key", "is needed, since tls_cert is set");
                None
            }
        };
        let has_users =
            users_file.as_ref()?.is_some() || tls.as_ref().is_some_and(|t| t.client_ca.is_some());
        if let (Some(listen), Some(anonymous)) = (listen, allow_anonymous)
            && !listen.ip().is_loopback()
            && !has_users
            && !anonymous
        {
            c.fault("listen", "serves others than this machine: set users_file, or pass --allow-anonymous if all may write");
        }
        if let (Some(Some(admin)), Some(false)) = (admin_listen, allow_remote_admin)
            && !admin.ip().is_loopback()
        {
            c.fault(
                "admin_listen",
                "is reachable from other machines and asks for no password: use a loopback address, or set \
                 allow_remote_admin = true where the network keeps strangers away",
            );
        }
        Some(Config {
            root: root?,
            cache_dir,
            pools,
            listen: listen?,
            admin_listen: admin_listen?,
            allow_anonymous: allow_anonymous?,
            users_file: users_file?,
            tls,
            public_base_url: public_base_url?,
            durability: durability?,
            write_policy,
            policy: policies.policy?,
            auto: policies.auto,
            shadow: policies.shadow?,
            backing: policies.backing,
            cache_capacity: cache_capacity?,
            high_watermark: high_watermark?,
            low_watermark: low_watermark?,
            max_dirty_age: max_dirty_age?,
            object_size: object_size?,
            migrate_bandwidth: migrate_bandwidth?,
            migrate_ops: migrate_ops?,
            migrate_in_flight: migrate_in_flight?,
            symlinks: symlinks?,
            quota: quota?,
            allow_infinite_depth: allow_infinite_depth?,
            in_place: in_place?,
            trace: trace?,
            trace_segment_size: trace_segment_size?,
            trace_segment_age: trace_segment_age?,
            trace_retention: trace_retention?,
            max_connections: max_connections?,
            http_threads: http_threads?,
            max_header_bytes: max_header_bytes? as usize,
            max_xml_bytes: max_xml_bytes? as usize,
            max_body_bytes: max_body_bytes?,
            header_timeout: header_timeout?,
            body_idle_timeout: body_idle_timeout?,
            lock_timeout_max: lock_timeout_max?,
            shutdown_grace: shutdown_grace?,
            log_json: log_json?,
            log_level: log_level?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn faults(set: &[(&str, &str)]) -> String {
        let mut raw = Raw::default();
        for (k, v) in set {
            raw.set(k, (*v).to_string(), Source::Flag(format!("--{k}")));
        }
        Config::check(&raw).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_valid_and_render_to_what_they_are() {
        let raw = Raw::default();
        Config::check(&raw).unwrap();
        let mut again = Raw::default();
        again.file(Path::new("x.toml"), &raw.render());
        let (a, b) = (Config::check(&raw).unwrap(), Config::check(&again).unwrap());
        assert_eq!(format!("{a:?}"), format!("{b:?}"));
    }

    #[test]
    fn a_path_with_a_space_at_its_end_is_refused_rather_than_another_one_served() {
        let told = faults(&[("root", "/srv "), ("users_file", "\t/users")]);
        assert_eq!(
            told.matches("begins or ends with white space").count(),
            2,
            "{told}"
        );
        let mut raw = Raw::default();
        raw.set("root", "/srv/a b\n".into(), Source::Flag("--root".into()));
        assert_eq!(Config::check(&raw).unwrap().root, Path::new("/srv/a b"));
    }

    #[test]
    fn a_chosen_cache_directory_is_written_to_unless_told_otherwise() {
        let of = |set: &[(&str, &str)]| {
            let mut raw = Raw::default();
            for (key, value) in set {
                raw.set(key, (*value).to_string(), Source::Flag(format!("--{key}")));
            }
            Config::check(&raw).unwrap().write_policy
        };
        let cache = ("cache_dir", "/tmp/c");
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[cache]), Some(WritePolicy::Back));
        for (word, policy) in [
            ("around", WritePolicy::Around),
            ("through", WritePolicy::Through),
        ] {
            assert_eq!(of(&[("write_policy", word)]), Some(policy));
            assert_eq!(of(&[cache, ("write_policy", word)]), Some(policy));
        }
    }

    #[test]
    fn what_is_said_of_policy_names_every_policy() {
        let key = KEYS.iter().find(|k| k.name == "policy").unwrap();
        let said: Vec<&str> = key.allowed.split([',', ' ']).collect();
        let missing = |name: &&&str| !said.contains(*name);
        assert_eq!(PolicyConfig::NAMES.iter().find(missing), None);
    }

    #[test]
    fn parameters_of_the_policy_are_settings_like_all_others() {
        let mut raw = Raw::default();
        raw.file(
            Path::new("t.toml"),
            "policy = \"cost-benefit\"\ncost_benefit_theta = 2\ncost_benefit_promote_bytes_per_s = \"5MiB\"\n\
             recency_periods = 3",
        );
        let theta = ("TIERDAV_COST_BENEFIT_THETA".to_string(), "1.5".to_string());
        raw.environment([theta].into_iter());
        let flag = Source::Flag("--cost-benefit-samples".into());
        raw.set("cost_benefit_samples", "8".into(), flag);
        let policy = Config::check(&raw).unwrap().policy;
        let values = ["theta", "promote_bytes_per_s", "samples", "margin"].map(|p| policy.get(p));
        assert_eq!(values, [Some(1.5), Some(5_242_880.0), Some(8.0), Some(1.0)]);
        let shown = raw.render();
        assert!(
            shown
                .contains("cost_benefit_theta = \"1.5\"  # environment TIERDAV_COST_BENEFIT_THETA")
        );
        assert!(shown.contains("recency_periods = \"3\"  # t.toml"));
        assert!(!shown.contains("recency_needed"), "{shown}");
    }

    #[test]
    fn a_bad_parameter_is_told_with_key_value_source_and_range() {
        let text = faults(&[
            ("cost_benefit_theta", "-1"),
            ("lirs_hir_share", "2"),
            ("cost_benefit_tehta", "1"),
        ]);
        for part in [
            "cost_benefit_theta = \"-1\" (--cost_benefit_theta): must be 0.001 to 1000",
            "lirs_hir_share = \"2\" (--lirs_hir_share): must be 0 to 0.9",
            "did you mean cost_benefit_theta?",
        ] {
            assert!(text.contains(part), "{part} missing in:\n{text}");
        }
        let both = [("policy", "recency"), ("recency_needed", "5")];
        let text = faults(&both);
        assert!(
            text.contains("must be at most `periods`, which is 4"),
            "{text}"
        );
    }

    #[test]
    fn flags_beat_the_environment_which_beats_the_file() {
        let mut raw = Raw::default();
        raw.file(
            Path::new("t.toml"),
            "durability = \"relaxed\"\nquota = 1024\nobject_size = \"1MiB\"",
        );
        raw.environment(
            [
                ("TIERDAV_QUOTA".to_string(), "2KiB".to_string()),
                ("HOME".into(), "/".into()),
            ]
            .into_iter(),
        );
        raw.set(
            "object_size",
            "64KiB".into(),
            Source::Flag("--object-size".into()),
        );
        let c = Config::check(&raw).unwrap();
        assert_eq!(
            (c.durability, c.quota, c.object_size),
            (Durability::Relaxed, Some(2048), 65536)
        );
    }

    #[test]
    fn all_faults_are_reported_together_with_key_value_source_and_what_is_allowed() {
        let text = faults(&[
            ("durability", "maybe"),
            ("object_size", "3MiB"),
            ("listne", "x"),
            ("max_dirty_age", "5"),
        ]);
        for part in [
            "4 fault(s)",
            "durability = \"maybe\" (--durability): must be commit or relaxed",
            "object_size",
            "listne",
            "did you mean listen?",
            "max_dirty_age",
        ] {
            assert!(text.contains(part), "{part} missing in:\n{text}");
        }
    }

    #[test]
    fn zero_is_refused_by_name_where_it_would_stop_everything() {
        let zero = ["header_timeout", "body_idle_timeout", "trace_segment_age"];
        let text = faults(&zero.map(|key| (key, "0s")));
        assert!(zero.iter().all(|key| text.contains(key)), "{text}");
        assert!(text.contains("must be a number above 0"), "{text}");
        assert!(faults(&[("lock_timeout_max", "500ms")]).contains("at least 1s"));
        let text = faults(&[("trace_segment_size", "1KiB")]);
        assert!(text.contains("must be 64KiB to 1TiB"), "{text}");
        let mut raw = Raw::default();
        for key in ["max_dirty_age", "shutdown_grace"] {
            raw.set(key, "0s".into(), Source::Default);
        }
        Config::check(&raw).unwrap();
    }

    #[test]
    fn a_foreign_variable_is_a_warning() {
        let mut raw = Raw::default();
        raw.environment(
            [(
                "TIERDAV_PORT".to_string(),
                "tcp://10.0.0.1:4918".to_string(),
            )]
            .into_iter(),
        );
        Config::check(&raw).unwrap();
        assert_eq!(raw.warnings().len(), 1);
    }

    #[test]
    fn a_variable_that_is_no_text_is_named_if_it_is_ours() {
        use std::os::unix::ffi::OsStringExt;
        let mut raw = Raw::default();
        let odd = || OsString::from_vec(vec![b'/', 0xff]);
        raw.environment([("OTHER".into(), odd()), (odd(), odd())].into_iter());
        raw.environment([("TIERDAV_PORT".into(), odd())].into_iter());
        Config::check(&raw).unwrap();
        raw.environment([("TIERDAV_ROOT".into(), odd())].into_iter());
        let text = Config::check(&raw).unwrap_err().to_string();
        assert!(
            text.contains("(environment TIERDAV_ROOT): must be UTF-8"),
            "{text}"
        );
    }

    #[test]
    fn no_other_word_passes_for_none_or_for_auto() {
        for (key, word) in [
            ("cache_capacity", "none"),
            ("quota", "auto"),
            ("max_body_bytes", "auto"),
            ("admin_listen", "auto"),
        ] {
            let text = faults(&[(key, word)]);
            assert!(text.contains(&format!("{key} = \"{word}\"")), "{text}");
        }
    }

    #[test]
    fn an_open_address_needs_users_or_an_explicit_word() {
        assert!(faults(&[("listen", "0.0.0.0:80")]).contains("--allow-anonymous"));
        let mut raw = Raw::default();
        raw.set(
            "listen",
            "0.0.0.0:80".into(),
            Source::Flag("--listen".into()),
        );
        raw.set(
            "allow_anonymous",
            "true".into(),
            Source::Flag("--allow-anonymous".into()),
        );
        Config::check(&raw).unwrap();
    }

    #[test]
    fn what_is_simulated_is_what_is_the_default_here() {
        let config = Config::check(&Raw::default()).unwrap();
        assert_eq!(config.high_watermark, tiering::HIGH_WATERMARK);
        assert_eq!(config.low_watermark, tiering::LOW_WATERMARK);
        assert_eq!(config.max_dirty_age, tiering::MAX_DIRTY_AGE);
    }

    #[test]
    fn auto_tries_no_more_policies_than_shadows_may_run() {
        let eight = "lru, fifo, arc, lirs, 2q, sieve, gdsf, recency";
        let said = faults(&[("policy", "auto"), ("shadow", eight)]);
        assert!(said.contains("7 policies beside cost-benefit"), "{said}");
        let mut raw = Raw::default();
        raw.set("shadow", eight.into(), Source::Flag("--shadow".into()));
        assert_eq!(Config::check(&raw).unwrap().shadow.len(), 8);
    }

    #[test]
    fn the_cache_pool_is_not_the_data_pool() {
        let text = faults(&[("data_pool", "p"), ("cache_pool", "p")]);
        assert!(text.contains("another pool than data_pool"), "{text}");
    }

    #[test]
    fn tls_needs_both_files_and_watermarks_must_be_ordered() {
        assert!(faults(&[("tls_cert", "a.pem")]).contains("tls_key"));
        assert!(faults(&[("low_watermark", "0.95")]).contains("high_watermark"));
    }
}
