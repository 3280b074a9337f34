//! Finds the frame to go on with behind damage: by the checksum alone, since lengths and blanks there mean nothing.
//!
//! A frame of an older use of the blocks has a smaller number, and what a client uploaded does not have the salt.

use std::cell::OnceCell;
use std::ops::Range;

use super::record::FRAME_BYTES;

/// Numbers that may be lost between two frames of a segment; what claims more is no frame. Of 2^48 random headers one is taken for a
/// frame until its checksum is looked at.
pub(super) const LOST_MAX: u64 = 1 << 16;
/// So many zeros begin no frame.
const BLANK_BYTES: usize = 4;
/// Bytes between two sums that are kept, and of zeros that are passed over at once.
const STEP_BYTES: usize = 4096;

/// The first bytes of a frame.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub crc: u32,
    pub number: u64,
    /// Where the frame ends.
    pub end: usize,
}

impl Head {
    /// Reads it at `at`; `None` if no frame with a payload is there that ends within `bytes`.
    pub fn at(bytes: &[u8], at: usize) -> Option<Head> {
        let (len, rest) = bytes.get(at..)?.split_first_chunk::<4>()?;
        let (crc, rest) = rest.split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let len = u32::from_le_bytes(*len) as usize;
        // No record has nothing to say: these are the zeros that records come over.
        (1..=rest.len()).contains(&len).then(|| Head {
            crc: u32::from_le_bytes(*crc),
            number: u64::from_le_bytes(*number),
            end: at + FRAME_BYTES + len,
        })
    }
}

/// Frames of one segment, behind its header.
pub(super) struct Scan<'a> {
    bytes: &'a [u8],
    sums: Sums<'a>,
    /// The salt's checksum, with which that of each frame begins.
    salt: u32,
}

impl<'a> Scan<'a> {
    pub fn new(bytes: &'a [u8], salt: u64) -> Self {
        Scan {
            bytes,
            sums: Sums::new(bytes),
            salt: crc32c::crc32c(&salt.to_le_bytes()),
        }
    }

    /// The first whole frame from `damage` on with the number `next` or a later one: where it begins, and its number. Where the
    /// damaged frame ends by its own account is looked first, as its payload may be a client's.
    pub fn next_frame(&self, damage: usize, next: u64) -> Option<(usize, u64)> {
        let numbers = next..next.saturating_add(LOST_MAX);
        let number_at = |at: usize| {
            let head = Head::at(self.bytes, at).filter(|head| numbers.contains(&head.number))?;
            self.is_whole(at, head).then_some(head.number)
        };
        if let Some(damaged) = Head::at(self.bytes, damage)
            && let Some(number) = number_at(damaged.end)
        {
            return Some((damaged.end, number));
        }
        let mut at = damage;
        while at < self.bytes.len() {
            // A length of 0 is none.
            let blank = zeros(&self.bytes[at..]);
            if blank >= BLANK_BYTES {
                at += blank - BLANK_BYTES + 1;
                continue;
            }
            if let Some(number) = number_at(at) {
                return Some((at, number));
            }
            at += 1;
        }
        None
    }

    fn is_whole(&self, at: usize, head: Head) -> bool {
        // Number and payload, behind the salt.
        self.sums.after(self.salt, at + 8..head.end) == head.crc
    }
}

/// How many zeros come first.
pub(super) fn zeros(bytes: &[u8]) -> usize {
    let blank = |chunk: &&[u8]| **chunk == [0; STEP_BYTES];
    let whole = bytes.chunks_exact(STEP_BYTES).take_while(blank).count() * STEP_BYTES;
    let rest = &bytes[whole..];
    whole + rest.iter().position(|b| *b != 0).unwrap_or(rest.len())
}

/// The checksum of any range in about the same time, however many of them overlap: what looks like many long frames must not keep a
/// start waiting.
struct Sums<'a> {
    bytes: &'a [u8],
    /// Of the bytes before each multiple of [`STEP_BYTES`].
    steps: OnceCell<Vec<u32>>,
    shifts: OnceCell<Vec<Shift>>,
}

/// What 2^k bytes do to a checksum that they are appended to, beside their own: linear, so what they do to each of its bits.
type Shift = [u32; 32];

