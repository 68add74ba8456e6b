//! Accepting connections.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::read_loop;
use crate::protocol::encode;
use crate::server::Shared;

/// Pause after a failed accept, for example when the process has no file descriptors left.
const ACCEPT_RETRY_AFTER: Duration = Duration::from_millis(50);
/// How long a refused client may take to read the reason.
const REFUSE_MAX: Duration = Duration::from_secs(1);

/// Accepts until the server stops listening.
pub(crate) async fn run(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.accept_stopped() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::error!("Client connection could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_RETRY_AFTER).await;
                continue;
            }
        };
        match shared.admit(peer) {
            Some(conn) => {
                tokio::spawn(read_loop::serve(Arc::clone(&shared), conn, stream));
            }
            None => {
                tokio::spawn(refuse(stream));
            }
        }
    }
}

/// CORE-036.
async fn refuse(mut stream: TcpStream) {
    let mut line = Vec::new();
    encode::error(&mut line, "maximum connections exceeded");
    let _ = timeout(REFUSE_MAX, async {
        let _ = stream.write_all(&line).await;
        let _ = stream.shutdown().await;
    })
    .await;
}
