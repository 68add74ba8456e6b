//! The life of the server process: from a configuration to an exit code.
//!
//! Order of the start: log, process files, monitoring endpoint (so that `/healthz` can say what
//! is going on), data directory and store, client listener. Tools wait for the last two lines,
//! `Listening for client connections on ..` and `Server is ready`, and for the ports file.
//! Order of the stop: no new connections, drain, close the store, remove the files.

mod broker;
mod core_monitor;
mod files;
mod signals;
mod store;
mod store_dir;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::net::TcpListener;

use crate::cli::{NATS_VERSION, VERSION, exit};
use crate::config::options::SyncInterval;
use crate::config::{ServerConfig, reload};
use crate::logging::{self, Log};
use crate::monitor::{self, Monitor, Phase};
use broker::{Broker, BrokerError};
use signals::{Request, Signals};
use store_dir::Medium;

/// Reads the configuration file and the command line again; the error is for the operator.
pub type ReadAgain = Box<dyn Fn() -> Result<ServerConfig, String> + Send>;

/// What the process was started with.
pub struct Launch {
    /// Name the program was started under: `riverlog`, or `nats-server` through a link.
    pub program: String,
    /// The configuration, checked.
    pub config: ServerConfig,
    /// For SIGHUP.
    pub read_again: ReadAgain,
}

/// Why the server could not start or keep running.
#[derive(Debug)]
enum RunError {
    Runtime(std::io::Error),
    File(files::RunFileError),
    StoreDir(store_dir::StoreDirError),
    Listen {
        purpose: &'static str,
        address: String,
        reason: std::io::Error,
    },
    Broker(BrokerError),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runtime(reason) => write!(f, "cannot start: {reason}"),
            Self::File(error) => error.fmt(f),
            Self::StoreDir(error) => error.fmt(f),
            Self::Listen {
                purpose,
                address,
                reason,
            } => {
                write!(f, "cannot listen for {purpose} on {address}: {reason}")
            }
            Self::Broker(error) => error.fmt(f),
        }
    }
}

/// Runs until a signal or a failure ends the server, and returns the exit code.
#[must_use]
pub fn run(launch: Launch) -> u8 {
    let log = match logging::init(&launch.config.log) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("{}: {error}", launch.program);
            return exit::FAILED;
        }
    };
    raise_open_files_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(reason) => {
            logging::fatal(&RunError::Runtime(reason));
            return exit::FAILED;
        }
    };
    let code = match runtime.block_on(serve(launch, &log)) {
        Ok(code) => code,
        Err(error) => {
            logging::fatal(&error);
            exit::FAILED
        }
    };
    // A store that is still recovering is not waited for: it is safe to stop at any point.
    runtime.shutdown_background();
    code
}

/// Every connection and every open segment is a file; the usual soft limit of 1,024 is for
/// programs that use `select`.
fn raise_open_files_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
}

async fn serve(launch: Launch, log: &Log) -> Result<u8, RunError> {
    let mut signals = Signals::install().map_err(RunError::Runtime)?;
    let start = Timestamp::now();
    let config = &launch.config;
    announce(config);
    let _pid_file = config
        .pid_file
        .as_deref()
        .map(files::write_pid)
        .transpose()
        .map_err(RunError::File)?;
    let config = Arc::new(resolve(config)?);

    let (monitor, http) = start_monitor(&config, start).await?;
    let broker = {
        let starting = Broker::start(&config, &monitor);
        tokio::pin!(starting);
        loop {
            tokio::select! {
                result = &mut starting => break result.map_err(RunError::Broker)?,
                request = signals.next() => match request {
                    Request::Stop(name) => {
                        tracing::info!("Trapped \"{name}\" signal while starting");
                        return Ok(exit::OK);
                    }
                    Request::ReopenLog => reopen_log(log),
                    Request::Reload | Request::LameDuck => {
                        tracing::warn!("Not ready yet, signal ignored");
                    }
                },
            }
        }
    };
    let ports_file = config
        .ports_file_dir
        .as_deref()
        .map(|folder| files::write_ports(folder, &launch.program, broker.client_addr(), http))
        .transpose()
        .map_err(RunError::File);
    let _ports_file = match ports_file {
        Ok(file) => file,
        Err(error) => {
            broker.stop().await;
            return Err(error);
        }
    };
    tracing::info!(
        "Listening for client connections on {}",
        broker.client_addr()
    );
    monitor.set_phase(Phase::Ready);
    tracing::info!("Server is ready");
    Running {
        launch,
        config,
        log,
        monitor,
        broker,
    }
    .until_stopped(&mut signals)
    .await
}

/// The first lines of the log.
fn announce(config: &ServerConfig) {
    tracing::info!("Starting riverlog");
    tracing::info!("  Version:  {VERSION} (nats-server {NATS_VERSION} compatible)");
    if let Some(file) = &config.file {
        tracing::info!("  Config:   {} ({})", file.display(), config.digest);
    }
}

