//! Names of resources: normalised, below the root, never the gateway's own.
//!
//! Knows nothing of percent-encoding (the caller decodes) nor of the file system.

use std::fmt;
use std::sync::Arc;

/// The gateway's own directory directly under the root; no WebDAV name.
pub const HIDDEN: &str = ".tierdav";

/// Longest segment, in bytes (`NAME_MAX` of every file system of interest).
pub const NAME_BYTES_MAX: usize = 255;

/// Why a decoded path names nothing that could exist below the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Does not begin with a slash.
    #[error("path does not begin with '/'")]
    NotAbsolute,
    /// A `.` or `..` segment.
    #[error("path has a '.' or '..' segment")]
    Dots,
    /// An empty segment between two slashes.
    #[error("path has an empty segment")]
    Empty,
    /// A NUL byte.
    #[error("path has a NUL byte")]
    Nul,
    /// A segment of more than [`NAME_BYTES_MAX`] bytes.
    #[error("path has a segment of more than {NAME_BYTES_MAX} bytes")]
    NameTooLong,
    /// The gateway's own directory.
    #[error("'/{HIDDEN}' is reserved")]
    Hidden,
}

/// A resource's place below the root: UTF-8 segments, `/` between them, none empty, `.` or `..`.
///
/// The root itself has no segments. Cheap to clone. A trailing slash is not kept.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourcePath(Arc<str>);

impl ResourcePath {
    /// The root.
    pub fn root() -> ResourcePath {
        ResourcePath(Arc::from(""))
    }

    /// Parses a decoded, absolute path such as `/a/b c`. One trailing slash is allowed.
    pub fn parse(decoded: &str) -> Result<ResourcePath, PathError> {
        let rest = decoded.strip_prefix('/').ok_or(PathError::NotAbsolute)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.is_empty() {
            // "/" is the root; "//" is an empty segment.
            return if decoded.len() <= 1 {
                Ok(Self::root())
            } else {
                Err(PathError::Empty)
            };
        }
        for (i, segment) in rest.split('/').enumerate() {
            check_segment(segment)?;
            if i == 0 && segment == HIDDEN {
                return Err(PathError::Hidden);
            }
        }
        Ok(ResourcePath(Arc::from(rest)))
    }

    /// The child `name` of this path.
    pub fn join(&self, name: &str) -> Result<ResourcePath, PathError> {
        if name.contains('/') {
            return Err(PathError::Empty);
        }
        check_segment(name)?;
        if self.is_root() {
            if name == HIDDEN {
                return Err(PathError::Hidden);
            }
            return Ok(ResourcePath(Arc::from(name)));
        }
        Ok(ResourcePath(Arc::from(format!("{}/{}", self.0, name))))
    }

    /// The segments from the root down; none for the root.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|s| !s.is_empty())
    }

    /// The collection that holds this resource; `None` for the root.
    pub fn parent(&self) -> Option<ResourcePath> {
        if self.is_root() {
            return None;
        }
        let end = self.0.rfind('/').unwrap_or(0);
        Some(ResourcePath(Arc::from(&self.0[..end])))
    }

    /// The last segment; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or("")
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path without the leading slash, as the kernel wants it; empty for the root.
    pub fn relative(&self) -> &str {
        &self.0
    }

    /// Whether `self` is `other` or lies below it.
    pub fn is_within(&self, other: &ResourcePath) -> bool {
        other.is_root()
            || self
                .0
                .strip_prefix(&*other.0)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

fn check_segment(segment: &str) -> Result<(), PathError> {
    match segment {
        "" => Err(PathError::Empty),
        "." | ".." => Err(PathError::Dots),
        s if s.len() > NAME_BYTES_MAX => Err(PathError::NameTooLong),
        s if s.contains('\0') => Err(PathError::Nul),
        _ => Ok(()),
    }
}

impl fmt::Display for ResourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0)
    }
}

impl fmt::Debug for ResourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parses_and_refuses_by_table() {
        let long = format!("/{}", "x".repeat(256));
        let table: &[(&str, Result<&str, PathError>)] = &[
            ("/", Ok("/")),
            ("/a", Ok("/a")),
            ("/a/", Ok("/a")),
            ("/a b/ü#?%", Ok("/a b/ü#?%")),
            ("/a/.tierdav", Ok("/a/.tierdav")),
            ("", Err(PathError::NotAbsolute)),
            ("a", Err(PathError::NotAbsolute)),
            ("//", Err(PathError::Empty)),
            ("/a//b", Err(PathError::Empty)),
            ("/a//", Err(PathError::Empty)),
            ("/..", Err(PathError::Dots)),
            ("/a/../b", Err(PathError::Dots)),
            ("/./b", Err(PathError::Dots)),
            ("/a\0b", Err(PathError::Nul)),
            ("/.tierdav", Err(PathError::Hidden)),
            ("/.tierdav/tmp/x", Err(PathError::Hidden)),
            (&long, Err(PathError::NameTooLong)),
        ];
        for (given, want) in table {
            let got = ResourcePath::parse(given).map(|p| p.to_string());
            assert_eq!(got, want.map(str::to_owned), "{given:?}");
        }
    }

    #[test]
    fn parents_names_and_containment() {
        let p = ResourcePath::parse("/a/b/c").unwrap();
        assert_eq!(p.name(), "c");
        assert_eq!(p.parent().unwrap().to_string(), "/a/b");
        assert_eq!(
            ResourcePath::parse("/a").unwrap().parent().unwrap(),
            ResourcePath::root()
        );
        assert!(ResourcePath::root().parent().is_none());
        assert!(p.is_within(&ResourcePath::parse("/a/b").unwrap()));
        assert!(p.is_within(&p) && p.is_within(&ResourcePath::root()));
        assert!(
            !ResourcePath::parse("/ab")
                .unwrap()
                .is_within(&ResourcePath::parse("/a").unwrap())
        );
        assert_eq!(ResourcePath::root().join(HIDDEN), Err(PathError::Hidden));
        assert_eq!(p.parent().unwrap().join("c").unwrap(), p);
    }

    proptest! {
        #[test]
        fn whatever_parses_stays_beneath_and_round_trips(s in "(/|\\.|\\.\\.|a|b|é|\0|\\.tierdav){0,12}") {
            if let Ok(p) = ResourcePath::parse(&s) {
                prop_assert!(p.segments().all(|x| !x.is_empty() && x != "." && x != ".."));
                prop_assert_ne!(p.segments().next(), Some(HIDDEN));
                prop_assert_eq!(ResourcePath::parse(&p.to_string()).unwrap(), p);
            }
        }
    }
}
