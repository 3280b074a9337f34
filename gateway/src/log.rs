//! The log as text: one line an event, whatever clients have put into it.

use std::io::{self, Write};

/// Passes lines on, each by one call of `write`. Control characters within one, which would end it or tell a terminal something,
/// are written as Rust writes them in a literal.
pub struct Lines<W> {
    /// Where to.
    pub to: W,
    /// Whether there are colours, which begin with an escape. (Those of clients are escaped before they come here.)
    pub ansi: bool,
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line));
        let foreign = |c: char| c.is_control() && !(self.ansi && c == '\x1b');
        if !text.contains(foreign) {
            self.to.write_all(line)?;
            return Ok(line.len());
        }
        let mut out = String::with_capacity(line.len() + 64);
        for c in text.chars() {
            match foreign(c) {
                true => out.extend(c.escape_default()),
                false => out.push(c),
            }
        }
        out.push('\n');
        self.to.write_all(out.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn written(ansi: bool, line: &str) -> String {
        let mut lines = Lines {
            to: Vec::new(),
            ansi,
        };
        lines.write_all(line.as_bytes()).unwrap();
        String::from_utf8(lines.to).unwrap()
    }

    #[test]
    fn a_line_stays_one_and_only_our_own_colours_are_left() {
        for plain in ["GET /ä b=\"c\"\n", "\n", "no end"] {
            assert_eq!(written(false, plain), plain);
        }
        let hostile = "\u{1b}[2m a\r\nb\u{85}\0\n";
        assert_eq!(
            written(false, hostile),
            "\\u{1b}[2m a\\r\\nb\\u{85}\\u{0}\n"
        );
        assert_eq!(written(true, hostile), "\u{1b}[2m a\\r\\nb\\u{85}\\u{0}\n");
    }
}
