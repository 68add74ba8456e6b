//! The life of a connection: reading, timers, waiting acknowledgements, and the end.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::close::CloseReason;
use super::commands::Session;
use super::conn::Conn;
use super::trace;
use super::write_loop::{self, WritePolicy};
use crate::protocol::encode;
use crate::server::Shared;

/// First and largest number of bytes read at once. A connection that fills its reads gets larger ones.
const READ_BYTES_MIN: usize = 2 * 1024;
const READ_BYTES_MAX: usize = 64 * 1024;
/// The first PING comes early, to measure the round trip (CORE-047).
const FIRST_PING_AFTER: Duration = Duration::from_secs(2);
/// How long a producer pauses for a receiver that falls behind, per batch (CORE-035).
const STALL_MAX: Duration = Duration::from_millis(5);
/// How long acknowledgements of a closed connection may still wait for the disk.
const ACK_DRAIN_MAX: Duration = Duration::from_secs(5);
/// How long, and for how many bytes, a closed connection is drained so that its client can read the
/// last line.
const LINGER_MAX: Duration = Duration::from_millis(250);
const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Serves one accepted connection until it ends.
pub(crate) async fn serve(shared: Arc<Shared>, conn: Arc<Conn>, stream: TcpStream) {
    // Latency matters more than the number of packets; batching is done in the buffer.
    let _ = stream.set_nodelay(true);
    trace::created(&conn);
    let (mut reader, writer) = stream.into_split();
    let policy = WritePolicy {
        deadline: shared.options().write_deadline,
        on_timeout: shared.options().write_timeout,
    };
    let writer = Arc::new(writer);
    conn.outbound().set_socket(Arc::clone(&writer) as _);
    let writer = tokio::spawn({
        let conn = Arc::clone(&conn);
        // The socket is shut down for writing when its last owner, this task, drops it.
        async move { write_loop::run(&conn, &writer, policy).await }
    });
    let mut session = Session::new(Arc::clone(&shared), Arc::clone(&conn));
    let info = shared.info(&conn);
    if conn.send(512, |out| info.write(out)) {
        conn.outbound().flush();
    }
    let reason = run(&mut session, &mut reader).await;
    session.end_batch();
    conn.close(reason);
    let reason = conn.close_reason().unwrap_or(reason);
    trace::closed(&conn, reason);
    drain_acks(&mut session).await;
    conn.remove_all_subscriptions();
    conn.outbound().close(reason.discards_output());
    if matches!(writer.await, Ok(true)) && reason.lingers() {
        linger(&mut reader).await;
    }
    shared.forget(&conn);
}

struct Timers {
    /// A valid CONNECT must come before this.
    auth: Option<Instant>,
    ping: Instant,
    last_read: Instant,
}

async fn run<R: AsyncRead + Unpin>(session: &mut Session, reader: &mut R) -> CloseReason {
    let conn = Arc::clone(&session.conn);
    let options = Arc::clone(session.shared.options());
    let start = Instant::now();
    let mut timers = Timers {
        auth: session
            .shared
            .auth()
            .is_required()
            .then(|| start + options.auth_timeout),
        ping: start + jitter(FIRST_PING_AFTER.min(options.ping_interval)),
        last_read: start,
    };
    let mut buf = BytesMut::new();
    let mut read_bytes = READ_BYTES_MIN;
    let timer = sleep_until(timers.next());
    tokio::pin!(timer);
    loop {
        let blocked = session.acks.get_mut().blocks_reading();
        let waiting = !session.acks.get_mut().is_empty();
        if !blocked {
            reserve(session, &mut buf, read_bytes);
        }
        tokio::select! {
            biased;
            () = conn.closing() => return CloseReason::ClientClosed,
            () = durable_changed(&mut session.durable), if waiting => session.release_acks(),
            result = reader.read_buf(&mut buf), if !blocked => {
                match result {
                    Ok(0) => return CloseReason::ClientClosed,
                    Ok(count) if count >= read_bytes => read_bytes = (read_bytes * 4).min(READ_BYTES_MAX),
                    Ok(_) => {}
                    Err(_) => return CloseReason::ReadError,
                }
                timers.last_read = Instant::now();
                conn.set_last_activity(timers.last_read - start);
                if let Err(reason) = session.process(&mut buf).await {
                    return reason;
                }
                if session.is_authenticated() {
                    timers.auth = None;
                }
                session.release_acks();
                session.end_batch();
                let_receiver_catch_up(session, !options.no_fast_producer_stall).await;
            }
            () = &mut timer => {
                if let Err(reason) = on_timer(session, &mut timers, options.ping_interval, options.ping_max) {
                    return reason;
                }
                if buf.is_empty() && timers.last_read.elapsed() >= FIRST_PING_AFTER {
                    // Idle: thousands of such connections should not hold a buffer each.
                    buf = BytesMut::new();
                    read_bytes = READ_BYTES_MIN;
                }
                timer.as_mut().reset(timers.next());
            }
        }
    }
}

