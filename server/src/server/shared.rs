//! What all connections of a server share.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, watch};

use super::options::Options;
use super::stats::{ClosedConn, ConnStats};
use crate::auth::{Auth, Refused};
use crate::net::close::CloseReason;
use crate::net::conn::Conn;
use crate::protocol::connect::ConnectOptions;
use crate::protocol::info::{API_LEVEL, COMPATIBLE_VERSION, Info};
use crate::routing::Account;
use crate::routing::account::GLOBAL_ACCOUNT;

/// Password hashes computed at the same time. More would only take the processor from everybody.
const HASH_CHECKS_MAX: usize = 2;

pub(crate) struct Shared {
    options: Arc<Options>,
    server_id: String,
    server_name: String,
    pub(super) start: SystemTime,
    account: Arc<Account>,
    auth: RwLock<Arc<Auth>>,
    hash_checks: Semaphore,
    client_addr: OnceLock<SocketAddr>,
    durable: OnceLock<watch::Receiver<u64>>,
    lame_duck: AtomicBool,
    accept_stopped: watch::Sender<bool>,
    /// Number of connections.
    open: watch::Sender<usize>,
    pub(super) conns: Mutex<Conns>,
    last_id: AtomicU64,
    pub(super) totals: Totals,
}

/// Open and remembered connections.
#[derive(Default)]
pub(super) struct Conns {
    pub(super) open: HashMap<u64, Arc<Conn>>,
    pub(super) closed: VecDeque<ClosedConn>,
    /// Traffic of closed connections.
    pub(super) closed_in: (u64, u64),
    pub(super) closed_out: (u64, u64),
}

/// Counters since the start.
#[derive(Default)]
pub(super) struct Totals {
    pub(super) connections: AtomicU64,
    pub(super) slow_pending: AtomicU64,
    pub(super) slow_deadline: AtomicU64,
    pub(super) stale: AtomicU64,
}

impl Shared {
    pub(super) fn new(options: Options, server_id: String) -> Shared {
        Shared {
            server_name: options
                .server_name
                .clone()
                .unwrap_or_else(|| server_id.clone()),
            server_id,
            start: SystemTime::now(),
            account: Account::new(GLOBAL_ACCOUNT),
            auth: RwLock::new(Arc::new(options.auth.clone())),
            hash_checks: Semaphore::new(HASH_CHECKS_MAX),
            client_addr: OnceLock::new(),
            durable: OnceLock::new(),
            lame_duck: AtomicBool::new(false),
            accept_stopped: watch::Sender::new(false),
            open: watch::Sender::new(0),
            conns: Mutex::default(),
            last_id: AtomicU64::new(0),
            totals: Totals::default(),
            options: Arc::new(options),
        }
    }

    pub(crate) fn options(&self) -> &Arc<Options> {
        &self.options
    }

    pub(super) fn server_id(&self) -> &str {
        &self.server_id
    }

    pub(super) fn server_name(&self) -> &str {
        &self.server_name
    }

    pub(super) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    // --- Credentials ---

    pub(crate) fn auth(&self) -> Arc<Auth> {
        Arc::clone(&self.auth.read())
    }

    pub(super) fn set_auth(&self, auth: Auth) {
        *self.auth.write() = Arc::new(auth);
    }

    /// Checks credentials without holding up other connections.
    pub(crate) async fn check_credentials(
        &self,
        options: &ConnectOptions,
    ) -> Result<Option<String>, Refused> {
        let auth = self.auth();
        if !auth.is_slow() {
            return auth.check(options);
        }
        let _permit = self.hash_checks.acquire().await.map_err(|_| Refused)?;
        let options = options.clone();
        tokio::task::spawn_blocking(move || auth.check(&options))
            .await
            .map_err(|_| Refused)?
    }

    // --- Durable position ---

    pub(super) fn attach_jetstream(&self, durable_lsn: watch::Receiver<u64>) {
        let _ = self.durable.set(durable_lsn);
    }

    pub(crate) fn durable(&self) -> Option<watch::Receiver<u64>> {
        self.durable.get().cloned()
    }

    // --- Listening ---

    pub(super) fn set_client_addr(&self, addr: SocketAddr) -> bool {
        self.client_addr.set(addr).is_ok()
    }

