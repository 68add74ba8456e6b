//! Files that tell other programs about the running server. They are removed when it stops.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// A file that exists as long as this value.
#[derive(Debug)]
pub(super) struct RunFile {
    path: PathBuf,
}

impl Drop for RunFile {
    fn drop(&mut self) {
        // Somebody may have removed it already; nothing depends on it any more.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Why such a file could not be written.
#[derive(Debug)]
pub(super) struct RunFileError {
    what: &'static str,
    path: PathBuf,
    reason: io::Error,
}

impl fmt::Display for RunFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot write {} {}: {}",
            self.what,
            self.path.display(),
            self.reason
        )
    }
}

/// Writes this process's id.
pub(super) fn write_pid(path: &Path) -> Result<RunFile, RunFileError> {
    write(path, "pid file", &std::process::id().to_string())
}

#[derive(Serialize)]
struct Ports {
    nats: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    monitoring: Vec<String>,
}

/// Writes `<program>_<pid>.ports` with the URLs under which the server can be reached (CLI-010).
pub(super) fn write_ports(
    folder: &Path,
    program: &str,
    client: SocketAddr,
    monitoring: Option<SocketAddr>,
) -> Result<RunFile, RunFileError> {
    let ports = Ports {
        nats: urls("nats", client),
        monitoring: monitoring
            .map(|address| urls("http", address))
            .unwrap_or_default(),
    };
    let path = folder.join(format!("{program}_{}.ports", std::process::id()));
    match serde_json::to_string(&ports) {
        Ok(json) => write(&path, "ports file", &json),
        Err(error) => Err(RunFileError {
            what: "ports file",
            path,
            reason: error.into(),
        }),
    }
}

/// An address that listens everywhere is reached on this machine through its loopback address.
fn urls(scheme: &str, mut address: SocketAddr) -> Vec<String> {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    vec![format!("{scheme}://{address}")]
}

/// Whoever waits for the file sees it whole or not at all.
fn write(path: &Path, what: &'static str, text: &str) -> Result<RunFile, RunFileError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    std::fs::write(&temporary, text)
        .and_then(|()| std::fs::rename(&temporary, path))
        .map(|()| RunFile {
            path: path.to_owned(),
        })
        .map_err(|reason| RunFileError {
            what,
            path: path.to_owned(),
            reason,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_live_as_long_as_their_value() {
        let folder = tempfile::tempdir().unwrap();
        let client: SocketAddr = "0.0.0.0:4222".parse().unwrap();
        let monitoring = Some("127.0.0.1:8222".parse().unwrap());
        let file = write_ports(folder.path(), "x", client, monitoring).unwrap();
        let path = folder
            .path()
            .join(format!("x_{}.ports", std::process::id()));
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            r#"{"nats":["nats://127.0.0.1:4222"],"monitoring":["http://127.0.0.1:8222"]}"#
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        drop(file);
        assert!(!path.exists());

        let path = folder.path().join("pid");
        let file = write_pid(&path).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            std::process::id().to_string()
        );
        drop(file);
        assert!(!path.exists());
        let error = write_pid(&folder.path().join("no/pid"))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("cannot write pid file "), "{error}");
    }
}
