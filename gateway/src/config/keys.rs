//! The one table of settings: it feeds the TOML file, the environment, the flags, `--help` and `check-config`.
//! The parameters of the policies join it from their own table, [`PARAMETERS`].

use std::borrow::Cow;
use std::sync::LazyLock;

use tiering::policy::{PARAMETERS, Parameter};

/// One setting.
#[derive(Debug, Clone)]
pub struct Key {
    /// Name in the TOML file. The flag is `--name` with dashes, the environment variable `TIERDAV_NAME`.
    pub name: &'static str,
    /// Value when nobody sets it; empty means unset.
    pub default: Cow<'static, str>,
    /// What values are allowed, for messages.
    pub allowed: Cow<'static, str>,
    /// What it does.
    pub doc: &'static str,
    /// The parameter of a policy that it is, if it is one.
    pub parameter: Option<&'static Parameter>,
    /// May change while the gateway runs.
    pub live: bool,
}

impl Key {
    const fn live(mut self) -> Key {
        self.live = true;
        self
    }
}

const fn key(
    name: &'static str,
    default: &'static str,
    allowed: &'static str,
    doc: &'static str,
) -> Key {
    Key {
        name,
        default: Cow::Borrowed(default),
        allowed: Cow::Borrowed(allowed),
        doc,
        parameter: None,
        live: false,
    }
}

const SIZE: &str = "bytes, or a number with KiB, MiB, GiB or TiB";
const TIME: &str = "a number with ms, s, m, h or d";
const TIME_ABOVE_0: &str = "a number above 0 with ms, s, m, h or d";
const TIME_FROM_1S: &str = "at least 1s: a number with ms, s, m, h or d";
const ON_OFF: &str = "true or false";

/// All settings, in the order in which they are shown; the parameters of the policies come last.
pub static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let parameters = PARAMETERS.iter().map(|p| Key {
        name: p.key,
        default: Cow::Owned(p.text(p.default)),
        allowed: Cow::Owned(p.allowed()),
        doc: p.doc.trim().trim_end_matches('.'),
        parameter: Some(p),
        live: true,
    });
    PLAIN.iter().cloned().chain(parameters).collect()
});

