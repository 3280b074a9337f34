//! The load of one Elasticsearch 7 node that is given images: translog, segments, merges.
//!
//! Each step is one that the recorded nodes of `fixtures/es` make, in their order; the numbers are theirs, too, and
//! docs/trace-replay.md compares what comes out. Not modelled: the node's start and the cluster state (about 500
//! operations, once), and how long operations take.

use super::log::{Actor, Log, Steps};
use super::merge;
use super::random::Random;
use crate::trace::Op;

/// What the load is made of.
pub struct Load {
    /// Bytes of images.
    pub bytes: u64,
    /// Bytes of images per second.
    pub rate: f64,
    /// Seed.
    pub seed: u64,
}

const MIB: u64 = 1 << 20;
/// Image sizes: log-normal, as they were made for the recordings.
const IMAGE: (f64, f64) = (90.0 * 1024.0, 0.6);
/// A document is its image in base64 and some fields.
const DOCUMENT: (f64, u64) = (4.0 / 3.0, 200);
/// Largest bulk request.
const BULK_BYTES: u64 = 5_000_000;
/// A segment is written out after about so much, log-normal: what came within a refresh of a busy node.
const SEGMENT: (f64, f64) = (11.5e6, 0.45);
/// Size of a translog generation, and what may gather before a commit.
const GENERATION_BYTES: u64 = 64 * MIB;
const COMMIT_BYTES: u64 = 512 * MIB;
/// Bytes per second when a segment is put together, and when segments are merged.
const COPY_RATE: f64 = 14e6;
const MERGE_RATE: f64 = 24e6;
/// Seconds between two looks at the sizes of all files.
const LOOK_S: f64 = 2.6;
/// Segment files beside `.fdt`: end, bytes, bytes per document.
const SMALL: [(&str, f64, f64); 9] = [
    (".fdx", 60.0, 3.0),
    (".fnm", 1333.0, 0.0),
    (".dvm", 2823.0, 0.0),
    (".dvd", 60.0, 14.0),
    (".dim", 60.0, 15.0),
    (".dii", 82.0, 0.0),
    (".doc", 80.0, 2.4),
    (".tim", 200.0, 34.0),
    (".tip", 150.0, 0.7),
];
/// Small reads when a segment is opened for searching, and when one is merged.
const OPENING_READS: u64 = 23;
const MERGING_READS: u64 = 31;

const SHARD: &str = "es/nodes/0/indices/images/0";

struct Segment {
    name: String,
    docs: u64,
    /// Bytes of `.fdt`, which is nearly all.
    bytes: u64,
    /// One `.cfs` instead of ten files.
    compound: bool,
    committed: bool,
    /// When it is complete.
    ready: f64,
}

impl Segment {
    fn file(&self, end: &str) -> String {
        format!("{SHARD}/index/_{}{end}", self.name)
    }

    /// What there is of it once it is complete.
    fn files(&self) -> Vec<String> {
        if self.compound {
            [".si", ".cfe", ".cfs"].map(|end| self.file(end)).into()
        } else {
            let ends = [".si", ".fdt"].into_iter().chain(SMALL.map(|s| s.0));
            ends.map(|end| self.file(end)).collect()
        }
    }

    fn small(&self) -> impl Iterator<Item = (String, u64)> {
        let docs = self.docs as f64;
        SMALL
            .map(|(end, base, each)| (self.file(end), (base + each * docs) as u64))
            .into_iter()
    }
}

struct Node {
    /// The stream's, during a step.
    log: Log,
    segments: Vec<Segment>,
    named: u64,
    write: Actor,
    refresh: Actor,
    merge: Actor,
    generation: u64,
    generation_bytes: u64,
    uncommitted: u64,
    commits: u64,
    oldest: u64,
}

