//! Reads the small XML bodies of WebDAV requests and writes those of its answers.
//!
//! The reader refuses document type declarations, so there are no entities to expand, and bounds nesting. Elements keep
//! their prefixes, attributes and text: a property or a lock owner comes back as it was sent.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;
use xml::reader::{ParserConfig, XmlEvent};

/// The `DAV:` namespace.
pub const DAV: &str = "DAV:";
/// The namespace of Apache's `executable` property, which davfs2 reads and writes for `chmod`.
pub const APACHE: &str = "http://apache.org/dav/props/";
const XML_NS: &str = "http://www.w3.org/XML/1998/namespace";
/// Deepest nesting accepted in a request body.
const DEPTH_MAX: usize = 64;
/// Most attributes of one element.
const ATTRIBUTES_MAX: usize = 256;
/// Longest value of one, or namespace, bytes: each attribute has a copy of its namespace.
const ATTRIBUTE_BYTES_MAX: usize = 64 << 10;
/// Bytes of all names and namespaces of a document, each counted for every element that is in its scope: that much is copied,
/// while the document itself names a namespace once.
const NAMES_BYTES_MAX: usize = 16 << 20;
/// Most elements, attributes and pieces of text of a document: each takes a hundred times the bytes in memory that it has in the
/// document, and its time on the thread that other connections wait for. Ten times as many as names that PROPFIND takes.
const NODES_MAX: usize = 10_000;
/// Documents that a thread remembers.
const KNOWN_MAX: NonZeroUsize = NonZeroUsize::new(8).unwrap();
/// Longest of them, bytes.
const KNOWN_BYTES_MAX: usize = 1024;

/// Why a request body is not usable XML.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum XmlError {
    /// Not well-formed, or not UTF-8.
    #[error("request body is not well-formed XML: {0}")]
    Malformed(String),
    /// Contains `<!DOCTYPE`.
    #[error("document type declarations are not accepted")]
    Doctype,
    /// Nested deeper than 64 elements.
    #[error("request body is nested too deeply")]
    TooDeep,
    /// A small document that would become a large one.
    #[error("request body has too many elements in the scope of too long namespaces")]
    TooManyNames,
    /// More than 10 000 elements, attributes and pieces of text.
    #[error("request body has too many elements")]
    TooManyNodes,
}

/// One attribute with its namespace resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Prefix as sent, empty if none.
    pub prefix: String,
    /// Namespace URI, empty if none.
    pub namespace: String,
    /// Local name.
    pub name: String,
    /// Unescaped value.
    pub value: String,
}

/// One element with its namespace resolved.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Element {
    /// Prefix as sent, empty if none.
    pub prefix: String,
    /// Namespace URI, empty if none.
    pub namespace: String,
    /// Local name.
    pub name: String,
    /// Attributes in document order.
    pub attributes: Vec<Attribute>,
    /// Child nodes in document order; comments and processing instructions are left out.
    pub children: Vec<Node>,
}

/// What an element contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A child element.
    Element(Element),
    /// Unescaped character data.
    Text(String),
}

impl Element {
    /// [`Element::parse`], which takes longer than most that follows it: a client sends the same few documents again and again, so
    /// that the last ones are remembered.
    pub fn parse_again(document: &Bytes) -> Result<Arc<Element>, XmlError> {
        thread_local! {
            static KNOWN: RefCell<LruCache<Bytes, Arc<Element>>> = RefCell::new(LruCache::new(KNOWN_MAX));
        }
        if document.len() > KNOWN_BYTES_MAX {
            return Element::parse(document).map(Arc::new);
        }
        KNOWN.with_borrow_mut(|known| {
            if let Some(element) = known.get(document) {
                return Ok(Arc::clone(element));
            }
            let element = Arc::new(Element::parse(document)?);
            known.put(document.clone(), Arc::clone(&element));
            Ok(element)
        })
    }

    /// Parses one document.
    pub fn parse(bytes: &[u8]) -> Result<Element, XmlError> {
        Element::parse_up_to(NODES_MAX, bytes)
    }

