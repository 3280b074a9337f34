//! A load that is larger than the recorded one: larger files, or several of it at once.

use std::collections::HashMap;
use std::sync::Arc;

use crate::trace::Entry;

/// How a load is changed before it is planned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reshape {
    /// Offsets and lengths are multiplied by this.
    pub scale_size: f64,
    /// How many of the load run at once, each with clients and below a path of its own.
    pub copies: u16,
}

impl Default for Reshape {
    fn default() -> Self {
        Self {
            scale_size: 1.0,
            copies: 1,
        }
    }
}

impl Reshape {
    /// Changes the entries; copies of one entry stand side by side.
    pub(super) fn apply(self, mut entries: Vec<Entry>) -> Vec<Entry> {
        if self.scale_size != 1.0 {
            entries.iter_mut().for_each(|entry| self.scale(entry));
        }
        if self.copies <= 1 {
            return entries;
        }
        let mut names = Names::default();
        let copies = |entry: Entry| -> Vec<Entry> {
            (1..=self.copies)
                .map(|copy| Entry {
                    client: names.client(&entry.client, copy),
                    path: names.path(&entry.path, copy),
                    path2: entry.path2.as_ref().map(|path| names.path(path, copy)),
                    ..entry.clone()
                })
                .collect()
        };
        entries.into_iter().flat_map(copies).collect()
    }

    /// Begin and end are rounded alike, so that what followed each other still does; no operation loses all bytes.
    fn scale(self, entry: &mut Entry) {
        let scaled = |at: u64| (at as f64 * self.scale_size).round() as u64;
        let end = scaled(entry.offset.saturating_add(entry.length));
        let begin = scaled(entry.offset);
        let least = u64::from(entry.length > 0);
        (entry.offset, entry.length) = (begin, end.saturating_sub(begin).max(least));
    }
}

/// Names of copies, each made once.
#[derive(Default)]
struct Names {
    paths: HashMap<(Arc<str>, u16), Arc<str>>,
    clients: HashMap<(Arc<str>, u16), Arc<str>>,
}

impl Names {
    fn path(&mut self, path: &Arc<str>, copy: u16) -> Arc<str> {
        let name = || match &**path {
            "/" | "" => format!("copy-{copy}").into(),
            path => format!("copy-{copy}/{path}").into(),
        };
        let key = (Arc::clone(path), copy);
        Arc::clone(self.paths.entry(key).or_insert_with(name))
    }

    fn client(&mut self, client: &Arc<str>, copy: u16) -> Arc<str> {
        let key = (Arc::clone(client), copy);
        let name = || format!("{client}#{copy}").into();
        Arc::clone(self.clients.entry(key).or_insert_with(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Op;
    use proptest::prelude::*;

    fn entry(path: &str, offset: u64, length: u64) -> Entry {
        Entry {
            offset,
            length,
            ..Entry::new(0, "es".into(), Op::FileRead, path.into())
        }
    }

    #[test]
    fn copies_have_paths_and_clients_of_their_own() {
        let twice = Reshape {
            copies: 2,
            ..Reshape::default()
        };
        let mut renamed = entry("a/b", 0, 9);
        renamed.path2 = Some("c".into());
        let seen: Vec<_> = twice
            .apply(vec![renamed, entry("/", 0, 0)])
            .into_iter()
            .map(|e| {
                (
                    e.client.to_string(),
                    e.path.to_string(),
                    e.path2.map(|p| p.to_string()),
                )
            })
            .collect();
        let want = |client: &str, path: &str, path2: Option<&str>| {
            (client.to_owned(), path.to_owned(), path2.map(str::to_owned))
        };
        assert_eq!(
            seen,
            [
                want("es#1", "copy-1/a/b", Some("copy-1/c")),
                want("es#2", "copy-2/a/b", Some("copy-2/c")),
                want("es#1", "copy-1", None),
                want("es#2", "copy-2", None),
            ]
        );
        let same = Reshape::default().apply(vec![entry("a", 5, 7)]);
        assert_eq!(
            (&*same[0].path, same[0].offset, same[0].length),
            ("a", 5, 7)
        );
    }

    proptest! {
        #[test]
        fn what_followed_each_other_still_does(lengths in prop::collection::vec(1_u64..100_000, 1..30), scale in 0.01_f64..50.0) {
            let mut at = 0;
            let entries: Vec<Entry> = lengths.iter().map(|n| { at += n; entry("a", at - n, *n) }).collect();
            let reshape = Reshape { scale_size: scale, copies: 1 };
            let all = reshape.apply(entries);
            for pair in all.windows(2) {
                prop_assert!(pair[0].length > 0);
                prop_assert!((pair[0].offset + pair[0].length).abs_diff(pair[1].offset) <= 1);
                prop_assert!(scale < 1.0 || pair[0].offset + pair[0].length == pair[1].offset);
            }
        }
    }
}
