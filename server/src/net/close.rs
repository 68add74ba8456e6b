//! Why a connection ended.

use std::fmt;

use crate::protocol::ProtocolError;

/// Reason of a close, shown in `/connz?state=closed` (CORE-046).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the texts of Display say it")]
pub enum CloseReason {
    ClientClosed,
    AuthenticationTimeout,
    AuthenticationFailure,
    SlowConsumerPendingBytes,
    SlowConsumerWriteDeadline,
    WriteError,
    ReadError,
    ParseError,
    StaleConnection,
    ProtocolViolation,
    BadClientProtocolVersion,
    MaxConnectionsExceeded,
    MaxPayloadExceeded,
    MaxControlLineExceeded,
    ServerShutdown,
    NoRespondersRequiresHeaders,
}

impl CloseReason {
    /// True when what is still queued for the client must be thrown away: it would not take it.
    pub(crate) fn discards_output(self) -> bool {
        matches!(
            self,
            CloseReason::SlowConsumerPendingBytes
                | CloseReason::SlowConsumerWriteDeadline
                | CloseReason::WriteError
                | CloseReason::ReadError
        )
    }

    /// True when the client may still be sending: the socket is then drained for a moment, so that
    /// the last `-ERR` line is not lost in a connection reset.
    pub(crate) fn lingers(self) -> bool {
        !self.discards_output()
            && !matches!(
                self,
                CloseReason::ClientClosed | CloseReason::StaleConnection
            )
    }
}

impl From<ProtocolError> for CloseReason {
    fn from(error: ProtocolError) -> CloseReason {
        match error {
            ProtocolError::ControlLineTooLong => CloseReason::MaxControlLineExceeded,
            ProtocolError::PayloadTooLarge => CloseReason::MaxPayloadExceeded,
            ProtocolError::UnknownOperation
            | ProtocolError::BadArguments
            | ProtocolError::HeadersNotEnabled => CloseReason::ProtocolViolation,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CloseReason::ClientClosed => "Client Closed",
            CloseReason::AuthenticationTimeout => "Authentication Timeout",
            CloseReason::AuthenticationFailure => "Authentication Failure",
            CloseReason::SlowConsumerPendingBytes => "Slow Consumer (Pending Bytes)",
            CloseReason::SlowConsumerWriteDeadline => "Slow Consumer (Write Deadline)",
            CloseReason::WriteError => "Write Error",
            CloseReason::ReadError => "Read Error",
            CloseReason::ParseError => "Parse Error",
            CloseReason::StaleConnection => "Stale Connection",
            CloseReason::ProtocolViolation => "Protocol Violation",
            CloseReason::BadClientProtocolVersion => "Bad Client Protocol Version",
            CloseReason::MaxConnectionsExceeded => "Maximum Connections Exceeded",
            CloseReason::MaxPayloadExceeded => "Maximum Message Payload Exceeded",
            CloseReason::MaxControlLineExceeded => "Maximum Control Line Exceeded",
            CloseReason::ServerShutdown => "Server Shutdown",
            CloseReason::NoRespondersRequiresHeaders => "No Responders Requires Headers",
        })
    }
}
