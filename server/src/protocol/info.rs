//! The INFO line (WIRE section 1).

use serde::Serialize;

/// Version announced to clients, which gate features on it: the reference server Riverlog behaves
/// like. The version of Riverlog itself is the field `riverlog`.
pub const COMPATIBLE_VERSION: &str = "2.15.1";
/// JetStream API level, announced also while JetStream is off.
pub const API_LEVEL: u32 = 5;

/// Content of an INFO line.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// Public nkey of the server, `N…`.
    pub server_id: String,
    /// Configured name, or the id (CORE-048).
    pub server_name: String,
    /// [`COMPATIBLE_VERSION`].
    pub version: &'static str,
    /// Protocol version: 1.
    pub proto: u8,
    /// Toolchain; clients only show it.
    pub go: &'static str,
    /// Bind or advertised host.
    pub host: String,
    /// Bind or advertised port.
    pub port: u16,
    /// Headers are supported.
    pub headers: bool,
    /// Credentials are needed.
    #[serde(skip_serializing_if = "is_false")]
    pub auth_required: bool,
    /// Largest headers plus body, in bytes.
    pub max_payload: usize,
    /// JetStream is available.
    #[serde(skip_serializing_if = "is_false")]
    pub jetstream: bool,
    /// Identity of the connection.
    pub client_id: u64,
    /// Peer address.
    pub client_ip: String,
    /// The server is about to leave: reconnect elsewhere (CORE-030).
    #[serde(skip_serializing_if = "is_false")]
    pub ldm: bool,
    /// Set on the line after the first PONG (CORE-028).
    #[serde(skip_serializing_if = "is_false")]
    pub connect_info: bool,
    /// Account of the connection, with `connect_info`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_account: Option<String>,
    /// The account is the system account, with `connect_info`.
    #[serde(skip_serializing_if = "is_false")]
    pub acc_is_sys: bool,
    /// JetStream API level.
    pub api_lvl: u32,
    /// Version of Riverlog.
    pub riverlog: &'static str,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Info {
    /// Appends the whole line.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"INFO ");
        // Writing strings and numbers into a Vec cannot fail.
        if serde_json::to_writer(&mut *out, self).is_ok() {
            out.extend_from_slice(b" \r\n");
        }
    }
}
