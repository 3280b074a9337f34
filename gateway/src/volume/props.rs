//! Dead properties as one extended attribute, `user.tierdav.props`.
//!
//! Format: `u8` version 1, then per property three `u32` lengths (little endian) and the bytes of
//! namespace, name and XML. Sorted by (namespace, name).

use std::collections::BTreeMap;

use super::types::{DeadProp, PropChange};

/// Name of the attribute.
pub const ATTRIBUTE: &str = "user.tierdav.props";
/// The kernel's bound on one attribute's value (`XATTR_SIZE_MAX`); most file systems take less.
pub const VALUE_BYTES_MAX: usize = 64 << 10;

const VERSION: u8 = 1;

/// The attribute's value; empty when there are no properties (the attribute is then removed).
pub fn encode(props: &[DeadProp]) -> Vec<u8> {
    if props.is_empty() {
        return Vec::new();
    }
    let mut out = vec![VERSION];
    for p in props {
        for part in [p.namespace.as_bytes(), p.name.as_bytes(), &p.xml] {
            out.extend_from_slice(&(part.len() as u32).to_le_bytes());
        }
        for part in [p.namespace.as_bytes(), p.name.as_bytes(), &p.xml] {
            out.extend_from_slice(part);
        }
    }
    out
}

/// Reads the value; `None` when it is damaged.
pub fn decode(value: &[u8]) -> Option<Vec<DeadProp>> {
    let mut out = Vec::new();
    let Some((&version, mut rest)) = value.split_first() else {
        return Some(out);
    };
    if version != VERSION {
        return None;
    }
    while !rest.is_empty() {
        let mut lens = [0usize; 3];
        for len in &mut lens {
            let (head, tail) = rest.split_first_chunk::<4>()?;
            *len = u32::from_le_bytes(*head) as usize;
            rest = tail;
        }
        let mut parts = [&rest[..0]; 3];
        for (part, len) in parts.iter_mut().zip(lens) {
            let (head, tail) = rest.split_at_checked(len)?;
            *part = head;
            rest = tail;
        }
        out.push(DeadProp {
            namespace: String::from_utf8(parts[0].to_vec()).ok()?,
            name: String::from_utf8(parts[1].to_vec()).ok()?,
            xml: parts[2].to_vec(),
        });
    }
    Some(out)
}

/// The properties after `changes`, applied in order.
pub fn apply(props: Vec<DeadProp>, changes: Vec<PropChange>) -> Vec<DeadProp> {
    let mut map: BTreeMap<(String, String), Vec<u8>> = props
        .into_iter()
        .map(|p| ((p.namespace, p.name), p.xml))
        .collect();
    for change in changes {
        match change {
            PropChange::Set(p) => {
                map.insert((p.namespace, p.name), p.xml);
            }
            PropChange::Remove { ns, name } => {
                map.remove(&(ns, name));
            }
        }
    }
    map.into_iter()
        .map(|((namespace, name), xml)| DeadProp {
            namespace,
            name,
            xml,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn prop() -> impl Strategy<Value = DeadProp> {
        (
            ".{0,8}",
            ".{1,8}",
            proptest::collection::vec(any::<u8>(), 0..40),
        )
            .prop_map(|(namespace, name, xml)| DeadProp {
                namespace,
                name,
                xml,
            })
    }

    proptest! {
        #[test]
        fn round_trips(props in proptest::collection::vec(prop(), 0..6)) {
            prop_assert_eq!(decode(&encode(&props)), Some(props));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn changes_apply_in_order() {
        let p = |xml: &str| DeadProp {
            namespace: "n".into(),
            name: "a".into(),
            xml: xml.into(),
        };
        let set = |xml| PropChange::Set(p(xml));
        let remove = PropChange::Remove {
            ns: "n".into(),
            name: "a".into(),
        };
        assert_eq!(apply(vec![p("1")], vec![set("2"), set("3")]), vec![p("3")]);
        assert_eq!(apply(vec![p("1")], vec![set("2"), remove.clone()]), vec![]);
        assert_eq!(apply(vec![], vec![remove, set("2")]), vec![p("2")]);
    }
}