/// Fills in what depends on this machine.
fn resolve(config: &ServerConfig) -> Result<ServerConfig, RunError> {
    let mut config = config.clone();
    let jetstream = &mut config.jetstream;
    if !jetstream.enabled {
        return Ok(config);
    }
    let medium = store_dir::prepare(&jetstream.store_dir, jetstream.ephemeral)
        .map_err(RunError::StoreDir)?;
    let path = jetstream.store_dir.display();
    match medium {
        Medium::Disk => {}
        Medium::Overlay => tracing::warn!(
            "Data directory {path} is in a container's layer and goes with the container: \
             mount a volume to keep the data"
        ),
        Medium::Memory(file_system) => tracing::warn!(
            "Data directory {path} is on {file_system}: the data is gone after a reboot"
        ),
    }
    if jetstream.buffered_messages_max.is_some() || jetstream.buffered_bytes_max.is_some() {
        tracing::info!("max_buffered_msgs, max_buffered_size: what waits is bounded otherwise");
    }
    if let SyncInterval::Every(_) = jetstream.sync_interval {
        tracing::info!("sync_interval: acknowledgements wait for the disk all the same");
    }
    let file_bytes = || store_dir::file_bytes_default(&jetstream.store_dir);
    jetstream.file_bytes_max = Some(jetstream.file_bytes_max.unwrap_or_else(file_bytes));
    let memory_bytes = jetstream.memory_bytes_max;
    jetstream.memory_bytes_max = Some(memory_bytes.unwrap_or_else(store_dir::memory_bytes_default));
    Ok(config)
}

async fn start_monitor(
    config: &Arc<ServerConfig>,
    start: Timestamp,
) -> Result<(Arc<Monitor>, Option<SocketAddr>), RunError> {
    let Some(port) = config.monitor.port else {
        return Ok((Arc::new(Monitor::new(Arc::clone(config), start, 0)), None));
    };
    let host = config.monitor.host.as_deref().unwrap_or(&config.host);
    let listen_error = |reason| RunError::Listen {
        purpose: "monitoring",
        address: format!("{host}:{port}"),
        reason,
    };
    let listener = TcpListener::bind((host, port))
        .await
        .map_err(listen_error)?;
    let address = listener.local_addr().map_err(listen_error)?;
    let monitor = Arc::new(Monitor::new(Arc::clone(config), start, address.port()));
    tracing::info!("Starting http monitor on {address}");
    let answering = Arc::clone(&monitor);
    tokio::spawn(async move {
        if let Err(error) = monitor::serve(listener, answering).await {
            tracing::error!("Monitoring stopped: {error}");
        }
    });
    Ok((monitor, Some(address)))
}

fn reopen_log(log: &Log) {
    match log.reopen() {
        Ok(()) => tracing::info!("File log re-opened"),
        Err(error) => tracing::error!("{error}"),
    }
}

/// A server that is ready.
struct Running<'a> {
    launch: Launch,
    config: Arc<ServerConfig>,
    log: &'a Log,
    monitor: Arc<Monitor>,
    broker: Broker,
}

impl Running<'_> {
    async fn until_stopped(mut self, signals: &mut Signals) -> Result<u8, RunError> {
        loop {
            let request = tokio::select! {
                request = signals.next() => request,
                error = self.broker.failed() => {
                    logging::fatal(&error);
                    self.stop(signals).await;
                    return Ok(exit::FAILED);
                }
            };
            match request {
                Request::Stop(name) => {
                    tracing::info!("Trapped \"{name}\" signal");
                    return Ok(self.stop(signals).await);
                }
                Request::ReopenLog => reopen_log(self.log),
                Request::Reload => self.reload(),
                Request::LameDuck => {
                    if self.lame_duck(signals).await {
                        return Ok(self.stop(signals).await);
                    }
                }
            }
        }
    }

    /// Reads the configuration again and takes over what can change (CONF-021).
    fn reload(&mut self) {
        let new = match (self.launch.read_again)() {
            Ok(new) => new,
            Err(reason) => {
                tracing::error!("Configuration not reloaded, the old one stays: {reason}");
                return;
            }
        };
        let mut config = (*self.config).clone();
        let new = keep_resolved(new, &config);
        let changes = reload::apply(&mut config, &new);
        if changes.applied.contains(&"logging")
            && let Err(error) = self.log.apply(&config.log)
        {
            tracing::error!("Logging not changed: {error}");
            config.log.clone_from(&self.config.log);
        }
        if changes.applied.contains(&"authorization") {
            self.broker.set_auth(&config.auth);
        }
        for key in &changes.applied {
            tracing::info!("Reloaded: {key}");
        }
        for key in &changes.needs_restart {
            tracing::warn!("Not reloaded, a change of {key} needs a restart");
        }
        self.config = Arc::new(config);
        self.monitor
            .set_config(Arc::clone(&self.config), Timestamp::now());
        tracing::info!("Reloaded server configuration");
    }

    /// Lame duck mode (CORE-030): true when it has come to its end.
    async fn lame_duck(&mut self, signals: &mut Signals) -> bool {
        let (grace, duration) = (
            self.config.lame_duck_grace_period,
            self.config.lame_duck_duration,
        );
        tracing::info!("Entering lame duck mode, stop accepting new clients");
        self.monitor.set_phase(Phase::LameDuck);
        tokio::select! {
            () = self.broker.lame_duck(grace, duration) => {}
            name = signals.stop() => tracing::info!("Trapped \"{name}\" signal"),
        }
        true
    }

    /// Stops in order; a second signal does not wait for that.
    async fn stop(self, signals: &mut Signals) -> u8 {
        tracing::info!("Initiating Shutdown...");
        self.monitor.set_phase(Phase::Stopping);
        tokio::select! {
            () = self.broker.stop() => {
                tracing::info!("Server Exiting..");
                exit::OK
            }
            name = signals.stop() => {
                tracing::warn!("Trapped \"{name}\" signal again, exiting at once");
                exit::FAILED
            }
        }
    }
}

/// The defaults that depend on the machine were resolved at the start, and are no change.
fn keep_resolved(mut new: ServerConfig, running: &ServerConfig) -> ServerConfig {
    let (target, source) = (&mut new.jetstream, &running.jetstream);
    target.file_bytes_max = target.file_bytes_max.or(source.file_bytes_max);
    target.memory_bytes_max = target.memory_bytes_max.or(source.memory_bytes_max);
    new
}
