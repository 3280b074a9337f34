//! Puts the rooms together: opens the tiers, or waits for them, serves, and stops in order.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admin::status::places_of;
use crate::admin::{Admin, Door};
use crate::auth::Users;
use crate::config::{Config, ConfigError, Live, Raw};
use crate::dav::{Dav, DavOptions};
use crate::http::loops::Loops;
use crate::http::{self, Front, Limits, tls};
use crate::metrics::{Gauge, Metrics, Window};
use crate::objects::Durability;
use crate::reload::Reload;
use crate::tiers::{self, Opening, Tiers};

/// Wait between the first two tries to open pools that are away; it doubles each time.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest wait between two tries.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How often certificates are looked at for renewed ones.
const CERTIFICATES_EVERY_S: u64 = 10;

/// Reads the files that the configuration names: users and certificates.
///
/// # Errors
/// [`ConfigError`] with one line per file that is missing or makes no sense.
pub fn check_files(config: &Config) -> Result<(Users, Option<tls::Tls>), ConfigError> {
    let users = Users::open(config.users_file.clone());
    let passwords = config.users_file.is_some();
    let tls = config
        .tls
        .clone()
        .map(|files| tls::Tls::open(files, passwords))
        .transpose();
    match (users, tls) {
        (Ok(users), Ok(tls)) => Ok((users, tls)),
        (users, tls) => {
            let users = users.err().map(|e| format!("  {e}"));
            let tls = tls.err().map(|e| format!("  {e}"));
            Err(ConfigError(users.into_iter().chain(tls).collect()))
        }
    }
}

/// Allows as many open files as the system grants: each connection takes one, and files that were just read stay open.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// The WebDAV listener. While it is shut, clients wait in the backlog; before there is something to serve they get 503.
struct Gate {
    front: Arc<Front>,
    listener: Option<TcpListener>,
    stopped: watch::Receiver<bool>,
    grace: Duration,
    serving: Option<JoinHandle<usize>>,
}

impl Gate {
    fn open(&mut self) {
        if let Some(listener) = self.listener.take() {
            let front = Arc::clone(&self.front);
            let serving = front.serve(listener, self.stopped.clone(), self.grace);
            self.serving = Some(tokio::spawn(serving));
        }
    }
}

