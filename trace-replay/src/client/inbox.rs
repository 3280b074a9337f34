//! What comes back on a connection: heads and bodies out of one buffer that stays. No input or output of its own.

use httparse::Status;
use std::ops::Range;
use thiserror::Error;

/// Bytes read at once, and the longest head.
const BUFFER_BYTES: usize = 64 << 10;
/// Header lines of a head.
const HEADERS_MAX: usize = 64;

/// Why an answer cannot be understood.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Malformed {
    /// No head of HTTP/1.1.
    #[error("no HTTP answer: {0}")]
    Head(#[from] httparse::Error),
    /// A head that does not end.
    #[error("the answer's head is longer than 64 KiB")]
    Long,
    /// A length that is none.
    #[error("the answer's Content-Length is no number")]
    Length,
    /// A chunk without its size or end.
    #[error("the answer's chunks are not well formed")]
    Chunk,
    /// The connection's end before the answer's.
    #[error("the connection was closed before the answer's end")]
    Ended,
}

/// The head of an answer, as far as a replay looks at it.
#[derive(Debug, Default)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Content-Length.
    pub length: Option<u64>,
    /// Nothing more comes over this connection after the body.
    pub closes: bool,
    etag: String,
    lock_token: String,
    retry_after: String,
}

impl Answer {
    /// The ETag, quotes and all.
    pub fn etag(&self) -> Option<&str> {
        Some(self.etag.as_str()).filter(|v| !v.is_empty())
    }

    /// The lock's token, without the angle brackets.
    pub fn lock_token(&self) -> Option<&str> {
        let token = self.lock_token.trim_matches(['<', '>']);
        Some(token).filter(|v| !v.is_empty())
    }

    /// Retry-After.
    pub fn retry_after(&self) -> Option<&str> {
        Some(self.retry_after.as_str()).filter(|v| !v.is_empty())
    }
}

/// What is still to come of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Left {
    #[default]
    Nothing,
    Bytes(u64),
    /// Of a chunk; its end follows.
    Chunk(u64),
    /// The line with a chunk's size.
    Size,
    /// The lines after the last chunk.
    Trailer,
    UntilClosed,
}

/// What the buffer has of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// These bytes of it.
    Bytes(Range<usize>),
    /// Nothing before more is read.
    More,
    /// Its end.
    End,
}

/// The buffer, and where in an answer it stands.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) answer: Answer,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    left: Left,
    bodiless: bool,
}

impl Inbox {
    /// An answer comes next; it has no body whatever it says of its length, if `bodiless`.
    pub(super) fn expect(&mut self, bodiless: bool) {
        self.bodiless = bodiless;
        self.left = Left::Nothing;
    }

    /// Forgets what was read.
    pub(super) fn clear(&mut self) {
        (self.start, self.end, self.left) = (0, 0, Left::Nothing);
    }

    /// Whether something was read that belongs to no answer.
    pub(super) fn has_surplus(&self) -> bool {
        self.start < self.end
    }

    /// Where to read to; never empty while heads fit into the buffer.
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.buffer.is_empty() {
            self.buffer.resize(BUFFER_BYTES, 0);
        }
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes were read.
    pub(super) fn received(&mut self, bytes: usize) {
        self.end += bytes;
    }

