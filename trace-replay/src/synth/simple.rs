//! Loads that are described in one sentence each.

use super::log::{Actor, Log};
use super::random::{Random, Zipf};
use crate::trace::Op;

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

impl Iot {
    /// Makes the load.
    pub fn make(&self) -> Log {
        let mut log = Log::default();
        let mut random = Random::new(self.seed, 2);
        struct Device {
            actor: Actor,
            file: u64,
            size: u64,
            unsynced: u64,
        }
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
        let mut collector = Actor::new("collector", "", STEP);
        log.op(&mut collector, Op::FileMkdir, "readings");
        let mut written = 0;
        while written < self.bytes {
            let next = (0..devices.len())
                .min_by(|a, b| devices[*a].actor.now.total_cmp(&devices[*b].actor.now));
            let Some(number) = next else { break };
            let device = &mut devices[number];
            let path = format!("readings/device{number:03}-{:05}.log", device.file);
            if device.size == 0 {
                log.op(&mut device.actor, Op::FileCreate, &path);
            }
            let length = (random.log_normal(self.reading_bytes as f64, 0.5) as u64).max(1);
            log.io(&mut device.actor, Op::FileWrite, &path, device.size, length);
            device.size += length;
            device.unsynced += 1;
            written += length;
            // A device with a battery does not sync each reading.
            if device.unsynced == 16 {
                log.op(&mut device.actor, Op::FileSync, &path);
                device.unsynced = 0;
            }
            if device.size >= self.file_bytes {
                log.op(&mut device.actor, Op::FileSync, &path);
                log.op(&mut device.actor, Op::FileClose, &path);
                collector.now = collector.now.max(device.actor.now);
                log.op(&mut collector, Op::FileOpen, &path);
                log.chunks(
                    &mut collector,
                    Op::FileRead,
                    &path,
                    0,
                    device.size,
                    CHUNK,
                    seconds(device.size),
                );
                log.op(&mut collector, Op::FileClose, &path);
                log.op(&mut collector, Op::FileUnlink, &path);
                (device.file, device.size, device.unsynced) = (device.file + 1, 0, 0);
            }
            device.actor.now += random.exponential(self.interval_s) * 1e6;
        }
        log
    }
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

impl Images {
    /// Makes the load.
    pub fn make(&self) -> Log {
        let mut log = Log::default();
        let mut random = Random::new(self.seed, 3);
        let mut writer = Actor::new("writer", "", STEP);
        log.op(&mut writer, Op::FileMkdir, "images");
        let mut sizes = Vec::new();
        let mut written = 0;
        while written < self.bytes {
            let size = (random.log_normal(self.image_bytes as f64, 0.6) as u64).max(1);
            let number = sizes.len();
            if number % 1000 == 0 {
                log.op(
                    &mut writer,
                    Op::FileMkdir,
                    &format!("images/{:04}", number / 1000),
                );
            }
            log.file(&mut writer, &image(number), size, CHUNK, seconds(size));
            sizes.push(size);
            written += size;
        }
        let mut now = writer.now;
        for _ in 0..self.epochs {
            let order = random.permutation(sizes.len());
            let mut readers: Vec<Actor> = (0..self.readers.max(1))
                .map(|i| Actor {
                    now,
                    ..Actor::new(&format!("reader{i}"), "", STEP)
                })
                .collect();
            let count = readers.len();
            for (turn, number) in order.into_iter().enumerate() {
                let reader = &mut readers[turn % count];
                let (path, size) = (image(number as usize), sizes[number as usize]);
                log.op(reader, Op::FileOpen, &path);
                log.chunks(reader, Op::FileRead, &path, 0, size, CHUNK, seconds(size));
                log.op(reader, Op::FileClose, &path);
            }
            now = readers.iter().map(|r| r.now).fold(now, f64::max);
        }
        log
    }
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
    pub fn make(&self) -> Log {
        let mut log = Log::default();
        let mut random = Random::new(self.seed, 4);
        let zipf = Zipf::new(self.objects as usize, self.skew);
        // Which object is popular has nothing to do with its name.
        let names = random.permutation(self.objects as usize);
        let mut at = 0.0;
        let mut clients: Vec<Actor> = (0..8)
            .map(|i| Actor::new(&format!("client{i}"), "", STEP))
            .collect();
        for number in 0..self.accesses {
            at += random.exponential(self.interval_s) * 1e6;
            let name = names.get(zipf.rank(&mut random)).copied().unwrap_or(0);
            let path = format!("objects/{name:07}");
            let op = if random.unit() < self.writes {
                Op::FileWrite
            } else {
                Op::FileRead
            };
            let client = &mut clients[(number % 8) as usize];
            client.now = client.now.max(at);
            log.op(client, Op::FileOpen, &path);
            log.chunks(
                client,
                op,
                &path,
                0,
                self.object_bytes,
                CHUNK,
                seconds(self.object_bytes),
            );
            log.op(client, Op::FileClose, &path);
        }
        log
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
    pub fn make(&self) -> Log {
        let mut log = Log::default();
        let mut client = Actor::new("client", "", STEP);
        for _ in 0..self.passes {
            for number in 0..self.files {
                let path = format!("scan/{number:07}");
                log.op(&mut client, Op::FileOpen, &path);
                log.chunks(
                    &mut client,
                    Op::FileRead,
                    &path,
                    0,
                    self.file_bytes,
                    CHUNK,
                    seconds(self.file_bytes),
                );
                log.op(&mut client, Op::FileClose, &path);
            }
        }
        log
    }
}
