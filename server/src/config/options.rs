//! The typed configuration of a server: what the configuration file and the command line say,
//! with every default filled in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// Address the client listener binds to.
    pub host: String,
    /// Port of the client listener; 0 takes a free one (written `-1` by users).
    pub port: u16,
    /// `host:port` told to clients instead of the bound address.
    pub client_advertise: Option<String>,
    /// Name shown to clients; the server's id when absent.
    pub server_name: Option<String>,
    /// Free words shown in `/varz`.
    pub server_tags: Vec<String>,
    /// Free keys and values shown in `/varz`.
    pub server_metadata: BTreeMap<String, String>,
    /// Credentials that clients need.
    pub auth: AuthConfig,
    /// Protocol limits.
    pub limits: LimitsConfig,
    /// The durable part.
    pub jetstream: JetStreamConfig,
    /// The monitoring endpoint.
    pub monitor: MonitorConfig,
    /// Log output.
    pub log: LogConfig,
    /// File that holds the process id while the server runs.
    pub pid_file: Option<PathBuf>,
    /// Folder for the ports file (CLI-010).
    pub ports_file_dir: Option<PathBuf>,
    /// Over how long lame duck mode spreads the closing of connections (CORE-030).
    pub lame_duck_duration: Duration,
    /// How long lame duck mode waits before it closes the first connection.
    pub lame_duck_grace_period: Duration,
    /// Name of the system account.
    pub system_account: Option<String>,
    /// Run without the system account.
    pub no_system_account: bool,
    /// Never slow a publisher down because a subscriber of it is slow.
    pub no_fast_producer_stall: bool,
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    /// `sha256:..` of the configuration file's content, empty without one (MON-018).
    pub digest: String,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            host: "0.0.0.0".to_owned(),
            port: 4222,
            client_advertise: None,
            server_name: None,
            server_tags: Vec::new(),
            server_metadata: BTreeMap::new(),
            auth: AuthConfig::default(),
            limits: LimitsConfig::default(),
            jetstream: JetStreamConfig::default(),
            monitor: MonitorConfig::default(),
            log: LogConfig::default(),
            pid_file: None,
            ports_file_dir: None,
            lame_duck_duration: Duration::from_secs(120),
            lame_duck_grace_period: Duration::from_secs(10),
            system_account: None,
            no_system_account: false,
            no_fast_producer_stall: false,
            file: None,
            digest: String::new(),
        }
    }
}

/// Who may connect (AUTH-001 .. AUTH-003).
#[derive(Clone, Debug, PartialEq)]
pub struct AuthConfig {
    /// The credentials.
    pub credentials: Credentials,
    /// The user of [`Credentials::Users`] that clients without credentials become (AUTH-008).
    pub no_auth_user: Option<String>,
    /// Time a client has for its CONNECT.
    pub timeout: Duration,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            credentials: Credentials::None,
            no_auth_user: None,
            timeout: Duration::from_secs(2),
        }
    }
}

/// The credentials that are accepted. Passwords and tokens may be bcrypt hashes.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Credentials {
    /// Everybody may connect.
    #[default]
    None,
    /// One user.
    User(User),
    /// One token.
    Token(String),
    /// Several users.
    Users(Vec<User>),
}

/// A name and its password.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    /// Name, not empty.
    pub name: String,
    /// Password in clear text or as bcrypt hash.
    pub password: String,
}

/// Protocol limits (CONF-007).
#[derive(Clone, Debug, PartialEq)]
pub struct LimitsConfig {
    /// Longest protocol line.
    pub control_line_bytes_max: usize,
    /// Largest message, headers included.
    pub payload_bytes_max: usize,
    /// Bytes waiting to be written to one client before it counts as a slow consumer.
    pub pending_bytes_max: usize,
    /// Client connections; `None` is unlimited.
    pub connections_max: Option<usize>,
    /// Subscriptions of one connection; `None` is unlimited.
    pub subscriptions_max: Option<usize>,
    /// Tokens of a subscribed subject; `None` is unlimited.
    pub subject_tokens_max: Option<usize>,
    /// Closed connections kept for `/connz?state=closed`.
    pub closed_connections_max: usize,
    /// Time between PINGs to an idle client.
    pub ping_interval: Duration,
    /// Unanswered PINGs after which a connection is stale.
    pub pings_max: u32,
    /// Longest time one write to a client may take.
    pub write_deadline: Duration,
    /// What follows when it takes longer.
    pub write_timeout: WriteTimeout,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            control_line_bytes_max: 4096,
            payload_bytes_max: 1 << 20,
            pending_bytes_max: 64 << 20,
            connections_max: Some(64 << 10),
            subscriptions_max: None,
            subject_tokens_max: None,
            closed_connections_max: 10_000,
            ping_interval: Duration::from_secs(120),
            pings_max: 2,
            write_deadline: Duration::from_secs(10),
            write_timeout: WriteTimeout::Close,
        }
    }
}

