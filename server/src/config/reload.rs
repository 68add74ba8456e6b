//! What changes when the configuration is read again (CONF-021).

use super::ServerConfig;

/// The difference between the running and the newly read configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Groups of keys that take effect at once.
    pub applied: Vec<&'static str>,
    /// Keys that differ but only count after a restart.
    pub needs_restart: Vec<&'static str>,
}

/// Takes over from `new` what can change in a running server, and tells what was found.
/// What needs a restart stays in `running` as it is, so that it is reported again next time.
pub fn apply(running: &mut ServerConfig, new: &ServerConfig) -> Changes {
    let mut changes = Changes::default();
    if running.log != new.log {
        changes.applied.push("logging");
        running.log = new.log.clone();
    }
    if running.auth != new.auth {
        changes.applied.push("authorization");
        running.auth = new.auth.clone();
    }
    if running.server_tags != new.server_tags {
        changes.applied.push("server_tags");
        running.server_tags = new.server_tags.clone();
    }
    if running.server_metadata != new.server_metadata {
        changes.applied.push("server_metadata");
        running.server_metadata = new.server_metadata.clone();
    }
    if running.lame_duck_duration != new.lame_duck_duration
        || running.lame_duck_grace_period != new.lame_duck_grace_period
    {
        changes.applied.push("lame_duck");
        running.lame_duck_duration = new.lame_duck_duration;
        running.lame_duck_grace_period = new.lame_duck_grace_period;
    }
    running.digest.clone_from(&new.digest);
    for (name, is_equal) in restart_keys(running, new) {
        if !is_equal {
            changes.needs_restart.push(name);
        }
    }
    changes
}

fn restart_keys(running: &ServerConfig, new: &ServerConfig) -> [(&'static str, bool); 13] {
    let (jetstream, new_jetstream) = (&running.jetstream, &new.jetstream);
    let is_store_dir_equal = jetstream.store_dir == new_jetstream.store_dir;
    let mut jetstream = jetstream.clone();
    jetstream.store_dir.clone_from(&new_jetstream.store_dir);
    [
        ("host", running.host == new.host),
        ("port", running.port == new.port),
        (
            "client_advertise",
            running.client_advertise == new.client_advertise,
        ),
        ("server_name", running.server_name == new.server_name),
        ("limits", running.limits == new.limits),
        ("store_dir", is_store_dir_equal),
        ("jetstream", jetstream == *new_jetstream),
        ("http", running.monitor == new.monitor),
        ("pid_file", running.pid_file == new.pid_file),
        (
            "ports_file_dir",
            running.ports_file_dir == new.ports_file_dir,
        ),
        (
            "system_account",
            running.system_account == new.system_account,
        ),
        (
            "no_sys_acc",
            running.no_system_account == new.no_system_account,
        ),
        (
            "no_fast_producer_stall",
            running.no_fast_producer_stall == new.no_fast_producer_stall,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::options::{Credentials, SyncInterval};
    use super::*;

    #[test]
    fn what_can_change_changes_and_the_rest_is_named() {
        let mut running = ServerConfig::default();
        let mut new = ServerConfig::default();
        assert_eq!(apply(&mut running, &new), Changes::default());

        new.log.debug = true;
        new.auth.credentials = Credentials::Token("t".to_owned());
        new.port = 1;
        new.jetstream.sync_interval = SyncInterval::Every(std::time::Duration::from_secs(1));
        let changes = apply(&mut running, &new);
        assert_eq!(changes.applied, ["logging", "authorization"]);
        assert_eq!(changes.needs_restart, ["port", "jetstream"]);
        assert!(running.log.debug);
        assert_eq!(running.auth, new.auth);
        assert_eq!(running.port, 4222);

        new.jetstream = running.jetstream.clone();
        new.jetstream.store_dir = "x".into();
        let changes = apply(&mut running, &new);
        assert!(changes.applied.is_empty());
        assert_eq!(changes.needs_restart, ["port", "store_dir"]);
    }
}