/// Opens the tiers. A start is short, so clients wait for it; pools that are away may stay so for long: then the gate
/// opens, and they are tried again.
async fn until_open(opening: &Opening<'_>, gate: &mut Gate, door: &Door) -> anyhow::Result<Tiers> {
    let mut wait = RETRY_MIN;
    loop {
        match opening.tiers().await {
            Ok(tiers) => return Ok(tiers),
            Err(error) if tiers::may_pass(&error) => {
                let error = format!("{error:#}");
                tracing::error!(%error, "tried again in {} s; until then requests get 503", wait.as_secs());
                door.wait_for(error);
            }
            Err(error) => return Err(error),
        }
        gate.open();
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

fn stopped_early() -> anyhow::Result<()> {
    tracing::info!("stopped before there was something to serve");
    Ok(())
}

/// Serves until SIGTERM or SIGINT. `raw` is what `config` was made of: read again on SIGHUP.
///
/// # Errors
/// What keeps the server from starting, or its state from being flushed at the end.
pub async fn serve(config: Config, raw: Raw) -> anyhow::Result<()> {
    raise_descriptor_limit();
    let passwords = config.users_file.is_some();
    let (users, tls) = check_files(&config)?;
    let (users, tls) = (Arc::new(users), tls.map(Arc::new));
    // Bound before recovery, so that clients wait in the backlog instead of being refused.
    let listener = http::bind(config.listen)?;
    let address = listener.local_addr()?;
    let admin_listener = config.admin_listen.map(http::bind).transpose()?;

    let admin_address = admin_listener.as_ref().and_then(|l| l.local_addr().ok());
    let metrics = Arc::new(Metrics::new());
    // Open from before recovery until all is flushed: who asks whether the server is ready gets an answer.
    let door = Arc::new(Door::new(Arc::clone(&metrics)));
    if let Some(listener) = admin_listener {
        tokio::spawn(Arc::clone(&door).serve(listener));
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;

    let opening = Opening::prepare(&config, metrics, true)?;
    let (stop, stopped) = watch::channel(false);
    let front = Arc::new(Front {
        dav: OnceLock::new(),
        users: Arc::clone(&users),
        recorder: opening.recorder.clone(),
        metrics: Arc::clone(&opening.metrics),
        tls: tls.clone(),
        limits: Limits {
            max_connections: config.max_connections,
            max_header_bytes: config.max_header_bytes,
            header_timeout: config.header_timeout,
            stall_timeout: config.body_idle_timeout,
        },
        loops: Loops::start(config.http_threads).context("cannot start threads")?,
        stopping: AtomicBool::new(false),
    });
    let mut gate = Gate {
        front: Arc::clone(&front),
        listener: Some(listener),
        stopped,
        grace: config.shutdown_grace,
        serving: None,
    };
    let tiers = tokio::select! {
        opened = until_open(&opening, &mut gate, &door) => opened?,
        _ = terminate.recv() => return stopped_early(),
        _ = interrupt.recv() => return stopped_early(),
    };
    let dav_options = DavOptions {
        public_base_url: config.public_base_url.clone(),
        allow_infinite_depth: config.allow_infinite_depth,
        max_xml_bytes: config.max_xml_bytes,
        max_body_bytes: config.max_body_bytes,
        body_idle_timeout: config.body_idle_timeout,
        lock_timeout_max: config.lock_timeout_max,
        sync_locks: config.durability == Durability::Commit,
    };
    let recorder = tiers.recorder.clone();
    let dav = Dav::new(Arc::clone(&tiers.volume), recorder, dav_options).await?;
    {
        let dav = Arc::downgrade(&dav);
        tiers.metrics.gauge(Gauge::Locks, move || {
            dav.upgrade().map_or(0.0, |d| d.locks().len() as f64)
        });
    }
    if let Some(tls) = &tls {
        let tls = Arc::clone(tls);
        let not_after = move || tls.not_after() as f64;
        tiers.metrics.gauge(Gauge::TlsNotAfter, not_after);
    }
    let stopping = Arc::new(AtomicBool::new(false));
    let live = Arc::new(Live::new(raw));
    let reload = Arc::new(Reload {
        live: Arc::clone(&live),
        cache: Arc::clone(&tiers.cache),
        users,
        tls: tls.clone(),
        passwords,
    });
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{address}/");
    door.open(Admin {
        volume: Arc::clone(&tiers.volume),
        cache: Arc::clone(&tiers.cache),
        dav: Arc::clone(&dav),
        metrics: Arc::clone(&tiers.metrics),
        stopping: Arc::clone(&stopping),
        reload: Arc::clone(&reload),
        live: Arc::clone(&live),
        started: Instant::now(),
        serving: url.clone(),
        window: Window::new(&tiers.metrics),
        places: parking_lot::Mutex::new(places_of(&config)),
        faults: parking_lot::Mutex::default(),
    });
    let kept_open = Arc::clone(&tiers.volume);
    let expiring = Arc::clone(&dav);
    let certified = tls.clone();
    let expiry = tokio::spawn(async move {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        for n in 1u64.. {
            second.tick().await;
            expiring.expire().await;
            kept_open.close_old();
            if let Some(tls) = certified.clone().filter(|_| n % CERTIFICATES_EVERY_S == 0) {
                let look = move || tls.reload_if_changed(passwords);
                let _ = tokio::task::spawn_blocking(look).await;
            }
        }
    });
    // Set here alone, once.
    let _ = front.dav.set(dav);
    gate.open();
    announce(&config, &url, admin_address);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {}
        }
        // The log says what came of it.
        reload.run().await;
    }
    tracing::info!(
        "stopping: running requests may finish within {} s; Ctrl-C cuts them off",
        config.shutdown_grace.as_secs()
    );
    stopping.store(true, Ordering::Relaxed);
    let _ = stop.send(true);
    let cut = match gate.serving.take() {
        Some(mut serving) => tokio::select! {
            cut = &mut serving => cut?,
            _ = interrupt.recv() => {
                serving.abort();
                usize::try_from(tiers.metrics.connections()).unwrap_or(usize::MAX)
            }
        },
        None => 0,
    };
    if cut > 0 {
        tracing::warn!(connections = cut, "cut off before their requests had ended");
    }
    expiry.abort();
    // Before the tiers are closed, which removes what cut uploads leave.
    tokio::task::spawn_blocking(move || front.loops.end()).await?;
    tiers.close().await?;
    tracing::info!("stopped");
    Ok(())
}

fn announce(config: &Config, url: &str, admin: Option<std::net::SocketAddr>) {
    let mut text = format!("TierDAV serves {} on {url}\n", config.root.display());
    if let Some(admin) = admin {
        text += &format!(
            "  status       tierdav status --admin {admin}   metrics http://{admin}/.tierdav/metrics\n  look at it   http://{admin}/.tierdav/\n"
        );
    }
    if let Some(pools) = &config.pools {
        let cache = pools.cache_pool.as_deref().unwrap_or("no cache pool");
        text += &format!("  Ceph pools   {} below {cache}\n", pools.data_pool);
    }
    if let Some(dir) = &config.cache_dir {
        text += &format!("  cache tier   {}\n", dir.display());
    }
    text += &format!("  mount it     mount -t davfs -o conf=FILE,uid=$(id -u) {url} DIR\n");
    text += "               with `buf_size 256` and `delay_upload 0` in FILE (Linux 6.16 and later need buf_size 64 or more)\n";
    // A closed standard output is no reason to stop serving.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