/// Makes the load.
pub fn make(load: Load) -> Steps {
    let mut random = Random::new(load.seed, 1);
    let mut node = Node::new();
    let mut loader = Actor::new("loader", "loader", 60.0);
    let mut looker = Actor::new("es", "management", 80.0);
    let (mut loaded, mut images) = (0, 0_u64);
    let (mut open_bytes, mut docs) = (0, 0);
    let mut target = random.log_normal(SEGMENT.0, SEGMENT.1);
    let mut bulk = move |node: &mut Node| {
        let (mut bulk, mut bulk_images) = (0, 0);
        while loaded < load.bytes {
            let size = (random.log_normal(IMAGE.0, IMAGE.1) as u64).clamp(1024, 4_000_000);
            let document = (size as f64 * DOCUMENT.0) as u64 + DOCUMENT.1;
            if bulk > 0 && bulk + document > BULK_BYTES {
                break;
            }
            node.image(&mut loader, images, size);
            (images, bulk_images) = (images + 1, bulk_images + 1);
            (loaded, bulk) = (loaded + size, bulk + document);
        }
        // The answer comes when the translog is on the disk; then the next images are read.
        let took = bulk as f64 / DOCUMENT.0 / load.rate * 1e6;
        node.write.now = node.write.now.max(loader.now);
        let begun = node.write.now;
        node.index(bulk, open_bytes);
        (open_bytes, docs) = (open_bytes + bulk, docs + bulk_images);
        node.write_translog(bulk);
        loader.now = (begun + took).max(node.write.now);
        if open_bytes as f64 >= target || loaded >= load.bytes {
            node.refresh.now = node.refresh.now.max(node.write.now);
            node.flush_segment(open_bytes, docs);
            node.merge_what_is_due();
            (open_bytes, docs) = (0, 0);
            target = random.log_normal(SEGMENT.0, SEGMENT.1);
        }
        if node.uncommitted > COMMIT_BYTES {
            node.commit();
        }
        while looker.now < node.write.now {
            node.look(&mut looker);
            looker.now = next_look(looker.now);
        }
        if loaded >= load.bytes {
            node.write.now = node.write.now.max(node.merge.now);
            node.commit();
            return None;
        }
        // All that the node does later begins with the next images, or is the next look.
        Some(loader.now.min(looker.now))
    };
    let mut begun = false;
    Box::new(move |log| {
        std::mem::swap(log, &mut node.log);
        if !std::mem::replace(&mut begun, true) {
            node.open_generation();
        }
        let settled = bulk(&mut node);
        std::mem::swap(log, &mut node.log);
        settled
    })
}

/// When sizes are looked at after `now`, in microseconds.
fn next_look(now: f64) -> f64 {
    let done = (now / 1e6 / LOOK_S).floor();
    let next = (done + 1.0) * LOOK_S * 1e6;
    // n * 2.6 / 2.6 may be less than n.
    if next > now {
        next
    } else {
        (done + 2.0) * LOOK_S * 1e6
    }
}

impl Node {
    fn new() -> Node {
        Node {
            log: Log::default(),
            segments: Vec::new(),
            named: 0,
            write: Actor::new("es", "write", 150.0),
            refresh: Actor::new("es", "refresh", 150.0),
            merge: Actor::new("es", "merge", 150.0),
            generation: 1,
            generation_bytes: 0,
            uncommitted: 0,
            commits: 2,
            oldest: 1,
        }
    }

    /// The loading program reads an image to its end.
    fn image(&mut self, loader: &mut Actor, number: u64, size: u64) {
        let path = format!("dataset/class{:02}/img{number:06}.jpg", number % 50);
        self.log.op(loader, Op::FileStat, &path);
        self.log.op(loader, Op::FileOpen, &path);
        self.log.io(loader, Op::FileRead, &path, 0, size);
        self.log.io(loader, Op::FileRead, &path, size, 0);
        self.log.op(loader, Op::FileClose, &path);
    }

    fn next_segment(&self) -> Segment {
        Segment {
            name: base36(self.named),
            docs: 0,
            bytes: 0,
            compound: true,
            committed: false,
            ready: 0.0,
        }
    }