    /// [`Element::parse`] of a document of so many elements, attributes and pieces of text.
    pub(super) fn parse_up_to(nodes_max: usize, bytes: &[u8]) -> Result<Element, XmlError> {
        let config = ParserConfig::new()
            .trim_whitespace(false)
            .whitespace_to_characters(true)
            .cdata_to_characters(true)
            .ignore_comments(true)
            .coalesce_characters(true)
            .allow_multiple_root_elements(false)
            .max_attributes(ATTRIBUTES_MAX)
            .max_attribute_length(ATTRIBUTE_BYTES_MAX);
        let mut left = NAMES_BYTES_MAX;
        let mut nodes_left = nodes_max;
        let mut count = |nodes: usize| {
            nodes_left = nodes_left
                .checked_sub(nodes)
                .ok_or(XmlError::TooManyNodes)?;
            Ok(())
        };
        let mut open: Vec<Element> = Vec::new();
        let mut root = None;
        for event in xml::EventReader::new_with_config(bytes, config) {
            match event.map_err(|e| XmlError::Malformed(e.msg().to_string()))? {
                XmlEvent::Doctype { .. } => return Err(XmlError::Doctype),
                XmlEvent::StartElement {
                    name,
                    attributes,
                    namespace,
                } => {
                    if open.len() >= DEPTH_MAX {
                        return Err(XmlError::TooDeep);
                    }
                    count(1 + attributes.len())?;
                    let in_scope = namespace
                        .0
                        .iter()
                        .map(|(prefix, uri)| prefix.len() + uri.len());
                    let of_attributes = attributes.iter().map(|a| {
                        let namespace = a.name.namespace.as_ref().map_or(0, String::len);
                        namespace + a.name.local_name.len()
                    });
                    let bytes =
                        in_scope.chain(of_attributes).sum::<usize>() + name.local_name.len();
                    left = left.checked_sub(bytes).ok_or(XmlError::TooManyNames)?;
                    open.push(Element {
                        prefix: name.prefix.unwrap_or_default(),
                        namespace: name.namespace.unwrap_or_default(),
                        name: name.local_name,
                        attributes: attributes
                            .into_iter()
                            .map(|a| Attribute {
                                prefix: a.name.prefix.unwrap_or_default(),
                                namespace: a.name.namespace.unwrap_or_default(),
                                name: a.name.local_name,
                                value: a.value,
                            })
                            .collect(),
                        children: Vec::new(),
                    });
                }
                XmlEvent::EndElement { .. } => {
                    let Some(done) = open.pop() else { continue };
                    match open.last_mut() {
                        Some(parent) => parent.children.push(Node::Element(done)),
                        None => root = Some(done),
                    }
                }
                XmlEvent::Characters(text) | XmlEvent::CData(text) | XmlEvent::Whitespace(text) => {
                    count(1)?;
                    if let Some(parent) = open.last_mut() {
                        parent.children.push(Node::Text(text));
                    }
                }
                _ => {}
            }
        }
        root.ok_or_else(|| XmlError::Malformed("no element".into()))
    }

    /// True for an element of this namespace and local name.
    pub fn is(&self, namespace: &str, name: &str) -> bool {
        self.namespace == namespace && self.name == name
    }

    /// Child elements in document order.
    pub fn elements(&self) -> impl Iterator<Item = &Element> {
        self.children.iter().filter_map(|n| match n {
            Node::Element(e) => Some(e),
            Node::Text(_) => None,
        })
    }

    /// The first `DAV:` child of this name.
    pub fn dav_child(&self, name: &str) -> Option<&Element> {
        self.elements().find(|e| e.is(DAV, name))
    }

    /// Text directly inside, concatenated.
    pub fn text(&self) -> String {
        self.children
            .iter()
            .filter_map(|n| match n {
                Node::Text(t) => Some(t.as_str()),
                Node::Element(_) => None,
            })
            .collect()
    }

    /// The value of `xml:lang` on this element.
    pub fn lang(&self) -> Option<&str> {
        let lang = self
            .attributes
            .iter()
            .find(|a| a.namespace == XML_NS && a.name == "lang");
        lang.map(|a| a.value.as_str())
    }