    pub(super) fn client_addr(&self) -> SocketAddr {
        self.client_addr
            .get()
            .copied()
            .unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0))
    }

    pub(super) fn stop_accepting(&self) {
        self.accept_stopped.send_replace(true);
    }

    pub(crate) async fn accept_stopped(&self) {
        // The sender lives in self, so waiting cannot fail.
        let _ = self
            .accept_stopped
            .subscribe()
            .wait_for(|stopped| *stopped)
            .await;
    }

    // --- Connections ---

    /// A place for a new connection; none when there are too many.
    pub(crate) fn admit(&self, peer: SocketAddr) -> Option<Arc<Conn>> {
        let mut conns = self.conns.lock();
        if conns.open.len() >= self.options.max_connections {
            return None;
        }
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let conn = Conn::new(
            id,
            peer,
            Arc::clone(&self.account),
            self.options.max_pending,
        );
        conns.open.insert(id, Arc::clone(&conn));
        self.totals.connections.fetch_add(1, Ordering::Relaxed);
        self.open.send_replace(conns.open.len());
        drop(conns);
        if *self.accept_stopped.borrow() {
            // Accepted while the server was stopping.
            conn.close(CloseReason::ServerShutdown);
        }
        Some(conn)
    }

    /// Moves a connection whose tasks have ended to the closed ones.
    pub(crate) fn forget(&self, conn: &Arc<Conn>) {
        let reason = conn.close_reason().unwrap_or(CloseReason::ClientClosed);
        let counter = match reason {
            CloseReason::SlowConsumerPendingBytes => Some(&self.totals.slow_pending),
            CloseReason::SlowConsumerWriteDeadline => Some(&self.totals.slow_deadline),
            CloseReason::StaleConnection => Some(&self.totals.stale),
            _ => None,
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let (in_totals, out_totals) = (conn.in_totals(), conn.outbound().totals());
        let closed = ClosedConn {
            conn: ConnStats::of(conn),
            stop: SystemTime::now(),
            reason,
        };
        let mut conns = self.conns.lock();
        if conns.open.remove(&conn.id()).is_none() {
            return;
        }
        conns.closed_in.0 += in_totals.0;
        conns.closed_in.1 += in_totals.1;
        conns.closed_out.0 += out_totals.0;
        conns.closed_out.1 += out_totals.1;
        if self.options.max_closed_clients > 0 {
            while conns.closed.len() >= self.options.max_closed_clients {
                conns.closed.pop_front();
            }
            conns.closed.push_back(closed);
        }
        self.open.send_replace(conns.open.len());
    }

    pub(super) fn conns(&self) -> Vec<Arc<Conn>> {
        self.conns.lock().open.values().cloned().collect()
    }

    pub(super) async fn all_closed(&self) {
        // The sender lives in self, so waiting cannot fail.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }

    // --- INFO ---

    pub(super) fn set_lame_duck(&self) {
        self.lame_duck.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_lame_duck(&self) -> bool {
        self.lame_duck.load(Ordering::Relaxed)
    }

    pub(crate) fn info(&self, conn: &Conn) -> Info {
        let (host, port) = self.advertised();
        let jetstream = self.durable.get().is_some();
        Info {
            server_id: self.server_id.clone(),
            server_name: self.server_name.clone(),
            version: COMPATIBLE_VERSION,
            proto: 1,
            go: "rust",
            host,
            port,
            headers: true,
            auth_required: self.auth().is_required(),
            max_payload: self.options.max_payload,
            jetstream,
            client_id: conn.id(),
            client_ip: conn.peer().ip().to_canonical().to_string(),
            ldm: self.is_lame_duck(),
            connect_info: false,
            remote_account: None,
            acc_is_sys: false,
            api_lvl: API_LEVEL,
            riverlog: env!("CARGO_PKG_VERSION"),
        }
    }

    fn advertised(&self) -> (String, u16) {
        let port = self.client_addr().port();
        match &self.options.client_advertise {
            None => (self.options.host.clone(), port),
            Some(advertise) => match advertise.rsplit_once(':') {
                Some((host, text)) => (host.into(), text.parse().unwrap_or(port)),
                None => (advertise.clone(), port),
            },
        }
    }

    /// Sends INFO to every client that takes it at any time.
    pub(super) fn send_async_info(&self) {
        for conn in self.conns() {
            if conn.takes_async_info() {
                let info = self.info(&conn);
                if conn.send(512, |out| info.write(out)) {
                    conn.outbound().flush();
                }
            }
        }
    }
}
