//! `trace-replay synth`: loads from documented distributions, the same for the same seed.

mod elasticsearch;
mod log;
mod merge;
mod random;
mod simple;

pub(crate) use random::Random;

use crate::convert::{Output, Summary};
use crate::trace::Level;
use crate::write;
use clap::Subcommand;
use std::path::PathBuf;

/// Examples of the command's help; a test runs them.
pub const EXAMPLES: &str = "Examples:
  trace-replay synth elasticsearch-load -o /tmp/es.csv --bytes 256MB
  trace-replay synth iot-ingest -o /tmp/iot.csv --bytes 10MB --devices 20
  trace-replay synth image-dataset -o /tmp/images.csv --bytes 100MB --epochs 3
  trace-replay synth zipf -o /tmp/zipf.oracleGeneral --objects 1000 --accesses 20000 --skew 0.9 --seed 7
  trace-replay synth scan -o /tmp/scan.csv --files 100 --passes 2";

/// Arguments of `trace-replay synth`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
    /// Where the trace goes. It appears under this name when it is complete.
    #[arg(short, long, value_name = "FILE", global = true)]
    output: Option<PathBuf>,
    /// Format of the output; else it is told by the name's end, as for `convert`.
    #[arg(long, value_enum, value_name = "FORMAT", global = true)]
    to: Option<write::Format>,
    /// Equal seeds give equal traces.
    #[arg(long, default_value_t = 1, global = true)]
    seed: u64,
}

#[derive(Subcommand)]
enum Kind {
    /// An Elasticsearch 7 node that is given images: translog, segments, merges, deletions.
    ElasticsearchLoad {
        /// Bytes of images (with kB, MB, GB, KiB, MiB, GiB).
        #[arg(long, value_parser = bytes, default_value = "256MB")]
        bytes: u64,
        /// Bytes of images per second.
        #[arg(long, value_parser = bytes, default_value = "3MB")]
        rate: u64,
    },
    /// Devices append readings to files of their own; full files are read once, and deleted.
    IotIngest {
        /// Bytes of readings in all.
        #[arg(long, value_parser = bytes, default_value = "100MB")]
        bytes: u64,
        /// Devices.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
        devices: u64,
        /// Mean seconds between two readings of a device (exponential).
        #[arg(long, default_value_t = 1.0, value_parser = positive)]
        interval: f64,
        /// Median bytes of a reading (log-normal, sigma 0.5).
        #[arg(long, value_parser = bytes, default_value = "500")]
        reading_bytes: u64,
        /// A file is closed at this size.
        #[arg(long, value_parser = bytes, default_value = "1MB")]
        file_bytes: u64,
    },
    /// Images are written once, and all read in every epoch, each time in another order.
    ImageDataset {
        /// Bytes of images.
        #[arg(long, value_parser = bytes, default_value = "256MB")]
        bytes: u64,
        /// Median bytes of an image (log-normal, sigma 0.6).
        #[arg(long, value_parser = bytes, default_value = "90KiB")]
        image_bytes: u64,
        /// How often all are read.
        #[arg(long, default_value_t = 3)]
        epochs: u64,
        /// Readers that divide an epoch among themselves.
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1000))]
        readers: u64,
    },
    /// Whole objects are read and overwritten, by Zipf's law.
    Zipf {
        /// Objects.
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
        objects: u64,
        /// Bytes of each.
        #[arg(long, value_parser = bytes, default_value = "64KiB")]
        object_bytes: u64,
        /// Accesses.
        #[arg(long, default_value_t = 100_000)]
        accesses: u64,
        /// Exponent: the object of rank r is chosen in proportion to 1 / r^skew.
        #[arg(long, default_value_t = 0.9, value_parser = positive)]
        skew: f64,
        /// Part of the accesses that overwrite, from 0 to 1.
        #[arg(long, default_value_t = 0.1, value_parser = part)]
        writes: f64,
        /// Mean seconds between accesses (exponential).
        #[arg(long, default_value_t = 0.001, value_parser = positive)]
        interval: f64,
    },
    /// All files are read from the first to the last, again and again.
    Scan {
        /// Files.
        #[arg(long, default_value_t = 1000)]
        files: u64,
        /// Bytes of each.
        #[arg(long, value_parser = bytes, default_value = "4MiB")]
        file_bytes: u64,
        /// How often all are read.
        #[arg(long, default_value_t = 3)]
        passes: u64,
    },
}

