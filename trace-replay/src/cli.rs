//! Values on the command line that several commands take.

use anyhow::Context;
use base64::Engine;
use std::path::Path;
use std::time::Duration;

/// A number of seconds, with or without a fraction.
///
/// # Errors
/// When it is none.
pub fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .and_then(|s| Duration::try_from_secs_f64(s).ok())
        .ok_or_else(|| format!("`{text}` is no number of seconds"))
}

/// The Authorization header of `NAME:PASSWORD`, or of a name and the first line of a file.
///
/// # Errors
/// When the file cannot be read.
pub fn authorization(
    user: &str,
    password_file: Option<&Path>,
) -> anyhow::Result<http::HeaderValue> {
    let credentials = match password_file {
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
            format!("{user}:{}", text.lines().next().unwrap_or_default())
        }
        None => user.to_string(),
    };
    let encoded = base64::engine::general_purpose::STANDARD.encode(credentials);
    let mut value = http::HeaderValue::from_str(&format!("Basic {encoded}"))?;
    value.set_sensitive(true);
    Ok(value)
}
