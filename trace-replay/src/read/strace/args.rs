//! The text of one call, cut into name, arguments and result.

use super::Bad;

/// A finished call.
pub struct Call<'a> {
    /// The system call.
    pub name: &'a str,
    arguments: Vec<&'a str>,
    /// What stands after `=`, without error name and duration.
    pub result: &'a str,
    /// The error's name when it failed.
    pub error: Option<&'a str>,
    /// Seconds in the call.
    pub took: Option<&'a str>,
}

/// A descriptor and, where strace printed it, what it leads to.
pub struct Descriptor {
    /// The number; -100 for the working directory.
    pub fd: i64,
    /// What stands between the angle brackets, unescaped.
    pub path: Option<String>,
}

const NO_CALL: &str = "neither a call nor the end of one";

impl<'a> Call<'a> {
    /// Cuts `text`, for example `read(3</tmp/a>, "hi\n", 4096) = 3 <0.000020>`.
    pub fn parse(text: &'a str) -> Result<Call<'a>, Bad> {
        let bad = || Bad::at(text, text, NO_CALL);
        let open = text.find('(').ok_or_else(bad)?;
        let name = &text[..open];
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(bad());
        }
        let (arguments, end) = arguments(text, open + 1).ok_or_else(bad)?;
        let after = text[end..].trim_start().strip_prefix('=').ok_or_else(bad)?;
        let mut after = after.trim();
        let mut took = None;
        if let Some(start) = after.rfind(" <")
            && let Some(seconds) = after[start + 2..].strip_suffix('>')
            && seconds.starts_with(|c: char| c.is_ascii_digit())
        {
            took = Some(seconds);
            after = after[..start].trim_end();
        }
        let (first, rest) = after.split_once(' ').unwrap_or((after, ""));
        let error = matches!(first, "-1" | "?").then(|| rest.split(' ').next().unwrap_or(""));
        // A descriptor's path may hold blanks.
        let result = if first.contains('<') { after } else { first };
        Ok(Call {
            name,
            arguments,
            result,
            error,
            took,
        })
    }

    /// The argument at `index`.
    pub fn argument(&self, text: &str, index: usize) -> Result<&'a str, Bad> {
        super::super::lines::field(text, &self.arguments, index)
    }

    /// The number at `index`.
    pub fn number(&self, text: &str, index: usize) -> Result<i64, Bad> {
        super::super::lines::number(text, self.argument(text, index)?)
    }

    /// The descriptor at `index`.
    pub fn descriptor(&self, text: &str, index: usize) -> Result<Descriptor, Bad> {
        let argument = self.argument(text, index)?;
        Descriptor::parse(argument).ok_or_else(|| Bad::at(text, argument, "not a descriptor"))
    }

    /// The result as a number.
    pub fn result_number(&self, text: &str) -> Result<i64, Bad> {
        let number = self.result.split('<').next().unwrap_or_default();
        number
            .parse()
            .map_err(|_| Bad::at(text, self.result, "result that is not a number"))
    }
}

impl Descriptor {
    /// Reads `3</tmp/a>`, `AT_FDCWD</tmp>` or `3`.
    pub fn parse(text: &str) -> Option<Descriptor> {
        let (number, rest) = match text.find('<') {
            Some(at) => (&text[..at], &text[at..]),
            None => (text, ""),
        };
        let fd = match number {
            "AT_FDCWD" => -100,
            number => number.parse().ok()?,
        };
        let inner = rest.get(..bracket_end(rest)).unwrap_or_default();
        let inner = inner.strip_prefix('<').and_then(|p| p.strip_suffix('>'));
        Some(Descriptor {
            fd,
            path: inner.map(unescape),
        })
    }

    /// Number and path of a file or directory; none for sockets, pipes and devices.
    pub fn into_file(self) -> Option<(i64, String)> {
        let path = self.path?;
        if !path.starts_with('/') || path.contains("<char ") || path.contains("<block ") {
            return None;
        }
        let path = path
            .strip_suffix(" (deleted)")
            .map(String::from)
            .unwrap_or(path);
        Some((self.fd, path))
    }
}

/// The text of `"..."` unless it was cut short.
pub fn quoted(text: &str) -> Option<String> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    Some(unescape(inner))
}

/// Cuts at the commas between arguments; also gives where the closing parenthesis ends.
fn arguments(text: &str, begin: usize) -> Option<(Vec<&str>, usize)> {
    let bytes = text.as_bytes();
    let (mut found, mut start, mut at, mut depth) = (Vec::new(), begin, begin, 0_u32);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while *bytes.get(at)? != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            b'<' if bytes[at - 1].is_ascii_digit() || bytes[at - 1] == b'D' => {
                at += bracket_end(&text[at..]).max(1) - 1;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' if depth == 0 => {
                let last = text.get(start..at)?.trim();
                if !last.is_empty() {
                    found.push(last);
                }
                return Some((found, at + 1));
            }
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                found.push(text.get(start..at)?.trim());
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Where `<...>` at the begin of `text` ends. Paths have their own angle brackets escaped, and a device's numbers in
/// inner ones; sockets and pipes end with `]>` and may hold arrows.
fn bracket_end(text: &str) -> usize {
    if text.starts_with("</") {
        let mut depth = 0;
        for (at, byte) in text.bytes().enumerate() {
            match byte {
                b'<' => depth += 1,
                b'>' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return at + 1;
            }
        }
        return 0;
    }
    match text.find("]>") {
        Some(at) => at + 2,
        None => text.find('>').map_or(0, |at| at + 1),
    }
}

/// Undoes strace's C escapes.
fn unescape(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_string();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'n') => out.push(b'\n'),
            Some(b't') => out.push(b'\t'),
            Some(b'r') => out.push(b'\r'),
            Some(b'v') => out.push(0x0b),
            Some(b'f') => out.push(0x0c),
            Some(digit @ b'0'..=b'7') => {
                let mut value = u32::from(digit - b'0');
                for _ in 0..2 {
                    if let Some(digit @ b'0'..=b'7') = bytes.peek().copied() {
                        value = value * 8 + u32::from(digit - b'0');
                        bytes.next();
                    }
                }
                out.push(value as u8);
            }
            Some(other) => out.push(other),
            None => out.push(b'\\'),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
