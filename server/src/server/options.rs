//! Options of the core server.

use std::time::Duration;

use crate::auth::Auth;

/// What a flush that takes longer than `write_deadline` means (CORE-034).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteTimeout {
    /// The client is closed as a slow consumer.
    #[default]
    Close,
    /// The flush goes on; only `max_pending` bounds the client.
    Retry,
}

/// Options of [`Server`](super::Server). The defaults are those of the reference server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address to bind, a name or an IP address.
    pub host: String,
    /// Port to bind; 0 = any free one.
    pub port: u16,
    /// Name shown to clients; none = the server id (CORE-048).
    pub server_name: Option<String>,
    /// `host:port` or `host` shown to clients instead of the bind address.
    pub client_advertise: Option<String>,
    /// Largest headers plus body of a message, in bytes (CORE-017).
    pub max_payload: usize,
    /// Longest argument part of a control line, in bytes (CORE-016).
    pub max_control_line: usize,
    /// Most outbound bytes waiting per connection (CORE-033).
    pub max_pending: usize,
    /// Most client connections (CORE-036).
    pub max_connections: usize,
    /// Most subscriptions per connection; 0 = no limit (CORE-037).
    pub max_subscriptions: usize,
    /// Most tokens of a subscribed subject; 0 = no limit (CORE-038).
    pub max_sub_tokens: usize,
    /// Pause between PINGs of the server (CORE-004).
    pub ping_interval: Duration,
    /// Unanswered PINGs after which a connection is closed (CORE-004).
    pub ping_max: u32,
    /// Longest time a flush may take (CORE-034).
    pub write_deadline: Duration,
    /// What happens when it takes longer.
    pub write_timeout: WriteTimeout,
    /// Time for a valid CONNECT when credentials are needed (CORE-039).
    pub auth_timeout: Duration,
    /// Credentials.
    pub auth: Auth,
    /// Do not pause producers whose receivers fall behind (CORE-035).
    pub no_fast_producer_stall: bool,
    /// Closed connections that are remembered (CORE-046).
    pub max_closed_clients: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            host: "0.0.0.0".into(),
            port: 4222,
            server_name: None,
            client_advertise: None,
            max_payload: 1024 * 1024,
            max_control_line: 4096,
            max_pending: 64 * 1024 * 1024,
            max_connections: 65536,
            max_subscriptions: 0,
            max_sub_tokens: 0,
            ping_interval: Duration::from_secs(120),
            ping_max: 2,
            write_deadline: Duration::from_secs(10),
            write_timeout: WriteTimeout::Close,
            auth_timeout: Duration::from_secs(2),
            auth: Auth::None,
            no_fast_producer_stall: false,
            max_closed_clients: 10_000,
        }
    }
}
