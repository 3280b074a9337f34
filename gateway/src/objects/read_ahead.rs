//! Reading a version from pools, ahead of its reader: whole objects, several on their way, bounded by bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tiering::{FileId, Nanos, ObjectId, Tier};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::cache::ObjectCache;
use super::error::CacheError;
use super::running::Running;

/// Bytes on their way for one reader.
const AHEAD_BYTES: u64 = 16 << 20;
/// Bytes asked for at a time where there is no room for whole objects.
const SMALL_BYTES: u32 = 512 << 10;

/// A stretch of one object that was read.
#[derive(Clone, Copy)]
pub(super) struct Stretch {
    pub index: u32,
    pub within: u32,
    pub len: u32,
    pub tier: Tier,
    pub started: Nanos,
    pub latency_ns: u64,
}

/// Its bytes, and their room.
struct Piece {
    stretch: Stretch,
    bytes: Bytes,
    object_len: u32,
    /// Checksum of all of the object.
    object_crc: u32,
    _room: Option<OwnedSemaphorePermit>,
}

/// What is to be read of one object.
#[derive(Clone, Copy)]
struct Part {
    index: u32,
    /// Offset in the object.
    within: u32,
    object_len: u32,
    len: u32,
}

struct Flight {
    offset: u64,
    len: u32,
    task: JoinHandle<Result<Piece, CacheError>>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The pieces on their way and the one in hand.
pub(super) struct ReadAhead {
    cache: Arc<ObjectCache>,
    file: FileId,
    len: u64,
    /// End of what the reader said it will read.
    until: u64,
    flights: VecDeque<Flight>,
    /// Offset within the version of the piece in hand.
    in_hand: Option<(u64, Piece)>,
    /// Of the object that is read in parts.
    running: Option<Running>,
}

impl ReadAhead {
    pub fn new(cache: Arc<ObjectCache>, file: FileId, len: u64) -> ReadAhead {
        ReadAhead {
            cache,
            file,
            len,
            until: 0,
            flights: VecDeque::new(),
            in_hand: None,
            running: None,
        }
    }

    /// The reader will read up to here.
    pub fn announce(&mut self, until: u64) {
        self.until = until.min(self.len);
    }

    /// Bytes from `offset`, at most `max_len`; with their stretch when they are the first of it.
    pub async fn next(
        &mut self,
        offset: u64,
        max_len: usize,
    ) -> Result<(Bytes, Tier, Option<Stretch>), CacheError> {
        let mut fresh = false;
        let (at, piece) = match self.in_hand.take() {
            Some((at, piece)) if at <= offset && offset < at + piece.bytes.len() as u64 => {
                (at, piece)
            }
            _ => {
                fresh = true;
                let piece = self.fetch(offset, max_len).await?;
                (offset, self.checked(piece).await?)
            }
        };
        let from = (offset - at) as usize;
        let to = piece.bytes.len().min(from.saturating_add(max_len));
        let (bytes, stretch) = (piece.bytes.slice(from..to), piece.stretch);
        if to < piece.bytes.len() {
            self.in_hand = Some((at, piece));
        }
        Ok((bytes, stretch.tier, fresh.then_some(stretch)))
    }

    /// Compares the checksum of an object that was read from its beginning to its end, but not at once, when its last part is here.
    async fn checked(&mut self, piece: Piece) -> Result<Piece, CacheError> {
        let Stretch {
            index, within, len, ..
        } = piece.stretch;
        let before = self.running.take();
        if len == piece.object_len {
            // At once: that was compared.
            return Ok(piece);
        }
        let whole = (piece.object_len, piece.object_crc);
        if let Some(running) = Running::checked(before, index, whole, within, &piece.bytes) {
            self.running = running;
            return Ok(piece);
        }
        let id = ObjectId::new(self.file, index);
        // Read at once it shows which copy is damaged, and the reader after this one gets the other.
        let whole = self
            .cache
            .read_pooled(id, piece.object_len, 0, piece.object_len)
            .await;
        tracing::error!(object = %id, mended = whole.is_ok(), "an object read in parts was damaged; the reply is cut off");
        Err(CacheError::Damaged { id })
    }

    async fn fetch(&mut self, offset: u64, max_len: usize) -> Result<Piece, CacheError> {
        if self.flights.front().is_none_or(|f| f.offset != offset) {
            // A jump: what is on its way is of no use.
            self.flights.clear();
            let (len, read) = self.read(offset, max_len as u64);
            if offset + u64::from(len) >= self.until {
                // Nothing to read beside it: no task of its own.
                return read.await;
            }
            let task = tokio::spawn(read);
            self.flights.push_back(Flight { offset, len, task });
        }
        self.top_up();
        let Some(mut flight) = self.flights.pop_front() else {
            return Err(CacheError::NoBacking);
        };
        let landed = (&mut flight.task).await;
        self.top_up();
        landed.map_err(|e| CacheError::Task(e.to_string()))?
    }

    /// Begins further reads as far as announced and as there is room.
    fn top_up(&mut self) {
        loop {
            let flying: u64 = self.flights.iter().map(|f| u64::from(f.len)).sum();
            let Some(last) = self.flights.back() else {
                return;
            };
            let next = last.offset + u64::from(last.len);
            if next >= self.until || flying >= AHEAD_BYTES || !self.launch(next) {
                return;
            }
        }
    }

    /// Begins to read ahead, if there is room.
    fn launch(&mut self, offset: u64) -> bool {
        let part = self.part(offset, 0);
        let len = part.len;
        let Some(room) = self.cache.try_flight(len) else {
            return false;
        };
        let task = tokio::spawn(self.task(part, Some(room)));
        self.flights.push_back(Flight { offset, len, task });
        true
    }

    /// What is read from `offset`: to the object's end where that was announced, else `max_len`.
    fn part(&self, offset: u64, max_len: u64) -> Part {
        let object_bytes = u64::from(self.cache.opts.object_bytes);
        let index = (offset / object_bytes) as u32;
        let within = (offset % object_bytes) as u32;
        let object_len = self.cache.object_len(self.len, index);
        let end = self.until.max(offset + max_len) - offset;
        let len = u64::from(object_len - within).min(end) as u32;
        Part {
            index,
            within,
            object_len,
            len,
        }
    }

    /// The read of what is needed now: less of it where there is no room for whole objects.
    fn read(
        &self,
        offset: u64,
        max_len: u64,
    ) -> (
        u32,
        impl Future<Output = Result<Piece, CacheError>> + Send + use<>,
    ) {
        let mut part = self.part(offset, max_len);
        let room = self.cache.try_flight(part.len);
        if room.is_none() {
            part.len = part.len.min(SMALL_BYTES);
        }
        (part.len, self.task(part, room))
    }

    fn task(
        &self,
        part: Part,
        room: Option<OwnedSemaphorePermit>,
    ) -> impl Future<Output = Result<Piece, CacheError>> + Send + use<> {
        let (cache, file) = (Arc::clone(&self.cache), self.file);
        let Part {
            index,
            within,
            object_len,
            len,
        } = part;
        async move {
            let started = cache.recorder.now();
            let id = ObjectId::new(file, index);
            let read = cache.read_pooled(id, object_len, within, len).await?;
            Ok(Piece {
                stretch: Stretch {
                    index,
                    within,
                    len,
                    tier: read.tier,
                    started,
                    latency_ns: cache.recorder.now().since(started).0,
                },
                bytes: read.bytes,
                object_len,
                object_crc: read.crc,
                _room: room,
            })
        }
    }
}
