//! The few file operations that both stores share, and the place where tests inject faults.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
#[cfg(test)]
use std::sync::Arc;

/// Faults that tests arm on one store; costs nothing and does nothing outside tests.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    #[cfg(test)]
    armed: Arc<parking_lot::Mutex<Armed>>,
    #[cfg(not(test))]
    _none: (),
}

#[cfg(test)]
#[derive(Debug, Default)]
struct Armed {
    /// Writes fail once this many more bytes have been written.
    fail_write_after: Option<(u64, i32)>,
    /// Reads fail with this errno.
    fail_reads: Option<i32>,
    /// Syncs fail with this errno.
    fail_syncs: Option<i32>,
}

#[cfg(test)]
impl Faults {
    /// Lets `bytes` more bytes be written, then fails every write with `errno`, until [`Faults::clear`].
    pub fn fail_write_at(&self, bytes: u64, errno: i32) {
        self.armed.lock().fail_write_after = Some((bytes, errno));
    }
    /// Fails every read with `errno`.
    pub fn fail_reads(&self, errno: i32) {
        self.armed.lock().fail_reads = Some(errno);
    }
    /// Fails every sync with `errno`.
    pub fn fail_syncs(&self, errno: i32) {
        self.armed.lock().fail_syncs = Some(errno);
    }
    /// Disarms everything.
    pub fn clear(&self) {
        *self.armed.lock() = Armed::default();
    }

    fn before_write(&self, len: usize) -> (usize, Option<io::Error>) {
        let mut armed = self.armed.lock();
        match &mut armed.fail_write_after {
            Some((left, errno)) if *left < len as u64 => {
                let n = *left as usize;
                *left = 0;
                (n, Some(io::Error::from_raw_os_error(*errno)))
            }
            Some((left, _)) => {
                *left -= len as u64;
                (len, None)
            }
            None => (len, None),
        }
    }
    fn before_read(&self) -> io::Result<()> {
        match self.armed.lock().fail_reads {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(()),
        }
    }
    pub fn before_sync(&self) -> io::Result<()> {
        match self.armed.lock().fail_syncs {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(()),
        }
    }
}

#[cfg(not(test))]
impl Faults {
    fn before_write(&self, len: usize) -> (usize, Option<io::Error>) {
        (len, None)
    }
    fn before_read(&self) -> io::Result<()> {
        Ok(())
    }
    pub fn before_sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Fills `buf` from what the kernel has in memory; `false` when it has not all of it, or cannot say.
pub fn read_full_now(file: &File, buf: &mut [u8], offset: u64, faults: &Faults) -> bool {
    if faults.before_read().is_err() {
        return false;
    }
    let mut done = 0;
    while done < buf.len() {
        let mut rest = [io::IoSliceMut::new(&mut buf[done..])];
        let flags = rustix::io::ReadWriteFlags::NOWAIT;
        match rustix::io::preadv2(file, &mut rest, offset + done as u64, flags) {
            Ok(n) if n > 0 => done += n,
            Ok(_) | Err(_) => return false,
        }
    }
    true
}

/// Writes all of `data` at `offset`.
pub fn write_all_at(file: &File, data: &[u8], offset: u64, faults: &Faults) -> io::Result<()> {
    let (n, fault) = faults.before_write(data.len());
    file.write_all_at(&data[..n], offset)?;
    fault.map_or(Ok(()), Err)
}

/// Reads until `buf` is full or the file ends; returns the bytes read.
pub fn read_full_at(
    file: &File,
    buf: &mut [u8],
    offset: u64,
    faults: &Faults,
) -> io::Result<usize> {
    faults.before_read()?;
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Waits until the file's bytes are on stable storage.
pub fn sync_data(file: &File, faults: &Faults) -> io::Result<()> {
    faults.before_sync()?;
    file.sync_data()
}

/// Copies a range within or between file systems, by reflink or in the kernel where that works.
/// Returns `UnexpectedEof` when the source ends early.
pub fn copy_range(
    from: &File,
    mut from_offset: u64,
    to: &File,
    mut to_offset: u64,
    mut len: u64,
    faults: &Faults,
) -> io::Result<()> {
    let mut in_kernel = !cfg!(test);
    let mut buf = Vec::new();
    while len > 0 {
        if in_kernel {
            let want = usize::try_from(len).unwrap_or(usize::MAX).min(1 << 30);
            match rustix::fs::copy_file_range(
                from,
                Some(&mut from_offset),
                to,
                Some(&mut to_offset),
                want,
            ) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => len -= n as u64,
                Err(rustix::io::Errno::INTR) => {}
                Err(
                    rustix::io::Errno::XDEV
                    | rustix::io::Errno::INVAL
                    | rustix::io::Errno::NOSYS
                    | rustix::io::Errno::OPNOTSUPP,
                ) => in_kernel = false,
                Err(e) => return Err(e.into()),
            }
            continue;
        }
        buf.resize(usize::try_from(len).unwrap_or(usize::MAX).min(1 << 20), 0);
        let n = read_full_at(from, &mut buf, from_offset, faults)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        write_all_at(to, &buf[..n], to_offset, faults)?;
        from_offset += n as u64;
        to_offset += n as u64;
        len -= n as u64;
    }
    Ok(())
}

/// Opens a directory and waits until its entries are on stable storage.
pub fn sync_dir(dir: &std::path::Path, faults: &Faults) -> io::Result<()> {
    faults.before_sync()?;
    File::open(dir)?.sync_all()
}
