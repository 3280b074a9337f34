//! The page a browser gets for a collection: names, sizes, dates, sortable by `?sort=name|size|date&order=asc|desc`.
//!
//! Links are relative, so that a proxy may put the server below any path. No script.

use std::cmp::Ordering;
use std::fmt::Write as _;

use http::header::{self, HeaderValue};
use http::{Response, StatusCode};

use super::body::{self, Body};
use super::{bare, dates, last_modified, uri};
use crate::config::human_size;
use crate::html::escape;
use crate::volume::{Kind, Meta};

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--dim:light-dark(#5f6368,#a0a6ac)}\
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.15rem;overflow-wrap:anywhere}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line)}\
td:first-child{overflow-wrap:anywhere;white-space:pre-wrap}\
.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}th a{color:inherit}p{color:var(--dim)}\
@media(max-width:40rem){td.n:last-child{white-space:normal}}";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Name,
    Size,
    Date,
}

fn order(query: &str) -> (Column, bool) {
    let get = |key: &str| {
        query
            .split('&')
            .find_map(|p| p.split_once('=').filter(|(k, _)| *k == key).map(|(_, v)| v))
    };
    let column = match get("sort") {
        Some("size") => Column::Size,
        Some("date") => Column::Date,
        _ => Column::Name,
    };
    (column, get("order") == Some("desc"))
}

/// The reply to HEAD of a collection.
pub fn head(meta: &Meta) -> Response<Body> {
    let mut response = bare(StatusCode::OK);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    last_modified(&mut response, meta.modified);
    response
}

/// The page. `shown` is the collection's encoded path, `base` what relative links begin with.
pub fn page(
    shown: &str,
    base: &str,
    at_root: bool,
    mut entries: Vec<(String, Meta)>,
    query: &str,
) -> Response<Body> {
    let (column, descending) = order(query);
    entries.sort_by(|(a, x), (b, y)| {
        // Collections first, whatever the order; the name decides ties.
        let kind = (x.kind == Kind::File).cmp(&(y.kind == Kind::File));
        let by = match column {
            Column::Name => Ordering::Equal,
            Column::Size => x.len.cmp(&y.len),
            Column::Date => x.modified.cmp(&y.modified),
        };
        let by = by.then_with(|| a.cmp(b));
        kind.then(if descending { by.reverse() } else { by })
    });
    let title = percent_encoding::percent_decode_str(shown).decode_utf8_lossy();
    let title = escape(&title);
    let mut out = String::with_capacity(2048 + 160 * entries.len());
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n<table><thead><tr>"
    );
    for (c, key, label, class) in [
        (Column::Name, "name", "Name", ""),
        (Column::Size, "size", "Size", " class=\"n\""),
        (Column::Date, "date", "Modified (UTC)", " class=\"n\""),
    ] {
        let current = c == column;
        let next = if current && !descending {
            "desc"
        } else {
            "asc"
        };
        let (arrow, aria) = match (current, descending) {
            (true, false) => (" ▲", " aria-sort=\"ascending\""),
            (true, true) => (" ▼", " aria-sort=\"descending\""),
            (false, _) => ("", ""),
        };
        let _ = write!(
            out,
            "<th{class}{aria}><a href=\"?sort={key}&amp;order={next}\">{label}</a>{arrow}</th>"
        );
    }
    out.push_str("</tr></thead><tbody>\n");
    if !at_root {
        let up = if base.is_empty() { "../" } else { "./" };
        let _ = writeln!(
            out,
            "<tr><td><a href=\"{up}\">../</a></td><td></td><td></td></tr>"
        );
    }
    for (name, meta) in &entries {
        let slash = if meta.kind == Kind::Collection {
            "/"
        } else {
            ""
        };
        let bytes = if meta.kind == Kind::File {
            human_size(meta.len)
        } else {
            String::new()
        };
        let _ = writeln!(
            out,
            "<tr><td><a href=\"./{base}{}{slash}\">{}{slash}</a></td><td class=\"n\" title=\"{} bytes\">{bytes}</td><td class=\"n\">{}</td></tr>",
            uri::encode_name(name),
            escape(name),
            meta.len,
            date(meta)
        );
    }
    let _ = write!(
        out,
        "</tbody></table>\n<p>{} entries</p></body></html>\n",
        entries.len()
    );
    let mut response = Response::new(body::full(out));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

/// `19 Dec 1996 16:39:57`: the HTTP date without weekday and zone.
fn date(meta: &Meta) -> String {
    let date = dates::http_date(meta.modified);
    date.get(5..25).unwrap_or(&date).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn sizes_are_readable_and_orders_are_known() {
        assert_eq!(
            [
                human_size(0),
                human_size(1023),
                human_size(1024),
                human_size(5 << 30)
            ],
            ["0 B", "1023 B", "1.0 KiB", "5.0 GiB"]
        );
        assert_eq!(order("order=desc&sort=size"), (Column::Size, true));
        assert_eq!(order("sort=evil"), (Column::Name, false));
    }
}