    /// Gives the element an `xml:lang` if it has none (RFC 4918 section 4.3: the language in scope is part of the value).
    pub fn inherit_lang(&mut self, lang: &str) {
        if self.lang().is_none() {
            self.attributes.push(Attribute {
                prefix: "xml".into(),
                namespace: XML_NS.into(),
                name: "lang".into(),
                value: lang.into(),
            });
        }
    }

    /// Serialises the element so that it can stand anywhere: it declares every namespace it uses.
    pub fn to_fragment(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, &mut Vec::new());
        out
    }

    /// Serialises only what is inside the element, each child self-contained.
    pub fn inner_fragment(&self) -> String {
        let mut out = String::new();
        for child in &self.children {
            match child {
                Node::Element(e) => e.write(&mut out, &mut Vec::new()),
                Node::Text(t) => escape_into(&mut out, t),
            }
        }
        out
    }

    fn write(&self, out: &mut String, scope: &mut Vec<(String, String)>) {
        let outer = scope.len();
        out.push('<');
        push_qname(out, &self.prefix, &self.name);
        declare(out, scope, &self.prefix, &self.namespace);
        for a in &self.attributes {
            if !a.prefix.is_empty() && a.prefix != "xml" {
                declare(out, scope, &a.prefix, &a.namespace);
            }
        }
        for a in &self.attributes {
            out.push(' ');
            push_qname(out, &a.prefix, &a.name);
            out.push_str("=\"");
            escape_into(out, &a.value);
            out.push('"');
        }
        if self.children.is_empty() {
            out.push_str("/>");
        } else {
            out.push('>');
            for child in &self.children {
                match child {
                    Node::Element(e) => e.write(out, scope),
                    Node::Text(t) => escape_into(out, t),
                }
            }
            out.push_str("</");
            push_qname(out, &self.prefix, &self.name);
            out.push('>');
        }
        scope.truncate(outer);
    }
}

fn push_qname(out: &mut String, prefix: &str, name: &str) {
    if !prefix.is_empty() {
        out.push_str(prefix);
        out.push(':');
    }
    out.push_str(name);
}

fn declare(out: &mut String, scope: &mut Vec<(String, String)>, prefix: &str, namespace: &str) {
    let bound = scope
        .iter()
        .rev()
        .find(|(p, _)| p == prefix)
        .map_or("", |(_, n)| n);
    if bound != namespace {
        out.push_str(" xmlns");
        if !prefix.is_empty() {
            out.push(':');
            out.push_str(prefix);
        }
        out.push_str("=\"");
        escape_into(out, namespace);
        out.push('"');
        scope.push((prefix.into(), namespace.into()));
    }
}

/// True if XML 1.0 can carry the character at all (production 2): most control characters it cannot, not even escaped.
pub fn representable(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..)
}

/// Appends text escaped for element content and double-quoted attributes; unrepresentable characters become U+FFFD.
pub fn escape_into(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\r' | '\n' | '\t' => {
                let _ = write!(out, "&#{};", c as u32);
            }
            c if representable(c) => out.push(c),
            _ => out.push('\u{FFFD}'),
        }
    }
}

