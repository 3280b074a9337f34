//! The command line. Every key of the configuration is a flag; the table of keys makes them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};
use clap_complete::Shell;

use crate::config::{KEYS, Raw, Source};
use crate::top::Top;
use crate::transfer::Direction;

/// What the user asked for.
#[derive(Debug)]
pub enum Request {
    /// Serve until a signal.
    Serve(Raw),
    /// Print the effective configuration.
    CheckConfig(Raw),
    /// Print the state of a running server.
    Status {
        /// Its admin address.
        admin: String,
        /// As JSON.
        json: bool,
    },
    /// Watch a running server.
    Top(Top),
    /// Flush everything: of a running server, or offline.
    Drain {
        /// The running server's admin address, if it was given.
        admin: Option<String>,
        /// The configuration, for the offline form.
        raw: Raw,
    },
    /// Compare cache and tree.
    Scrub {
        /// How.
        how: Scrub,
        /// The configuration.
        raw: Raw,
    },
    /// Move content between plain files and pools.
    Transfer {
        /// Which way.
        direction: Direction,
        /// What: at and below this path.
        path: String,
        /// The configuration.
        raw: Raw,
    },
    /// Show or change the settings that may change while a server runs.
    Policy {
        /// Its admin address.
        admin: String,
        /// As JSON.
        json: bool,
        /// Keys and their new values.
        set: Vec<(String, String)>,
    },
    /// List or break locks of a running server.
    Locks {
        /// Its admin address.
        admin: String,
        /// The token of the lock to break.
        break_token: Option<String>,
    },
    /// Turn a password from standard input into a line for `users_file`.
    HashPassword {
        /// The user's name.
        name: String,
    },
    /// Print a script that completes commands and flags.
    Completions(Shell),
    /// Write the manual pages to this directory.
    Man(PathBuf),
}

/// How to scrub.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scrub {
    /// Remove what is damaged or orphaned.
    pub repair: bool,
    /// Read every object of the pools.
    pub deep: bool,
    /// Bytes per second to read from the pools at most; 0 is unlimited.
    pub rate: u64,
    /// Go on where an earlier one was interrupted.
    pub resume: bool,
}

const DEFAULT_ADMIN: &str = "127.0.0.1:4919";

fn settings(command: Command) -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .env("TIERDAV_CONFIG")
        .help("TOML file of settings");
    // The last of a repeated flag wins, so that scripts can append.
    let command = command
        .args_override_self(true)
        .arg(config.value_parser(clap::value_parser!(PathBuf)));
    KEYS.iter().fold(command, |command, key| {
        let long = key.name.replace('_', "-");
        let default = if key.default.is_empty() {
            "unset"
        } else {
            &key.default
        };
        let live = if key.live { "; may change live" } else { "" };
        let help = format!("{} [{}; default: {default}{live}]", key.doc, key.allowed);
        let mut arg = Arg::new(key.name)
            .long(long)
            .value_name("VALUE")
            .help(help)
            .action(ArgAction::Set);
        if let Some(parameter) = key.parameter {
            let heading = format!("Parameters of policy {}", parameter.policy);
            arg = arg.help_heading(heading).hide_short_help(true);
        }
        if key.allowed == "true or false" {
            arg = arg
                .num_args(0..=1)
                .default_missing_value("true")
                .require_equals(true);
        }
        command.arg(arg)
    })
}

fn admin(required: bool) -> Arg {
    let arg = Arg::new("admin")
        .long("admin")
        .value_name("ADDR")
        .env("TIERDAV_ADMIN")
        .help("admin address of the running server");
    if required {
        arg.default_value(DEFAULT_ADMIN)
    } else {
        arg
    }
}

fn below() -> Arg {
    Arg::new("path")
        .default_value("/")
        .help("move what is at and below this path, such as /photos")
}

fn rate(text: &str) -> Result<u64, String> {
    crate::config::size(text).ok_or_else(|| "must be a size, such as 50MiB".to_owned())
}

