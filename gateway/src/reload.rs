//! Reads again what may change while the gateway runs: settings, users, certificates. What makes no sense stays as it was.

use std::sync::Arc;

use crate::admin::policy;
use crate::auth::Users;
use crate::config::{Change, Live};
use crate::http::tls::Tls;
use crate::objects::ObjectCache;

/// All that can be read again.
pub struct Reload {
    /// The settings.
    pub live: Arc<Live>,
    /// Whom they are for.
    pub cache: Arc<ObjectCache>,
    /// Users and their passwords.
    pub users: Arc<Users>,
    /// Certificates, if TLS is on.
    pub tls: Option<Arc<Tls>>,
    /// Whether passwords are asked for.
    pub passwords: bool,
}

/// What came of it, for people.
#[derive(Debug, Default)]
pub struct Reloaded {
    /// Lines.
    pub said: String,
    /// Something stays as it was because what was read makes no sense.
    pub failed: bool,
}

impl Reloaded {
    fn say(&mut self, line: &str) {
        self.said.push_str(line);
        self.said.push('\n');
    }

    fn fail(&mut self, what: &str, error: &impl std::fmt::Display) {
        self.failed = true;
        self.say(&format!("{what}: {error}"));
    }
}

impl Reload {
    /// Reads all of it, and puts in force what can change.
    pub async fn run(self: &Arc<Self>) -> Reloaded {
        let this = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || this.read());
        read.await.unwrap_or_else(|error| {
            tracing::error!(%error, "nothing was read again");
            let mut done = Reloaded::default();
            done.fail("nothing was read again", &error);
            done
        })
    }

    fn read(&self) -> Reloaded {
        let mut done = Reloaded::default();
        match self
            .live
            .reread(|config| policy::apply(&self.cache, config))
        {
            Ok(reread) => {
                policy::log(&reread.changes);
                done.say("settings read again");
                for Change { key, from, to } in reread.changes {
                    done.say(&format!("  {key}: {from} -> {to}"));
                }
                for Change { key, from, to } in reread.waiting {
                    tracing::warn!(
                        key,
                        in_force = from,
                        read = to,
                        "this setting cannot change while the gateway runs: restart it"
                    );
                    done.say(&format!(
                        "  {key}: {from} stays in force until a restart, then {to}"
                    ));
                }
            }
            Err(error) => {
                tracing::error!(%error, "the settings stay as they were");
                done.fail("the settings stay as they were", &error);
            }
        }
        match self.users.reload() {
            Ok(true) => done.say("users read again"),
            Ok(false) => {}
            Err(error) => done.fail("the users stay as they were", &error),
        }
        if let Some(tls) = &self.tls {
            match tls.reload(self.passwords) {
                Ok(()) => done.say("certificate read again"),
                Err(error) => done.fail("the old certificate stays", &error),
            }
        }
        done
    }
}
