//! Values on the command line that several commands take.

use anyhow::Context;
use base64::Engine;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::client::Target;
use crate::exchange::Verify;
use crate::read::Unusable;

/// A number of seconds, with or without a fraction.
///
/// # Errors
/// When it is none, or more than a year.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let year = Duration::from_secs(366 * 86_400);
    text.parse::<f64>()
        .ok()
        .and_then(|s| Duration::try_from_secs_f64(s).ok())
        .filter(|duration| *duration <= year)
        .ok_or_else(|| format!("`{text}` is no number of seconds, up to a year"))
}

/// A factor above 0.
///
/// # Errors
/// When it is none, or beyond a million.
pub fn factor(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok();
    value
        .filter(|f| *f > 0.0 && *f <= 1e6)
        .ok_or_else(|| format!("`{text}` is no number above 0, up to a million"))
}

/// The directory of a target `dir:PATH`, which must be there: a name that is mistyped, or not mounted, would measure
/// another disk. `option` names where it was given.
///
/// # Errors
/// When it is none.
pub fn directory(option: &str, dir: &str, prefix: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(dir);
    anyhow::ensure!(
        path.is_dir(),
        "{option} dir:{dir}: no such directory (only what --prefix names is made)"
    );
    Ok(path.join(prefix.trim_matches('/')))
}

/// Makes the directories above a file that will be written at the end.
///
/// # Errors
/// When one cannot be made, with its name.
pub fn make_way(file: &Path) -> anyhow::Result<()> {
    match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => {
            std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())
        }
        _ => Ok(()),
    }
}

/// Says something on standard error. That nobody hears it is no error: `2>&1 | tee log` dies of the same Ctrl-C.
pub fn tell(text: std::fmt::Arguments<'_>) {
    let mut err = std::io::stderr().lock();
    let _ = err.write_fmt(text).and_then(|()| err.flush());
}

/// Names the columns of a trace that are not used: one that is misspelled would go unnoticed, and all it holds be 0.
pub fn tell_columns(trace: &Path, unusable: &Unusable) {
    if !unusable.columns.is_empty() {
        let (name, columns) = (trace.display(), unusable.columns.join("`, `"));
        tell(format_args!(
            "trace-replay: {name}: columns not used: `{columns}`\n"
        ));
    }
}

/// Who asks: the same for every command that talks to a server.
#[derive(Debug, clap::Args)]
pub struct Login {
    /// Basic authentication at the server; NAME alone takes the password from --password-file.
    #[arg(long, value_name = "NAME[:PASSWORD]")]
    user: Option<String>,
    /// File whose first line is the password.
    #[arg(long, requires = "user", value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Certificate authorities (PEM) that vouch for https:// addresses, instead of the system's.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl Login {
    /// The server at `url`, with this login; `option` names where the address was given.
    ///
    /// # Errors
    /// What is wrong with the address or a file.
    pub fn target(&self, option: &str, url: &str, prefix: &str) -> anyhow::Result<Target> {
        let mut target = Target::trusting(url, prefix, self.ca_file.as_deref())
            .map_err(|e| anyhow::anyhow!("{}", e.replacen("--target", option, 1)))?;
        target.authorization = self.authorization()?;
        Ok(target)
    }

    /// The Authorization header of `NAME:PASSWORD`, or of a name and the first line of a file; none without a name.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn authorization(&self) -> anyhow::Result<Option<http::HeaderValue>> {
        let Some(user) = &self.user else {
            return Ok(None);
        };
        let credentials = match &self.password_file {
            Some(file) => {
                let text =
                    std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
                format!("{user}:{}", text.lines().next().unwrap_or_default())
            }
            None => user.clone(),
        };
        let encoded = base64::engine::general_purpose::STANDARD.encode(credentials);
        let mut value = http::HeaderValue::from_str(&format!("Basic {encoded}"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// What content is written, and how much of what is read is compared with it.
#[derive(Debug, clap::Args)]
pub struct Content {
    /// Seed of the content.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How much of what comes back is compared.
    #[arg(long, value_enum, default_value_t)]
    pub verify: Verify,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_no_more_than_a_clock_can_add() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        for wrong in ["", "-1", "nan", "inf", "1e19", "31622401"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