    /// The bytes that [`Chunk::Bytes`] named.
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.buffer[range]
    }

    /// Takes a head out of the buffer; says whether it was there as a whole.
    pub(super) fn head(&mut self) -> Result<bool, Malformed> {
        let mut headers = [const { std::mem::MaybeUninit::uninit() }; HEADERS_MAX];
        let mut head = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut head,
            &self.buffer[self.start..self.end],
            &mut headers,
        )?;
        let Status::Complete(length) = parsed else {
            let full = self.end - self.start == self.buffer.len() && self.end > 0;
            return if full {
                Err(Malformed::Long)
            } else {
                Ok(false)
            };
        };
        let answer = &mut self.answer;
        answer.status = head.code.unwrap_or_default();
        answer.length = None;
        answer.closes = head.version == Some(0);
        for value in [
            &mut answer.etag,
            &mut answer.lock_token,
            &mut answer.retry_after,
        ] {
            value.clear();
        }
        let mut chunked = false;
        for header in head.headers.iter() {
            let text = || std::str::from_utf8(header.value).unwrap_or_default();
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            // By length first: most names are of none of these.
            match header.name.len() {
                4 if is("etag") => answer.etag.push_str(text()),
                10 if is("lock-token") => answer.lock_token.push_str(text()),
                10 if is("connection") => {
                    let has = |word: &str| {
                        let mut words = text().split(',');
                        words.any(|w| w.trim().eq_ignore_ascii_case(word))
                    };
                    answer.closes = has("close") || (answer.closes && !has("keep-alive"));
                }
                11 if is("retry-after") => answer.retry_after.push_str(text()),
                14 if is("content-length") => {
                    let length = text().trim().parse().map_err(|_| Malformed::Length)?;
                    answer.length = Some(length);
                }
                17 if is("transfer-encoding") => {
                    chunked = text().trim().eq_ignore_ascii_case("chunked");
                }
                _ => {}
            }
        }
        self.start += length;
        self.left = match answer.status {
            ..200 | 204 | 304 => Left::Nothing,
            _ if self.bodiless => Left::Nothing,
            _ if chunked => Left::Size,
            _ => answer.length.map_or(Left::UntilClosed, Left::Bytes),
        };
        if self.left == Left::UntilClosed {
            answer.closes = true;
        }
        Ok(true)
    }

    /// Takes what is there of the body out of the buffer.
    pub(super) fn chunk(&mut self) -> Result<Chunk, Malformed> {
        loop {
            let there = (self.end - self.start) as u64;
            let (length, left) = match self.left {
                Left::Nothing | Left::Bytes(0) => return Ok(Chunk::End),
                Left::Bytes(n) => (n.min(there), Left::Bytes(n - n.min(there))),
                Left::UntilClosed => (there, Left::UntilClosed),
                Left::Chunk(0) => match self.line()? {
                    None => return Ok(Chunk::More),
                    Some(line) if line.is_empty() => {
                        self.left = Left::Size;
                        continue;
                    }
                    Some(_) => return Err(Malformed::Chunk),
                },
                Left::Chunk(n) => (n.min(there), Left::Chunk(n - n.min(there))),
                Left::Size => match self.line()? {
                    None => return Ok(Chunk::More),
                    Some(line) => {
                        let size = chunk_size(self.bytes(line))?;
                        self.left = match size {
                            0 => Left::Trailer,
                            n => Left::Chunk(n),
                        };
                        continue;
                    }
                },
                Left::Trailer => match self.line()? {
                    None => return Ok(Chunk::More),
                    Some(line) if line.is_empty() => {
                        self.left = Left::Nothing;
                        continue;
                    }
                    Some(_) => continue,
                },
            };
            if length == 0 {
                return Ok(Chunk::More);
            }
            let range = self.start..self.start + length as usize;
            (self.start, self.left) = (range.end, left);
            return Ok(Chunk::Bytes(range));
        }
    }

    /// The connection was closed: an error, unless that is how this body ends.
    pub(super) fn ended(&mut self) -> Result<(), Malformed> {
        if self.left != Left::UntilClosed {
            return Err(Malformed::Ended);
        }
        self.left = Left::Nothing;
        Ok(())
    }

    /// Takes a line out of the buffer, if it is there as a whole; without its end.
    fn line(&mut self) -> Result<Option<Range<usize>>, Malformed> {
        let there = &self.buffer[self.start..self.end];
        let Some(length) = there.iter().position(|b| *b == b'\n') else {
            let full = there.len() == self.buffer.len();
            return if full {
                Err(Malformed::Chunk)
            } else {
                Ok(None)
            };
        };
        let text = there[..length]
            .strip_suffix(b"\r")
            .map_or(length, <[u8]>::len);
        let line = self.start..self.start + text;
        self.start += length + 1;
        Ok(Some(line))
    }
}

