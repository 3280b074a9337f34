//! Identities and units shared by every room.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bytes in an object unless configured otherwise: the stripe in which content is traced, placed and moved.
pub const DEFAULT_OBJECT_BYTES: u32 = 4 << 20;

/// Names one immutable version of a resource's content; never 0.
///
/// Every change of content makes a new one; MOVE keeps it. Shown as 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FileId(pub u64);

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A text that is not an identity in its displayed form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an identity: expected lower-case hex digits")]
pub struct ParseIdError(pub String);

impl FromStr for FileId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        hex(text, 16).map(FileId)
    }
}

/// One stripe of one version of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectId {
    /// The version of content that it is part of.
    pub file: FileId,
    /// Its place: it holds the bytes from `index * object_bytes` on.
    pub index: u32,
}

impl ObjectId {
    /// Names the stripe `index` of `file`.
    pub const fn new(file: FileId, index: u32) -> Self {
        Self { file, index }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:08x}", self.file, self.index)
    }
}

impl FromStr for ObjectId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let (file, index) = text
            .split_once('.')
            .ok_or_else(|| ParseIdError(text.to_owned()))?;
        let index = u32::try_from(hex(index, 8)?).map_err(|_| ParseIdError(text.to_owned()))?;
        Ok(Self::new(file.parse()?, index))
    }
}

/// Parses exactly `digits` lower-case hex digits.
fn hex(text: &str, digits: usize) -> Result<u64, ParseIdError> {
    let fits = text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let error = || ParseIdError(text.to_owned());
    if !fits {
        return Err(error());
    }
    u64::from_str_radix(text, 16).map_err(|_| error())
}

/// Where bytes are served from or placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// The fast tier: hot or newly written objects.
    Cache,
    /// Where content ends up.
    Backing,
}

impl Tier {
    /// Its name in traces, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Tier::Cache => "cache",
            Tier::Backing => "backing",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A monotonic instant: nanoseconds since the anchor of the process or of the trace.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Nanos(pub u64);

impl Nanos {
    /// Nanoseconds in a second.
    pub const PER_SECOND: u64 = 1_000_000_000;

    /// The instant or span of whole `seconds`; saturates.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(Self::PER_SECOND))
    }

    /// The instant or span of whole milliseconds; saturates.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// The time from `earlier` to here; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }

    /// The instant `span` later; saturates.
    pub const fn plus(self, span: Self) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// In seconds.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / Self::PER_SECOND as f64
    }

    /// In whole milliseconds, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }
}

impl From<Duration> for Nanos {
    fn from(span: Duration) -> Self {
        Self(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn an_identity_reads_back_as_displayed() {
        let id = ObjectId::new(FileId(0xdead_beef), 17);
        assert_eq!(id.to_string(), "00000000deadbeef.00000011");
        assert_eq!(id.to_string().parse::<ObjectId>(), Ok(id));
    }

    #[test]
    fn only_the_displayed_form_is_an_identity() {
        for text in [
            "",
            ".",
            "1",
            "+0000000deadbeef",
            "00000000DEADBEEF",
            "00000000deadbeef.11",
        ] {
            assert!(text.parse::<ObjectId>().is_err(), "{text}");
        }
        assert!("00000000DEADBEEF".parse::<FileId>().is_err());
    }

    #[test]
    fn spans_saturate() {
        assert_eq!(Nanos(5).since(Nanos(7)), Nanos(0));
        assert_eq!(Nanos(u64::MAX).plus(Nanos(1)), Nanos(u64::MAX));
        assert_eq!(Nanos::from_secs(u64::MAX), Nanos(u64::MAX));
        assert_eq!(Nanos::from(Duration::from_millis(3)), Nanos::from_millis(3));
    }
}