    /// Stored fields are written while documents come.
    fn index(&mut self, bulk: u64, before: u64) {
        let segment = self.next_segment();
        let fdt = segment.file(".fdt");
        if before == 0 {
            self.log
                .op(&mut self.write, Op::FileCreate, &segment.file(".fdx"));
            self.log.op(&mut self.write, Op::FileCreate, &fdt);
        }
        let seconds = bulk as f64 / 60e6;
        self.log.chunks(
            &mut self.write,
            Op::FileWrite,
            &fdt,
            before,
            bulk,
            MIB,
            seconds,
        );
    }

    fn checkpoint(&mut self) {
        let path = format!("{SHARD}/translog/translog.ckp");
        let actor = &mut self.write;
        self.log.op(actor, Op::FileOpen, &path);
        self.log.io(actor, Op::FileWrite, &path, 0, 88);
        self.log.op(actor, Op::FileSync, &path);
        self.log.op(actor, Op::FileClose, &path);
    }

    fn open_generation(&mut self) {
        let path = tlog(self.generation, "tlog");
        self.log.op(&mut self.write, Op::FileCreate, &path);
        self.log.io(&mut self.write, Op::FileWrite, &path, 0, 55);
        self.log.op(&mut self.write, Op::FileSync, &path);
        self.generation_bytes = 55;
        self.checkpoint();
    }

    /// Appends a bulk to the translog, durably, and rolls to the next generation when this one is full.
    fn write_translog(&mut self, bulk: u64) {
        let path = tlog(self.generation, "tlog");
        let seconds = bulk as f64 / 40e6;
        self.log.chunks(
            &mut self.write,
            Op::FileWrite,
            &path,
            self.generation_bytes,
            bulk,
            MIB,
            seconds,
        );
        self.log.op(&mut self.write, Op::FileSync, &path);
        self.checkpoint();
        self.generation_bytes += bulk;
        self.uncommitted += bulk;
        if self.generation_bytes > GENERATION_BYTES {
            self.roll();
        }
    }

    fn roll(&mut self) {
        self.log.op(
            &mut self.write,
            Op::FileClose,
            &tlog(self.generation, "tlog"),
        );
        let ckp = tlog(self.generation, "ckp");
        self.log.op(&mut self.write, Op::FileCreate, &ckp);
        self.log.io(&mut self.write, Op::FileWrite, &ckp, 0, 88);
        self.log.op(&mut self.write, Op::FileSync, &ckp);
        self.log.op(&mut self.write, Op::FileClose, &ckp);
        self.generation += 1;
        self.open_generation();
    }

    /// A segment becomes searchable: its small files, then all of it in one compound file.
    fn flush_segment(&mut self, bytes: u64, docs: u64) {
        let segment = Segment {
            docs,
            bytes,
            ..self.next_segment()
        };
        self.named += 1;
        self.complete(segment, |node| &mut node.refresh);
    }

    /// Writes what a segment has beside its stored fields, packs it where it is to be packed, and opens it.
    fn complete(&mut self, mut segment: Segment, who: fn(&mut Node) -> &mut Actor) {
        let mut actor = who(self).clone();
        let log = &mut self.log;
        write_small(log, &mut actor, &segment);
        log.op(&mut actor, Op::FileClose, &segment.file(".fdt"));
        if segment.compound {
            pack(log, &mut actor, &segment);
        } else {
            log.file(&mut actor, &segment.file(".si"), 395, MIB, 1e-4);
            for (path, size) in segment.small() {
                log.op(&mut actor, Op::FileOpen, &path);
                small_reads(log, &mut actor, &path, size, 2);
            }
            log.op(&mut actor, Op::FileOpen, &segment.file(".fdt"));
        }
        for path in segment.files() {
            log.op(&mut actor, Op::FileStat, &path);
        }
        segment.ready = actor.now;
        *who(self) = actor;
        self.segments.push(segment);
    }

