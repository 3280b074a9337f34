//! Loads that are described in one sentence each.

use super::log::{Actor, Log, Steps};
use super::random::{Random, Zipf};
use crate::trace::Op;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const CHUNK: u64 = 1 << 20;
/// Microseconds between the small operations of one client.
const STEP: f64 = 100.0;
/// Bytes per second of one client's sequential reads and writes.
const RATE: f64 = 100e6;

fn seconds(bytes: u64) -> f64 {
    bytes as f64 / RATE
}

/// Devices append readings to files of their own; full files are read once by a collector, and deleted.
pub struct Iot {
    /// Bytes of readings in all.
    pub bytes: u64,
    /// Devices.
    pub devices: u64,
    /// Mean time between readings of one device, exponential.
    pub interval_s: f64,
    /// Median size of a reading, log-normal with sigma 0.5.
    pub reading_bytes: u64,
    /// A file is closed at this size.
    pub file_bytes: u64,
    /// Seed.
    pub seed: u64,
}

/// One device, and the file that it appends to.
struct Device {
    actor: Actor,
    file: u64,
    size: u64,
    unsynced: u64,
}

impl Iot {
    /// Makes the load.
    pub fn make(self) -> Steps {
        let mut random = Random::new(self.seed, 2);
        let mut devices: Vec<Device> = (0..self.devices)
            .map(|i| Device {
                actor: Actor {
                    now: random.exponential(self.interval_s) * 1e6,
                    ..Actor::new(&format!("device{i:03}"), "", STEP)
                },
                file: 0,
                size: 0,
                unsynced: 0,
            })
            .collect();
        // Times are not negative: their bits are in their order.
        let due = |device: &Device, number| Reverse((device.actor.now.to_bits(), number));
        let mut next: BinaryHeap<_> = (0..).zip(&devices).map(|(i, d)| due(d, i)).collect();
        let mut collector = Actor::new("collector", "", STEP);
        let (mut begun, mut written) = (false, 0);
        Box::new(move |log| {
            if !begun {
                log.op(&mut collector, Op::FileMkdir, "readings");
                begun = true;
                return Some(0.0);
            }
            if written >= self.bytes {
                return None;
            }
            let Reverse((_, number)) = next.pop()?;
            let device: &mut Device = devices.get_mut(number)?;
            let length = (random.log_normal(self.reading_bytes as f64, 0.5) as u64).max(1);
            written += length;
            let path = format!("readings/device{number:03}-{:05}.log", device.file);
            device.append(log, &path, length);
            if device.size >= self.file_bytes {
                device.collect(log, &path, &mut collector);
            }
            device.actor.now += random.exponential(self.interval_s) * 1e6;
            next.push(due(device, number));
            next.peek().map(|Reverse((now, _))| f64::from_bits(*now))
        })
    }
}

impl Device {
    fn append(&mut self, log: &mut Log, path: &str, length: u64) {
        if self.size == 0 {
            log.op(&mut self.actor, Op::FileCreate, path);
        }
        log.io(&mut self.actor, Op::FileWrite, path, self.size, length);
        self.size += length;
        self.unsynced += 1;
        // A device with a battery does not sync each reading.
        if self.unsynced == 16 {
            log.op(&mut self.actor, Op::FileSync, path);
            self.unsynced = 0;
        }
    }

    /// The file is full: it is closed, read by the collector and deleted; the next one begins.
    fn collect(&mut self, log: &mut Log, path: &str, collector: &mut Actor) {
        log.op(&mut self.actor, Op::FileSync, path);
        log.op(&mut self.actor, Op::FileClose, path);
        collector.now = collector.now.max(self.actor.now);
        read_whole(log, collector, path, self.size);
        log.op(collector, Op::FileUnlink, path);
        (self.file, self.size, self.unsynced) = (self.file + 1, 0, 0);
    }
}

fn read_whole(log: &mut Log, actor: &mut Actor, path: &str, bytes: u64) {
    log.op(actor, Op::FileOpen, path);
    log.chunks(actor, Op::FileRead, path, 0, bytes, CHUNK, seconds(bytes));
    log.op(actor, Op::FileClose, path);
}

/// A data set of images is written once, and read whole in every epoch, each time in another order.
pub struct Images {
    /// Bytes of images.
    pub bytes: u64,
    /// Median size, log-normal with sigma 0.6.
    pub image_bytes: u64,
    /// How often all are read.
    pub epochs: u64,
    /// Readers that divide an epoch among themselves.
    pub readers: u64,
    /// Seed.
    pub seed: u64,
}

/// What is left of an epoch.
struct Epoch {
    order: std::iter::Enumerate<std::vec::IntoIter<u32>>,
    readers: Vec<Actor>,
}

