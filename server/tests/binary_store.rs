//! The data directory as an operator meets it: created where it should be, refused when it cannot
//! be used, never changed by a refusal (LIM-001, A5).

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;
use support::{BINARY, Server, folder};

/// The last line of a start that must fail with exit code 1.
fn failed_start(folder: &Path, arguments: &[&str]) -> String {
    let mut server = Server::spawn(BINARY.as_ref(), folder, arguments);
    assert_eq!(server.wait().code(), Some(1), "{:?}", server.log);
    server.log.last().unwrap().clone()
}

/// Every file below a directory with its content.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    files
}

#[test]
fn data_goes_to_the_working_directory_by_default() {
    let folder = folder();
    let mut server = Server::start(folder.path(), &["-js", "-m", "-1"]);
    assert!(folder.path().join("riverlog-data").is_dir());
    let varz: Value = serde_json::from_str(&server.get("/varz").1).unwrap();
    assert!(varz["store"]["syncs"].is_number(), "{varz}");
    assert_eq!(server.stop(Signal::TERM), Some(0));
    // And is found again.
    let mut server = Server::start(folder.path(), &["-js"]);
    assert!(
        server
            .log
            .iter()
            .any(|line| line.contains("[INF] Recovered ")),
        "{:?}",
        server.log
    );
    assert_eq!(server.stop(Signal::TERM), Some(0));
}

fn create_stream(server: &Server) {
    let config = r#"{"name":"S","subjects":["s.*"]}"#;
    let answer = server.request("$JS.API.STREAM.CREATE.S", config);
    assert!(answer.contains("\"did_create\":true"), "{answer}");
}

fn publish(server: &Server, expected_seq: u64) {
    let answer: Value = serde_json::from_str(&server.request("s.a", "payload")).unwrap();
    assert_eq!(answer["seq"], expected_seq, "{answer}");
}

#[test]
fn messages_survive_every_way_to_end_the_server() {
    let folder = folder();
    let mut server = Server::start(folder.path(), &["-js", "-m", "-1"]);
    create_stream(&server);
    for (i, signal) in [Signal::TERM, Signal::INT, Signal::KILL]
        .into_iter()
        .enumerate()
    {
        let first = 2 * i as u64 + 1;
        publish(&server, first);
        publish(&server, first + 1);
        server.stop(signal);
        server = Server::start(folder.path(), &["-js", "-m", "-1"]);
        let line = server
            .log
            .iter()
            .find(|line| line.contains("[INF] Recovered 1 streams"));
        assert!(line.is_some(), "{:?}", server.log);
        let jsz: Value = serde_json::from_str(&server.get("/jsz?streams=1").1).unwrap();
        let state = &jsz["account_details"][0]["stream_detail"][0]["state"];
        assert_eq!(state["messages"], first + 1, "{jsz}");
        assert_eq!(jsz["messages"], first + 1);
    }
    let (status, body) = server.get("/healthz?account=$G&stream=S");
    assert_eq!(
        (status.as_str(), body.as_str()),
        ("200", "{\"status\":\"ok\"}")
    );
    assert_eq!(server.get("/healthz?account=$G&stream=NO").0, "404");
    let varz: Value = serde_json::from_str(&server.get("/varz").1).unwrap();
    assert_eq!(varz["jetstream"]["config"]["sync_always"], true);
    assert_eq!(varz["jetstream"]["limits"]["default_max_consumers"], 1000);
    let info = server.connect("");
    assert!(info.contains("\"jetstream\":true"), "{info}");
}

#[test]
fn keys_of_the_jetstream_block_reach_it() {
    let folder = folder();
    let config = "jetstream { store_dir: data, domain: hub, max_file: 1MB, max_mem: 2MB }\n";
    std::fs::write(folder.path().join("a.conf"), config).unwrap();
    let server = Server::start(folder.path(), &["-c", "a.conf", "-m", "-1"]);
    assert!(folder.path().join("data").is_dir());
    let info = server.request("$JS.hub.API.INFO", "");
    assert!(info.contains("\"domain\":\"hub\""), "{info}");
    let varz: Value = serde_json::from_str(&server.get("/varz").1).unwrap();
    let shown = &varz["jetstream"]["config"];
    assert_eq!(shown["max_storage"], 1 << 20);
    assert_eq!(shown["max_memory"], 2 << 20);
    assert_eq!(shown["domain"], "hub");
    let config = r#"{"name":"S","subjects":["s"],"max_bytes":2000000}"#;
    let answer = server.request("$JS.API.STREAM.CREATE.S", config);
    assert!(answer.contains("10047"), "{answer}");
}

#[test]
fn without_jetstream_nothing_is_stored() {
    let folder = folder();
    let mut server = Server::start(folder.path(), &["-sd", "data"]);
    assert!(!folder.path().join("data").exists());
    assert_eq!(server.stop(Signal::TERM), Some(0));
}

#[test]
fn a_directory_in_use_is_refused() {
    let folder = folder();
    let mut server = Server::start(folder.path(), &["-js"]);
    let line = failed_start(folder.path(), &["-js"]);
    assert!(line.contains("[FTL] cannot open the store: "), "{line}");
    assert!(
        line.contains("locked: another process has this store open"),
        "{line}"
    );
    assert!(
        server.connect("").ends_with("PONG\r\n"),
        "the first one goes on"
    );
    assert_eq!(server.stop(Signal::TERM), Some(0));
}

#[test]
fn a_damaged_store_is_refused_unchanged() {
    let folder = folder();
    let mut server = Server::start(folder.path(), &["-js"]);
    assert_eq!(server.stop(Signal::TERM), Some(0));
    let store = folder.path().join("riverlog-data");
    std::fs::write(store.join("FORMAT"), "garbage").unwrap();
    let before = contents(&store);
    let line = failed_start(folder.path(), &["-js"]);
    assert!(line.contains("[FTL] cannot open the store: "), "{line}");
    assert!(
        line.contains("FORMAT") && line.contains("restore"),
        "{line}"
    );
    assert!(contents(&store) == before, "files changed");
}

#[cfg(target_os = "linux")]
#[test]
fn memory_needs_consent() {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    if !mounts.lines().any(|line| line.contains(" /dev/shm tmpfs ")) {
        // This machine has no file system in memory at the usual place.
        return;
    }
    let folder = folder();
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = memory.path().join("data");
    let path = path.to_str().unwrap();
    let line = failed_start(folder.path(), &["-js", "-sd", path]);
    assert!(
        line.contains("is on tmpfs") && line.contains("--ephemeral"),
        "{line}"
    );
    assert!(!Path::new(path).exists());
    let mut server = Server::start(folder.path(), &["-js", "-sd", path, "--ephemeral"]);
    assert!(
        server
            .log
            .iter()
            .any(|line| line.contains("[WRN]") && line.contains("tmpfs"))
    );
    assert_eq!(server.stop(Signal::TERM), Some(0));
}
