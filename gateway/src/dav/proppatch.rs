//! PROPPATCH: all or nothing, in document order (RFC 4918 section 9.2).

use std::fmt::Write as _;
use std::sync::Arc;

use http::StatusCode;

use super::body::Incoming;
use super::guard::{self, Intent};
use super::propfind::{Live, push_empty};
use super::status::{self, Refusal};
use super::xml::{APACHE, DAV, Element};
use super::{Call, Reply, uri, xml_reply};
use crate::volume::{DeadProp, Kind, Meta, PropChange, VolumeError};

/// Why one property cannot be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Denied {
    /// The server computes it.
    Protected,
    /// Not a value it can have.
    Value,
}

/// One instruction.
#[derive(Debug)]
struct Step {
    namespace: String,
    name: String,
    action: Result<Action, Denied>,
}

#[derive(Debug)]
enum Action {
    Dead(PropChange),
    Executable(bool),
}

impl Call<'_> {
    pub(super) async fn proppatch(&self, body: &mut Incoming) -> Reply {
        let request = body.xml(self.dav.opts.max_xml_bytes).await?;
        let request =
            request.ok_or_else(|| Refusal::bad_request("PROPPATCH takes a DAV:propertyupdate"))?;
        let path = &self.target.path;
        let guard = Arc::new(self.guard(Intent::Change).await?);
        let meta = self.stat().await?;
        let target = path.clone();
        let Some(meta) = meta else {
            guard.conditions(None)?;
            return Err(Refusal::not_found());
        };
        let kind = meta.kind;
        let rule = move |g: &guard::Guard, meta: Option<&Meta>| {
            g.conditions(meta)?;
            if meta.is_some_and(|m| m.kind != kind) {
                // A file has other properties than a collection.
                return Err(Refusal::unavailable("the resource was replaced meanwhile"));
            }
            g.open(&guard::key(&target), false)
        };
        rule.clone()(&guard, Some(&meta))?;
        let steps = parse(&request, meta.kind)?;
        let denied = steps.iter().any(|s| s.action.is_err());
        let mut outcome = StatusCode::OK;
        if !denied {
            let mut changes = Vec::new();
            let mut executable = None;
            for step in &steps {
                match &step.action {
                    Ok(Action::Dead(change)) => changes.push(change.clone()),
                    Ok(Action::Executable(on)) => executable = Some(*on),
                    Err(_) => {}
                }
            }
            let (check, reason) = guard::check(&guard, rule);
            let volume = &self.dav.volume;
            match volume.patch_props(path, changes, executable, check).await {
                Ok(()) => {}
                Err(e @ VolumeError::NoSpace { .. }) => outcome = status::of(&e),
                Err(e) => return Err(guard::refusal(e, &reason)),
            }
        }
        let href = uri::href(path, &self.root, meta.kind == Kind::Collection);
        Ok(xml_reply(
            StatusCode::MULTI_STATUS,
            reply(&href, &steps, denied, outcome),
        ))
    }
}

fn parse(request: &Element, kind: Kind) -> Result<Vec<Step>, Refusal> {
    if !request.is(DAV, "propertyupdate") {
        return Err(Refusal::bad_request("PROPPATCH takes a DAV:propertyupdate"));
    }
    let mut steps = Vec::new();
    for instruction in request.elements() {
        let set = instruction.is(DAV, "set");
        if !set && !instruction.is(DAV, "remove") {
            continue;
        }
        let prop = instruction
            .dav_child("prop")
            .ok_or_else(|| Refusal::bad_request("DAV:prop is missing"))?;
        let lang = [prop.lang(), instruction.lang(), request.lang()]
            .into_iter()
            .flatten()
            .next();
        for p in prop.elements() {
            steps.push(Step {
                namespace: p.namespace.clone(),
                name: p.name.clone(),
                action: action(p, set, kind, lang),
            });
        }
    }
    if steps.is_empty() {
        return Err(Refusal::bad_request("nothing to change"));
    }
    Ok(steps)
}

