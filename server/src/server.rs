//! The core server: one listener, its connections and the account they share.
//!
//! Other parts attach before clients can connect:
//!
//! ```no_run
//! # async fn example() -> Result<(), riverlog_server::server::StartError> {
//! use riverlog_server::server::{Options, Server};
//!
//! let server = Server::new(Options { host: "127.0.0.1".into(), port: 0, ..Options::default() })?;
//! // JetStream and others subscribe to server.account() here.
//! server.listen().await?;
//! println!("{}", server.client_addr());
//! server.shutdown().await;
//! # Ok(())
//! # }
//! ```

pub mod options;
mod shared;
pub mod stats;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::auth::Auth;
use crate::net::close::CloseReason;
use crate::net::listener;
use crate::routing::Account;
pub use options::{Options, WriteTimeout};
pub(crate) use shared::Shared;

/// How long [`Server::shutdown`] waits for connections to flush.
const SHUTDOWN_MAX: Duration = Duration::from_secs(10);

/// A running server. Cheap to clone; all clones are the same server.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

/// Why a server could not start.
#[derive(Debug)]
pub enum StartError {
    /// The address could not be resolved or bound.
    Bind {
        /// `host:port` as configured.
        address: String,
        /// What the system said.
        error: io::Error,
    },
    /// No server identity could be made.
    Identity(String),
    /// [`Server::listen`] was called twice.
    AlreadyListening,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Bind { address, error } => write!(f, "cannot listen on {address}: {error}"),
            StartError::Identity(error) => write!(f, "cannot make a server identity: {error}"),
            StartError::AlreadyListening => f.write_str("the server listens already"),
        }
    }
}

impl std::error::Error for StartError {}

impl Server {
    /// A server that does not listen yet.
    pub fn new(options: Options) -> Result<Server, StartError> {
        let identity = nkeys::KeyPair::new_server();
        Ok(Server {
            shared: Arc::new(Shared::new(options, identity.public_key())),
        })
    }

    /// [`Server::new`] and [`Server::listen`]. Needs a tokio runtime.
    pub async fn start(options: Options) -> Result<Server, StartError> {
        let server = Server::new(options)?;
        server.listen().await?;
        Ok(server)
    }

    /// Binds the listener and accepts clients from now on.
    pub async fn listen(&self) -> Result<(), StartError> {
        let options = self.shared.options();
        let address = format!("{}:{}", options.host, options.port);
        let bind_error = |error| StartError::Bind {
            address: address.clone(),
            error,
        };
        let listener = TcpListener::bind((options.host.as_str(), options.port))
            .await
            .map_err(bind_error)?;
        let bound = listener.local_addr().map_err(bind_error)?;
        if !self.shared.set_client_addr(bound) {
            return Err(StartError::AlreadyListening);
        }
        tokio::spawn(listener::run(Arc::clone(&self.shared), listener));
        Ok(())
    }

    /// Address clients connect to; port 0 before [`Server::listen`].
    pub fn client_addr(&self) -> SocketAddr {
        self.shared.client_addr()
    }

    /// Public nkey of the server, `N…`. New with every start.
    pub fn server_id(&self) -> &str {
        self.shared.server_id()
    }

    /// Configured name, or the id.
    pub fn server_name(&self) -> &str {
        self.shared.server_name()
    }

    /// The options it was started with.
    pub fn options(&self) -> &Options {
        self.shared.options()
    }

    /// The account of all clients, `$G`.
    pub fn account(&self) -> &Arc<Account> {
        self.shared.account()
    }

    /// Turns JetStream on: INFO says so from now on, and acknowledgements queued by streams go out
    /// when `durable_lsn` reaches them. Only the first call counts.
    pub fn attach_jetstream(&self, durable_lsn: watch::Receiver<u64>) {
        self.shared.attach_jetstream(durable_lsn);
    }

    /// Replaces the credentials. Connected clients stay; the next CONNECT is checked against the new
    /// ones.
    pub fn set_auth(&self, auth: Auth) {
        self.shared.set_auth(auth);
    }

    /// Stops accepting, closes every connection after flushing what is queued for it, and waits for
    /// that (at most ten seconds).
    pub async fn shutdown(&self) {
        self.shared.stop_accepting();
        for conn in self.shared.conns() {
            conn.close(CloseReason::ServerShutdown);
        }
        let _ = timeout(SHUTDOWN_MAX, self.shared.all_closed()).await;
    }

    /// Lame duck mode (CORE-030): stops accepting, tells clients to go elsewhere, waits `grace`, then
    /// closes the connections one by one over `duration`. Returns when all are closed.
    pub async fn lame_duck(&self, grace: Duration, duration: Duration) {
        self.shared.stop_accepting();
        self.shared.set_lame_duck();
        self.shared.send_async_info();
        let _ = timeout(grace, self.shared.all_closed()).await;
        let end = Instant::now() + duration.saturating_sub(grace);
        let conns = self.shared.conns();
        let mut left = conns.len() as u32;
        for conn in conns {
            conn.close(CloseReason::ServerShutdown);
            let pause = end.saturating_duration_since(Instant::now()) / left.max(1);
            left -= 1;
            if left > 0 {
                sleep(pause).await;
            }
        }
        self.shutdown().await;
    }

    /// Sends the current INFO to every client that takes it at any time (CORE-029).
    pub fn send_async_info(&self) {
        self.shared.send_async_info();
    }
}
