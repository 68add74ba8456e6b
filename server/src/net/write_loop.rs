//! Moves the outbound buffer of a connection to its socket.

use std::io::IoSlice;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::close::CloseReason;
use super::conn::Conn;
use super::outbound::{Chunks, Taken};
use super::trace;
use crate::server::options::WriteTimeout;

/// How long a flush may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WritePolicy {
    pub deadline: Duration,
    pub on_timeout: WriteTimeout,
}

/// Chunks written with one system call.
const SLICES_MAX: usize = 32;

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
    let mut chunks = Chunks::new();
    loop {
        match out.take(&mut chunks) {
            Taken::Data => {}
            Taken::Nothing => {
                out.writable().await;
                continue;
            }
            Taken::Closed => return Some(socket),
        }
        for chunk in &chunks {
            trace::outbound(conn, chunk);
        }
        let result = write_all(conn, &mut socket, &mut chunks, policy).await;
        out.recycle(&mut chunks);
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

/// Writes everything and leaves the last chunk, written, to be used again.
async fn write_all<W: AsyncWrite + Unpin>(
    conn: &Conn,
    socket: &mut W,
    chunks: &mut Chunks,
    policy: WritePolicy,
) -> Result<(), WriteError> {
    let mut deadline = Instant::now() + policy.deadline;
    // Bytes of the first chunk that are written.
    let mut offset = 0;
    while chunks.len() > 1 || chunks.front().is_some_and(|chunk| offset < chunk.len()) {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        for (slice, chunk) in slices.iter_mut().zip(chunks.iter()) {
            *slice = IoSlice::new(chunk);
        }
        slices[0].advance(offset);
        let count = chunks.len().min(SLICES_MAX);
        let written = tokio::select! {
            biased;
            written = timeout_at(deadline, socket.write_vectored(&slices[..count])) => written,
            () = conn.outbound().aborted() => return Err(WriteError::Aborted),
        };
        match written {
            Ok(Ok(0) | Err(_)) => return Err(WriteError::Io),
            Ok(Ok(written)) => {
                conn.outbound().written(written);
                offset += written;
                while chunks.len() > 1 && offset >= chunks[0].len() {
                    offset -= chunks[0].len();
                    chunks.pop_front();
                }
            }
            Err(_elapsed) => match policy.on_timeout {
                WriteTimeout::Close => return Err(WriteError::Deadline),
                WriteTimeout::Retry => deadline = Instant::now() + policy.deadline,
            },
        }
    }
    Ok(())
}
