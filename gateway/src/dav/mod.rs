//! The WebDAV protocol: classes 1, 2 and 3 of RFC 4918.

pub mod fragment;
pub mod ifheader;
pub mod locks;
pub mod range;
pub mod xml;
