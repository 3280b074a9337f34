//! The page `/.tierdav/`: the status as HTML. It works without script, and fetches nothing from elsewhere.

use std::fmt::Write as _;

use http::{HeaderValue, StatusCode, header};

use super::chart::{Line, chart, heat_strip};
use super::status::Status;
use super::{Reply, words};
use crate::config::{human_micros, human_size};
use crate::html::escape;
use crate::metrics::Sample;
use crate::objects::CELLS;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Nothing but our own style sheet, script and refreshing.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page.
pub fn reply(status: &Status, steps: &[Sample]) -> Reply {
    guarded("text/html; charset=utf-8", render(status, steps))
}

/// Its style sheet.
pub fn style() -> Reply {
    guarded("text/css; charset=utf-8", STYLE.to_owned())
}

/// Its script.
pub fn script() -> Reply {
    guarded("text/javascript; charset=utf-8", SCRIPT.to_owned())
}

fn guarded(content_type: &'static str, body: String) -> Reply {
    let mut response = super::reply(StatusCode::OK, content_type, body);
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn render(status: &Status, steps: &[Sample]) -> String {
    let mut out = String::with_capacity(64 << 10);
    let o = &mut out;
    o.push_str(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>TierDAV</title>\
         <link rel=\"icon\" href=\"data:,\"><link rel=\"stylesheet\" href=\"/.tierdav/page.css\">\
         <noscript><meta http-equiv=\"refresh\" content=\"10\"></noscript>\
         <script src=\"/.tierdav/page.js\" defer></script></head>\n<body><header><h1>TierDAV</h1><div id=\"head\">",
    );
    let (class, ready) = if status.ready {
        ("badge", "ready")
    } else {
        ("badge bad", "not ready")
    };
    let _ = write!(
        o,
        "<p><span class=\"{class}\">{ready}</span> version {}, serves {}, up {}</p></div>\
         <span id=\"refresh\" role=\"status\" aria-label=\"updates of this page\"></span></header>\n<main id=\"body\">",
        escape(&status.version),
        escape(&status.serving),
        words::seconds(status.uptime_s)
    );
    numbers(o, status);
    hot(o, status);
    hour(o, steps);
    moves(o, status);
    places(o, status);
    policy(o, status);
    clients(o, status);
    o.push_str(
        "</main>\n<footer><p>In a terminal: <code>tierdav top</code>, <code>tierdav status</code>. For programs: <a href=\"/.tierdav/status\">status</a>, \
         <a href=\"/.tierdav/history\">history</a>, <a href=\"/.tierdav/metrics\">metrics</a>, \
         <a href=\"/.tierdav/locks\">locks</a>.</p></footer></body></html>\n",
    );
    out
}

fn number(o: &mut String, name: &str, value: &str, small: &str) {
    let _ = write!(
        o,
        "<div><dt>{name}</dt><dd>{}<small>{}</small></dd></div>",
        escape(value),
        escape(small)
    );
}

fn numbers(o: &mut String, status: &Status) {
    let t = &status.tiers;
    let (minute, hour) = (&status.last_minute, &status.last_hour);
    o.push_str(
        "<section aria-labelledby=\"h-now\"><h2 id=\"h-now\">Now</h2><dl class=\"numbers\">",
    );
    number(
        o,
        "Bytes read from the cache tier",
        &words::percent(minute.byte_hit_ratio()),
        &format!(
            "of those read in the last minute; last hour {}; {} of reads",
            words::percent(hour.byte_hit_ratio()),
            words::percent(hour.hit_ratio())
        ),
    );
    let rate = |bytes| human_size(minute.rate(bytes) as u64) + "/s";
    number(
        o,
        "Sent to clients",
        &rate(minute.sent_bytes),
        &format!(
            "{} received; means of the last minute",
            rate(minute.received_bytes)
        ),
    );
    number(
        o,
        "Requests",
        &format!("{:.1} per s", minute.rate(minute.requests)),
        &format!(
            "{} under way; {} of {} in the last hour failed (500 and above, or broken off here)",
            status.in_flight, hour.errors, hour.requests
        ),
    );
    number(
        o,
        "GET, median",
        &words::micros_or_none(minute.get.count, minute.get.p50_us),
        &format!(
            "99 % within {}; PUT {}, 99 % within {}",
            words::micros_or_none(minute.get.count, minute.get.p99_us),
            words::micros_or_none(minute.put.count, minute.put.p50_us),
            words::micros_or_none(minute.put.count, minute.put.p99_us)
        ),
    );
    if t.enabled {
        let used = format!(
            "{} of {}",
            human_size(t.used_bytes),
            human_size(t.capacity_bytes)
        );
        let _ = write!(
            o,
            "<div><dt>Cache tier filled</dt><dd>{used}<small><meter aria-label=\"cache tier filled\" min=\"0\" max=\"{}\" \
             value=\"{}\">{used}</meter> {} clean in {} objects</small></dd></div>",
            t.capacity_bytes.max(1),
            t.used_bytes,
            human_size(t.clean.bytes),
            t.clean.objects
        );
        let oldest = match t.dirty.objects {
            0 => "nothing waits to be flushed".to_owned(),
            n => format!(
                "{n} objects in the cache tier only; the oldest for {}",
                words::seconds(t.oldest_dirty_s)
            ),
        };
        number(o, "Dirty", &human_size(t.dirty.bytes), &oldest);
        let queue = t.queued_promotions + t.queued_flushes + t.queued_evictions;
        number(
            o,
            "Moves waiting",
            &format!("{queue} objects"),
            &format!(
                "{} to promote, {} to flush, {} to evict; {} moves failed since the start",
                t.queued_promotions, t.queued_flushes, t.queued_evictions, t.failed_moves
            ),
        );
    }
    number(
        o,
        "Clients",
        &format!("{} connections", status.connections),
        &format!(
            "from {} addresses, {} locks",
            status.client_addresses, status.locks
        ),
    );
    let cpu = minute.cpu_s / minute.seconds.max(0.001);
    number(
        o,
        "Process",
        &human_size(status.process.resident_bytes),
        &format!(
            "resident; {cpu:.2} CPU cores in use, {} open files",
            status.process.open_fds
        ),
    );
    if t.damaged_objects > 0 {
        number(
            o,
            "Damaged",
            &format!("{} objects", t.damaged_objects),
            "were in the cache tier only and cannot be read: see the log",
        );
    }
    if t.damage_found > 0 {
        number(
            o,
            "Damage met",
            &format!("{} reads", t.damage_found),
            "found an object damaged or gone: see the log, and `tierdav scrub`",
        );
    }
    o.push_str("</dl></section>\n");
}

fn hot(o: &mut String, status: &Status) {
    let _ = write!(
        o,
        "<section aria-labelledby=\"h-hot\"><h2 id=\"h-hot\">Hot files and their objects</h2>\
         <ul class=\"key\"><li><i class=\"clean\"></i>clean: in both tiers</li><li><i class=\"dirty\"></i>dirty: in the cache tier only</li>\
         <li><i class=\"cold\"></i>cold: in the backing tier only</li><li><i class=\"moving\"></i>moving</li></ul>\
         <p class=\"note\">One cell is one object, or several neighbours of a file with more than {CELLS}; the higher its bar, the more it \
         was used. A use is a read or write of an object by a client, and counts half after ten minutes.</p>"
    );
    if status.hot.is_empty() {
        o.push_str("<p>No file has been read or written since the start.</p></section>\n");
        return;
    }
    o.push_str(
        "<div class=\"wide\"><table class=\"hot stack\"><thead><tr><th scope=\"col\">File</th><th scope=\"col\">Objects</th>\
         <th scope=\"col\" class=\"n\">Recent uses</th><th scope=\"col\" class=\"n\">Size</th>\
         <th scope=\"col\" class=\"n\">Mean read, backing</th><th scope=\"col\" class=\"n\">Mean read, cache</th>\
         <th scope=\"col\" class=\"n\">Last use</th></tr></thead><tbody>",
    );
    let cells = status.hot.iter().flat_map(|f| &f.cells);
    let hottest = cells.map(|c| c.uses).fold(0.0, f32::max);
    for file in &status.hot {
        let name = words::name_of(file.path.as_deref(), file.file);
        let _ = write!(
            o,
            "<tr><th scope=\"row\" class=\"path\"><bdi>{}</bdi></th><td>",
            escape(&name)
        );
        heat_strip(o, file, hottest);
        let mean = |us: Option<u64>| us.map_or_else(|| "none".to_owned(), human_micros);
        let size = match file.path {
            Some(_) => human_size(file.bytes),
            None => "unknown".to_owned(),
        };
        let _ = write!(
            o,
            "</td><td class=\"n\" data-label=\"Recent uses\">{:.0}</td><td class=\"n\" data-label=\"Size\">{size}</td>\
             <td class=\"n\" data-label=\"Mean read, backing\">{}</td><td class=\"n\" data-label=\"Mean read, cache\">{}</td>\
             <td class=\"n\" data-label=\"Last use\">{} ago</td></tr>",
            file.recent_uses,
            mean(file.evidence.backing_us),
            mean(file.evidence.cache_us),
            words::seconds(file.idle_s)
        );
    }
    o.push_str("</tbody></table></div></section>\n");
}

fn line(name: &'static str, class: &'static str, value: fn(&Sample) -> Option<f64>) -> Line {
    Line { name, class, value }
}

fn hour(o: &mut String, steps: &[Sample]) {
    o.push_str("<section aria-labelledby=\"h-hour\"><h2 id=\"h-hour\">The last hour</h2><div class=\"charts\">");
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let speed = |bytes: f64| human_size(bytes as u64) + "/s";
    let span = |us: f64| human_micros(us as u64);
    chart(
        o,
        "Bytes read from the cache tier (hit ratio)",
        steps,
        &[line("of bytes", "clean", Sample::byte_hit_ratio)],
        Some(1.0),
        percent,
    );
    chart(
        o,
        "Bytes for clients",
        steps,
        &[
            line("read, cache tier", "clean", |s| {
                Some(s.rate(s.cache_read_bytes))
            }),
            line("read, backing tier", "cold", |s| {
                Some(s.rate(s.backing_read_bytes))
            }),
            line("written", "dirty", |s| {
                Some(s.rate(s.cache_written_bytes + s.backing_written_bytes))
            }),
        ],
        None,
        speed,
    );
    chart(
        o,
        "Object reads, median time",
        steps,
        &[
            line("cache tier", "clean", |s| s.cache_read.median()),
            line("backing tier", "cold", |s| s.backing_read.median()),
        ],
        None,
        span,
    );
    chart(
        o,
        "Requests, 99 % done within",
        steps,
        &[
            line("GET", "other", |s| s.get.most()),
            line("PUT", "dirty", |s| s.put.most()),
        ],
        None,
        span,
    );
    chart(
        o,
        "Bytes moved between the tiers",
        steps,
        &[
            line("promoted", "clean", |s| Some(s.rate(s.promoted_bytes))),
            line("flushed", "dirty", |s| Some(s.rate(s.flushed_bytes))),
            line("evicted", "cold", |s| Some(s.rate(s.evicted_bytes))),
        ],
        None,
        speed,
    );
    chart(
        o,
        "Requests",
        steps,
        &[
            line("all", "other", |s| Some(s.rate(s.requests))),
            line("failed (500 and above, or broken off here)", "bad", |s| {
                Some(s.rate(s.errors))
            }),
        ],
        None,
        |v| format!("{v:.1} per s"),
    );
    o.push_str("</div></section>\n");
}

fn moves(o: &mut String, status: &Status) {
    let t = &status.tiers;
    o.push_str("<section aria-labelledby=\"h-moves\"><h2 id=\"h-moves\">Last moves, and why</h2>");
    let total = |name: &str, a: &crate::objects::Amount| {
        format!("{name} {} objects, {}", a.objects, human_size(a.bytes))
    };
    let _ = write!(
        o,
        "<p class=\"note\">Since the start: {}; {}; {}; {}.</p>",
        total("promoted", &t.promoted),
        total("flushed", &t.flushed),
        total("evicted", &t.evicted),
        total("gone before they were flushed", &t.spared)
    );
    if t.recent.is_empty() {
        o.push_str("<p>Nothing has moved yet.</p></section>\n");
        return;
    }
    o.push_str(
        "<div class=\"wide\"><table class=\"stack\"><thead><tr><th scope=\"col\" class=\"n\">When</th><th scope=\"col\">What</th>\
         <th scope=\"col\">Why</th></tr></thead><tbody>",
    );
    for action in t.recent.iter().rev() {
        let class = if action.ok { "" } else { " class=\"bad\"" };
        let _ = write!(
            o,
            "<tr{class}><td class=\"n\">{} ago</td><th scope=\"row\" class=\"path\"><bdi>{}</bdi></th><td>{}</td></tr>",
            words::seconds(words::age_s(status, action)),
            escape(&words::what(action)),
            escape(&words::why(action, &status.last_hour))
        );
    }
    o.push_str("</tbody></table></div></section>\n");
}

fn places(o: &mut String, status: &Status) {
    o.push_str(
        "<section aria-labelledby=\"h-places\"><h2 id=\"h-places\">Tiers</h2><div class=\"wide\"><table class=\"stack\"><thead><tr>\
         <th scope=\"col\">Tier</th><th scope=\"col\">Where</th><th scope=\"col\" class=\"n\">Size</th>\
         <th scope=\"col\" class=\"n\">Free</th><th scope=\"col\">Health</th></tr></thead><tbody>",
    );
    for place in &status.places {
        let bytes = |b: Option<u64>| b.map_or_else(|| "unknown".to_owned(), human_size);
        let (class, health) = match &place.trouble {
            None if place.size_bytes.is_some() => ("", "answers"),
            None => ("", "not asked yet"),
            Some(trouble) => (" class=\"bad\"", trouble.as_str()),
        };
        let _ = write!(
            o,
            "<tr><th scope=\"row\">{}</th><td class=\"path\" data-label=\"Where\">{} <bdi>{}</bdi></td>\
             <td class=\"n\" data-label=\"Size\">{}</td><td class=\"n\" data-label=\"Free\">{}</td><td data-label=\"Health\"{class}>{}</td></tr>",
            escape(&place.role),
            escape(&place.kind),
            escape(&place.name),
            bytes(place.size_bytes),
            bytes(place.available_bytes),
            escape(health)
        );
    }
    o.push_str("</tbody></table></div></section>\n");
}

fn policy(o: &mut String, status: &Status) {
    let _ = write!(
        o,
        "<section aria-labelledby=\"h-policy\"><h2 id=\"h-policy\">Policy: {}</h2><div class=\"wide\"><table class=\"stack\"><thead><tr>\
         <th scope=\"col\">Setting</th><th scope=\"col\" class=\"n\">Value</th><th scope=\"col\">Meaning</th></tr></thead><tbody>",
        escape(&status.policy.decider())
    );
    for setting in &status.policy.parameters {
        let _ = write!(
            o,
            "<tr><th scope=\"row\"><code>{}</code></th><td class=\"n\">{}</td><td>{}</td></tr>",
            escape(&setting.name),
            escape(&setting.value),
            escape(&setting.meaning)
        );
    }
    o.push_str("</tbody></table></div></section>\n");
}

fn clients(o: &mut String, status: &Status) {
    o.push_str("<section aria-labelledby=\"h-clients\"><h2 id=\"h-clients\">Clients</h2>");
    if status.clients.is_empty() {
        o.push_str("<p>Nobody is connected.</p></section>\n");
        return;
    }
    o.push_str(
        "<div class=\"wide\"><table><thead><tr><th scope=\"col\">Address</th><th scope=\"col\" class=\"n\">Connections</th></tr></thead><tbody>",
    );
    for client in &status.clients {
        let _ = write!(
            o,
            "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td></tr>",
            client.address, client.connections
        );
    }
    o.push_str("</tbody></table></div>");
    let more = status.client_addresses.saturating_sub(status.clients.len());
    if more > 0 {
        let _ = write!(o, "<p class=\"note\">and {more} more addresses</p>");
    }
    o.push_str("</section>\n");
}