/// The size in front of a chunk; extensions are passed over.
fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line.split(|b| *b == b';').next().unwrap_or_default();
    let digits = digits.trim_ascii();
    let text = std::str::from_utf8(digits).map_err(|_| Malformed::Chunk)?;
    // `from_str_radix` takes a sign.
    if !text.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return Err(Malformed::Chunk);
    }
    u64::from_str_radix(text, 16).map_err(|_| Malformed::Chunk)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    /// Reads one answer that comes in pieces of `step` bytes: its status, body, and what is left in the buffer.
    fn read(wire: &[u8], step: usize, bodiless: bool) -> Result<(u16, Vec<u8>, usize), Malformed> {
        let mut inbox = Inbox::default();
        inbox.expect(bodiless);
        let mut wire = wire;
        let mut more = |inbox: &mut Inbox| {
            let space = inbox.space();
            let (piece, rest) = wire.split_at(step.min(space.len()).min(wire.len()));
            space[..piece.len()].copy_from_slice(piece);
            inbox.received(piece.len());
            wire = rest;
            !piece.is_empty()
        };
        while !inbox.head()? {
            if !more(&mut inbox) {
                return Err(Malformed::Ended);
            }
        }
        let mut body = Vec::new();
        loop {
            match inbox.chunk()? {
                Chunk::Bytes(range) => body.extend_from_slice(inbox.bytes(range)),
                Chunk::End => return Ok((inbox.answer.status, body, inbox.end - inbox.start)),
                Chunk::More => {
                    if !more(&mut inbox) {
                        inbox.ended()?;
                    }
                }
            }
        }
    }

    #[test]
    fn bodies_end_where_they_say_however_they_come() {
        let cases: [(&str, bool, u16, &str, usize); 8] = [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP",
                false,
                200,
                "hello",
                4,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                true,
                200,
                "",
                0,
            ),
            (
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
                false,
                304,
                "",
                0,
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", false, 204, "", 0),
            (
                "HTTP/1.1 200 OK\r\n\r\nuntil the end",
                false,
                200,
                "until the end",
                0,
            ),
            (
                "HTTP/1.1 207 Multi-Status\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n",
                false,
                207,
                "hello!",
                0,
            ),
            (
                "HTTP/1.1 200 OK\r\nTRANSFER-ENCODING: Chunked\r\n\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
                false,
                200,
                "0123456789",
                0,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                false,
                200,
                "",
                0,
            ),
        ];
        for (wire, bodiless, status, body, rest) in cases {
            for step in [1, 2, 3, 7, wire.len()] {
                let found = read(wire.as_bytes(), step, bodiless).unwrap();
                assert_eq!(
                    (found.0, &found.1[..]),
                    (status, body.as_bytes()),
                    "{wire:?} by {step}"
                );
                assert!(found.2 <= rest, "{wire:?} by {step}");
            }
        }
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        let cases = [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
                Malformed::Ended,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
                Malformed::Length,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
                Malformed::Chunk,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
                Malformed::Chunk,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
                Malformed::Ended,
            ),
            (
                "SSH-2.0-OpenSSH_9\r\n\r\n",
                Malformed::Head(httparse::Error::Version),
            ),
            ("HTTP/1.1 200", Malformed::Ended),
        ];
        for (wire, why) in cases {
            assert_eq!(read(wire.as_bytes(), 3, false), Err(why), "{wire:?}");
        }
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(BUFFER_BYTES));
        assert_eq!(read(long.as_bytes(), 999, false), Err(Malformed::Long));
        let size = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            "0".repeat(BUFFER_BYTES)
        );
        assert_eq!(read(size.as_bytes(), 999, false), Err(Malformed::Chunk));
    }

    #[test]
    fn the_head_says_what_a_replay_asks() {
        let mut inbox = Inbox::default();
        let wire = b"HTTP/1.0 200 OK\r\nETAG: \"a\"\r\nLock-Token: <urn:x>\r\nRetry-After: 7\r\ncontent-length: 1\r\n\r\n";
        inbox.space()[..wire.len()].copy_from_slice(wire);
        inbox.received(wire.len());
        assert!(inbox.head().unwrap());
        let answer = &inbox.answer;
        assert_eq!(
            (answer.status, answer.length, answer.closes),
            (200, Some(1), true)
        );
        assert_eq!(
            (answer.etag(), answer.lock_token(), answer.retry_after()),
            (Some("\"a\""), Some("urn:x"), Some("7"))
        );
        for (head, closes) in [
            (
                "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n",
                false,
            ),
            (
                "HTTP/1.1 200 OK\r\nConnection: TE, close\r\nContent-Length: 0\r\n\r\n",
                true,
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false),
        ] {
            inbox.clear();
            inbox.space()[..head.len()].copy_from_slice(head.as_bytes());
            inbox.received(head.len());
            assert!(inbox.head().unwrap());
            assert_eq!(inbox.answer.closes, closes, "{head:?}");
            // Nothing is left of the answer before.
            assert_eq!(inbox.answer.etag(), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_an_error(tail in prop::collection::vec(any::<u8>(), 0..300), step in 1_usize..50, chunked: bool) {
            let head: &[u8] = if chunked { b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" } else { b"HTTP/1.1 " };
            let _ = read(&[head, &tail].concat(), step, false);
        }

        #[test]
        fn chunks_of_any_size_join_to_the_body(body in prop::collection::vec(any::<u8>(), 0..200_000), size in 1_usize..70_000, step in 1_usize..70_000) {
            let mut wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for chunk in body.chunks(size) {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let found = read(&wire, step, false).unwrap();
            prop_assert_eq!(found.1, body);
        }
    }
}
