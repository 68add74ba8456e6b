//! Moves the outbound buffer of a connection to its socket.

use std::io::{self, IoSlice};
use std::time::Duration;

use tokio::net::tcp::OwnedWriteHalf;
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

/// Runs until the buffer is closed. Returns whether everything was written.
pub(crate) async fn run(conn: &Conn, socket: &OwnedWriteHalf, policy: WritePolicy) -> bool {
    let out = conn.outbound();
    let mut chunks = Chunks::new();
    loop {
        match out.take(&mut chunks) {
            Taken::Data => {}
            Taken::Nothing => {
                out.writable().await;
                continue;
            }
            Taken::Closed => return true,
        }
        for chunk in &chunks {
            trace::outbound(conn, chunk);
        }
        let result = write_all(conn, socket, &mut chunks, policy).await;
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
                return false;
            }
        }
    }
}

/// Writes everything and leaves the last chunk, written, to be used again.
async fn write_all(
    conn: &Conn,
    socket: &OwnedWriteHalf,
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
            written = timeout_at(deadline, write_some(socket, &slices[..count])) => written,
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

async fn write_some(socket: &OwnedWriteHalf, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    loop {
        socket.writable().await?;
        match socket.try_write_vectored(slices) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}
