//! Finds the server binary under test, building it when it is missing or older than its sources.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// Path of the binary under test: `RIVERLOG_TEST_SERVER`, or the workspace's own `riverlog`.
///
/// A test crate cannot name another crate's binary through Cargo, so the target directory is derived
/// from the running test executable, and `cargo build` runs once per process when the binary found
/// there is missing or older than a source file.
pub fn server_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("RIVERLOG_TEST_SERVER") {
        Some(path) => PathBuf::from(path),
        None => workspace_binary(),
    })
}

/// Directory for stores of tests: on the disk of the target directory, never a memory file system.
pub(crate) fn scratch_dir() -> PathBuf {
    let dir = profile_dir().join("test-stores");
    std::fs::create_dir_all(&dir).expect("scratch directory can be created");
    dir
}

/// `target/<profile>`: the test executable lies in `target/<profile>/deps`.
fn profile_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("path of the test executable");
    let deps = exe.parent().expect("directory of the test executable");
    if deps.ends_with("deps") {
        deps.parent().expect("profile directory").to_path_buf()
    } else {
        deps.to_path_buf()
    }
}

fn workspace_binary() -> PathBuf {
    let profile_dir = profile_dir();
    let binary = profile_dir.join(format!("riverlog{}", std::env::consts::EXE_SUFFIX));
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("workspace root");
    if is_up_to_date(&binary, workspace) {
        return binary;
    }
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--quiet",
            "--package",
            "riverlog-server",
            "--bin",
            "riverlog",
        ])
        .args(["--profile", profile])
        .arg("--target-dir")
        .arg(profile_dir.parent().expect("target directory"))
        .current_dir(workspace)
        .status()
        .expect("cargo can be started");
    assert!(status.success(), "building the server failed: {status}");
    binary
}

fn is_up_to_date(binary: &Path, workspace: &Path) -> bool {
    let Ok(built) = binary.metadata().and_then(|meta| meta.modified()) else {
        return false;
    };
    let sources = ["engine", "server"].iter().flat_map(|name| {
        let package = workspace.join(name);
        [package.join("src"), package.join("Cargo.toml")]
    });
    let lock = [workspace.join("Cargo.lock"), workspace.join("Cargo.toml")];
    sources
        .chain(lock)
        .all(|path| newest(&path).is_none_or(|changed| changed <= built))
}

/// Time of the newest file at or below `path`.
fn newest(path: &Path) -> Option<SystemTime> {
    let meta = path.metadata().ok()?;
    if !meta.is_dir() {
        return meta.modified().ok();
    }
    std::fs::read_dir(path)
        .ok()?
        .flatten()
        .filter_map(|entry| newest(&entry.path()))
        .max()
}