const PLAIN: &[Key] = &[
    key(
        "root",
        "data/root",
        "a directory",
        "directory to serve; made if absent",
    ),
    key(
        "cache_dir",
        "data/cache",
        "a directory on the fast device, or \"none\"",
        "directory of the cache tier; made if absent",
    ),
    key(
        "ceph_conf",
        "/etc/ceph/ceph.conf",
        "a file",
        "configuration file of the Ceph cluster, when content lives in its pools",
    ),
    key(
        "ceph_user",
        "client.tierdav",
        "a Ceph client name, such as client.tierdav",
        "who the gateway is for Ceph; its key is where the configuration file says",
    ),
    key(
        "data_pool",
        "none",
        "a Ceph pool, or \"none\"",
        "pool that holds the content; the root then holds names only",
    ),
    key(
        "cache_pool",
        "none",
        "a Ceph pool on the fast devices, or \"none\"",
        "pool of the cache tier above data_pool",
    ),
    key(
        "ceph_namespace",
        "tierdav",
        "a name without spaces",
        "RADOS namespace in both pools; each root needs its own",
    ),
    key(
        "ceph_op_timeout",
        "30s",
        "1s to 10m",
        "longest wait for an answer of the cluster; then requests get 503",
    ),
    key(
        "listen",
        "127.0.0.1:4918",
        "IP:PORT",
        "where WebDAV is served",
    ),
    key(
        "admin_listen",
        "127.0.0.1:4919",
        "IP:PORT, or \"none\"",
        "where health, metrics and status are served",
    ),
    key(
        "allow_remote_admin",
        "false",
        ON_OFF,
        "serve the admin listener, which asks for no password, on other addresses than loopback",
    ),
    key(
        "allow_anonymous",
        "false",
        ON_OFF,
        "serve other addresses than loopback without users",
    ),
    key(
        "users_file",
        "",
        "a file",
        "htpasswd-style file of users (bcrypt or argon2id); read again when it changes",
    ),
    key(
        "tls_cert",
        "",
        "a PEM file",
        "certificate chain; with tls_key turns TLS on; read again when it changes",
    ),
    key("tls_key", "", "a PEM file", "private key of tls_cert"),
    key(
        "tls_client_ca",
        "",
        "a PEM file",
        "clients with a certificate of this CA need no password; its common name (or first alternative name) is the user, who must be in users_file if there is one",
    ),
    key(
        "public_base_url",
        "",
        "URLs, separated by commas",
        "how clients name this server when a proxy stands in front",
    ),
    key(
        "durability",
        "commit",
        "commit or relaxed",
        "commit: on stable storage before the reply; relaxed: no fsync, so that after a power cut or a crash of the kernel files changed in the last half minute may be missing, empty, cut short or old, over pools with both versions gone",
    ),
    key(
        "write_policy",
        "auto",
        "auto, back, through or around",
        "back: new data may be in the cache alone for a while; through: never; around: new data goes past the cache; auto: back, but around the default cache_dir where it is on the root's own file system",
    ),
    key(
        "policy",
        "cost-benefit",
        "none, lru, fifo, lfu, arc, lirs, 2q, s3-fifo, sieve, w-tinylfu, gdsf, lru-2nd, recency, cost-benefit, or auto",
        "who decides what lives in the cache; auto: whoever of the shadows does best",
    )
    .live(),
    key(
        "auto_period",
        "10m",
        TIME_FROM_1S,
        "policy = \"auto\" compares the shadows once in this time",
    )
    .live(),
    key(
        "shadow",
        "",
        "at most 8 different policies with commas between them, or nothing",
        "policies that run beside it on a sample, with 0.5, 1, 2 and 4 times the cache, to show what they would achieve",
    )
    .live(),
    key(
        "cache_capacity",
        "auto",
        "a size, or \"auto\": half of what the cache device has free beside the cache, at most 64GiB; 80 % of a cache pool, for one root in it",
        "bytes of content in the cache tier",
    ),
    key(
        "high_watermark",
        "0.9",
        "0.1 to 1.0",
        "share of the capacity above which objects leave the cache",
    )
    .live(),
    key(
        "low_watermark",
        "0.8",
        "0.05 to high_watermark",
        "share of the capacity down to which they leave",
    )
    .live(),
    key(
        "max_dirty_age",
        "120s",
        TIME,
        "age at which new data is flushed to the root",
    )
    .live(),
    key(
        "object_size",
        "4MiB",
        "a power of two from 64KiB to 64MiB",
        "size of the stripes that are traced and moved",
    ),
    key(
        "migrate_bandwidth",
        "0",
        "bytes per second as a size; 0 is unlimited",
        "how fast objects may be moved",
    )
    .live(),
    key(
        "migrate_ops",
        "0",
        "moves per second; 0 is unlimited",
        "how many objects may be moved",
    )
    .live(),
    key(
        "migrate_in_flight",
        "4",
        "1 to 256",
        "moves under way at once",
    )
    .live(),
    key(
        "symlinks",
        "refuse",
        "refuse or inside-root",
        "treatment of symbolic links below the root",
    ),
    key(
        "quota",
        "none",
        "a size, or \"none\"",
        "most bytes of content; more is answered 507",
    ),
    key(
        "allow_infinite_depth",
        "false",
        ON_OFF,
        "answer PROPFIND with Depth: infinity",
    ),
    key(
        "in_place",
        "true",
        ON_OFF,
        "answer what is in memory without handing over to another thread; false looks for faults, and is slower",
    ),
    key("trace", "true", ON_OFF, "record the trace"),
    key(
        "trace_segment_size",
        "64MiB",
        "64KiB to 1TiB",
        "size at which a trace segment is sealed",
    ),
    key(
        "trace_segment_age",
        "1h",
        TIME_ABOVE_0,
        "age at which a trace segment is sealed",
    ),
    key(
        "trace_retention",
        "4GiB",
        SIZE,
        "bytes of sealed trace segments to keep",
    ),
    key(
        "max_connections",
        "4096",
        "1 to 1000000",
        "connections at once; more wait to be accepted",
    ),
    key(
        "http_threads",
        "auto",
        "1 to 1024, or \"auto\": one core fewer than there are, at least 1",
        "threads that speak with clients; disks and policies have threads of their own",
    ),
    key(
        "max_header_bytes",
        "32KiB",
        "8KiB to 1MiB",
        "longest request line and headers",
    ),
    key(
        "max_xml_bytes",
        "1MiB",
        "4KiB to 64MiB",
        "longest XML request body",
    ),
    key(
        "max_body_bytes",
        "none",
        "a size, or \"none\"",
        "longest upload",
    ),
    key(
        "header_timeout",
        "30s",
        TIME_ABOVE_0,
        "longest wait for a request's headers",
    ),
    key(
        "body_idle_timeout",
        "60s",
        TIME_ABOVE_0,
        "longest wait for the next bytes of a body, in either direction",
    ),
    key(
        "lock_timeout_max",
        "1h",
        TIME_FROM_1S,
        "longest lock granted",
    ),
    key(
        "shutdown_grace",
        "30s",
        TIME,
        "how long running requests may take to finish on SIGTERM or Ctrl-C; a second Ctrl-C cuts them off",
    ),
    key(
        "log_format",
        "text",
        "text or json",
        "form of the log on standard error",
    ),
    key(
        "log_level",
        "info",
        "error, warn, info, debug or trace, or a tracing filter",
        "what is logged",
    ),
];

/// The key of this name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|k| k.name == name)
}