fn interval(text: &str) -> Result<Duration, String> {
    crate::config::duration(text)
        .filter(|d| (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(d))
        .ok_or_else(|| "must be a time from 100ms to 1h, such as 2s".to_owned())
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// Commands and flags, also for completions and manual pages.
pub fn command() -> Command {
    Command::new("tierdav")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A WebDAV server that keeps hot data on the SSD and the rest on the HDD, by the trace of its use")
        .long_about(
            "A WebDAV server that keeps hot data on the SSD and the rest on the HDD, by the trace of its use.\n\n\
             Without a command: `serve` on ./data/root, ./data/cache and 127.0.0.1:4918.\n\
             Settings come from a TOML file, the environment (TIERDAV_ROOT, TIERDAV_DURABILITY, …) and flags; \
             the later wins.",
        )
        .after_help(
            "Examples:\n  \
             tierdav serve --root /srv/share --cache-dir /ssd/tierdav\n  \
             TIERDAV_DURABILITY=relaxed tierdav check-config --config /etc/tierdav.toml\n  \
             tierdav status --json\n  \
             tierdav top\n\n\
             Exit status: 0 done; 1 failed, with the reason on standard error; 2 wrong arguments or configuration; \
             3 scrub or export found damage, or content that it does not see; 130 or 143 interrupted by Ctrl-C or SIGTERM, with what to do on standard error.",
        )
        .subcommand(settings(Command::new("serve").about("Serve WebDAV until SIGTERM or SIGINT")))
        .subcommand(settings(Command::new("check-config").about("Print the effective configuration and where it comes from")))
        .subcommand(
            Command::new("status")
                .about("Show what a running server's tiers hold and do")
                .arg(admin(true))
                .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("print JSON")),
        )
        .subcommand(
            Command::new("top")
                .about("Watch a running server: hot files, hit ratio, latencies, moves and why")
                .long_about(
                    "Watch a running server in the terminal: what clients do, how full the tiers are, hit ratio, latencies, \
                     dirty data, hot files with their objects by tier, the last moves and why, clients, policy, pools.\n\n\
                     On a terminal it redraws in place: q or Ctrl-C quits, Ctrl-Z suspends, any other key looks at once. \
                     Elsewhere, or with --once, it prints plain lines. NO_COLOR=1 does without colours.",
                )
                .after_help("Examples:\n  tierdav top\n  tierdav top --admin 10.0.0.5:4919 --interval 500ms\n  tierdav top --once | head -20")
                .arg(admin(true))
                .arg(
                    Arg::new("interval").long("interval").value_name("TIME").value_parser(interval).default_value("2s")
                        .help("time between two looks, 100ms to 1h"),
                )
                .arg(Arg::new("once").long("once").action(ArgAction::SetTrue).help("look once and print plain lines")),
        )
        .subcommand(settings(
            Command::new("drain")
                .about("Flush everything to the root, so that it holds plain files only")
                .long_about(
                    "Flush everything to the root and drop the copies in the cache: plain files only are left. With --admin, \
                     a running server does it and goes on serving, so that what is used afterwards comes back into \
                     the cache; without, the server must be stopped.",
                )
                .arg(admin(false)),
        ))
        .subcommand(settings(
            Command::new("scrub").about("Check the cache against the root (server stopped); exits 3 on damage")
                .long_about(
                    "Check the cache, or the Ceph pools, against the root; the server must be stopped. Exits with 3 on damage. \
                     Without --repair nothing is removed; but placeholders that came back from a backup are adopted: \
                     their times and attributes are written anew.",
                )
                .arg(
                Arg::new("repair").long("repair").action(ArgAction::SetTrue).help("remove orphans and damaged clean copies"),
            )
            .arg(
                Arg::new("deep").long("deep").action(ArgAction::SetTrue)
                    .help("Ceph pools: read every object and check its checksum (a cache directory is always read)"),
            )
            .arg(Arg::new("rate").long("rate").value_name("SIZE").value_parser(rate).help("with --deep: bytes per second to read at most, such as 50MiB"))
            .arg(
                Arg::new("resume").long("resume").action(ArgAction::SetTrue)
                    .help("Ceph pools: go on where a scrub was interrupted, if that was as thorough; the report has the damage that both found"),
            ),
        ))
        .subcommand(settings(
            Command::new("import")
                .about("Move the content of plain files into the Ceph pools (server stopped)")
                .long_about(
                    "Move the content of plain files under the root into the Ceph pools that data_pool and cache_pool name. \
                     Each object is read back and checked before the plain file is replaced by its placeholder; names, \
                     entity tags, times and properties stay. Interrupted, it goes on when it is run again.",
                )
                .arg(below()),
        ))
        .subcommand(settings(
            Command::new("export")
                .about("Move content out of the Ceph pools into plain files (server stopped)")
                .long_about(
                    "Move content out of the Ceph pools into plain files under the root, each read back and checked. After \
                     an export of everything the root can be served without Ceph.",
                )
                .arg(below()),
        ))
        .subcommand(
            Command::new("policy")
                .about("Show a running server's policy and its parameters, or change them")
                .long_about(
                    "Show a running server's policy and its parameters, or change them. What the policy knows about objects \
                     is kept, unless another policy is chosen: that one knows what is in the cache, as after a start. A change \
                     holds until the next start, or until the file says something new about the key and the server reads it \
                     (SIGHUP).",
                )
                .after_help("Examples:\n  tierdav policy\n  tierdav policy cost_benefit_theta=2 max_dirty_age=5m\n  tierdav policy policy=lru-2nd")
                .arg(admin(true))
                .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("print JSON"))
                .arg(Arg::new("set").value_name("KEY=VALUE").num_args(0..).value_parser(pair).help("set this, until the next start")),
        )
        .subcommand(
            Command::new("locks")
                .about("List the locks of a running server, or break one")
                .arg(admin(true))
                .arg(Arg::new("break").long("break").value_name("TOKEN").help("break the lock with this token")),
        )
        .subcommand(
            Command::new("hash-password")
                .about("Read a password from standard input and print a line for users_file")
                .after_help("Example:\n  echo -n secret | tierdav hash-password alice >> users")
                .arg(Arg::new("name").required(true).help("the user's name")),
        )
        .subcommand(
            Command::new("completions")
                .about("Print a script that completes commands and flags in a shell")
                .after_help("Example, for this shell only:\n  source <(tierdav completions bash)")
                .arg(Arg::new("shell").required(true).value_parser(clap::value_parser!(Shell)).help("for which shell")),
        )
        .subcommand(
            Command::new("man")
                .about("Write the manual pages, one for each command, to a directory")
                .after_help("Example:\n  tierdav man /usr/local/share/man/man1 && man tierdav-serve")
                .arg(
                    Arg::new("dir").value_name("DIR").required(true).value_parser(clap::value_parser!(PathBuf))
                        .help("the directory; it is made when missing"),
                ),
        )
}

