//! From request targets, `Destination` and tagged `If` resources to paths below the root, and back to hrefs.

use http::header::HOST;
use http::{HeaderMap, StatusCode, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use super::status::Refusal;
use crate::volume::{PathError, ResourcePath};

/// What an href leaves as it is: unreserved characters and those sub-delimiters that need no XML escape.
const HREF: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@')
    .remove(b'/');

/// A resource as a request names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where it is below the volume's root, the user's own root included.
    pub path: ResourcePath,
    /// Named with a trailing slash.
    pub slash: bool,
}

/// Why a raw path names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// `%` without two hexadecimal digits.
    #[error("malformed percent-encoding")]
    Escape,
    /// Not UTF-8 after decoding.
    #[error("path is not UTF-8")]
    NotUtf8,
    /// `%2F` inside a name.
    #[error("names cannot contain an encoded slash")]
    EncodedSlash,
    /// Decoded well, but not a path of the volume.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl From<UriError> for Refusal {
    fn from(error: UriError) -> Refusal {
        match error {
            UriError::Path(e) => e.into(),
            UriError::Escape | UriError::NotUtf8 | UriError::EncodedSlash => {
                Refusal::bad_request(error.to_string())
            }
        }
    }
}

/// Decodes a raw path and puts it below `root`. Repeated slashes count as one.
pub fn target(raw: &str, root: &ResourcePath) -> Result<Target, UriError> {
    let mut decoded = if root.is_root() {
        String::new()
    } else {
        root.to_string()
    };
    if !raw.starts_with('/') {
        return Err(PathError::NotAbsolute.into());
    }
    for segment in raw.split('/').filter(|s| !s.is_empty()) {
        if segment
            .split('%')
            .skip(1)
            .any(|s| s.len() < 2 || !s.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit))
        {
            return Err(UriError::Escape);
        }
        let name = percent_decode_str(segment)
            .decode_utf8()
            .map_err(|_| UriError::NotUtf8)?;
        if name.contains('/') {
            return Err(UriError::EncodedSlash);
        }
        decoded.push('/');
        decoded.push_str(&name);
    }
    if decoded.is_empty() {
        decoded.push('/');
    }
    Ok(Target {
        path: ResourcePath::parse(&decoded)?,
        slash: raw.ends_with('/'),
    })
}

/// Percent-encodes one name.
pub fn encode_name(name: &str) -> String {
    percent_encode(name.as_bytes(), HREF).to_string()
}

/// Appends one name, percent-encoded.
pub fn push_name(out: &mut String, name: &str) {
    out.extend(percent_encode(name.as_bytes(), HREF));
}

/// The href of a resource as the user whose root is `root` sees it. What is not below it, a lock's root for instance, is told as the
/// root itself.
pub fn href(path: &ResourcePath, root: &ResourcePath, collection: bool) -> String {
    let all = path.relative();
    let seen = match all.strip_prefix(root.relative()) {
        Some(below) if root.is_root() => below,
        Some(below) => below.strip_prefix('/').unwrap_or_default(),
        None => "",
    };
    let mut out = String::with_capacity(seen.len() + 8);
    out.push('/');
    out.extend(percent_encode(seen.as_bytes(), HREF));
    if collection && !out.ends_with('/') {
        out.push('/');
    }
    out
}

/// Whose URLs are ours: the request's own authority and the configured public ones. The scheme does not matter, because
/// TLS may end in front of us.
pub struct Ours<'a> {
    /// `Host`, or `:authority`.
    pub authority: Option<&'a str>,
    /// Configured base URLs; a path in them is cut off.
    pub public: &'a [Uri],
}

impl<'a> Ours<'a> {
    /// Of a request.
    pub fn of(uri: &'a Uri, headers: &'a HeaderMap, public: &'a [Uri]) -> Ours<'a> {
        // A target in absolute form overrides `Host` (RFC 9112 section 3.2.2).
        let host = || headers.get(HOST).and_then(|v| v.to_str().ok());
        Ours {
            authority: uri.authority().map(|a| a.as_str()).or_else(host),
            public,
        }
    }

    /// The raw path of an absolute URI or absolute path that is ours; `None` for another host's, or nonsense.
    pub fn path<'u>(&self, reference: &'u str) -> Option<&'u str> {
        if reference.starts_with('/') && !reference.starts_with("//") {
            return Some(cut_query(reference));
        }
        let (scheme, rest) = match reference.split_once("://") {
            Some((scheme, rest)) => (scheme, rest),
            None => ("", reference.strip_prefix("//")?),
        };
        if !["", "http", "https"]
            .iter()
            .any(|s| scheme.eq_ignore_ascii_case(s))
        {
            return None;
        }
        let split = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(split);
        let path = if path.starts_with('/') {
            cut_query(path)
        } else {
            "/"
        };
        for base in self.public {
            let base_path = base.path().trim_end_matches('/');
            if base
                .authority()
                .is_some_and(|a| same_authority(a.as_str(), authority))
                && let Some(below) = path.strip_prefix(base_path)
                && (below.is_empty() || below.starts_with('/'))
            {
                return Some(if below.is_empty() { "/" } else { below });
            }
        }
        self.authority
            .is_some_and(|own| same_authority(own, authority))
            .then_some(path)
    }
}

