//! Which earlier requests a request must wait for.
//!
//! Requests of one lane follow each other. Across lanes, each request takes its path exclusively when it
//! changes it and shared when it only looks, and all the path's ancestors shared: so a read never overtakes
//! the write that made its bytes, a rename never its create, and nothing beneath a collection overtakes a
//! MKCOL, MOVE or DELETE of it.

use super::Kind;
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Default)]
struct Use {
    writer: Option<u32>,
    /// Last reader of each lane since the writer; earlier ones come before it in their lane.
    readers: HashMap<u32, u32>,
}

/// The last users of every path.
#[derive(Default)]
pub(super) struct Order {
    /// Whether operations of one lane may overtake each other where their paths allow it.
    pub(super) free_lanes: bool,
    paths: HashMap<Box<str>, Use>,
    lanes: HashMap<u32, u32>,
}

impl Order {
    /// Adds request `index` and answers what it waits for.
    pub(super) fn add(
        &mut self,
        index: u32,
        lane: u32,
        kind: Kind,
        path: &Arc<str>,
        path2: &Arc<str>,
    ) -> Vec<u32> {
        let mut waits = Vec::new();
        // Without lanes each request is a lane of its own: readers of a path are then all remembered.
        let lane = if self.free_lanes { index } else { lane };
        waits.extend(self.lanes.insert(lane, index));
        match kind {
            Kind::Move | Kind::Rename => {
                self.take(path, index, lane, true, &mut waits);
                self.take(path2, index, lane, true, &mut waits);
            }
            Kind::Copy => {
                self.take(path, index, lane, false, &mut waits);
                self.take(path2, index, lane, true, &mut waits);
            }
            _ => self.take(path, index, lane, changes(kind), &mut waits),
        }
        waits.sort_unstable();
        waits.dedup();
        waits.retain(|&w| w != index);
        waits
    }

    fn take(&mut self, path: &str, index: u32, lane: u32, exclusive: bool, waits: &mut Vec<u32>) {
        for (at, _) in path.match_indices('/') {
            self.take_one(&path[..at], index, lane, false, waits);
        }
        self.take_one(path, index, lane, exclusive, waits);
    }

    fn take_one(
        &mut self,
        path: &str,
        index: u32,
        lane: u32,
        exclusive: bool,
        waits: &mut Vec<u32>,
    ) {
        if !self.paths.contains_key(path) {
            self.paths.insert(path.into(), Use::default());
        }
        let Some(used) = self.paths.get_mut(path) else {
            return;
        };
        waits.extend(used.writer);
        if exclusive {
            waits.extend(used.readers.drain().map(|(_, reader)| reader));
            used.writer = Some(index);
        } else {
            used.readers.insert(lane, index);
        }
    }
}

fn changes(kind: Kind) -> bool {
    match kind {
        Kind::Put | Kind::PutRange | Kind::Delete | Kind::Mkcol | Kind::Move | Kind::Copy => true,
        Kind::Proppatch | Kind::Lock | Kind::Unlock => true,
        // Descriptors are shared between lanes: what uses one comes after its open and before its close.
        Kind::Create | Kind::Open | Kind::Close => true,
        Kind::Write | Kind::Truncate | Kind::Fsync => true,
        Kind::Rename | Kind::Unlink | Kind::Mkdir | Kind::Rmdir => true,
        Kind::Read | Kind::Stat | Kind::List => false,
        Kind::Options
        | Kind::Propfind0
        | Kind::Propfind1
        | Kind::Head
        | Kind::Get
        | Kind::GetIfChanged => false,
    }
}