impl Timers {
    fn next(&self) -> Instant {
        self.auth.map_or(self.ping, |auth| auth.min(self.ping))
    }
}

/// Up to a fifth longer, so that many clients that connected together are not pinged together.
fn jitter(interval: Duration) -> Duration {
    interval + interval.mul_f64(rand::random::<f64>() / 5.0)
}

fn on_timer(
    session: &mut Session,
    timers: &mut Timers,
    ping_interval: Duration,
    ping_max: u32,
) -> Result<(), CloseReason> {
    let now = Instant::now();
    if timers.auth.is_some_and(|auth| auth <= now) {
        return session.fail("Authentication Timeout", CloseReason::AuthenticationTimeout);
    }
    if timers.ping <= now {
        // A client that sends is alive; it is only asked while its round trip is unknown.
        let idle = now - timers.last_read >= ping_interval;
        if idle && session.pings_unanswered >= ping_max {
            return session.fail("Stale Connection", CloseReason::StaleConnection);
        }
        if idle || (session.conn.rtt().is_none() && session.ping_sent.is_none()) {
            session.pings_unanswered += 1;
            session.ping_sent = Some(now);
            session.send(encode::PING);
            session.end_batch();
        }
        timers.ping = now + ping_interval;
    }
    Ok(())
}

/// Makes room for the next read. Grows towards a large message step by step: its announced size is
/// not allocated before the bytes arrive.
fn reserve(session: &Session, buf: &mut BytesMut, read_bytes: usize) {
    let missing = session.parser.missing(buf);
    let room = missing
        .clamp(read_bytes, buf.len().max(READ_BYTES_MAX))
        .max(read_bytes);
    if buf.capacity() - buf.len() < room.min(read_bytes) {
        buf.reserve(room);
    }
}

/// Waits for the next move of the durable position; for ever when there is none to come.
async fn durable_changed(durable: &mut Option<watch::Receiver<u64>>) {
    if let Some(durable) = durable
        && durable.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// Lets a receiver that falls behind catch up. A backlog only costs a turn, so that its write loop
/// runs; a buffer that is nearly full costs a pause (CORE-035).
async fn let_receiver_catch_up(session: &mut Session, may_pause: bool) {
    let Some(receiver) = session.publisher.take_behind() else {
        return;
    };
    let pause = may_pause && receiver.id() != session.conn.id() && receiver.outbound().is_stalled();
    if pause {
        let _ = timeout(STALL_MAX, receiver.outbound().drained()).await;
    } else {
        tokio::task::yield_now().await;
    }
}

/// Sends the acknowledgements of what was admitted before the end, as far as the disk gets.
async fn drain_acks(session: &mut Session) {
    let deadline = Instant::now() + ACK_DRAIN_MAX;
    session.release_acks();
    while !session.acks.get_mut().is_empty() {
        tokio::select! {
            () = durable_changed(&mut session.durable) => session.release_acks(),
            () = sleep_until(deadline) => break,
        }
    }
}

async fn linger(reader: &mut OwnedReadHalf) {
    let mut sink = vec![0; 16 * 1024];
    let drain = async {
        let mut total = 0;
        while let Ok(count) = reader.read(&mut sink).await {
            total += count;
            if count == 0 || total > LINGER_BYTES_MAX {
                break;
            }
        }
    };
    let _ = timeout(LINGER_MAX, drain).await;
}