impl<'a> Sums<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Sums {
            bytes,
            steps: OnceCell::new(),
            shifts: OnceCell::new(),
        }
    }

    /// Of the bytes of `range` behind those that have the checksum `sum`.
    fn after(&self, sum: u32, range: Range<usize>) -> u32 {
        // To the sum of all before it, the range does the same.
        self.before(range.end) ^ self.shifted(self.before(range.start) ^ sum, range.len())
    }

    /// Of all bytes before `end`.
    fn before(&self, end: usize) -> u32 {
        let steps = self.steps.get_or_init(|| {
            let mut sum = 0;
            let sums = self.bytes.chunks(STEP_BYTES).map(|chunk| {
                let before = sum;
                sum = crc32c::crc32c_append(sum, chunk);
                before
            });
            sums.collect()
        });
        let step = (end / STEP_BYTES).min(steps.len().saturating_sub(1));
        let sum = steps.get(step).copied().unwrap_or_default();
        crc32c::crc32c_append(sum, &self.bytes[step * STEP_BYTES..end])
    }

    /// What `len` bytes do to `sum`.
    fn shifted(&self, sum: u32, len: usize) -> u32 {
        let shifts = self.shifts.get_or_init(|| {
            let powers = 0..usize::BITS - self.bytes.len().leading_zeros();
            let by = |len| move |bit| crc32c::crc32c_combine(1u32 << bit, 0, len);
            powers.map(|k| std::array::from_fn(by(1 << k))).collect()
        });
        let of_len = shifts.iter().enumerate().filter(|(k, _)| len >> k & 1 == 1);
        of_len.fold(sum, |sum, (_, shift)| {
            let bits = shift.iter().enumerate();
            bits.fold(0, |out, (bit, to)| {
                out ^ (to & (sum >> bit & 1).wrapping_neg())
            })
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::record::{HEADER_BYTES, Record, frame, parse_segment, segment_header};
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    const SALT: u64 = 7;

    /// Records of these numbers, longer and shorter ones, and where each frame lies.
    fn segment(numbers: impl Iterator<Item = u64>) -> (Vec<u8>, Vec<(u64, Range<usize>)>) {
        let mut numbers = numbers.peekable();
        let first = numbers.peek().copied().unwrap();
        let mut bytes = segment_header(first, SALT).to_vec();
        let frames = numbers.map(|number| {
            let begin = bytes.len();
            frame(number, &record(number), SALT, &mut bytes);
            (number, begin..bytes.len())
        });
        let frames = frames.collect();
        (bytes, frames)
    }

    fn record(number: u64) -> Record {
        let ids = (1..=number * 37 % 300).map(tiering::FileId);
        Record::Settled { ids: ids.collect() }
    }

    fn read(bytes: &[u8]) -> Vec<u64> {
        let found = parse_segment(Bytes::copy_from_slice(bytes)).unwrap();
        let numbers = found.into_iter().map(|(number, found)| {
            assert_eq!(found, record(number));
            number
        });
        numbers.collect()
    }

    #[test]
    fn behind_a_damaged_length_and_a_lost_page_reading_goes_on() {
        let (mut whole, frames) = segment(1..60);
        whole.resize(whole.len() + (1 << 20), 0);
        assert_eq!(read(&whole), (1..60).collect::<Vec<_>>());
        for (number, place) in &frames {
            for at in 0..4 {
                let mut bytes = whole.clone();
                bytes[place.start + at] ^= 0x41;
                let others = (1..60).filter(|n| n != number);
                assert_eq!(read(&bytes), others.collect::<Vec<_>>());
            }
        }
        let (_, last) = frames.last().unwrap();
        for page in (4096..last.end).step_by(4096) {
            let mut bytes = whole.clone();
            bytes[page..page + 4096].fill(0);
            let others = frames
                .iter()
                .filter(|(_, f)| f.end <= page || f.start >= page + 4096);
            assert_eq!(read(&bytes), others.map(|(n, _)| *n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn numbers_before_the_next_one_and_far_behind_it_are_none_of_this_use() {
        for (second, found) in [
            (5, false),
            (6, true),
            (5 + LOST_MAX, true),
            (6 + LOST_MAX, false),
        ] {
            let (bytes, frames) = segment([5, second].into_iter());
            let expected = [Some(5), found.then_some(second)];
            let expected: Vec<u64> = expected.into_iter().flatten().collect();
            assert_eq!(read(&bytes), expected, "{second}");
            // Not where it belongs, too.
            let mut moved = bytes[..frames[0].1.end].to_vec();
            moved.extend([1, 0, 0]);
            moved.extend(&bytes[frames[1].1.clone()]);
            assert_eq!(read(&moved), expected, "{second}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_damaged_every_record_beside_it_is_read(
            records in 1u64..30, damage in proptest::collection::vec(any::<u8>(), 1..6000), blank: bool, at: prop::sample::Index
        ) {
            let (mut bytes, frames) = segment(1..=records);
            let begin = HEADER_BYTES + at.index(bytes.len() - HEADER_BYTES);
            let end = bytes.len().min(begin + damage.len());
            let before = bytes.clone();
            bytes[begin..end].copy_from_slice(&damage[..end - begin]);
            if blank {
                bytes[begin..end].fill(0);
            }
            let whole = frames.iter().filter(|(_, f)| bytes[f.clone()] == before[f.clone()]);
            prop_assert_eq!(read(&bytes), whole.map(|(n, _)| *n).collect::<Vec<_>>());
        }

        #[test]
        fn sums_of_ranges_are_their_checksums(
            bytes in proptest::collection::vec(any::<u8>(), 0..3 * STEP_BYTES), head: [u8; 8],
            from: prop::sample::Index, to: prop::sample::Index
        ) {
            let (a, b) = (from.index(bytes.len() + 1), to.index(bytes.len() + 1));
            let (from, to) = (a.min(b), a.max(b));
            let head = crc32c::crc32c(&head);
            let expected = crc32c::crc32c_append(head, &bytes[from..to]);
            prop_assert_eq!(Sums::new(&bytes).after(head, from..to), expected);
        }
    }
}
