//! `trace-replay calibrate`: what positioning and transfer cost on a device, as `simulate` and the policy want it.

mod directory;
#[cfg(feature = "rados")]
mod pool;
#[cfg(feature = "rados")]
mod rados;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::simulate::Size;
use crate::synth::Random;

/// Examples of the command's help; a test runs them.
pub const EXAMPLES: &str = "Examples:
  trace-replay calibrate /tmp --size 64MiB --seconds 1
  trace-replay calibrate /tmp --size 64MiB --seconds 1 --json
  trace-replay calibrate --pool tierdav-data --ceph-conf /etc/ceph/ceph.conf --ceph-user client.tierdav";

/// What direct input and output must be aligned to, whatever the device.
const ALIGNED: usize = 4096;
/// An object, and what is read at once in order.
const LARGE: usize = 4 << 20;

/// Arguments of `trace-replay calibrate`.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("measured").required(true).args(["dir", "pool"])))]
pub struct Args {
    /// A directory on the device: a file is made there, read, and removed.
    dir: Option<PathBuf>,
    /// A Ceph pool instead: objects of 4 MiB are made there, read, and removed.
    ///
    /// Their names begin with `trace-replay.calibrate.`; nothing else in the pool is touched. Needs a trace-replay that
    /// was built with --features rados.
    #[arg(long, value_name = "POOL", value_parser = name)]
    pool: Option<String>,
    #[command(flatten)]
    ceph: Ceph,
    /// Bytes of the file, or of all objects. On a disk take at least some GiB: heads that need not go far are fast.
    #[arg(long, value_parser = bytes, default_value = "1GiB")]
    size: u64,
    /// How long each of the three kinds of reads goes on.
    #[arg(long, value_name = "SECONDS", value_parser = crate::cli::seconds, default_value = "5")]
    seconds: Duration,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// How to reach the pool; the defaults are the gateway's.
#[derive(clap::Args)]
struct Ceph {
    /// Configuration file of the Ceph cluster.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "dir",
        default_value = "/etc/ceph/ceph.conf"
    )]
    ceph_conf: PathBuf,
    /// Ceph client name; its key is where the configuration file says. The gateway's key will do.
    #[arg(long, value_name = "CLIENT", conflicts_with = "dir", value_parser = client, default_value = "client.tierdav")]
    ceph_user: String,
    /// RADOS namespace of the objects.
    #[arg(long, value_name = "NAMESPACE", conflicts_with = "dir", value_parser = name, default_value = "tierdav")]
    ceph_namespace: String,
}

fn name(text: &str) -> Result<String, String> {
    let plain = !text.is_empty() && !text.contains(char::is_whitespace);
    plain
        .then(|| text.to_owned())
        .ok_or_else(|| "write a name without spaces".to_owned())
}

fn client(text: &str) -> Result<String, String> {
    text.strip_prefix("client.")
        .filter(|name| !name.is_empty())
        .map(|_| text.to_owned())
        .ok_or_else(|| "write a Ceph client name, such as client.tierdav".to_owned())
}