fn cut_query(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or(path)
}

fn same_authority(a: &str, b: &str) -> bool {
    fn plain(s: &str) -> &str {
        let s = s.rsplit('@').next().unwrap_or(s);
        let s = s
            .strip_suffix(":80")
            .or_else(|| s.strip_suffix(":443"))
            .unwrap_or(s);
        s.strip_suffix('.').unwrap_or(s)
    }
    plain(a).eq_ignore_ascii_case(plain(b))
}

/// The `Destination` of a COPY or MOVE.
pub fn destination(
    headers: &HeaderMap,
    ours: &Ours<'_>,
    root: &ResourcePath,
) -> Result<Target, Refusal> {
    let value = headers
        .get("destination")
        .ok_or_else(|| Refusal::bad_request("Destination is missing"))?;
    let value = std::str::from_utf8(value.as_bytes())
        .map_err(|_| Refusal::bad_request("Destination is not UTF-8"))?;
    // Not cut off: what is left names another resource, which would be replaced.
    if value.contains(['#', '?']) {
        return Err(Refusal::bad_request(
            "Destination has a query or a fragment; in a name these are %3F and %23",
        ));
    }
    let raw = ours.path(value.trim()).ok_or_else(|| {
        let absolute = value.contains("://");
        let status = if absolute {
            StatusCode::BAD_GATEWAY
        } else {
            StatusCode::BAD_REQUEST
        };
        Refusal::new(status, "Destination is not on this server")
    })?;
    target(raw, root).map_err(|e| match e {
        UriError::Path(PathError::Hidden) => Refusal::forbidden("this name is reserved"),
        e => e.into(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn raw_paths_are_decoded_strictly() {
        let root = ResourcePath::root();
        let long = format!("/{}", "x".repeat(255));
        for (raw, want) in [
            ("/", "/"),
            ("//", "/"),
            ("/a//b/", "/a/b"),
            ("/%C3%BC%20%23%3F%25", "/ü #?%"),
            ("/a%01b", "/a\u{1}b"),
            (long.as_str(), long.as_str()),
        ] {
            assert_eq!(target(raw, &root).unwrap().path.to_string(), want, "{raw}");
        }
        for (raw, want) in [
            ("/%FF", UriError::NotUtf8),
            ("/a%2Fb", UriError::EncodedSlash),
            ("/a%2", UriError::Escape),
            ("/a%zz", UriError::Escape),
            ("/%é", UriError::Escape),
            ("/../a", PathError::Dots.into()),
            ("/a/%2e%2e/b", PathError::Dots.into()),
            ("/a%00", PathError::Nul.into()),
            ("/.tierdav/x", PathError::Hidden.into()),
            ("/%2Etierdav", PathError::Hidden.into()),
        ] {
            assert_eq!(target(raw, &root), Err(want), "{raw}");
        }
    }

    #[test]
    fn a_user_sees_only_what_lies_below_its_root() {
        let root = ResourcePath::parse("/home/ann").unwrap();
        let t = target("/x/", &root).unwrap();
        assert_eq!(
            (t.path.to_string().as_str(), t.slash),
            ("/home/ann/x", true)
        );
        assert_eq!(href(&t.path, &root, true), "/x/");
        assert_eq!(href(&root, &root, true), "/");
        for outside in ["/home", "/home/annex", "/etc"] {
            assert_eq!(
                href(&ResourcePath::parse(outside).unwrap(), &root, false),
                "/"
            );
        }
        assert!(target("/../bob", &root).is_err());
    }

    #[test]
    fn destinations_are_compared_by_authority_whatever_the_scheme() {
        let public: Vec<Uri> = vec!["https://dav.example.org/base/".parse().unwrap()];
        let ours = Ours {
            authority: Some("Host:8080"),
            public: &public,
        };
        for (given, want) in [
            ("http://host:8080/a", Some("/a")),
            ("https://host:8080/a?q", Some("/a")),
            ("https://dav.example.org/base/a", Some("/a")),
            ("http://DAV.example.org:443/base", Some("/")),
            ("/a/b", Some("/a/b")),
            ("http://host/a", None),
            ("https://dav.example.org/elsewhere", None),
            ("ftp://host:8080/a", None),
            ("//evil/a", None),
            ("a/b", None),
            ("", None),
        ] {
            assert_eq!(ours.path(given), want, "{given}");
        }
    }

    proptest! {
        #[test]
        fn an_href_leads_back(names in proptest::collection::vec("[^/\0]{1,20}", 1..4)) {
            prop_assume!(names.iter().all(|n| n != "." && n != ".." ) && names[0] != ".tierdav");
            let root = ResourcePath::root();
            let path = ResourcePath::parse(&format!("/{}", names.join("/"))).unwrap();
            let h = href(&path, &root, false);
            prop_assert!(h.is_ascii());
            prop_assert_eq!(target(&h, &root).unwrap().path, path);
        }

        #[test]
        fn no_reference_panics(s in "\\PC{0,60}") {
            let root = ResourcePath::root();
            let ours = Ours { authority: Some("h"), public: &[] };
            let _ = ours.path(&s);
            let _ = target(&s, &root);
        }
    }
}
