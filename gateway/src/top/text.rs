//! Lines of styled text for a terminal: cut to its width, free of what would command it.

/// How a piece of text looks, where colour is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// As usual.
    Plain,
    /// Headings and the figures that matter most.
    Strong,
    /// What explains.
    Faint,
    /// Clean objects, and all that is well.
    Good,
    /// Dirty objects, and what deserves a look.
    Care,
    /// Trouble.
    Bad,
    /// Objects in the backing tier only.
    Cold,
    /// Objects on their way.
    Moving,
}

impl Style {
    /// The terminal's command for it (ECMA-48, SGR).
    const fn sgr(self) -> &'static str {
        match self {
            Style::Plain => "",
            Style::Strong => "\x1b[1m",
            Style::Faint => "\x1b[2m",
            Style::Good => "\x1b[32m",
            Style::Care => "\x1b[33m",
            Style::Bad => "\x1b[1;31m",
            Style::Cold => "\x1b[34m",
            Style::Moving => "\x1b[35m",
        }
    }
}

/// One line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line(Vec<(Style, String)>);

impl Line {
    /// An empty one.
    pub fn new() -> Line {
        Line::default()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|(_, text)| text.is_empty())
    }

    /// Adds text. Whatever would move the cursor or reorder the line (control characters, directional marks) is shown as
    /// a question mark: paths come from clients.
    #[must_use]
    pub fn add(mut self, style: Style, text: impl AsRef<str>) -> Line {
        let harmless = |c: char| match c {
            c if c.is_control() => '?',
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '?',
            '\u{2028}' | '\u{2029}' | '\u{feff}' => '?',
            c => c,
        };
        let text: String = text.as_ref().chars().map(harmless).collect();
        self.0.push((style, text));
        self
    }

    /// Adds plain text.
    #[must_use]
    pub fn plain(self, text: impl AsRef<str>) -> Line {
        self.add(Style::Plain, text)
    }

    /// Adds text that explains.
    #[must_use]
    pub fn faint(self, text: impl AsRef<str>) -> Line {
        self.add(Style::Faint, text)
    }

    /// The line without its styles.
    pub fn text(&self) -> String {
        let all: String = self.0.iter().map(|(_, text)| text.as_str()).collect();
        all.trim_end().to_owned()
    }

    /// The first `width` characters, the last of them `…` if there were more; with its styles if `colour`.
    pub fn show(&self, width: usize, colour: bool) -> String {
        let whole: usize = self.0.iter().map(|(_, text)| text.chars().count()).sum();
        let mut left = if whole > width {
            width.saturating_sub(1)
        } else {
            width
        };
        let mut out = String::new();
        for (style, text) in &self.0 {
            let part: String = text.chars().take(left).collect();
            left -= part.chars().count();
            if part.is_empty() {
                continue;
            }
            let sgr = style.sgr();
            if colour && !sgr.is_empty() {
                out += sgr;
                out += &part;
                out += "\x1b[0m";
            } else {
                out += &part;
            }
        }
        if whole > width && width > 0 {
            out.push('…');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_line_is_cut_at_the_width_and_says_so() {
        let line = Line::new().add(Style::Strong, "abc").plain("défg");
        assert_eq!(line.show(7, false), "abcdéfg");
        assert_eq!(line.show(6, false), "abcdé…");
        assert_eq!(line.show(2, false), "a…");
        assert_eq!(line.show(0, false), "");
        assert_eq!(line.show(5, true), "\x1b[1mabc\x1b[0md…");
    }

    #[test]
    fn a_path_cannot_command_the_terminal() {
        let line = Line::new().plain("/\x1b[2J\n\u{9b}31m\u{202e}gpj.exe");
        assert_eq!(line.text(), "/?[2J??31m?gpj.exe");
    }
}
