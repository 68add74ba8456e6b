//! Keys of known features that this server does not have. They are refused, never ignored in
//! silence: a server that drops a `tls` or `permissions` block is an open door.

use super::super::options::ServerConfig;
use super::{Key, unsupported};

const CLUSTERING: &str = "clustering is";
const ACCOUNTS: &str = "several accounts are";
const OPERATOR: &str = "operator mode is";
const TLS: &str = "TLS is";
const PROFILING: &str = "the profiling port is";

/// Keys outside any block.
pub(super) const TOP_KEYS: &[Key<ServerConfig>] = &[
    unsupported(&["accounts"], ACCOUNTS),
    unsupported(&["mappings", "maps"], "subject mapping is"),
    unsupported(
        &["no_auth_user"],
        "a user for clients without credentials is",
    ),
    unsupported(&["cluster"], CLUSTERING),
    unsupported(&["gateway"], "gateways between clusters are"),
    unsupported(&["leafnodes", "leaf"], "leaf nodes are"),
    unsupported(&["connect_error_reports"], CLUSTERING),
    unsupported(&["reconnect_error_reports"], CLUSTERING),
    unsupported(&["operator", "operators", "roots", "root"], OPERATOR),
    unsupported(&["resolver", "account_resolver"], OPERATOR),
    unsupported(&["resolver_tls"], OPERATOR),
    unsupported(&["resolver_preload"], OPERATOR),
    unsupported(&["resolver_pinned_accounts"], OPERATOR),
    unsupported(&["trusted_keys", "trusted"], OPERATOR),
    unsupported(&["default_sentinel"], OPERATOR),
    unsupported(&["tls"], TLS),
    unsupported(&["allow_non_tls"], TLS),
    unsupported(&["https"], TLS),
    unsupported(&["https_port"], TLS),
    unsupported(&["ocsp"], "OCSP is"),
    unsupported(&["ocsp_cache"], "OCSP is"),
    unsupported(&["websocket", "ws"], "WebSocket is"),
    unsupported(&["mqtt"], "MQTT is"),
    unsupported(&["proxies"], "proxy authentication is"),
    unsupported(&["proxy_protocol"], "the PROXY protocol is"),
    unsupported(&["prof_port"], PROFILING),
    unsupported(&["prof_block_rate"], PROFILING),
    unsupported(&["trace_headers"], "tracing of headers alone is"),
    unsupported(
        &["write_timeout"],
        "a choice of what follows a write timeout is",
    ),
    unsupported(&["no_header_support"], "running without headers is"),
    unsupported(
        &["disable_sublist_cache", "no_sublist_cache"],
        "running without match cache is",
    ),
    unsupported(&["default_js_domain"], "a JetStream domain per account is"),
    unsupported(&["feature_flags"], "choosing feature flags is"),
];
