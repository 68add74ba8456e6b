//! Moves the outbound buffer of a connection to its socket.

use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::close::CloseReason;
use super::conn::Conn;
use super::outbound::Taken;
use super::trace;
use crate::server::options::WriteTimeout;

/// How long a flush may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WritePolicy {
    pub deadline: Duration,
    pub on_timeout: WriteTimeout,
}

enum WriteError {
    Io,
    Deadline,
    Aborted,
}

/// Runs until the buffer is closed. Gives the socket back unless it must not be used any more.
pub(crate) async fn run<W: AsyncWrite + Unpin>(
    conn: &Conn,
    mut socket: W,
    policy: WritePolicy,
) -> Option<W> {
    let out = conn.outbound();
    let mut chunk = Vec::new();
    loop {
        match out.take(&mut chunk) {
            Taken::Data => {}
            Taken::Nothing => {
                out.writable().await;
                continue;
            }
            Taken::Closed => return Some(socket),
        }
        trace::outbound(conn, &chunk);
        let result = write_all(conn, &mut socket, &chunk, policy).await;
        out.written(&mut chunk);
        match result {
            Ok(()) => {}
            Err(error) => {
                match error {
                    WriteError::Io => conn.close(CloseReason::WriteError),
                    WriteError::Deadline => conn.close(CloseReason::SlowConsumerWriteDeadline),
                    WriteError::Aborted => {}
                }
                // The close may have had another reason before.
                out.close(true);
                return None;
            }
        }
    }
}

async fn write_all<W: AsyncWrite + Unpin>(
    conn: &Conn,
    socket: &mut W,
    chunk: &[u8],
    policy: WritePolicy,
) -> Result<(), WriteError> {
    let mut rest = chunk;
    let mut deadline = Instant::now() + policy.deadline;
    while !rest.is_empty() {
        let written = tokio::select! {
            biased;
            written = timeout_at(deadline, socket.write(rest)) => written,
            () = conn.outbound().aborted() => return Err(WriteError::Aborted),
        };
        match written {
            Ok(Ok(0) | Err(_)) => return Err(WriteError::Io),
            Ok(Ok(written)) => rest = &rest[written..],
            Err(_elapsed) => match policy.on_timeout {
                WriteTimeout::Close => return Err(WriteError::Deadline),
                WriteTimeout::Retry => deadline = Instant::now() + policy.deadline,
            },
        }
    }
    Ok(())
}
