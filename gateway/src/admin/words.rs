//! Sentences that page and terminal share.

use tiering::FileId;

use super::Status;
use crate::config::{human_micros, human_size};
use crate::metrics::Sample;
use crate::objects::RecentAction;

/// A share, or that there is none.
pub fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "no reads".to_owned(), |s| format!("{:.1} %", s * 100.0))
}

/// A span of `count` measurements.
pub fn micros_or_none(count: u64, micros: u64) -> String {
    match count {
        0 => "none".to_owned(),
        _ => human_micros(micros),
    }
}

/// Whole seconds, from which something began or ended.
pub fn seconds(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        _ => human_micros(seconds.saturating_mul(1_000_000)),
    }
}

/// A file's path, or what else is known of it.
pub fn name_of(path: Option<&str>, file: FileId) -> String {
    path.map_or_else(
        || format!("a file whose path is not known now (version {file})"),
        str::to_owned,
    )
}

/// Seconds since a move ended.
pub fn age_s(status: &Status, action: &RecentAction) -> u64 {
    status.uptime_s.saturating_sub(action.at_ms / 1000)
}

/// `promoted 4.0 MiB of /a.bin (object 3) in 23.0 ms`.
pub fn what(action: &RecentAction) -> String {
    let done = match (action.action.as_str(), action.ok) {
        ("promote", true) => "promoted",
        ("flush", true) => "flushed",
        ("evict", true) => "evicted",
        ("promote", false) => "could not promote",
        ("flush", false) => "could not flush",
        ("evict", false) => "could not evict",
        (other, _) => other,
    };
    let index = action.object.rsplit('.').next();
    let index = index.and_then(|hex| u32::from_str_radix(hex, 16).ok());
    let object = index.map_or_else(String::new, |i| format!(" (object {i})"));
    let name = name_of(action.path.as_deref(), action.file);
    if action.ok {
        let (bytes, took) = (human_size(action.bytes), human_micros(action.took_us));
        format!("{done} {bytes} of {name}{object} in {took}")
    } else {
        format!("{done} {name}{object}")
    }
}

/// `14 reads in 60 s, backing tier 11.0 ms -> cache tier 400 us; its reads have cost …`.
pub fn why(action: &RecentAction, hour: &Sample) -> String {
    let evidence = action
        .evidence
        .filter(|e| action.action == "promote" && e.reads > 0);
    let Some(e) = evidence else {
        return action.reason.clone();
    };
    let plural = if e.reads == 1 { "" } else { "s" };
    let within = seconds(e.within_s.max(1));
    let mut text = format!("{} read{plural} of its file in {within}", e.reads);
    let cache = e
        .cache_us
        .or((hour.cache_read.count > 0).then_some(hour.cache_read.p50_us));
    if let Some(backing) = e.backing_us {
        text += &format!(", backing tier {}", human_micros(backing));
        if let Some(cache) = cache {
            text += &format!(" -> cache tier {}", human_micros(cache));
        }
    }
    format!("{text}; {}", action.reason)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::objects::Evidence;

    #[test]
    fn a_promotion_says_what_it_is_worth() {
        let mut action = RecentAction {
            at_ms: 5000,
            action: "promote".into(),
            object: "00000000000000ff.0000000b".into(),
            file: FileId(255),
            path: Some("/a.bin".into()),
            bytes: 4 << 20,
            took_us: 23_000,
            reason: "its reads have cost the backing tier 24.0 ms, moving it costs 12.0 ms".into(),
            evidence: Some(Evidence {
                reads: 14,
                within_s: 59,
                backing_us: Some(11_000),
                cache_us: Some(400),
            }),
            ok: true,
        };
        assert_eq!(
            what(&action),
            "promoted 4.0 MiB of /a.bin (object 11) in 23.0 ms"
        );
        assert_eq!(
            why(&action, &Sample::default()),
            "14 reads of its file in 59 s, backing tier 11.0 ms -> cache tier 400 us; \
             its reads have cost the backing tier 24.0 ms, moving it costs 12.0 ms"
        );
        action.ok = false;
        action.path = None;
        assert_eq!(
            what(&action),
            "could not promote a file whose path is not known now (version 00000000000000ff) (object 11)"
        );
    }
}
