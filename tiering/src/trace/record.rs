//! One line of the trace.

use crate::types::{FileId, Tier};

/// The object index of records that are not about one object.
pub const NO_OBJECT: u32 = u32::MAX;

macro_rules! ops {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// What was done. Codes are part of the live format and never reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Op { $($(#[$doc])* $name = $code,)* }

        impl Op {
            /// All operations, by code.
            pub const ALL: &'static [Op] = &[$(Op::$name,)*];

            /// Its name in the sealed trace.
            pub const fn as_str(self) -> &'static str {
                match self { $(Op::$name => $text,)* }
            }

            /// The operation of a name, if there is one.
            pub fn from_name(name: &str) -> Option<Op> {
                match name { $($text => Some(Op::$name),)* _ => None }
            }

            /// The operation of a code, if there is one.
            pub const fn from_code(code: u8) -> Option<Op> {
                match code { $($code => Some(Op::$name),)* _ => None }
            }
        }
    };
}

ops! {
    /// GET of a resource or a range.
    Get = 1, "get";
    /// Whole or partial PUT.
    Put = 2, "put";
    /// HEAD.
    Head = 3, "head";
    /// PROPFIND.
    Propfind = 4, "propfind";
    /// PROPPATCH.
    Proppatch = 5, "proppatch";
    /// MKCOL.
    Mkcol = 6, "mkcol";
    /// DELETE.
    Delete = 7, "delete";
    /// MOVE; `path2` is the destination.
    Move = 8, "move";
    /// COPY; `path2` is the destination.
    Copy = 9, "copy";
    /// LOCK.
    Lock = 10, "lock";
    /// UNLOCK.
    Unlock = 11, "unlock";
    /// A conditional GET answered 304.
    Revalidate = 12, "revalidate";
    /// Bytes of an object read for a client.
    ObjectRead = 13, "object_read";
    /// Bytes of an object written for a client.
    ObjectWrite = 14, "object_write";
    /// Copied up.
    Promote = 15, "promote";
    /// Copied down.
    Flush = 16, "flush";
    /// Dropped from the cache.
    Evict = 17, "evict";
    /// OPTIONS.
    Options = 18, "options";
    /// PATCH of a range.
    Patch = 19, "patch";
    /// Any other method.
    Other = 20, "other";
}

/// The tier that served the bytes, if any were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TierServed {
    /// No content was involved.
    #[default]
    None = 0,
    /// The cache tier.
    Cache = 1,
    /// The backing tier.
    Backing = 2,
}

impl TierServed {
    /// The tier as an option.
    pub const fn tier(self) -> Option<Tier> {
        match self {
            TierServed::None => None,
            TierServed::Cache => Some(Tier::Cache),
            TierServed::Backing => Some(Tier::Backing),
        }
    }

    /// The value of a code of the live format.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(TierServed::None),
            1 => Some(TierServed::Cache),
            2 => Some(TierServed::Backing),
            _ => None,
        }
    }
}

impl From<Option<Tier>> for TierServed {
    fn from(tier: Option<Tier>) -> Self {
        match tier {
            None => TierServed::None,
            Some(Tier::Cache) => TierServed::Cache,
            Some(Tier::Backing) => TierServed::Backing,
        }
    }
}

/// One operation. Paths and clients are numbers of the trace's dictionary; 0 is "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it began: nanoseconds since the recorder's anchor.
    pub at_ns: u64,
    /// Who asked; 0 for the gateway itself.
    pub client: u32,
    /// What was done.
    pub op: Op,
    /// The resource; 0 when none or unknown.
    pub path: u32,
    /// The destination of MOVE and COPY; else 0.
    pub path2: u32,
    /// The version of content; `FileId(0)` when none.
    pub file: FileId,
    /// Index of the object, or [`NO_OBJECT`].
    pub object: u32,
    /// First byte: within the object for object operations, else within the resource.
    pub offset: u64,
    /// Bytes of content.
    pub len: u64,
    /// Who served the bytes.
    pub tier: TierServed,
    /// From begin to end, nanoseconds.
    pub latency_ns: u64,
    /// HTTP status; for object operations 0 is success and 1 is failure.
    pub status: u16,
}

impl Record {
    /// A record of `op` begun at `at_ns`, about nothing yet: fill in what applies with `..`.
    pub const fn new(op: Op, at_ns: u64) -> Self {
        Self {
            at_ns,
            client: 0,
            op,
            path: 0,
            path2: 0,
            file: FileId(0),
            object: NO_OBJECT,
            offset: 0,
            len: 0,
            tier: TierServed::None,
            latency_ns: 0,
            status: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_read_back() {
        for &op in Op::ALL {
            assert_eq!(Op::from_name(op.as_str()), Some(op));
            assert_eq!(Op::from_code(op as u8), Some(op));
        }
        assert_eq!(Op::from_code(0), None);
        assert_eq!(Op::from_name("GET"), None);
    }
}
