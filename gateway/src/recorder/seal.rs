//! From live segments to Parquet, and which of those to keep.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};

use tiering::trace::{header, read_live, write_parquet};

const LIVE: &str = "live";
const SEALED: &str = "parquet";

/// Name of a live segment begun at this time; names sort by age as long as each is of a later time than all before ([`newest`]).
pub fn live_name(wall_us: u64, sequence: u32) -> String {
    format!("trace-{wall_us:020}-{sequence:06}.{LIVE}")
}

/// The latest time that a name in a directory tells, in µs since 1970.
pub fn newest(dir: &Path) -> io::Result<u64> {
    let told = |path: &PathBuf| -> Option<u64> {
        let name = path.file_stem()?.to_str()?.strip_prefix("trace-")?;
        name.split_once('-')?.0.parse().ok()
    };
    let mut segments = with_extension(dir, LIVE)?;
    segments.extend(with_extension(dir, SEALED)?);
    Ok(segments.iter().filter_map(told).max().unwrap_or(0))
}

fn with_extension(dir: &Path, extension: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Live segments in a directory, oldest first.
pub fn live_segments(dir: &Path) -> io::Result<Vec<PathBuf>> {
    with_extension(dir, LIVE)
}

/// Seals one live segment: written aside, synced, renamed; then the live one goes. A damaged frame ends the sealed
/// segment there, and the live one is kept beside it with the ending `.damaged`.
pub fn seal(live: &Path) -> io::Result<()> {
    // The machine, or the disk, ended before it had its head.
    if fs::metadata(live)?.len() < header(0).len() as u64 {
        return fs::remove_file(live);
    }
    let source = BufReader::new(File::open(live)?);
    let sealed = live.with_extension(SEALED);
    let temporary = live.with_extension("tmp");
    let mut damage = None;
    let rows = read_live(source)
        .map_err(io::Error::other)?
        .map_while(|row| match row {
            Ok(row) => Some(Ok(row)),
            Err(error) => {
                damage = Some(error);
                None
            }
        });
    let mut rows = rows.peekable();
    if rows.peek().is_some() {
        let written = File::create(&temporary).and_then(|file| {
            let out = write_parquet(BufWriter::new(file), rows).map_err(io::Error::other)?;
            let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
            fs::rename(&temporary, &sealed)
        });
        if let Err(error) = written {
            // What there is of it takes room that others need.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        if let Some(dir) = live.parent() {
            File::open(dir)?.sync_all()?;
        }
    } else {
        drop(rows);
    }
    match damage {
        None => fs::remove_file(live),
        Some(error) => {
            fs::rename(live, live.with_extension("damaged"))?;
            Err(io::Error::other(error))
        }
    }
}

/// Removes the oldest sealed segments beyond `limit` bytes in total; the newest always stays.
pub fn retain(dir: &Path, limit: u64) -> io::Result<()> {
    let mut total = 0;
    for (n, path) in with_extension(dir, SEALED)?.into_iter().rev().enumerate() {
        total += fs::metadata(&path)?.len();
        if n > 0 && total > limit {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
