//! The checksum of an object that is read in parts, one after the other.

/// Checksum of an object's first bytes.
#[derive(Clone, Copy)]
pub(super) struct Running {
    index: u32,
    end: u32,
    crc: u32,
}

impl Running {
    /// What follows `before` with `part` read at `within` of the object `index`, which has `len` bytes with the checksum `crc`:
    /// nothing if the part neither begins the object nor goes on from there. `None` when it is the last part and the checksum differs.
    pub fn checked(
        before: Option<Running>,
        index: u32,
        (len, crc): (u32, u32),
        within: u32,
        part: &[u8],
    ) -> Option<Option<Running>> {
        let before = match before {
            _ if within == 0 => Some(0),
            Some(r) if r.index == index && r.end == within => Some(r.crc),
            _ => None,
        };
        let running = before.map(|before| Running {
            index,
            end: within + part.len() as u32,
            crc: crc32c::crc32c_append(before, part),
        });
        let wrong = running.is_some_and(|r| r.end == len && r.crc != crc);
        (!wrong).then_some(running)
    }
}