/// `escape_into` a new string.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    escape_into(&mut out, text);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_doctype_is_refused_before_any_entity() {
        let bomb = br#"<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><x>&b;</x>"#;
        assert_eq!(Element::parse(bomb), Err(XmlError::Doctype));
    }

    #[test]
    fn malformed_documents_are_refused() {
        for bad in [
            "",
            "x",
            "<a>",
            "<a></b>",
            "<a b=c/>",
            "<x:a/>",
            r#"<a xmlns:b=""/>"#,
            "<a>&nope;</a>",
            "<a>\u{1}</a>",
            "<a>&#1;</a>",
            "<a/><b/>",
        ] {
            assert!(Element::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(Element::parse(b"<a>\xff</a>").is_err());
        let deep = "<a>".repeat(100) + &"</a>".repeat(100);
        assert_eq!(Element::parse(deep.as_bytes()), Err(XmlError::TooDeep));
    }

    #[test]
    fn a_document_that_would_grow_when_it_is_read_is_refused() {
        let long = "n".repeat(50_000);
        let used = format!("<a xmlns:x=\"{long}\">{}</a>", "<x:b/>".repeat(400));
        let unused = format!("<a xmlns:x=\"{long}\">{}</a>", "<b/>".repeat(400));
        let attributes = format!("<a xmlns:x=\"{long}\">{}</a>", "<b x:c=\"\"/>".repeat(200));
        for bomb in [used, unused, attributes] {
            assert_eq!(Element::parse(bomb.as_bytes()), Err(XmlError::TooManyNames));
        }
        let too_long = format!("<a xmlns:x=\"{}\"/>", "n".repeat(100_000));
        assert!(Element::parse(too_long.as_bytes()).is_err());
        let attributes = |n| -> String { (0..n).map(|i| format!(" n{i}=\"\"")).collect() };
        assert!(Element::parse(format!("<a{}/>", attributes(200)).as_bytes()).is_ok());
        assert!(Element::parse(format!("<a{}/>", attributes(300)).as_bytes()).is_err());
        let plain = format!(
            "<D:a xmlns:D=\"DAV:\">{}</D:a>",
            "<D:getetag/>".repeat(NODES_MAX - 1)
        );
        assert!(Element::parse(plain.as_bytes()).is_ok());
        for node in ["<b/>", "<b c=''/>", "x<b/>"] {
            let many = format!("<a>{}</a>", node.repeat(NODES_MAX));
            assert_eq!(
                Element::parse(many.as_bytes()).err(),
                Some(XmlError::TooManyNodes)
            );
        }
    }

    #[test]
    fn a_fragment_declares_what_it_uses_and_reads_back_equal() {
        let doc = br#"<D:a xmlns:D="DAV:" xmlns="urn:x" xmlns:q="urn:q"><b q:k="1&lt;2" xml:lang="de">t &amp; u<c xmlns=""/></b></D:a>"#;
        let root = Element::parse(doc).unwrap();
        let b = root.elements().next().unwrap();
        assert_eq!(b.lang(), Some("de"));
        let fragment = b.to_fragment();
        assert_eq!(
            &Element::parse(fragment.as_bytes()).unwrap(),
            b,
            "{fragment}"
        );
    }

    #[test]
    fn a_document_that_comes_again_means_the_same_and_a_bad_one_stays_bad() {
        let documents: Vec<Bytes> = (0..20)
            .map(|n| Bytes::from(format!("<a xmlns=\"urn:{n}\"><b/></a>")))
            .chain([Bytes::from(format!(
                "<a>{}</a>",
                "x".repeat(2 * KNOWN_BYTES_MAX)
            ))])
            .collect();
        for _ in 0..3 {
            for document in &documents {
                let known = Element::parse_again(document).unwrap();
                assert_eq!(*known, Element::parse(document).unwrap());
            }
            let bad = Bytes::from_static(b"<a>");
            assert!(Element::parse_again(&bad).is_err());
        }
        let first = Element::parse_again(&documents[0]).unwrap();
        let again = Element::parse_again(&documents[0]).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Element::parse(&bytes);
        }

        #[test]
        fn xmlish_input_never_panics_and_fragments_round_trip(s in "(<(/)?(D:)?[ab]( xmlns(:D)?=\"[a-zA-Z:]{0,4}\")?( x=\"&lt;\")?(/)?>|[a&;#1 ]|<!\\[CDATA\\[x\\]\\]>){0,12}") {
            if let Ok(e) = Element::parse(s.as_bytes()) {
                let again = Element::parse(e.to_fragment().as_bytes()).unwrap();
                prop_assert_eq!(again.to_fragment(), e.to_fragment());
            }
        }

        #[test]
        fn escaped_text_reads_back(s in "\\PC{0,40}") {
            let doc = format!("<a b=\"{0}\">{0}</a>", escape(&s));
            let e = Element::parse(doc.as_bytes()).unwrap();
            prop_assert_eq!(e.text(), s.clone());
            prop_assert_eq!(&e.attributes[0].value, &s);
        }
    }
}
