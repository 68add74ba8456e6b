//! Lines for the system log, as datagrams in the form of RFC 3164.

use std::net::{ToSocketAddrs as _, UdpSocket};
use std::os::unix::net::UnixDatagram;

use super::{LogError, Severity, push_text};
use crate::config::options::Syslog;

/// The machine's log sockets, in the order tried.
const LOCAL_PATHS: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];

/// Facility "system daemons" of RFC 3164.
const FACILITY: u8 = 3;

/// Name of the program in the system log.
const TAG: &str = "riverlog";

/// A datagram longer than this is cut: servers are only required to take 1,024 bytes, most take
/// more.
const DATAGRAM_BYTES_MAX: usize = 8 << 10;

pub(super) enum SyslogSocket {
    Local(UnixDatagram),
    Remote(UdpSocket),
}

impl SyslogSocket {
    pub(super) fn open(target: &Syslog) -> Result<Self, LogError> {
        match target {
            Syslog::Local => Self::open_local(),
            Syslog::Remote(address) => {
                Self::open_remote(address).map_err(|reason| LogError::Syslog {
                    address: address.clone(),
                    reason,
                })
            }
        }
    }

    fn open_local() -> Result<Self, LogError> {
        let mut failure = None;
        for path in LOCAL_PATHS {
            let socket = UnixDatagram::unbound()
                .and_then(|socket| socket.connect(path).map(|()| socket))
                .and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
            match socket {
                Ok(socket) => return Ok(Self::Local(socket)),
                Err(reason) => {
                    failure.get_or_insert(LogError::Syslog {
                        address: path.to_owned(),
                        reason,
                    });
                }
            }
        }
        Err(failure.unwrap_or_else(|| LogError::Syslog {
            address: LOCAL_PATHS[0].to_owned(),
            reason: std::io::ErrorKind::NotFound.into(),
        }))
    }

    /// `udp://host:port`, the port 514 when it is not given.
    fn open_remote(address: &str) -> std::io::Result<Self> {
        let invalid = |reason: &str| std::io::Error::new(std::io::ErrorKind::InvalidInput, reason);
        let host = match address.split_once("://") {
            Some(("udp", host)) => host,
            Some(_) => return Err(invalid("only udp:// is supported")),
            None => address,
        };
        let with_port = if host
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
        {
            host.to_owned()
        } else {
            format!("{host}:514")
        };
        let remote = with_port
            .to_socket_addrs()?
            .next()
            .ok_or_else(|| invalid("host has no address"))?;
        let local = if remote.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(local)?;
        socket.connect(remote)?;
        socket.set_nonblocking(true)?;
        Ok(Self::Remote(socket))
    }

    /// Sends one line. A full socket drops it: logging must not stall the server.
    pub(super) fn send(&self, severity: Severity, text: &str) {
        let datagram = datagram(severity, text);
        let _ = match self {
            Self::Local(socket) => socket.send(&datagram),
            Self::Remote(socket) => socket.send(&datagram),
        };
    }
}

fn datagram(severity: Severity, text: &str) -> Vec<u8> {
    let priority = FACILITY * 8 + severity_code(severity);
    let time = jiff::ZonedDateTime::now()
        .strftime("%b %e %H:%M:%S")
        .to_string();
    let mut line = format!("<{priority}>{time} {TAG}[{}]: ", std::process::id());
    push_text(&mut line, text);
    let mut bytes = line.into_bytes();
    bytes.truncate(DATAGRAM_BYTES_MAX);
    bytes
}

/// RFC 3164 section 4.1.1.
fn severity_code(severity: Severity) -> u8 {
    match severity {
        Severity::Fatal => 2,
        Severity::Error => 3,
        Severity::Warning => 4,
        Severity::Info => 5,
        Severity::Debug | Severity::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reaches_a_log_server() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = format!("udp://{}", server.local_addr().unwrap());
        let socket = SyslogSocket::open(&Syslog::Remote(address)).unwrap();
        socket.send(Severity::Warning, "disk is slow\nx");
        let mut buffer = [0; 256];
        let length = server.recv(&mut buffer).unwrap();
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        assert!(text.starts_with("<28>"), "{text}");
        let ending = format!(" riverlog[{}]: disk is slow\\nx", std::process::id());
        assert!(text.ends_with(&ending), "{text}");
    }

    #[test]
    fn addresses_that_cannot_be_used() {
        for address in ["tcp://127.0.0.1:1", "udp://"] {
            assert!(
                SyslogSocket::open(&Syslog::Remote(address.to_owned())).is_err(),
                "{address}"
            );
        }
        assert!(SyslogSocket::open(&Syslog::Remote("127.0.0.1".to_owned())).is_ok());
    }

    #[test]
    fn long_lines_are_cut() {
        assert_eq!(
            datagram(Severity::Info, &"x".repeat(100_000)).len(),
            DATAGRAM_BYTES_MAX
        );
    }
}
