//! Text in HTML pages.

/// Text escaped for HTML; control characters, which HTML cannot show, as U+FFFD.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_html_would_understand_is_escaped() {
        assert_eq!(
            escape("<a href='x'>\u{1}&\""),
            "&lt;a href=&#39;x&#39;&gt;\u{FFFD}&amp;&quot;"
        );
    }
}
