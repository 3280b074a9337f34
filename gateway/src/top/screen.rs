//! The terminal while `tierdav top` has it: another screen, no echo, no cursor; given back as it was, whatever happens.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use rustix::termios::{self, LocalModes, OptionalActions, Termios};

use super::text::Line;
use super::view::Size;

/// When the terminal does not know its size.
const DEFAULT_SIZE: Size = Size {
    columns: 80,
    rows: 24,
};
/// Another screen (xterm's 1049), cursor hidden, no wrapping at the right margin, cleared.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
/// All of it undone.
const LEAVE: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";

/// The screen. Dropping it gives the terminal back.
pub struct Screen {
    /// How the keyboard was before; none if standard input is no terminal.
    before: Option<Termios>,
    colour: bool,
}

impl Screen {
    /// Takes the terminal, if standard output is one that understands commands.
    pub fn take() -> Option<Screen> {
        let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|t| t.is_empty() || t == "dumb");
        if dumb || !io::stdout().is_terminal() {
            return None;
        }
        let mut screen = Screen {
            before: None,
            // https://no-color.org
            colour: !set("NO_COLOR"),
        };
        screen.enter();
        Some(screen)
    }

    /// Takes it, for the first time or after [`Screen::leave`].
    pub fn enter(&mut self) {
        let keyboard = io::stdin();
        if let Ok(before) = termios::tcgetattr(keyboard.as_fd()) {
            let mut raw = before.clone();
            // Keys at once and unseen; Ctrl-C and Ctrl-Z still are signals.
            raw.local_modes
                .remove(LocalModes::ICANON | LocalModes::ECHO);
            let _ = termios::tcsetattr(keyboard.as_fd(), OptionalActions::Flush, &raw);
            self.before = Some(before);
        }
        let _ = say(ENTER);
    }

    /// Gives it back for a while.
    pub fn leave(&mut self) {
        let _ = say(LEAVE);
        if let Some(before) = self.before.take() {
            let keyboard = io::stdin();
            let _ = termios::tcsetattr(keyboard.as_fd(), OptionalActions::Flush, &before);
        }
    }

    /// Its size now, without the last line, which [`Screen::draw`] needs.
    pub fn size(&self) -> Size {
        let known = termios::tcgetwinsize(io::stdout().as_fd()).ok();
        let known = known.filter(|s| s.ws_col > 0 && s.ws_row > 0);
        let size = known.map_or(DEFAULT_SIZE, |s| Size {
            columns: s.ws_col.into(),
            rows: s.ws_row.into(),
        });
        Size {
            rows: size.rows.saturating_sub(1).max(1),
            ..size
        }
    }

    /// Shows `lines`, as many as fit, and `foot` in the last line. In one write, so that nothing flickers.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn draw(&self, lines: &[Line], foot: &Line) -> io::Result<()> {
        let size = self.size();
        let mut frame = "\x1b[H".to_owned();
        for line in lines.iter().take(size.rows) {
            frame += &line.show(size.columns, self.colour);
            frame += "\x1b[K\r\n";
        }
        frame += &format!("\x1b[J\x1b[{};1H", size.rows + 1);
        frame += &foot.show(size.columns, self.colour);
        frame += "\x1b[K";
        say(&frame)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}

fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
