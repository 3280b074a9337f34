//! The other end of the admin listener, for `tierdav status`, `policy`, `locks` and `drain`.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Status, words};
use crate::config::human_size;
use crate::objects::ShadowStatus;

/// Longest wait for an answer that takes no work.
pub const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Waits for what `admin` is asked, for [`ANSWER_MAX`].
///
/// # Errors
/// Those of the question, or that there is no answer.
pub async fn soon<T>(
    admin: &str,
    asked: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let answer = tokio::time::timeout(ANSWER_MAX, asked).await;
    answer.with_context(|| format!("{admin} has not answered for {ANSWER_MAX:?}"))?
}

/// Sends one request to the admin listener at `admin` and returns the body of a 2xx reply.
///
/// # Errors
/// When no server answers there, or it answers with an error, whose text is passed on.
pub async fn ask(admin: &str, method: Method, path: &str) -> anyhow::Result<Bytes> {
    send(admin, method, path, Bytes::new()).await
}

/// The same, with a body.
///
/// # Errors
/// As [`ask`].
pub async fn send(admin: &str, method: Method, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
    let hint =
        || format!("no running server answers at {admin} (--admin ADDR names its admin_listen)");
    let stream = TcpStream::connect(admin).await.with_context(hint)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .with_context(hint)?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", admin)
        .body(Full::new(body))?;
    let response = sender.send_request(request).await.with_context(hint)?;
    let status = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .with_context(hint)?
        .to_bytes();
    if !status.is_success() || status == StatusCode::NO_CONTENT {
        bail!(
            "{admin} answered {status}: {}",
            String::from_utf8_lossy(&body).trim_end()
        );
    }
    Ok(body)
}

/// What other policies would have achieved.
fn shadows(shadow: &ShadowStatus) -> String {
    let mut out = format!(
        "\nshadows   {:.0} s, {:.1} % of the objects ({}), {:.2} % of a CPU\n  {:<14}{:>6}{:>10}{:>10}{:>14}\n",
        shadow.seconds,
        shadow.sampling_ratio * 100.0,
        shadow.objects,
        100.0 * shadow.cpu_seconds / shadow.seconds.max(1e-9),
        "policy",
        "cache",
        "hits",
        "bytes",
        "backing busy"
    );
    if let Some(why) = &shadow.switched.why {
        out += &format!("  changes {}, the last: {why}\n", shadow.switched.count);
    }
    for e in &shadow.estimates {
        let busy = 100.0 * e.head_seconds / shadow.seconds.max(1e-9);
        let note = match e.refuted_seconds > 0.0 {
            true => "  the device is faster than its numbers",
            false => "",
        };
        out += &format!(
            "  {:<14}{:>5}x{:>10}{:>10}{busy:>12.1} %{note}\n",
            e.policy,
            e.size,
            words::percent(e.hit_ratio()),
            words::percent(e.byte_hit_ratio()),
        );
    }
    out
}

/// The status as text for people.
pub fn describe(status: &Status) -> String {
    let t = &status.tiers;
    let amount = |a: &crate::objects::Amount| {
        format!("{:>9} objects  {:>10}", a.objects, human_size(a.bytes))
    };
    let mut out = format!(
        "tierdav {} on {}, up {} s, {}\n{} connections, {} requests under way, {} locks\n\n",
        status.version,
        status.serving,
        status.uptime_s,
        if status.ready { "ready" } else { "not ready" },
        status.connections,
        status.in_flight,
        status.locks
    );
    for place in &status.places {
        if let Some(trouble) = &place.trouble {
            out += &format!("TROUBLE   {} {}: {trouble}\n", place.kind, place.name);
        }
    }
    if t.damage_found + t.damaged_objects > 0 {
        out += &format!(
            "TROUBLE   {} reads found damage, {} changed objects are lost: see the log, and `tierdav scrub`\n",
            t.damage_found, t.damaged_objects
        );
    }
    if !t.enabled {
        return out + "no cache tier\n";
    }
    out += &format!(
        "policy    {}\ncache     {} of {} used\n",
        status.policy.decider(),
        human_size(t.used_bytes),
        human_size(t.capacity_bytes)
    );
    out += &format!(
        "clean     {}\ndirty     {}\n",
        amount(&t.clean),
        amount(&t.dirty)
    );
    out += &format!(
        "hit ratio {:.1} % of reads, {:.1} % of bytes\n",
        t.hit_ratio * 100.0,
        t.byte_hit_ratio * 100.0
    );
    out += &format!(
        "queue     {} promotions, {} flushes, {} evictions\n",
        t.queued_promotions, t.queued_flushes, t.queued_evictions
    );
    out += &format!(
        "promoted  {}\nflushed   {}\nevicted   {}\n",
        amount(&t.promoted),
        amount(&t.flushed),
        amount(&t.evicted)
    );
    out += &format!(
        "spared    {} deleted or overwritten before they were flushed\n",
        amount(&t.spared)
    );
    out += &format!(
        "failed    {} moves, {} writes to the cache\n",
        t.failed_moves, t.cache_write_errors
    );
    if let Some(shadow) = &status.shadow {
        out += &shadows(shadow);
    }
    if !t.recent.is_empty() {
        out += "\nlast moves\n";
        for move_ in t.recent.iter().rev().take(10) {
            let ok = if move_.ok { "" } else { "  FAILED" };
            let ago = words::age_s(status, move_);
            out += &format!(
                "  {:>12} ago  {:<8} {}  {}{ok}\n",
                words::seconds(ago),
                move_.action,
                move_.object,
                move_.reason
            );
        }
    }
    out
}