fn action(p: &Element, set: bool, kind: Kind, lang: Option<&str>) -> Result<Action, Denied> {
    match Live::of(&p.namespace, &p.name) {
        Some(Live::Executable) if kind == Kind::File => match (set, p.text().trim()) {
            (false, _) => Ok(Action::Executable(false)),
            (true, "T" | "t" | "1") => Ok(Action::Executable(true)),
            (true, "F" | "f" | "0") => Ok(Action::Executable(false)),
            (true, _) => Err(Denied::Value),
        },
        Some(Live::DisplayName) | None => Ok(Action::Dead(if set {
            let mut element = p.clone();
            if let Some(lang) = lang {
                element.inherit_lang(lang);
            }
            let xml = element.to_fragment().into_bytes();
            PropChange::Set(DeadProp {
                namespace: p.namespace.clone(),
                name: p.name.clone(),
                xml,
            })
        } else {
            PropChange::Remove {
                ns: p.namespace.clone(),
                name: p.name.clone(),
            }
        })),
        Some(_) => Err(Denied::Protected),
    }
}

fn reply(href: &str, steps: &[Step], denied: bool, outcome: StatusCode) -> String {
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:multistatus xmlns:D=\"DAV:\" xmlns:A=\"{APACHE}\">\
         <D:response><D:href>{href}</D:href>"
    );
    let mut group = |steps: &mut dyn Iterator<Item = &Step>, status: StatusCode, error: &str| {
        let mut names = String::new();
        for s in steps {
            push_empty(&mut names, &s.namespace, &s.name);
        }
        if !names.is_empty() {
            let _ = write!(
                out,
                "<D:propstat><D:prop>{names}</D:prop><D:status>HTTP/1.1 {} {}</D:status>{error}</D:propstat>",
                status.as_u16(),
                status.canonical_reason().unwrap_or("")
            );
        }
    };
    if denied {
        let of = |why: Denied| {
            steps
                .iter()
                .filter(move |s| s.action.as_ref().err() == Some(&why))
        };
        let protected = "<D:error><D:cannot-modify-protected-property/></D:error>";
        group(&mut of(Denied::Protected), StatusCode::FORBIDDEN, protected);
        group(&mut of(Denied::Value), StatusCode::CONFLICT, "");
        group(
            &mut steps.iter().filter(|s| s.action.is_ok()),
            StatusCode::FAILED_DEPENDENCY,
            "",
        );
    } else {
        group(&mut steps.iter(), outcome, "");
    }
    out.push_str("</D:response></D:multistatus>\n");
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn one_protected_property_spoils_the_whole_request() {
        let doc = br#"<propertyupdate xmlns="DAV:" xml:lang="de"><set><prop><a xmlns="urn:a">x</a></prop></set>
            <set><prop><getetag>"1"</getetag></prop></set><remove><prop><b xmlns="urn:b"/></prop></remove></propertyupdate>"#;
        let steps = parse(&Element::parse(doc).unwrap(), Kind::File).unwrap();
        let Ok(Action::Dead(PropChange::Set(a))) = &steps[0].action else {
            panic!("{steps:?}")
        };
        assert_eq!(
            String::from_utf8_lossy(&a.xml),
            r#"<a xmlns="urn:a" xml:lang="de">x</a>"#
        );
        let xml = reply("/x", &steps, true, StatusCode::OK);
        assert!(xml.contains("<D:getetag/></D:prop><D:status>HTTP/1.1 403 Forbidden</D:status><D:error><D:cannot-modify-protected-property/>"), "{xml}");
        assert!(
            xml.contains(
                r#"<N:a xmlns:N="urn:a"/><N:b xmlns:N="urn:b"/></D:prop><D:status>HTTP/1.1 424"#
            ),
            "{xml}"
        );
        Element::parse(xml.as_bytes()).unwrap();
    }
}
