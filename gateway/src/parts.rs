//! Bytes that come in parts and are kept until all are there.

use bytes::{Bytes, BytesMut};

/// Parts of this length and more are kept as they are. A shorter one is copied: each is a piece of the buffer that it was received
/// into, which stays in memory as long as the piece does, and a client may send byte by byte.
const KEPT_BYTES_MIN: usize = 8 << 10;

/// Parts, in order.
#[derive(Debug, Default)]
pub struct Parts {
    parts: Vec<Bytes>,
    /// What was copied since the last of them.
    short: BytesMut,
}

impl Parts {
    /// Appends a part.
    pub fn push(&mut self, part: Bytes) {
        if part.len() < KEPT_BYTES_MIN {
            self.short.extend_from_slice(&part);
        } else {
            self.end_short();
            self.parts.push(part);
        }
    }

    /// All bytes, in few pieces.
    pub fn into_vec(mut self) -> Vec<Bytes> {
        self.end_short();
        self.parts
    }

    fn end_short(&mut self) {
        if !self.short.is_empty() {
            self.parts.push(std::mem::take(&mut self.short).freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_parts_are_copied_and_long_ones_are_not() {
        let mut parts = Parts::default();
        let buffer = Bytes::from(vec![7; 3 * KEPT_BYTES_MIN]);
        for at in 0..100 {
            parts.push(buffer.slice(at..at + 1));
        }
        parts.push(buffer.slice(KEPT_BYTES_MIN..2 * KEPT_BYTES_MIN));
        parts.push(buffer.slice(..1));
        parts.push(Bytes::new());
        let all = parts.into_vec();
        let lens: Vec<usize> = all.iter().map(Bytes::len).collect();
        assert_eq!(lens, [100, KEPT_BYTES_MIN, 1]);
        assert_eq!(all.concat(), [7; KEPT_BYTES_MIN + 101]);
        let inside = buffer.as_ptr_range();
        let kept: Vec<bool> = all.iter().map(|p| inside.contains(&p.as_ptr())).collect();
        assert_eq!(kept, [false, true, false]);
    }
}
