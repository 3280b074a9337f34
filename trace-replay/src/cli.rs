//! Values on the command line that several commands take.

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
