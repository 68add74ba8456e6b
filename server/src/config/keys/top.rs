//! Keys outside any block: listening, logging, protocol limits, monitoring, process.

use std::time::Duration;

use super::super::Port;
use super::super::options::{ServerConfig, Syslog, WriteTimeout};
use super::{Key, authorization, jetstream, set};

/// The shortest lame duck duration: shorter ones would throw all clients on the other servers at
/// once.
const LAME_DUCK_DURATION_MIN: Duration = Duration::from_secs(30);

/// The accepted keys. Each action leaves the default in place when the value is refused.
pub(super) const KEYS: &[Key<ServerConfig>] = &[
    // Listening (CONF-005).
    set(&["listen"], |c, v, r| {
        if let Some((host, port)) = r.address(v) {
            c.host = host.unwrap_or_else(|| c.host.clone());
            c.port = port.for_clients();
        }
    }),
    set(&["host", "net"], |c, v, r| {
        c.host = r.text(v).unwrap_or_else(|| c.host.clone())
    }),
    set(&["port"], |c, v, r| {
        c.port = r.port(v).map_or(c.port, Port::for_clients)
    }),
    set(&["client_advertise"], |c, v, r| {
        c.client_advertise = r.text(v)
    }),
    set(&["server_name"], |c, v, r| {
        c.server_name = r.text(v);
        if c.server_name
            .as_ref()
            .is_some_and(|name| name.contains(char::is_whitespace))
        {
            r.refuse::<()>(v, "server name cannot contain spaces");
        }
    }),
    set(&["server_tags"], |c, v, r| {
        c.server_tags = r.words(v).unwrap_or_default()
    }),
    set(&["server_metadata"], |c, v, r| {
        c.server_metadata = r.string_map(v).unwrap_or_default();
    }),
    // Logging (CONF-006).
    set(&["debug"], |c, v, r| {
        c.log.debug = r.bool(v).unwrap_or_default()
    }),
    set(&["trace"], |c, v, r| {
        c.log.trace |= r.bool(v).unwrap_or_default()
    }),
    set(&["trace_verbose"], |c, v, r| {
        c.log.trace_verbose = r.bool(v).unwrap_or_default();
        c.log.trace |= c.log.trace_verbose;
    }),
    set(&["logtime"], |c, v, r| {
        c.log.timestamps = r.bool(v).unwrap_or(true)
    }),
    set(&["logtime_utc"], |c, v, r| {
        c.log.utc = r.bool(v).unwrap_or_default()
    }),
    set(&["log_file", "logfile"], |c, v, r| c.log.file = r.path(v)),
    set(&["log_size_limit", "logfile_size_limit"], |c, v, r| {
        c.log.file_bytes_max = r.limit_u64(v).flatten().unwrap_or(0);
    }),
    set(&["log_max_num", "logfile_max_num"], |c, v, r| {
        c.log.files_max = r.limit(v).flatten().unwrap_or(0);
    }),
    set(&["max_traced_msg_len"], |c, v, r| {
        c.log.traced_bytes_max = r.limit(v).flatten().unwrap_or(0);
    }),
    set(&["syslog"], |c, v, r| {
        if r.bool(v) == Some(true) && c.log.syslog.is_none() {
            c.log.syslog = Some(Syslog::Local);
        }
    }),
    set(&["remote_syslog"], |c, v, r| {
        c.log.syslog = r.text(v).map(Syslog::Remote)
    }),
    // Protocol limits (CONF-007).
    set(&["max_control_line"], |c, v, r| {
        let bytes = r.bytes(v);
        c.limits.control_line_bytes_max = bytes.unwrap_or(c.limits.control_line_bytes_max);
    }),
    set(&["max_payload"], |c, v, r| {
        let bytes = r.bytes(v);
        c.limits.payload_bytes_max = bytes.unwrap_or(c.limits.payload_bytes_max);
    }),
    set(&["max_pending"], |c, v, r| {
        let bytes = r.bytes(v);
        c.limits.pending_bytes_max = bytes.unwrap_or(c.limits.pending_bytes_max);
    }),
    set(&["max_connections", "max_conn"], |c, v, r| {
        if !r.is_zero(v) {
            c.limits.connections_max = r.limit(v).flatten();
        }
    }),
    set(&["max_subscriptions", "max_subs"], |c, v, r| {
        c.limits.subscriptions_max = r.limit(v).flatten();
    }),
    set(&["max_sub_tokens", "max_subscription_tokens"], |c, v, r| {
        let tokens = r
            .int_in(v, 0, 255)
            .and_then(|tokens| usize::try_from(tokens).ok());
        c.limits.subject_tokens_max = tokens.filter(|tokens| *tokens > 0);
    }),
    set(&["max_closed_clients"], |c, v, r| {
        if !r.is_zero(v) {
            c.limits.closed_connections_max = r.limit(v).flatten().unwrap_or(0);
        }
    }),
    set(&["ping_interval"], |c, v, r| {
        let interval = r.duration_min(v, Duration::from_secs(1));
        c.limits.ping_interval = interval.unwrap_or(c.limits.ping_interval);
    }),
    set(&["ping_max"], |c, v, r| {
        let pings = r
            .int_in(v, 0, 1000)
            .and_then(|pings| u32::try_from(pings).ok());
        c.limits.pings_max = pings.unwrap_or(c.limits.pings_max);
    }),
    set(&["write_deadline"], |c, v, r| {
        let deadline = r.duration_min(v, Duration::from_secs(1));
        c.limits.write_deadline = deadline.unwrap_or(c.limits.write_deadline);
    }),
    set(&["write_timeout"], |c, v, r| match r.string(v).as_deref() {
        Some("default" | "close") => c.limits.write_timeout = WriteTimeout::Close,
        Some("retry") => c.limits.write_timeout = WriteTimeout::Retry,
        Some(_) => {
            r.refuse::<()>(v, "expected 'default', 'close' or 'retry'");
        }
        None => {}
    }),
    set(&["no_fast_producer_stall"], |c, v, r| {
        c.no_fast_producer_stall = r.bool(v).unwrap_or_default();
    }),
    // Who may connect, and what is kept.
    set(&["authorization"], authorization::apply_block),
    set(&["no_auth_user"], |c, v, r| c.auth.no_auth_user = r.text(v)),
    set(&["jetstream"], jetstream::apply_block),
    set(&["store_dir", "storedir"], |c, v, r| {
        if let Some(path) = r.path(v) {
            c.jetstream.store_dir = path;
        }
    }),
    // Monitoring (CONF-012).
    set(&["http"], |c, v, r| {
        if let Some((host, port)) = r.address(v) {
            c.monitor.host = host.or(c.monitor.host.take());
            c.monitor.port = port.for_monitoring();
        }
    }),
    set(&["http_port", "monitor_port"], |c, v, r| {
        c.monitor.port = r.port(v).and_then(Port::for_monitoring)
    }),
    set(&["http_base_path"], |c, v, r| {
        let path = r.string(v).unwrap_or_default();
        let path = path.trim_matches('/');
        c.monitor.base_path = if path.is_empty() {
            String::new()
        } else {
            format!("/{path}")
        };
    }),
    // Process (CONF-017).
    set(&["pid_file", "pidfile"], |c, v, r| c.pid_file = r.path(v)),
    set(&["ports_file_dir"], |c, v, r| c.ports_file_dir = r.path(v)),
    set(&["lame_duck_duration"], |c, v, r| {
        let duration = r.duration_min(v, LAME_DUCK_DURATION_MIN);
        c.lame_duck_duration = duration.unwrap_or(c.lame_duck_duration);
    }),
    set(&["lame_duck_grace_period"], |c, v, r| {
        c.lame_duck_grace_period = r.duration(v).unwrap_or(c.lame_duck_grace_period);
    }),
    set(&["system_account", "system"], |c, v, r| {
        c.system_account = r.text(v)
    }),
    set(
        &["no_sys_acc", "no_system_account", "no_system"],
        |c, v, r| {
            c.no_system_account = r.bool(v).unwrap_or_default();
        },
    ),
];