/// What follows when a write takes longer than the deadline (CORE-034).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteTimeout {
    /// The client is closed as a slow consumer.
    Close,
    /// The write goes on; only `max_pending` bounds the client.
    Retry,
}

/// The durable part of the server (CONF-011).
#[derive(Clone, Debug, PartialEq)]
pub struct JetStreamConfig {
    /// Whether it runs.
    pub enabled: bool,
    /// Data directory. Never a temporary one by default.
    pub store_dir: PathBuf,
    /// Accept a data directory in memory.
    pub ephemeral: bool,
    /// Give up exactly the damaged operations of a damaged log, and open the rest.
    pub salvage: bool,
    /// Bytes for memory streams; `None`: 75 % of the machine's memory (LIM-001).
    pub memory_bytes_max: Option<u64>,
    /// Bytes for file streams; `None`: 75 % of the free space in `store_dir` (LIM-001).
    pub file_bytes_max: Option<u64>,
    /// Name of the JetStream domain.
    pub domain: Option<String>,
    /// Refuse API requests with unknown fields.
    pub strict: bool,
    /// As configured; acknowledgements wait for the disk whatever stands here.
    pub sync_interval: SyncInterval,
    /// Limits on what clients may ask for.
    pub limits: JetStreamLimits,
    /// Accepted without effect: what waits for the disk is bounded in bytes per connection.
    pub buffered_messages_max: Option<u64>,
    /// As above.
    pub buffered_bytes_max: Option<u64>,
}

/// Where data goes when nobody says otherwise.
pub const STORE_DIR_DEFAULT: &str = "./riverlog-data";

impl Default for JetStreamConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            store_dir: PathBuf::from(STORE_DIR_DEFAULT),
            ephemeral: false,
            salvage: false,
            memory_bytes_max: None,
            file_bytes_max: None,
            domain: None,
            strict: true,
            sync_interval: SyncInterval::Always,
            limits: JetStreamLimits::default(),
            buffered_messages_max: None,
            buffered_bytes_max: None,
        }
    }
}

/// The configured sync interval. Riverlog syncs before it acknowledges in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncInterval {
    /// `always`
    Always,
    /// A duration, accepted so that configurations of other servers work.
    Every(Duration),
}

/// Limits on what clients may ask for; `None` is no limit beyond the protocol's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JetStreamLimits {
    /// Largest `max_ack_pending` of a consumer.
    pub ack_pending_max: Option<u64>,
    /// Largest pull request batch.
    pub request_batch_max: Option<u64>,
    /// Largest duplicate window of a stream.
    pub duplicate_window_max: Option<Duration>,
}

/// The monitoring endpoint (CONF-012).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MonitorConfig {
    /// Address to bind to; the client host when absent.
    pub host: Option<String>,
    /// Port, 0 for a free one; `None`: no monitoring.
    pub port: Option<u16>,
    /// Put before every path: empty, or starting with `/` and not ending with it.
    pub base_path: String,
}

/// Log output (CONF-006).
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// Show DBG lines.
    pub debug: bool,
    /// Show TRC lines: the protocol.
    pub trace: bool,
    /// Trace the system account and headers too.
    pub trace_verbose: bool,
    /// Start lines with the time.
    pub timestamps: bool,
    /// Times in UTC instead of local time.
    pub utc: bool,
    /// Log file; standard error when absent.
    pub file: Option<PathBuf>,
    /// Size at which the log file is set aside and a new one started; 0: never.
    pub file_bytes_max: u64,
    /// Log files kept, the current one included; 0: all.
    pub files_max: usize,
    /// Longest message shown by the protocol trace; 0: unlimited.
    pub traced_bytes_max: usize,
    /// Where log lines go in place of a file.
    pub syslog: Option<Syslog>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            debug: false,
            trace: false,
            trace_verbose: false,
            timestamps: true,
            utc: false,
            file: None,
            file_bytes_max: 0,
            files_max: 0,
            traced_bytes_max: 0,
            syslog: None,
        }
    }
}

/// A system log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Syslog {
    /// The machine's own.
    Local,
    /// `udp://host:port`
    Remote(String),
}