/// Makes the load and writes it.
///
/// # Errors
/// When it cannot be written.
pub fn synth(args: &Args) -> anyhow::Result<Summary> {
    let Some(output) = &args.output else {
        anyhow::bail!("where to? Name the trace with -o FILE");
    };
    let output = Output::create(output, args.to)?;
    output.expect(Level::FileOperations)?;
    let seed = args.seed;
    let steps = match args.kind {
        Kind::ElasticsearchLoad { bytes, rate } => elasticsearch::make(elasticsearch::Load {
            bytes,
            rate: rate.max(1) as f64,
            seed,
        }),
        Kind::IotIngest {
            bytes,
            devices,
            interval,
            reading_bytes,
            file_bytes,
        } => simple::Iot {
            bytes,
            devices,
            interval_s: interval,
            reading_bytes,
            file_bytes,
            seed,
        }
        .make(),
        Kind::ImageDataset {
            bytes,
            image_bytes,
            epochs,
            readers,
        } => simple::Images {
            bytes,
            image_bytes,
            epochs,
            readers,
            seed,
        }
        .make(),
        Kind::Zipf {
            objects,
            object_bytes,
            accesses,
            skew,
            writes,
            interval,
        } => simple::Popular {
            objects,
            object_bytes,
            accesses,
            skew,
            writes,
            interval_s: interval,
            seed,
        }
        .make(),
        Kind::Scan {
            files,
            file_bytes,
            passes,
        } => simple::Scan {
            files,
            file_bytes,
            passes,
        }
        .make(),
    };
    let summary = output.fill(&mut log::Stream::new(steps))?;
    output.commit()?;
    Ok(summary)
}

fn bytes(text: &str) -> Result<u64, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "B" => 1,
        "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => 0,
    };
    let value = number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor));
    value.filter(|v| (1..=1 << 50).contains(v)).ok_or_else(|| {
        format!("`{text}` is no number of bytes above 0 (units: B, kB, MB, GB, KiB, MiB, GiB)")
    })
}

fn positive(text: &str) -> Result<f64, String> {
    let value = text
        .parse::<f64>()
        .ok()
        .filter(|v| v.is_finite() && *v > 0.0);
    value.ok_or_else(|| format!("`{text}` is no number above 0"))
}

fn part(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|v| (0.0..=1.0).contains(v));
    value.ok_or_else(|| format!("`{text}` is no number from 0 to 1"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::read::Reader;

    /// Reads a load to its end; how many entries there were, and how many were held at most.
    fn held(steps: log::Steps) -> (u64, usize) {
        let mut stream = log::Stream::new(steps);
        let (mut entries, mut most) = (0, 0);
        while let Some(entry) = stream.next_entry() {
            entry.unwrap();
            (entries, most) = (entries + 1, most.max(stream.waiting()));
        }
        (entries, most)
    }

    #[test]
    fn what_is_held_does_not_grow_with_the_load() {
        type OfSize = fn(u64) -> log::Steps;
        let loads: [(&str, OfSize); 5] = [
            ("elasticsearch-load", |times| {
                elasticsearch::make(elasticsearch::Load {
                    bytes: times * 500_000_000,
                    rate: 3e6,
                    seed: 1,
                })
            }),
            ("iot-ingest", |times| {
                let load = simple::Iot {
                    bytes: times * 5_000_000,
                    devices: 100,
                    interval_s: 1.0,
                    reading_bytes: 500,
                    file_bytes: 100_000,
                    seed: 1,
                };
                load.make()
            }),
            ("image-dataset", |times| {
                let load = simple::Images {
                    bytes: 100_000_000,
                    image_bytes: 90_000,
                    epochs: times,
                    readers: 4,
                    seed: 1,
                };
                load.make()
            }),
            ("zipf", |times| {
                let load = simple::Popular {
                    objects: 1000,
                    object_bytes: 5_000_000,
                    accesses: times * 2000,
                    skew: 0.9,
                    writes: 0.1,
                    // More than eight clients can do.
                    interval_s: 1e-5,
                    seed: 1,
                };
                load.make()
            }),
            ("scan", |times| {
                let load = simple::Scan {
                    files: 100,
                    file_bytes: 5_000_000,
                    passes: times,
                };
                load.make()
            }),
        ];
        for (name, load) in loads {
            let ((entries, _), (more, most)) = (held(load(2)), held(load(16)));
            assert!(more > 5 * entries, "{name}: {entries}, {more}");
            // The most is one of Elasticsearch's largest merges, 5 GB.
            let some = most * 5 < entries as usize;
            assert!(most < 20_000 && some, "{name}: {most} of {entries}");
        }
    }
}