fn raw(matches: &ArgMatches) -> Raw {
    let mut raw = Raw::default();
    if let Some(file) = matches.get_one::<PathBuf>("config") {
        raw.read_file(file);
    }
    raw.environment(std::env::vars_os());
    for key in KEYS.iter() {
        if let Some(value) = matches.get_one::<String>(key.name) {
            raw.set(
                key.name,
                value.clone(),
                Source::Flag(format!("--{}", key.name.replace('_', "-"))),
            );
        }
    }
    raw
}

/// Reads the arguments.
///
/// # Errors
/// What clap found wrong (or `--help` and `--version`, which it prints as such).
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Request, clap::Error> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    // `tierdav --root DIR` serves, as `tierdav` alone does.
    let own = ["--help", "-h", "--version", "-V"];
    let settings_only = args.get(1).is_none_or(|first| {
        let first = first.to_string_lossy();
        first.starts_with('-') && !own.contains(&&*first)
    });
    if settings_only {
        args.insert(args.len().min(1), "serve".into());
    }
    let matches = command().try_get_matches_from(args)?;
    let text = |m: &ArgMatches, name: &str| m.get_one::<String>(name).cloned();
    Ok(match matches.subcommand() {
        Some(("serve", m)) => Request::Serve(raw(m)),
        Some(("check-config", m)) => Request::CheckConfig(raw(m)),
        Some(("status", m)) => Request::Status {
            admin: text(m, "admin").unwrap_or_default(),
            json: m.get_flag("json"),
        },
        Some(("top", m)) => Request::Top(Top {
            admin: text(m, "admin").unwrap_or_default(),
            interval: m
                .get_one::<Duration>("interval")
                .copied()
                .unwrap_or(Duration::from_secs(2)),
            once: m.get_flag("once"),
        }),
        Some(("drain", m)) => Request::Drain {
            admin: text(m, "admin"),
            raw: raw(m),
        },
        Some(("scrub", m)) => Request::Scrub {
            how: Scrub {
                repair: m.get_flag("repair"),
                deep: m.get_flag("deep"),
                rate: m.get_one::<u64>("rate").copied().unwrap_or(0),
                resume: m.get_flag("resume"),
            },
            raw: raw(m),
        },
        Some((name @ ("import" | "export"), m)) => Request::Transfer {
            direction: if name == "import" {
                Direction::Import
            } else {
                Direction::Export
            },
            path: text(m, "path").unwrap_or_default(),
            raw: raw(m),
        },
        Some(("policy", m)) => Request::Policy {
            admin: text(m, "admin").unwrap_or_default(),
            json: m.get_flag("json"),
            set: m.get_many("set").into_iter().flatten().cloned().collect(),
        },
        Some(("locks", m)) => Request::Locks {
            admin: text(m, "admin").unwrap_or_default(),
            break_token: text(m, "break"),
        },
        Some(("hash-password", m)) => Request::HashPassword {
            name: text(m, "name").unwrap_or_default(),
        },
        Some(("completions", m)) if let Some(shell) = m.get_one::<Shell>("shell") => {
            Request::Completions(*shell)
        }
        Some(("man", m)) if let Some(dir) = m.get_one::<PathBuf>("dir") => {
            Request::Man(dir.clone())
        }
        _ => return Err(command().error(ErrorKind::MissingSubcommand, "no such command")),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_command_line_is_consistent_and_every_key_is_a_flag() {
        command().debug_assert();
        let args = [
            "tierdav",
            "serve",
            "--durability",
            "relaxed",
            "--allow-anonymous",
            "--listen",
            "0.0.0.0:1",
        ];
        let Request::Serve(raw) = parse(args.map(OsString::from)).unwrap() else {
            panic!("not serve")
        };
        let config = Config::check(&raw).unwrap();
        assert!(config.allow_anonymous);
        assert_eq!(config.listen.port(), 1);
        for args in [&["tierdav"][..], &["tierdav", "--root", "/r"]] {
            let Request::Serve(raw) = parse(args.iter().map(OsString::from)).unwrap() else {
                panic!("not serve")
            };
            let root = Config::check(&raw).unwrap().root;
            assert_eq!(root == std::path::Path::new("/r"), args.len() > 1);
        }
        let help = parse(["tierdav", "--help"].map(OsString::from)).map(|_| ());
        assert_eq!(help.unwrap_err().kind(), ErrorKind::DisplayHelp);
    }
}