    fn merge_what_is_due(&mut self) {
        loop {
            let sizes: Vec<u64> = self.segments.iter().map(|s| s.bytes).collect();
            let Some(mut chosen) = merge::choose(&sizes) else {
                return;
            };
            chosen.sort_unstable();
            let total: u64 = sizes.iter().sum();
            let inputs: Vec<Segment> = chosen
                .into_iter()
                .rev()
                .map(|i| self.segments.remove(i))
                .collect();
            self.merge_segments(inputs, total);
        }
    }

    /// Inputs are read twice (checksum, then copy) and go when the result is searchable.
    fn merge_segments(&mut self, mut inputs: Vec<Segment>, index_bytes: u64) {
        inputs.reverse();
        let bytes: u64 = inputs.iter().map(|s| s.bytes).sum();
        let segment = Segment {
            docs: inputs.iter().map(|s| s.docs).sum(),
            bytes,
            // `index.compound_format`: above a tenth of the index, files stay apart.
            compound: bytes * 10 <= index_bytes,
            ..self.next_segment()
        };
        self.named += 1;
        let actor = &mut self.merge;
        actor.now = actor.now.max(self.refresh.now);
        let log = &mut self.log;
        let fdt = segment.file(".fdt");
        log.op(actor, Op::FileCreate, &segment.file(".fdx"));
        log.op(actor, Op::FileCreate, &fdt);
        let mut at = 0;
        for input in &inputs {
            let path = input.file(if input.compound { ".cfs" } else { ".fdt" });
            let seconds = input.bytes as f64 / MERGE_RATE;
            log.chunks(actor, Op::FileRead, &path, 0, input.bytes, MIB, seconds);
            let mut done = 0;
            while done < input.bytes {
                let length = MIB.min(input.bytes - done);
                let step = std::mem::replace(&mut actor.step, length as f64 / MERGE_RATE * 0.5e6);
                log.io(actor, Op::FileRead, &path, done, length);
                log.io(actor, Op::FileWrite, &fdt, at, length);
                actor.step = step;
                (done, at) = (done + length, at + length);
            }
            small_reads(log, actor, &path, input.bytes, MERGING_READS);
        }
        self.complete(segment, |node| &mut node.merge);
        let (log, actor) = (&mut self.log, &mut self.merge);
        for input in &inputs {
            if input.compound {
                log.op(actor, Op::FileClose, &input.file(".cfs"));
            }
            for path in input.files() {
                log.op(actor, Op::FileStat, &path);
                log.op(actor, Op::FileUnlink, &path);
            }
        }
    }

    /// Makes all complete segments durable and names them in `segments_N`; translogs beyond what is kept go.
    fn commit(&mut self) {
        self.roll();
        let actor = &mut self.refresh;
        actor.now = actor.now.max(self.write.now);
        let now = actor.now;
        for segment in self
            .segments
            .iter_mut()
            .filter(|s| !s.committed && s.ready <= now)
        {
            for path in segment.files() {
                self.log.op(actor, Op::FileOpen, &path);
                self.log.op(actor, Op::FileSync, &path);
                self.log.op(actor, Op::FileClose, &path);
            }
            segment.committed = true;
        }
        self.commits += 1;
        let name = |n: u64| format!("{SHARD}/index/segments_{}", base36(n));
        let pending = format!("{SHARD}/index/pending_segments_{}", base36(self.commits));
        let bytes = 250 + 350 * self.segments.len() as u64;
        self.log.file(actor, &pending, bytes, MIB, 1e-4);
        self.log.op(actor, Op::FileSync, &pending);
        self.log.rename(actor, &pending, &name(self.commits));
        if self.commits > 3 {
            self.log.op(actor, Op::FileUnlink, &name(self.commits - 1));
        }
        self.write.now = self.write.now.max(self.refresh.now);
        self.uncommitted = 0;
        // `translog.retention.size`, 512 MB.
        while self.generation - self.oldest > COMMIT_BYTES / GENERATION_BYTES {
            for end in ["tlog", "ckp"] {
                self.log
                    .op(&mut self.write, Op::FileUnlink, &tlog(self.oldest, end));
            }
            self.oldest += 1;
        }
    }