fn bytes(text: &str) -> Result<u64, String> {
    match crate::simulate::size(text) {
        Ok(Size::Bytes(bytes)) if bytes >= 2 * LARGE as u64 => Ok(bytes),
        _ => Err("write bytes, at least 8MiB (64MiB, 4GiB)".to_owned()),
    }
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Found {
    /// Positioning: the mean read of 4 KiB anywhere in what was written, less its transfer, milliseconds.
    seek_ms: f64,
    /// Reads of 4 MiB one after the other, MiB per second.
    transfer_mib_per_s: f64,
    /// The writing of the file, the final fsync included, or of objects, some at once, MiB per second.
    write_mib_per_s: f64,
    /// A read of 4 MiB anywhere as the model has it, milliseconds.
    object_predicted_ms: f64,
    /// The same, measured: the mean.
    object_measured_ms: f64,
    /// The page cache was passed by, or that of the OSDs. Where it could not be, it was dropped before each kind of reads,
    /// and what a device has in caches of its own makes the numbers too good.
    direct: bool,
}

/// Whether the run is to end early.
type Stop<'a> = &'a (dyn Fn() -> bool + Sync);

fn go_on(stop: Stop) -> anyhow::Result<()> {
    anyhow::ensure!(!stop(), "stopped before everything was measured");
    Ok(())
}

/// What is measured: bytes that were written there before.
trait Medium {
    /// How many; a multiple of [`LARGE`].
    fn bytes(&self) -> u64;
    /// Whether caches are passed by.
    fn direct(&self) -> bool;
    /// Makes ready for reads of bytes that may have been read already.
    fn begin(&mut self);
    /// Reads `len` bytes, all within one piece of [`LARGE`].
    fn read(&mut self, at: u64, len: usize) -> anyhow::Result<()>;
}

/// The mean time of reads of `len` bytes at any place, seconds. Not the median: a device that the kernel throttles, a
/// virtual one, lets some pass at once and then none for a while.
fn anywhere(
    medium: &mut dyn Medium,
    len: usize,
    lasting: Duration,
    stream: u64,
    stop: Stop,
) -> anyhow::Result<f64> {
    medium.begin();
    let places = medium.bytes() / len as u64;
    let mut random = Random::new(1, stream);
    let (begin, mut reads) = (Instant::now(), 0);
    while begin.elapsed() < lasting || reads == 0 {
        go_on(stop)?;
        medium.read(random.below(places) * len as u64, len)?;
        reads += 1;
    }
    Ok(begin.elapsed().as_secs_f64() / f64::from(reads))
}

/// The rate of reads in order, MiB per second; at the end they begin anew.
fn in_order(medium: &mut dyn Medium, lasting: Duration, stop: Stop) -> anyhow::Result<f64> {
    let (begin, mut read) = (Instant::now(), 0);
    while begin.elapsed() < lasting || read == 0 {
        go_on(stop)?;
        let at = read % medium.bytes();
        if at == 0 {
            medium.begin();
        }
        medium.read(at, LARGE)?;
        read += LARGE as u64;
    }
    Ok(mib(read) / begin.elapsed().as_secs_f64())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

/// Measures, and answers with the text to print. `stop` is asked before each read and write.
///
/// # Errors
/// When what is measured cannot be written or read, and when it was stopped.
pub fn calibrate(args: &Args, stop: &(dyn Fn() -> bool + Sync)) -> anyhow::Result<String> {
    let size = args.size / LARGE as u64 * LARGE as u64;
    let found = match (&args.dir, &args.pool) {
        (_, Some(pool)) => of_pool(args, pool, size, stop)?,
        (Some(dir), None) => {
            let (scratch, rate) = directory::Scratch::write(dir, size, stop)?;
            Found::of(&mut scratch.open()?, rate, args.seconds, stop)?
        }
        (None, None) => anyhow::bail!("a directory or --pool is needed"),
    };
    if args.json {
        return Ok(serde_json::to_string_pretty(&found)? + "\n");
    }
    Ok(text(&found))
}

#[cfg(not(feature = "rados"))]
fn of_pool(_: &Args, _: &str, _: u64, _: Stop) -> anyhow::Result<Found> {
    anyhow::bail!("this trace-replay was built without Ceph: build it with --features rados")
}

#[cfg(feature = "rados")]
fn of_pool(args: &Args, pool: &str, size: u64, stop: Stop) -> anyhow::Result<Found> {
    let pool = pool::Pool::open(&args.ceph, pool, size)?;
    let found = pool
        .write(stop)
        .and_then(|rate| Found::of(&mut pool.reads(), rate, args.seconds, stop));
    // Whatever happened.
    if let Err(left) = pool.remove() {
        crate::cli::tell(format_args!("trace-replay: {left:#}\n"));
    }
    found
}

impl Found {
    /// Reads what was written at this rate.
    fn of(
        medium: &mut dyn Medium,
        write_mib_per_s: f64,
        lasting: Duration,
        stop: Stop,
    ) -> anyhow::Result<Found> {
        let transfer_mib_per_s = in_order(medium, lasting, stop)?;
        let small = anywhere(medium, ALIGNED, lasting, 1, stop)?;
        let large = anywhere(medium, LARGE, lasting, 2, stop)?;
        let transfer_ms = |bytes: usize| mib(bytes as u64) / transfer_mib_per_s * 1e3;
        let seek_ms = (small * 1e3 - transfer_ms(ALIGNED)).max(0.0);
        Ok(Found {
            seek_ms,
            transfer_mib_per_s,
            write_mib_per_s,
            object_predicted_ms: seek_ms + transfer_ms(LARGE),
            object_measured_ms: large * 1e3,
            direct: medium.direct(),
        })
    }
}

fn text(found: &Found) -> String {
    let (seek, transfer) = (
        format!("{:.3}", found.seek_ms),
        format!("{:.1}", found.transfer_mib_per_s),
    );
    let mut out = format!(
        "positioning  {seek} ms\ntransfer     {transfer} MiB/s\nwriting      {:.1} MiB/s\n\
         an object of 4 MiB anywhere: {:.2} ms, by the model {:.2} ms\n",
        found.write_mib_per_s, found.object_measured_ms, found.object_predicted_ms
    );
    if !found.direct {
        out += "The page cache could not be passed by here: the numbers may be too good.\n";
    }
    let _ = write!(
        out,
        "\nFor simulate:     --hdd {seek},{transfer}    (or --ssd)\n\
         For the gateway, if this is the backing device:\n\
         cost_benefit_seek_ms = {seek}\ncost_benefit_transfer_mib_per_s = {transfer}\n"
    );
    out
}
