//! Parses and evaluates the `If` header (RFC 4918 section 10.4).
//!
//! Knows nothing of files: the caller answers two questions about a resource, its entity tag and which state tokens
//! match it.

/// A parsed `If` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IfHeader {
    /// The lists in document order. Lists of one resource are alternatives, and so are resources.
    pub lists: Vec<List>,
}

/// One parenthesised list: all its conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// The resource it speaks of, as sent; `None` is the request's own.
    pub resource: Option<String>,
    /// At least one condition.
    pub conditions: Vec<Condition>,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Preceded by `Not`.
    pub negated: bool,
    /// What is compared.
    pub test: Test,
}

/// What a condition compares with the resource's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// A state token: a lock's, or any other URI, such as `DAV:no-lock`.
    Token(String),
    /// An entity tag with its quotes and, if weak, its `W/`.
    Etag(String),
}

/// The header does not follow the grammar: 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed If header")]
pub struct Malformed;

/// How one condition came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The resource's state matches.
    Yes,
    /// It does not.
    No,
    /// Names a lock that nobody holds any more (or never did), anywhere.
    Stale,
}

/// How the header as a whole came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Some list holds.
    Holds,
    /// No list holds, but one would if the stale tokens in it were still locks.
    OnlyStale,
    /// No list holds.
    Fails,
}

impl IfHeader {
    /// Parses the header's value; several header lines are joined by the caller with a space.
    pub fn parse(value: &str) -> Result<IfHeader, Malformed> {
        let mut p = Parser { rest: value };
        let mut lists = Vec::new();
        let mut resource = None;
        let mut tagged = None;
        p.skip();
        while !p.rest.is_empty() {
            if p.rest.starts_with('<') {
                // A tag-list after untagged ones, or a tag without a list, is not in the grammar.
                if tagged == Some(false) || lists.is_empty() && tagged.is_some() {
                    return Err(Malformed);
                }
                tagged = Some(true);
                resource = Some(p.angle()?);
                p.skip();
                if !p.rest.starts_with('(') {
                    return Err(Malformed);
                }
            }
            tagged.get_or_insert(false);
            lists.push(List {
                resource: resource.clone(),
                conditions: p.list()?,
            });
            p.skip();
        }
        if lists.is_empty() {
            Err(Malformed)
        } else {
            Ok(IfHeader { lists })
        }
    }

