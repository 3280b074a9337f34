//! A directory as what is measured: one large file in it, read past the page cache where the file system allows it.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use rustix::fs::{Advice, OFlags, fadvise};

use super::{ALIGNED, LARGE, Medium, Stop, mib};
use crate::content::fill;

/// A buffer whose part can be read into directly.
struct Buffer(Vec<u8>);

impl Buffer {
    fn new() -> Self {
        Self(vec![0; LARGE + ALIGNED])
    }

    fn part(&mut self, len: usize) -> &mut [u8] {
        let skip = self.0.as_ptr().align_offset(ALIGNED).min(ALIGNED);
        &mut self.0[skip..skip + len]
    }
}

/// The file, removed at the end whatever happens.
pub struct Scratch {
    path: PathBuf,
    size: u64,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Scratch {
    /// Writes the file with bytes that nothing can compress; answers with the rate, MiB per second.
    pub fn write(dir: &Path, size: u64, stop: Stop) -> anyhow::Result<(Self, f64)> {
        let path = dir.join(format!(".trace-replay-calibrate-{}", std::process::id()));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("{}", path.display()))?;
        let scratch = Self { path, size };
        let mut block = vec![0; LARGE];
        let begin = Instant::now();
        for at in 0..size / LARGE as u64 {
            super::go_on(stop)?;
            fill(0, at * LARGE as u64, &mut block);
            file.write_all(&block)
                .with_context(|| scratch.path.display().to_string())?;
        }
        file.sync_all()
            .with_context(|| scratch.path.display().to_string())?;
        let rate = mib(size) / begin.elapsed().as_secs_f64();
        Ok((scratch, rate))
    }

    /// Opens it for reads that pass the page cache by, if the file system can.
    pub fn open(&self) -> anyhow::Result<Reads<'_>> {
        let mut options = OpenOptions::new();
        options.read(true);
        let direct = options
            .clone()
            .custom_flags(OFlags::DIRECT.bits().cast_signed())
            .open(&self.path);
        let (file, direct) = match direct {
            Ok(file) => (file, true),
            Err(_) => {
                let file = options
                    .open(&self.path)
                    .with_context(|| format!("{}", self.path.display()))?;
                (file, false)
            }
        };
        Ok(Reads {
            scratch: self,
            file,
            direct,
            buffer: Buffer::new(),
        })
    }
}

/// The file, open for reads.
pub struct Reads<'a> {
    scratch: &'a Scratch,
    file: File,
    direct: bool,
    buffer: Buffer,
}

impl Medium for Reads<'_> {
    fn bytes(&self) -> u64 {
        self.scratch.size
    }

    fn direct(&self) -> bool {
        self.direct
    }

    fn begin(&mut self) {
        let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
    }

    fn read(&mut self, at: u64, len: usize) -> anyhow::Result<()> {
        self.file
            .read_exact_at(self.buffer.part(len), at)
            .with_context(|| self.scratch.path.display().to_string())
    }
}
