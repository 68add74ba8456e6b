//! The parts that serve clients: the core server, and JetStream on top of its store.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use riverlog_engine::{OpenError, Stopped};
use tokio::task::JoinError;

use crate::auth::{Auth, User};
use crate::config::ServerConfig;
use crate::config::options::{AuthConfig, Credentials, JetStreamConfig, WriteTimeout};
use crate::jetstream::{self, JetStream, JetStreamOptions};
use crate::monitor::{
    Identity, JetStreamConfigShown, JetStreamLimitsShown, JetStreamStoreShown, Monitor, Phase,
};
use crate::run::core_monitor::CoreMonitor;
use crate::run::store;
use crate::server::{self, Options, Server, StartError};

/// Why clients cannot be served.
#[derive(Debug)]
pub(super) enum BrokerError {
    Server(StartError),
    Store(OpenError),
    JetStream(jetstream::StartError),
    Panicked(JoinError),
    Stopped(Stopped),
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
            Self::JetStream(error) => write!(f, "cannot start JetStream: {error}"),
            Self::Panicked(error) => write!(f, "cannot start JetStream: {error}"),
            Self::Stopped(stopped) => write!(
                f,
                "{stopped}: nothing more is acknowledged; check the disk and start again"
            ),
        }
    }
}

/// The running parts.
pub(super) struct Broker {
    server: Server,
    jetstream: Option<Arc<JetStream>>,
}

impl Broker {
    /// Opens the store and brings back what is in it, then the client listener.
    pub(super) async fn start(
        config: &ServerConfig,
        monitor: &Arc<Monitor>,
    ) -> Result<Self, BrokerError> {
        let server = Server::new(options(config)).map_err(BrokerError::Server)?;
        tracing::info!("  Name:     {}", server.server_name());
        tracing::info!("  ID:       {}", server.server_id());
        let jetstream = if config.jetstream.enabled {
            Some(start_jetstream(&config.jetstream, monitor, &server).await?)
        } else {
            None
        };
        let broker = Self { server, jetstream };
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
        match &self.jetstream {
            Some(jetstream) => BrokerError::Stopped(store::stopped(jetstream.store()).await),
            None => std::future::pending().await,
        }
    }

    /// Lets clients go, with the acknowledgements that are on their way, then closes the store.
    pub(super) async fn stop(&self) {
        if let Some(jetstream) = &self.jetstream {
            jetstream.announce_shutdown();
        }
        self.server.shutdown().await;
        if let Some(jetstream) = self.jetstream.clone() {
            // A panic on the way has been reported by the thread it was on.
            let _ = tokio::task::spawn_blocking(move || jetstream.shutdown()).await;
        }
    }
}

async fn start_jetstream(
    config: &JetStreamConfig,
    monitor: &Arc<Monitor>,
    server: &Server,
) -> Result<Arc<JetStream>, BrokerError> {
    let (store, report) = store::open(config, monitor)
        .await
        .map_err(BrokerError::Store)?;
    monitor.set_phase(Phase::Starting(
        "bringing streams and consumers back".to_owned(),
    ));
    let options = jetstream_options(config);
    let shown = shown(config, &options);
    let server = server.clone();
    let reviving =
        tokio::task::spawn_blocking(move || JetStream::serve(store, report, options, &server));
    let jetstream = match reviving.await {
        Ok(result) => Arc::new(result.map_err(BrokerError::JetStream)?),
        Err(panic) => return Err(BrokerError::Panicked(panic)),
    };
    monitor.set_jetstream(jetstream.monitor(), shown);
    Ok(jetstream)
}

fn shown(config: &JetStreamConfig, options: &JetStreamOptions) -> JetStreamConfigShown {
    let limits = &options.limits;
    JetStreamConfigShown {
        config: JetStreamStoreShown {
            max_memory: config.memory_bytes_max.unwrap_or_default(),
            max_storage: config.file_bytes_max.unwrap_or_default(),
            store_dir: config.store_dir.display().to_string(),
            sync_interval: Some(0),
            sync_always: true,
            domain: config.domain.clone(),
            strict: config.strict,
        },
        limits: JetStreamLimitsShown {
            max_request_batch: limits.max_request_batch,
            max_ack_pending: limits.max_ack_pending,
            duplicate_window: limits.duplicate_window_ns,
            default_max_consumers: limits
                .default_max_consumers
                .unwrap_or(jetstream::limits::CONSUMERS_PER_STREAM_DEFAULT),
        },
    }
}

fn jetstream_options(config: &JetStreamConfig) -> JetStreamOptions {
    let mut options = JetStreamOptions::new(&config.store_dir);
    options.max_memory = config.memory_bytes_max;
    options.max_file = config.file_bytes_max;
    options.domain.clone_from(&config.domain);
    options.strict = config.strict;
    let signed =
        |number: Option<u64>| number.map(|number| i64::try_from(number).unwrap_or(i64::MAX));
    let window = config.limits.duplicate_window_max;
    options.limits.max_ack_pending = signed(config.limits.ack_pending_max);
    options.limits.max_request_batch = signed(config.limits.request_batch_max);
    options.limits.duplicate_window_ns =
        window.map(|window| i64::try_from(window.as_nanos()).unwrap_or(i64::MAX));
    options
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
