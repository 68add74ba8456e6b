//! The parts that serve clients: the core server, and JetStream on top of its store.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use riverlog_engine::{OpenError, Stopped, Store};

use crate::auth::{Auth, User};
use crate::config::ServerConfig;
use crate::config::options::{AuthConfig, Credentials, WriteTimeout};
use crate::monitor::{Identity, Monitor};
use crate::run::core_monitor::CoreMonitor;
use crate::run::store;
use crate::server::{self, Options, Server, StartError};

/// Why clients cannot be served.
#[derive(Debug)]
pub(super) enum BrokerError {
    Server(StartError),
    Store(OpenError),
    StoreStopped { stopped: Stopped, dir: PathBuf },
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(StartError::Bind { address, error }) => {
                write!(
                    f,
                    "cannot listen for client connections on {address}: {error}"
                )
            }
            Self::Server(error) => error.fmt(f),
            Self::Store(error) => write!(f, "cannot open the store: {error}"),
            Self::StoreStopped { stopped, dir } => write!(
                f,
                "{stopped} in {}: nothing more is acknowledged; check the disk and start again",
                dir.display()
            ),
        }
    }
}

/// The running parts.
pub(super) struct Broker {
    server: Server,
    store: Option<OpenStore>,
}

struct OpenStore {
    store: Store,
    dir: PathBuf,
}

impl Broker {
    /// Opens the store, then the client listener.
    pub(super) async fn start(
        config: &ServerConfig,
        monitor: &Arc<Monitor>,
    ) -> Result<Self, BrokerError> {
        let server = Server::new(options(config)).map_err(BrokerError::Server)?;
        tracing::info!("  Name:     {}", server.server_name());
        tracing::info!("  ID:       {}", server.server_id());
        let store = if config.jetstream.enabled {
            let opened = store::open(&config.jetstream, monitor).await;
            let dir = config.jetstream.store_dir.clone();
            Some(OpenStore {
                store: opened.map_err(BrokerError::Store)?,
                dir,
            })
        } else {
            None
        };
        if store.is_some() {
            tracing::error!("JetStream is not available");
        }
        let broker = Self { server, store };
        if let Err(error) = broker.server.listen().await {
            broker.stop().await;
            return Err(BrokerError::Server(error));
        }
        let server = &broker.server;
        let identity = Identity {
            server_id: server.server_id().to_owned(),
            server_name: server.server_name().to_owned(),
            port: server.client_addr().port(),
        };
        monitor.set_server(identity, Arc::new(CoreMonitor::new(server.clone())));
        Ok(broker)
    }

    pub(super) fn client_addr(&self) -> SocketAddr {
        self.server.client_addr()
    }

    /// Checks clients that connect from now on against other credentials.
    pub(super) fn set_auth(&self, config: &AuthConfig) {
        self.server.set_auth(auth(config));
    }

    /// Moves the clients to other servers (CORE-030).
    pub(super) async fn lame_duck(&self, grace: Duration, duration: Duration) {
        self.server.lame_duck(grace, duration).await;
    }

    /// Resolves when a part has failed for good.
    pub(super) async fn failed(&self) -> BrokerError {
        match &self.store {
            Some(OpenStore { store, dir }) => BrokerError::StoreStopped {
                stopped: store::stopped(store).await,
                dir: dir.clone(),
            },
            None => std::future::pending().await,
        }
    }

    /// Lets clients go, with the acknowledgements that are on their way, then closes the store.
    pub(super) async fn stop(&self) {
        self.server.shutdown().await;
        if let Some(OpenStore { store, .. }) = &self.store {
            store::close(store.clone()).await;
        }
    }
}

fn options(config: &ServerConfig) -> Options {
    let limits = &config.limits;
    Options {
        host: config.host.clone(),
        port: config.port,
        server_name: config.server_name.clone(),
        client_advertise: config.client_advertise.clone(),
        max_payload: limits.payload_bytes_max,
        max_control_line: limits.control_line_bytes_max,
        max_pending: limits.pending_bytes_max,
        max_connections: limits.connections_max.unwrap_or(usize::MAX),
        max_subscriptions: limits.subscriptions_max.unwrap_or(0),
        max_sub_tokens: limits.subject_tokens_max.unwrap_or(0),
        ping_interval: limits.ping_interval,
        ping_max: limits.pings_max,
        write_deadline: limits.write_deadline,
        write_timeout: match limits.write_timeout {
            WriteTimeout::Close => server::WriteTimeout::Close,
            WriteTimeout::Retry => server::WriteTimeout::Retry,
        },
        auth_timeout: config.auth.timeout,
        auth: auth(&config.auth),
        no_fast_producer_stall: config.no_fast_producer_stall,
        max_closed_clients: limits.closed_connections_max,
    }
}

fn auth(config: &AuthConfig) -> Auth {
    match &config.credentials {
        Credentials::None => Auth::None,
        Credentials::Token(token) => Auth::Token(token.clone()),
        Credentials::User(user) => Auth::User {
            user: user.name.clone(),
            password: user.password.clone(),
        },
        Credentials::Users(users) => Auth::Users {
            users: users
                .iter()
                .map(|user| User {
                    user: user.name.clone(),
                    password: user.password.clone(),
                })
                .collect(),
            no_auth_user: config.no_auth_user.clone(),
        },
    }
}
