//! Opens the Ceph pools that the configuration names; in a binary without the feature `rados` there are none.

use std::sync::Arc;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::objects::pools::Pools;

/// Connects to the pools, if content lives in some.
///
/// # Errors
/// [`AttachError`](crate::objects::pools::AttachError): the message says what to look at.
#[cfg(feature = "rados")]
pub async fn open(config: &Config, metrics: &Metrics) -> anyhow::Result<Option<Arc<dyn Pools>>> {
    use crate::rados::RadosPools;

    let Some(settings) = config.pools.clone() else {
        return Ok(None);
    };
    let metrics = Arc::clone(metrics.rados());
    let pools = tokio::task::spawn_blocking(move || RadosPools::connect(settings, metrics)).await?;
    Ok(Some(Arc::new(pools?)))
}

/// There are none.
///
/// # Errors
/// None; the signature is that of a binary with Ceph.
#[cfg(not(feature = "rados"))]
pub async fn open(_: &Config, _: &Metrics) -> anyhow::Result<Option<Arc<dyn Pools>>> {
    Ok(None)
}