impl Images {
    /// Makes the load.
    pub fn make(self) -> Steps {
        let mut random = Random::new(self.seed, 3);
        let mut writer = Actor::new("writer", "", STEP);
        let mut sizes = Vec::new();
        let (mut begun, mut written, mut epochs) = (false, 0, 0);
        let mut epoch: Option<Epoch> = None;
        // The readers begin together, when the writer or the slowest of them is through.
        let mut now = 0.0;
        Box::new(move |log| {
            if !begun {
                log.op(&mut writer, Op::FileMkdir, "images");
                begun = true;
            }
            if written < self.bytes {
                let size = (random.log_normal(self.image_bytes as f64, 0.6) as u64).max(1);
                write_image(log, &mut writer, sizes.len(), size);
                sizes.push(size);
                written += size;
                now = writer.now;
                return Some(now);
            }
            if let Some(Epoch { order, readers }) = &mut epoch {
                let count = readers.len();
                if let Some((turn, number)) = order.next()
                    && let Some(size) = sizes.get(number as usize)
                    && let Some(reader) = readers.get_mut(turn % count)
                {
                    read_whole(log, reader, &image(number as usize), *size);
                    return Some(readers.iter().map(|r| r.now).fold(f64::MAX, f64::min));
                }
                now = readers.iter().map(|r| r.now).fold(now, f64::max);
            }
            if epochs == self.epochs {
                return None;
            }
            epochs += 1;
            let reader = |i| Actor {
                now,
                ..Actor::new(&format!("reader{i}"), "", STEP)
            };
            epoch = Some(Epoch {
                order: random.permutation(sizes.len()).into_iter().enumerate(),
                readers: (0..self.readers.max(1)).map(reader).collect(),
            });
            Some(now)
        })
    }
}

fn write_image(log: &mut Log, writer: &mut Actor, number: usize, size: u64) {
    if number.is_multiple_of(1000) {
        let directory = format!("images/{:04}", number / 1000);
        log.op(writer, Op::FileMkdir, &directory);
    }
    log.file(writer, &image(number), size, CHUNK, seconds(size));
}

fn image(number: usize) -> String {
    format!("images/{:04}/{number:07}.jpg", number / 1000)
}

/// Whole objects are read and overwritten, some far more often than others.
pub struct Popular {
    /// Objects; they exist before the trace.
    pub objects: u64,
    /// Bytes of each.
    pub object_bytes: u64,
    /// Accesses.
    pub accesses: u64,
    /// Exponent of Zipf's law; 0 is uniform.
    pub skew: f64,
    /// Part of the accesses that overwrite.
    pub writes: f64,
    /// Mean time between accesses, exponential.
    pub interval_s: f64,
    /// Seed.
    pub seed: u64,
}

impl Popular {
    /// Makes the load.
    pub fn make(self) -> Steps {
        let mut random = Random::new(self.seed, 4);
        let zipf = Zipf::new(self.objects as usize, self.skew);
        // Which object is popular has nothing to do with its name.
        let names = random.permutation(self.objects as usize);
        let mut at = 0.0;
        let mut clients: Vec<Actor> = (0..8)
            .map(|i| Actor::new(&format!("client{i}"), "", STEP))
            .collect();
        let mut number = 0;
        Box::new(move |log| {
            if number == self.accesses {
                return None;
            }
            at += random.exponential(self.interval_s) * 1e6;
            let name = names.get(zipf.rank(&mut random)).copied().unwrap_or(0);
            let path = format!("objects/{name:07}");
            let op = if random.unit() < self.writes {
                Op::FileWrite
            } else {
                Op::FileRead
            };
            let client = clients.get_mut((number % 8) as usize)?;
            client.now = client.now.max(at);
            let bytes = self.object_bytes;
            log.op(client, Op::FileOpen, &path);
            log.chunks(client, op, &path, 0, bytes, CHUNK, seconds(bytes));
            log.op(client, Op::FileClose, &path);
            number += 1;
            // Clients that have more to do than time are behind `at`, all by about the same.
            let first = clients.iter().map(|c| c.now).fold(f64::MAX, f64::min);
            Some(first.max(at))
        })
    }
}

/// All files are read from the first to the last, again and again: nothing that was just read is needed soon.
pub struct Scan {
    /// Files; they exist before the trace.
    pub files: u64,
    /// Bytes of each.
    pub file_bytes: u64,
    /// How often all are read.
    pub passes: u64,
}

impl Scan {
    /// Makes the load.
    pub fn make(self) -> Steps {
        let mut client = Actor::new("client", "", STEP);
        let (mut pass, mut number) = (0, 0);
        Box::new(move |log| {
            if number == self.files {
                (pass, number) = (pass + 1, 0);
            }
            if pass >= self.passes || self.files == 0 {
                return None;
            }
            let path = format!("scan/{number:07}");
            read_whole(log, &mut client, &path, self.file_bytes);
            number += 1;
            Some(client.now)
        })
    }
}
