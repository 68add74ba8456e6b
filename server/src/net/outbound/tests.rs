use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A socket that takes a limited number of bytes.
#[derive(Default)]
struct Socket {
    written: Mutex<Vec<u8>>,
    room: AtomicUsize,
}

impl TryWrite for Socket {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.room.load(Ordering::Relaxed));
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room.fetch_sub(count, Ordering::Relaxed);
        self.written.lock().extend_from_slice(&bytes[..count]);
        Ok(count)
    }
}

fn with_socket(room: usize) -> (Outbound, Arc<Socket>) {
    let out = Outbound::new(100_000);
    let socket = Arc::new(Socket::default());
    socket.room.store(room, Ordering::Relaxed);
    out.set_socket(Arc::clone(&socket) as _);
    (out, socket)
}

/// Appends and returns whether that was a promise.
fn push(out: &Outbound, text: &[u8]) -> bool {
    match out.push(text.len(), |buf| buf.extend_from_slice(text)) {
        Ok(Pushed::Queued { promised, .. }) => promised,
        other => panic!("{other:?}"),
    }
}

/// What the write loop would write now.
fn take(out: &Outbound) -> (Taken, Vec<u8>) {
    let mut chunks = Chunks::new();
    let taken = out.take(&mut chunks);
    let bytes: Vec<u8> = chunks.iter().flatten().copied().collect();
    out.written(bytes.len());
    out.recycle(&mut chunks);
    (taken, bytes)
}

#[test]
fn a_small_buffer_is_written_at_once() {
    let (out, socket) = with_socket(100);
    assert!(push(&out, b"a"));
    assert!(!push(&out, b"b"), "one promise is enough");
    out.flush();
    assert_eq!(*socket.written.lock(), b"ab");
    assert_eq!(out.pending_bytes(), 0);
    // Idle again: the next append is a promise again.
    assert!(push(&out, b"c"));
    out.flush();
    assert_eq!(*socket.written.lock(), b"abc");
}

#[test]
fn what_does_not_fit_goes_to_the_write_loop_in_order() {
    for room in [0, 1, 3] {
        let (out, socket) = with_socket(room);
        push(&out, b"abcd");
        out.flush();
        assert!(!push(&out, b"ef"), "the write loop owns the buffer");
        let (taken, rest) = take(&out);
        assert_eq!(taken, Taken::Data);
        assert_eq!(
            [socket.written.lock().as_slice(), &rest].concat(),
            b"abcdef"
        );
        assert_eq!(take(&out), (Taken::Nothing, vec![]));
        assert_eq!(out.pending_bytes(), 0);
        assert!(push(&out, b"g"));
    }
}

#[test]
fn the_write_loop_leaves_a_promise_alone() {
    let (out, socket) = with_socket(100);
    push(&out, b"a");
    assert_eq!(take(&out), (Taken::Nothing, vec![]));
    out.hand_over();
    assert_eq!(take(&out), (Taken::Data, b"a".to_vec()));
    assert!(socket.written.lock().is_empty());
}

#[test]
fn large_buffers_are_left_to_the_write_loop() {
    let (out, socket) = with_socket(usize::MAX);
    let large = vec![b'x'; DIRECT_BYTES_MAX + 1];
    push(&out, &large);
    out.flush();
    assert!(socket.written.lock().is_empty());
    assert_eq!(take(&out), (Taken::Data, large));
}

#[test]
fn a_close_ends_the_write_loop_after_what_is_queued() {
    // Idle.
    let (out, _socket) = with_socket(100);
    out.close(false);
    assert_eq!(take(&out), (Taken::Closed, vec![]));
    // With a promise that is kept after the close.
    let (out, socket) = with_socket(100);
    push(&out, b"bye");
    out.close(false);
    assert_eq!(take(&out), (Taken::Nothing, vec![]));
    out.flush();
    assert_eq!(take(&out), (Taken::Data, b"bye".to_vec()));
    assert_eq!(take(&out), (Taken::Closed, vec![]));
    assert!(socket.written.lock().is_empty());
    assert_eq!(out.push(1, |_| ()), Err(PushError::Closed));
}

#[test]
fn a_discarding_close_throws_the_rest_away() {
    let (out, _socket) = with_socket(100);
    push(&out, b"lost");
    out.close(true);
    out.flush();
    assert_eq!(take(&out), (Taken::Closed, vec![]));
    assert_eq!(out.pending_bytes(), 0);
}

#[test]
fn the_bound_is_in_bytes_and_covers_what_is_being_written() {
    let (out, _socket) = with_socket(0);
    push(&out, &[b'x'; 60_000]);
    out.hand_over();
    let mut chunks = Chunks::new();
    assert_eq!(out.take(&mut chunks), Taken::Data);
    assert!(!out.is_stalled());
    push(&out, &[b'y'; 40_000]);
    assert!(out.is_stalled());
    assert_eq!(out.push(1, |buf| buf.push(b'z')), Err(PushError::Overflow));
    assert_eq!(out.push(1, |buf| buf.push(b'z')), Err(PushError::Closed));
}

#[test]
fn order_holds_whoever_writes() {
    // Two threads append and flush while a third plays the write loop.
    let (out, socket) = with_socket(0);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let appenders: Vec<_> = [b'a', b'b']
            .into_iter()
            .map(|name| {
                let (out, socket) = (&out, &socket);
                scope.spawn(move || {
                    for number in 0..2000_u32 {
                        socket
                            .room
                            .fetch_add(number as usize % 9, Ordering::Relaxed);
                        let text = format!("{}{number:04}", name as char);
                        if push(out, text.as_bytes()) {
                            out.flush();
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) || out.pending_bytes() > 0 {
                let mut chunks = Chunks::new();
                if out.take(&mut chunks) == Taken::Data {
                    let bytes: Vec<u8> = chunks.iter().flatten().copied().collect();
                    socket.written.lock().extend_from_slice(&bytes);
                    out.written(bytes.len());
                }
                std::thread::yield_now();
            }
        });
        for appender in appenders {
            appender.join().unwrap();
        }
        done.store(true, Ordering::Release);
    });
    let written = socket.written.lock();
    let words: Vec<&str> = written
        .chunks(5)
        .map(|word| std::str::from_utf8(word).unwrap())
        .collect();
    assert_eq!(words.len(), 4000);
    for name in ['a', 'b'] {
        let mine: Vec<_> = words.iter().filter(|word| word.starts_with(name)).collect();
        let want: Vec<_> = (0..2000)
            .map(|number| format!("{name}{number:04}"))
            .collect();
        assert!(mine.iter().zip(&want).all(|(have, want)| **have == want));
        assert_eq!(mine.len(), 2000);
    }
}
