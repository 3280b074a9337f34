//! Pages for people: headings, tables and charts in one HTML file.
//!
//! A page fetches nothing, runs no script, and follows the reader's light or dark scheme. Everything that comes
//! from a trace (paths!) is escaped here, and only here: callers pass plain text.

mod chart;
mod scale;
mod svg;

pub use chart::{Chart, Mark, Series};
pub use scale::{Axis, Unit};

use std::fmt::Write as _;

/// One page.
#[derive(Debug, Clone)]
pub struct Page {
    title: String,
    body: String,
    charts: usize,
}

/// A table: the first column names the row, all others are numbers and stand to the right.
#[derive(Debug, Clone, Default)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new<S: Into<String>>(head: impl IntoIterator<Item = S>) -> Table {
        Table {
            head: head.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Cells that are missing stay empty.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    fn html(&self, caption: &str) -> String {
        let mut out = format!(
            "<div class=\"wide\"><table><caption>{}</caption>",
            escape(caption)
        );
        if self.head.iter().any(|cell| !cell.is_empty()) {
            out += "<thead><tr>";
            for cell in &self.head {
                let _ = write!(out, "<th scope=\"col\">{}</th>", escape(cell));
            }
            out += "</tr></thead>";
        }
        out += "<tbody>";
        for row in &self.rows {
            out += "<tr>";
            for column in 0..self.head.len().max(row.len()) {
                let cell = escape(row.get(column).map_or("", String::as_str));
                let _ = match column {
                    0 => write!(out, "<th scope=\"row\">{cell}</th>"),
                    _ => write!(out, "<td>{cell}</td>"),
                };
            }
            out += "</tr>";
        }
        out + "</tbody></table></div>\n"
    }
}

impl Page {
    /// An empty page.
    pub fn new(title: impl Into<String>) -> Page {
        Page {
            title: title.into(),
            body: String::new(),
            charts: 0,
        }
    }

    /// Adds a heading.
    pub fn heading(&mut self, text: &str) -> &mut Page {
        let _ = writeln!(self.body, "<h2>{}</h2>", escape(text));
        self
    }

    /// Adds a paragraph.
    pub fn paragraph(&mut self, text: &str) -> &mut Page {
        let _ = writeln!(self.body, "<p>{}</p>", escape(text));
        self
    }

    /// Adds text as it stands, in a type of equal widths: settings, commands.
    pub fn code(&mut self, text: &str) -> &mut Page {
        let _ = writeln!(self.body, "<pre>{}</pre>", escape(text));
        self
    }

    /// Adds a list of messages.
    pub fn list<S: AsRef<str>>(&mut self, items: impl IntoIterator<Item = S>) -> &mut Page {
        self.body += "<ul>";
        for item in items {
            let _ = write!(self.body, "<li>{}</li>", escape(item.as_ref()));
        }
        self.body += "</ul>\n";
        self
    }

    /// Adds a table with its caption.
    pub fn table(&mut self, caption: &str, table: &Table) -> &mut Page {
        self.body += &table.html(caption);
        self
    }

    /// Adds a chart. One without anything to draw says so.
    pub fn chart(&mut self, chart: &Chart) -> &mut Page {
        self.charts += 1;
        self.body += &svg::figure(chart, self.charts);
        self
    }

    /// Adds bars for named things, longest first as given: a share of the longest, and the value as text.
    pub fn bars<'a>(
        &mut self,
        caption: &str,
        bars: impl IntoIterator<Item = (&'a str, f64, String)>,
    ) -> &mut Page {
        let bars: Vec<_> = bars.into_iter().collect();
        let longest = bars
            .iter()
            .map(|b| b.1)
            .filter(|v| v.is_finite())
            .fold(0.0, f64::max);
        let _ = write!(
            self.body,
            "<div class=\"wide\"><table class=\"bars\"><caption>{}</caption><tbody>",
            escape(caption)
        );
        for (name, value, text) in &bars {
            let share = if *value > 0.0 && value.is_finite() {
                value / longest * 100.0
            } else {
                0.0
            };
            let _ = write!(
                self.body,
                "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"bar\"><span style=\"width:{share:.1}%\"></span></td></tr>",
                escape(name),
                escape(text)
            );
        }
        if bars.is_empty() {
            self.body += "<tr><td>Nothing to show.</td></tr>";
        }
        self.body += "</tbody></table></div>\n";
        self
    }

    /// The whole file.
    pub fn html(&self) -> String {
        let title = escape(&self.title);
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <meta name=\"generator\" content=\"trace-replay {}\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{}</main>\n</body>\n</html>\n",
            env!("CARGO_PKG_VERSION"),
            self.body
        )
    }
}

const STYLE: &str = include_str!("style.css");

/// Text as HTML shows it, in elements and in quoted attributes.
///
/// Control characters cannot stand in HTML, and those that turn the writing direction would make a path look like
/// another: both are shown as `\u{..}`.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            '\n' => out.push('\n'),
            '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}' => {
                let _ = write!(out, "{}", c.escape_unicode());
            }
            c if c.is_control() => {
                let _ = write!(out, "{}", c.escape_unicode());
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