    /// The state tokens that the client submits (section 10.4.1): those it claims, not those it denies.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.lists
            .iter()
            .flat_map(|l| &l.conditions)
            .filter_map(|c| match &c.test {
                Test::Token(t) if !c.negated => Some(t.as_str()),
                _ => None,
            })
    }

    /// Evaluates the header; `ask` answers one test for the resource of its list.
    pub fn evaluate(&self, mut ask: impl FnMut(Option<&str>, &Test) -> Answer) -> Verdict {
        let mut verdict = Verdict::Fails;
        for list in &self.lists {
            let mut stale = false;
            let holds = list.conditions.iter().all(|c| {
                match (ask(list.resource.as_deref(), &c.test), c.negated) {
                    (Answer::Yes, negated) => !negated,
                    (Answer::No, negated) => negated,
                    (Answer::Stale, true) => true,
                    (Answer::Stale, false) => {
                        stale = true;
                        true
                    }
                }
            });
            match (holds, stale) {
                (true, false) => return Verdict::Holds,
                (true, true) => verdict = Verdict::OnlyStale,
                (false, _) => {}
            }
        }
        verdict
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }

    fn angle(&mut self) -> Result<String, Malformed> {
        let rest = self.rest.strip_prefix('<').ok_or(Malformed)?;
        let (uri, rest) = rest.split_once('>').ok_or(Malformed)?;
        if uri.is_empty() || uri.contains(|c: char| c.is_whitespace() || c == '<') {
            return Err(Malformed);
        }
        self.rest = rest;
        Ok(uri.to_string())
    }

    fn etag(&mut self) -> Result<String, Malformed> {
        let inner = self.rest.strip_prefix('[').ok_or(Malformed)?.trim_start();
        let quoted = inner
            .strip_prefix("W/")
            .unwrap_or(inner)
            .strip_prefix('"')
            .ok_or(Malformed)?;
        let (_, after) = quoted.split_once('"').ok_or(Malformed)?;
        let tag = &inner[..inner.len() - after.len()];
        self.rest = after.trim_start().strip_prefix(']').ok_or(Malformed)?;
        Ok(tag.to_string())
    }

    fn list(&mut self) -> Result<Vec<Condition>, Malformed> {
        self.rest = self.rest.strip_prefix('(').ok_or(Malformed)?;
        let mut conditions = Vec::new();
        loop {
            self.skip();
            if let Some(rest) = self.rest.strip_prefix(')') {
                self.rest = rest;
                return if conditions.is_empty() {
                    Err(Malformed)
                } else {
                    Ok(conditions)
                };
            }
            let negated = self
                .rest
                .get(..3)
                .is_some_and(|w| w.eq_ignore_ascii_case("not"));
            if negated {
                self.rest = &self.rest[3..];
                self.skip();
            }
            let test = if self.rest.starts_with('[') {
                Test::Etag(self.etag()?)
            } else {
                Test::Token(self.angle()?)
            };
            conditions.push(Condition { negated, test });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    fn verdict(header: &str, etag: &str, held: &[&str]) -> Verdict {
        IfHeader::parse(header)
            .unwrap()
            .evaluate(|_, test| match test {
                Test::Etag(e) if e == etag => Answer::Yes,
                Test::Token(t) if held.contains(&t.as_str()) => Answer::Yes,
                Test::Token(t) if t.starts_with("urn:") => Answer::Stale,
                _ => Answer::No,
            })
    }

    #[test]
    fn every_form_of_rfc_4918_is_evaluated() {
        use Verdict::{Fails, Holds, OnlyStale};
        for (header, want) in [
            ("(<urn:a>)", Holds),
            ("(<urn:b>)", OnlyStale),
            ("([\"1\"])", Holds),
            ("([\"2\"])", Fails),
            ("([W/\"1\"])", Fails),
            ("(<urn:a> [\"1\"])", Holds),
            ("(<urn:a> [\"2\"])", Fails),
            ("(<urn:b> [\"2\"])", Fails),
            ("(<urn:a> [\"2\"]) ([\"1\"])", Holds),
            ("(Not <urn:b>)", Holds),
            ("(Not <urn:a>)", Fails),
            ("(not <urn:a>)(Not <DAV:no-lock>)", Holds),
            ("(<DAV:no-lock>)", Fails),
            ("(<urn:b>) (Not <DAV:no-lock>)", Holds),
            ("(Not [\"2\"] <urn:a>)", Holds),
            ("<http://h/x> (<urn:a>)", Holds),
            ("</x> (<urn:q>) (<urn:a>) <http://h/y> ([\"1\"])", Holds),
            ("<a:b:c>([\"2\"])<d:e>(Not[\"1\"])", Fails),
        ] {
            assert_eq!(verdict(header, "\"1\"", &["urn:a"]), want, "{header}");
        }
    }

    #[test]
    fn what_the_grammar_lacks_is_refused() {
        for bad in [
            "",
            " ",
            "()",
            "(",
            "(<urn:a>",
            "<http://h/>",
            "<http://h/> <http://i/> (<a:b>)",
            "(<urn:a>) <http://h/> (<a:b>)",
            "(<>)",
            "(urn:a)",
            "([1])",
            "([\"1\")",
            "(Not)",
            "(<a b>)",
            "x(<a:b>)",
            "(<a:b>)x",
            "([W\"1\"])",
        ] {
            assert_eq!(IfHeader::parse(bad), Err(Malformed), "{bad}");
        }
    }

    #[test]
    fn a_denied_token_is_not_submitted() {
        let h = IfHeader::parse("<http://h/x> (<urn:a> Not <urn:b>) (Not <DAV:no-lock>)").unwrap();
        assert_eq!(h.tokens().collect::<Vec<_>>(), ["urn:a"]);
    }

    fn render(h: &IfHeader) -> String {
        let mut s = String::new();
        for l in &h.lists {
            if let Some(r) = &l.resource {
                s += &format!("<{r}> ");
            }
            s.push('(');
            for c in &l.conditions {
                s += if c.negated { "Not " } else { "" };
                match &c.test {
                    Test::Token(t) => s += &format!("<{t}> "),
                    Test::Etag(e) => s += &format!("[{e}]"),
                }
            }
            s.push(')');
        }
        s
    }

    proptest! {
        #[test]
        fn no_input_panics(s in "\\PC{0,80}") { let _ = IfHeader::parse(&s); }

        #[test]
        fn grammar_like_input_never_panics_and_round_trips(s in "(<[a-z:]{0,4}>|\\(|\\)|\\[|\\]|\"[a-z]{0,2}\"|W/|Not|not| |é){0,24}") {
            if let Ok(h) = IfHeader::parse(&s) {
                prop_assert_eq!(IfHeader::parse(&render(&h)).unwrap(), h);
            }
        }
    }
}