    /// The node asks for the sizes of all files of the shard.
    fn look(&mut self, looker: &mut Actor) {
        let complete = self.segments.iter().filter(|s| s.ready <= looker.now);
        let paths: Vec<String> = complete.flat_map(Segment::files).collect();
        for path in paths {
            self.log.op(looker, Op::FileStat, &path);
        }
    }
}

/// Puts a segment's files into one compound file, and opens that.
fn pack(log: &mut Log, actor: &mut Actor, segment: &Segment) {
    let fdt = segment.file(".fdt");
    let parts: Vec<(String, u64)> = [(fdt, segment.bytes)]
        .into_iter()
        .chain(segment.small())
        .collect();
    for (path, _) in &parts {
        log.op(actor, Op::FileStat, path);
    }
    let (cfs, cfe) = (segment.file(".cfs"), segment.file(".cfe"));
    log.op(actor, Op::FileCreate, &cfs);
    log.op(actor, Op::FileCreate, &cfe);
    for (path, size) in &parts {
        log.op(actor, Op::FileOpen, path);
        let mut done = 0;
        while done < *size {
            let length = MIB.min(size - done);
            let step = std::mem::replace(&mut actor.step, length as f64 / COPY_RATE * 0.5e6);
            log.io(actor, Op::FileRead, path, done, length);
            // What is small is written together at the end.
            if *size == segment.bytes {
                log.io(actor, Op::FileWrite, &cfs, done, length);
            }
            actor.step = step;
            done += length;
        }
        log.op(actor, Op::FileClose, path);
    }
    let rest = parts[1..].iter().map(|p| p.1).sum();
    log.io(actor, Op::FileWrite, &cfs, segment.bytes, rest);
    log.io(actor, Op::FileWrite, &cfe, 0, 331);
    log.op(actor, Op::FileClose, &cfe);
    log.op(actor, Op::FileClose, &cfs);
    log.file(actor, &segment.file(".si"), 395, MIB, 1e-4);
    for (path, _) in &parts {
        log.op(actor, Op::FileStat, path);
        log.op(actor, Op::FileUnlink, path);
    }
    log.op(actor, Op::FileOpen, &cfe);
    log.io(actor, Op::FileRead, &cfe, 0, 331);
    log.op(actor, Op::FileClose, &cfe);
    log.op(actor, Op::FileOpen, &cfs);
    small_reads(log, actor, &cfs, segment.bytes + rest, OPENING_READS);
}

fn write_small(log: &mut Log, actor: &mut Actor, segment: &Segment) {
    for (path, size) in segment.small() {
        if !path.ends_with(".fdx") {
            log.op(actor, Op::FileCreate, &path);
        }
        log.io(actor, Op::FileWrite, &path, 0, size);
        log.op(actor, Op::FileClose, &path);
    }
}

/// Reads of an index's trees: at the end of the file, 1 KiB or less.
fn small_reads(log: &mut Log, actor: &mut Actor, path: &str, bytes: u64, count: u64) {
    for i in 0..count {
        let length = [1024, 108, 16][(i % 3) as usize].min(bytes);
        log.io(
            actor,
            Op::FileRead,
            path,
            bytes.saturating_sub(length * (i + 1)),
            length,
        );
    }
}

fn tlog(generation: u64, end: &str) -> String {
    format!("{SHARD}/translog/translog-{generation}.{end}")
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit((number % 36) as u32, 36).unwrap_or('0'));
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_look_is_later_whatever_rounding_does() {
        let mut now = 0.0;
        for look in 1..200_000 {
            let next = next_look(now);
            assert!(next > now, "look {look} at {now}");
            now = next;
        }
    }
}
