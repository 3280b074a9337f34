//! The one table from errors to HTTP statuses, and the shape of every refusal.
//!
//! davfs2 gives up a user's upload for good on 4xx and 507, and tries again on 5xx: trouble of ours is therefore 503
//! (or 500), never 404 or 401, and 507 is said only when space is really what is missing.

use std::borrow::Cow;

use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::body::{self, Body};
use crate::objects::CacheError;
use crate::volume::{Kind, Limit, PathError, VolumeError};

/// Seconds after which a client may try again.
pub const RETRY_AFTER_S: &str = "5";

/// A request that is not carried out, and what its sender is told.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The reply's status.
    pub status: StatusCode,
    /// One line for a human.
    pub text: Cow<'static, str>,
    /// The content of a `DAV:error` element; with it the body is XML.
    pub condition: Option<String>,
    /// A whole `DAV:multistatus` instead (207).
    pub multistatus: Option<String>,
    /// Further header fields.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    /// A refusal with one line of text.
    pub fn new(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal {
            status,
            text: text.into(),
            condition: None,
            multistatus: None,
            headers: Vec::new(),
        }
    }

    /// 400.
    pub fn bad_request(text: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, text)
    }

    /// 403.
    pub fn forbidden(text: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(StatusCode::FORBIDDEN, text)
    }

    /// 404.
    pub fn not_found() -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, "not found")
    }

    /// 409.
    pub fn conflict(text: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(StatusCode::CONFLICT, text)
    }

    /// 412.
    pub fn precondition(text: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(StatusCode::PRECONDITION_FAILED, text)
    }

    /// 413.
    pub fn too_large(text: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    }

    /// 503: try again.
    pub fn unavailable(text: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text)
    }

    /// Says it as a WebDAV condition, such as `<D:no-conflicting-lock/>`.
    pub fn with_condition(mut self, condition: impl Into<String>) -> Refusal {
        self.condition = Some(condition.into());
        self
    }

    /// Adds a header field.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Refusal {
        self.headers.push((name, value));
        self
    }

    /// The reply.
    pub fn into_response(self) -> Response<Body> {
        let (content_type, text) = if let Some(xml) = self.multistatus {
            ("application/xml; charset=utf-8", xml)
        } else if let Some(condition) = self.condition {
            let xml = format!(
                "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:error xmlns:D=\"DAV:\">{condition}</D:error>\n"
            );
            ("application/xml; charset=utf-8", xml)
        } else if self.status == StatusCode::NOT_MODIFIED {
            ("", String::new())
        } else {
            ("text/plain; charset=utf-8", format!("{}\n", self.text))
        };
        let mut response = Response::new(if text.is_empty() {
            body::empty()
        } else {
            body::full(text)
        });
        *response.status_mut() = self.status;
        if !content_type.is_empty() {
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        response.headers_mut().extend(self.headers);
        response
    }
}

/// The table.
pub fn of(error: &VolumeError) -> StatusCode {
    match error {
        VolumeError::NotFound { .. } => StatusCode::NOT_FOUND,
        VolumeError::Conflict { .. }
        | VolumeError::NotCollection { .. }
        | VolumeError::Unseen { .. } => StatusCode::CONFLICT,
        VolumeError::Exists { .. } | VolumeError::IsCollection { .. } => {
            StatusCode::METHOD_NOT_ALLOWED
        }
        VolumeError::PreconditionFailed { .. } => StatusCode::PRECONDITION_FAILED,
        VolumeError::Forbidden { .. } => StatusCode::FORBIDDEN,
        VolumeError::NameTooLong { .. } => StatusCode::URI_TOO_LONG,
        VolumeError::InvalidPath(e) => of_path(*e),
        VolumeError::NoSpace { .. } | VolumeError::Cache(CacheError::NoSpace) => {
            StatusCode::INSUFFICIENT_STORAGE
        }
        VolumeError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        VolumeError::Unavailable { .. }
        | VolumeError::Startup(_)
        | VolumeError::Pools(_)
        | VolumeError::Cache(_) => StatusCode::SERVICE_UNAVAILABLE,
        VolumeError::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The table's part for names. The gateway's own directory does not exist; making it is what is forbidden.
pub fn of_path(error: PathError) -> StatusCode {
    match error {
        PathError::NameTooLong => StatusCode::URI_TOO_LONG,
        PathError::Hidden => StatusCode::NOT_FOUND,
        PathError::NotAbsolute | PathError::Dots | PathError::Empty | PathError::Nul => {
            StatusCode::BAD_REQUEST
        }
    }
}

impl From<VolumeError> for Refusal {
    fn from(error: VolumeError) -> Refusal {
        let status = of(&error);
        let text: Cow<'static, str> = match &error {
            VolumeError::NotFound { .. } => "not found".into(),
            VolumeError::Conflict { .. } => "the parent collection does not exist".into(),
            VolumeError::NotCollection { .. } => "the parent is not a collection".into(),
            VolumeError::Exists { .. } => "exists already".into(),
            VolumeError::IsCollection { .. } => "is a collection".into(),
            VolumeError::PreconditionFailed { .. } => "a precondition does not hold".into(),
            VolumeError::Forbidden { why, .. } => (*why).into(),
            VolumeError::Unseen { path, place } => {
                // From the collection's own name on: its asker need not see what is above.
                let above = path.relative().len() - path.name().len();
                let place = place.relative().get(above..).unwrap_or_default();
                format!(
                    "{place} has a name that is not UTF-8, which is not served: rename it beside the gateway"
                )
                .into()
            }
            VolumeError::NameTooLong { .. } => "name too long".into(),
            VolumeError::InvalidPath(e) => e.to_string().into(),
            VolumeError::NoSpace { why, .. } => format!("no space: {why}").into(),
            VolumeError::Cache(CacheError::NoSpace) => "no space".into(),
            VolumeError::TooLarge { .. } => "too large".into(),
            VolumeError::Unavailable { .. }
            | VolumeError::Startup(_)
            | VolumeError::Pools(_)
            | VolumeError::Cache(_) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "request cannot be served now"
                );
                "temporarily unavailable".into()
            }
            VolumeError::Io { .. } => {
                tracing::error!(error = &error as &dyn std::error::Error, "request failed");
                "internal error".into()
            }
        };
        let mut refusal = Refusal::new(status, text);
        if status == StatusCode::METHOD_NOT_ALLOWED {
            // Of what was there before all checks, the handlers say more: this is what came in between, or is no resource.
            refusal = refusal.with_header(ALLOW, super::allow_of(Some(Kind::Collection)));
        }
        // RFC 4331 section 6.
        let limit = match &error {
            VolumeError::NoSpace { limit, .. } => *limit,
            VolumeError::Cache(CacheError::NoSpace) => Limit::Disk,
            _ => return refusal,
        };
        match limit {
            Limit::Quota => refusal.with_condition("<D:quota-not-exceeded/>"),
            Limit::Disk => refusal.with_condition("<D:sufficient-disk-space/>"),
            Limit::Properties => refusal,
        }
    }
}

impl From<PathError> for Refusal {
    fn from(error: PathError) -> Refusal {
        let text = if error == PathError::Hidden {
            "not found".into()
        } else {
            error.to_string()
        };
        Refusal::new(of_path(error), text)
    }
}
