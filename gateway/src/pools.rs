//! Opens the Ceph pools that the configuration names; in a binary without the feature `rados` there are none.

use std::sync::Arc;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::objects::pools::Pools;

/// Connects to the pools, if content lives in some. A gateway that is to serve tries until the cluster answers.
///
/// # Errors
/// Offline: the cluster cannot be reached; the message says what to look at.
#[cfg(feature = "rados")]
pub async fn open(
    config: &Config,
    online: bool,
    metrics: &Metrics,
) -> anyhow::Result<Option<Arc<dyn Pools>>> {
    use std::time::Duration;

    use crate::rados::RadosPools;

    /// Longest wait between two tries.
    const RETRY_MAX: Duration = Duration::from_secs(30);

    let Some(settings) = &config.pools else {
        return Ok(None);
    };
    let mut wait = Duration::from_secs(1);
    loop {
        let (settings, metrics) = (settings.clone(), Arc::clone(metrics.rados()));
        match tokio::task::spawn_blocking(move || RadosPools::connect(settings, metrics)).await? {
            Ok(pools) => return Ok(Some(Arc::new(pools))),
            Err(error) if online && error.may_pass() => {
                tracing::error!(%error, "tried again in {} s", wait.as_secs());
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// There are none.
///
/// # Errors
/// None; the signature is that of a binary with Ceph.
#[cfg(not(feature = "rados"))]
pub async fn open(_: &Config, _: bool, _: &Metrics) -> anyhow::Result<Option<Arc<dyn Pools>>> {
    Ok(None)
}
