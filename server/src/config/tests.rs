use std::path::{Path, PathBuf};
use std::time::Duration;

use super::grammar::Source;
use super::options::{Credentials, SyncInterval, Syslog, User, WriteTimeout};
use super::*;

struct Text(String);

impl Source for Text {
    fn read(&self, path: &Path) -> Result<(PathBuf, String), String> {
        Ok((path.to_owned(), self.0.clone()))
    }

    fn variable(&self, name: &str) -> Option<String> {
        (name == "PORT").then(|| "4333".to_owned())
    }
}

fn load_text(text: &str) -> Result<ServerConfig, Problems> {
    load(&Text(text.to_owned()), Path::new("a.conf"))
}

/// Loads `text` and compares with the defaults changed by `change`.
fn check_config(text: &str, change: impl FnOnce(&mut ServerConfig)) {
    let mut loaded = load_text(text).unwrap_or_else(|problems| panic!("{text}: {problems}"));
    loaded.digest.clear();
    let mut expected = ServerConfig {
        file: Some("a.conf".into()),
        ..ServerConfig::default()
    };
    change(&mut expected);
    assert_eq!(loaded, expected, "{text}");
}

fn check_problems(text: &str, expected: &[&str]) {
    match load_text(text) {
        Ok(config) => panic!("{text}: accepted as {config:?}"),
        Err(problems) => {
            let found: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}

fn user(name: &str, password: &str) -> User {
    User {
        name: name.to_owned(),
        password: password.to_owned(),
    }
}

#[test]
fn listen_keys() {
    check_config("port: 5222", |c| c.port = 5222);
    check_config("port: -1", |c| c.port = 0);
    check_config("port: 0", |_| {});
    check_config("listen: 0", |_| {});
    check_config("http_port: 0", |_| {});
    check_config("max_connections: 0", |_| {});
    check_config("max_closed_clients: 0", |_| {});
    check_config("port: $PORT", |c| c.port = 4333);
    check_config("PORT: 5222", |c| c.port = 5222);
    check_config("host: 127.0.0.1", |c| c.host = "127.0.0.1".to_owned());
    check_config("net: localhost", |c| c.host = "localhost".to_owned());
    check_config("listen: 5222", |c| c.port = 5222);
    check_config("listen: localhost:5222", |c| {
        c.host = "localhost".to_owned();
        c.port = 5222;
    });
    check_config("listen: \"[::1]:-1\"", |c| {
        c.host = "::1".to_owned();
        c.port = 0;
    });
    check_config("client_advertise: \"a:1\"", |c| {
        c.client_advertise = Some("a:1".to_owned())
    });
    check_config("server_name: n1", |c| c.server_name = Some("n1".to_owned()));
    check_config("server_tags: [a, \"b:c\"]", |c| {
        c.server_tags = vec!["a".to_owned(), "b:c".to_owned()];
    });
    check_config("server_tags: \"a, b\"", |c| {
        c.server_tags = vec!["a".to_owned(), "b".to_owned()];
    });
    check_config("server_metadata { zone: z1 }", |c| {
        c.server_metadata.insert("zone".to_owned(), "z1".to_owned());
    });
}

#[test]
fn log_keys() {
    check_config(
        "debug: true\ntrace: yes\nlogtime: off\nlogtime_utc: on",
        |c| {
            c.log.debug = true;
            c.log.trace = true;
            c.log.timestamps = false;
            c.log.utc = true;
        },
    );
    check_config("trace_verbose: true", |c| {
        c.log.trace = true;
        c.log.trace_verbose = true;
    });
    check_config(
        "logfile: /x/y.log\nlog_size_limit: 1MB\nlog_max_num: 3",
        |c| {
            c.log.file = Some("/x/y.log".into());
            c.log.file_bytes_max = 1 << 20;
            c.log.files_max = 3;
        },
    );
    check_config("max_traced_msg_len: 80", |c| c.log.traced_bytes_max = 80);
    check_config("syslog: true", |c| c.log.syslog = Some(Syslog::Local));
    check_config("remote_syslog: \"udp://h:514\"\nsyslog: true", |c| {
        c.log.syslog = Some(Syslog::Remote("udp://h:514".to_owned()));
    });
}

#[test]
fn limit_keys() {
    check_config(
        "max_control_line: 8KB\nmax_payload: 2MB\nmax_pending: 128MB",
        |c| {
            c.limits.control_line_bytes_max = 8 << 10;
            c.limits.payload_bytes_max = 2 << 20;
            c.limits.pending_bytes_max = 128 << 20;
        },
    );
    check_config(
        "max_connections: 10\nmax_subscriptions: 20\nmax_sub_tokens: 16",
        |c| {
            c.limits.connections_max = Some(10);
            c.limits.subscriptions_max = Some(20);
            c.limits.subject_tokens_max = Some(16);
        },
    );
    check_config("max_conn: -1\nmax_subs: 0\nmax_closed_clients: 5", |c| {
        c.limits.connections_max = None;
        c.limits.closed_connections_max = 5;
    });
    check_config(
        "ping_interval: \"30s\"\nping_max: 3\nwrite_deadline: 5s",
        |c| {
            c.limits.ping_interval = Duration::from_secs(30);
            c.limits.pings_max = 3;
            c.limits.write_deadline = Duration::from_secs(5);
        },
    );
    check_config("ping_interval: 30", |c| {
        c.limits.ping_interval = Duration::from_secs(30)
    });
    check_config("write_timeout: retry", |c| {
        c.limits.write_timeout = WriteTimeout::Retry
    });
    check_config("write_timeout: default", |_| {});
    check_config("no_fast_producer_stall: true", |c| {
        c.no_fast_producer_stall = true
    });
}

#[test]
fn authorization_keys() {
    check_config("authorization { user: a, pass: b }", |c| {
        c.auth.credentials = Credentials::User(user("a", "b"));
    });
    check_config(
        "authorization { username: a, password: $2a$11$x, timeout: 0.5 }",
        |c| {
            c.auth.credentials = Credentials::User(user("a", "$2a$11$x"));
            c.auth.timeout = Duration::from_millis(500);
        },
    );
    check_config("authorization { token: t, timeout: \"3s\" }", |c| {
        c.auth.credentials = Credentials::Token("t".to_owned());
        c.auth.timeout = Duration::from_secs(3);
    });
    check_config(
        "authorization { users = [ {user: a, pass: b}\n {user: c, pass: d} ] }",
        |c| {
            c.auth.credentials = Credentials::Users(vec![user("a", "b"), user("c", "d")]);
        },
    );
    check_config(
        "no_auth_user: a\nauthorization { users: [{user: a, pass: b}] }",
        |c| {
            c.auth.credentials = Credentials::Users(vec![user("a", "b")]);
            c.auth.no_auth_user = Some("a".to_owned());
        },
    );
    check_problems(
        "authorization {\n user: a\n pass: b\n token: t\n}",
        &["a.conf:1:15: \"authorization\": cannot have a user/pass and token"],
    );
    check_problems(
        "authorization { user: a, pass: 12 }",
        &["a.conf:1:32: \"pass\": expected a string, found a whole number"],
    );
    check_problems(
        "authorization {\n users: [\n {user: a}\n {user: b, pass: c}\n {user: b, pass: d}\n ] }",
        &[
            "a.conf:3:2: \"users\": a user entry needs a user and a password",
            "a.conf:5:2: \"users\": duplicate user \"b\"",
        ],
    );
    check_problems(
        "authorization { users: [ {user: a, pass: b, permissions: {}} ] }",
        &[
            "a.conf:1:45: \"permissions\": permissions are not supported by this version of Riverlog",
        ],
    );
    check_problems(
        "authorization { token: \"\" }",
        &["a.conf:1:24: \"token\": must not be empty"],
    );
}

#[test]
fn jetstream_keys() {
    for text in [
        "jetstream: true",
        "jetstream: enabled",
        "jetstream {}",
        "jetstream { enabled: true }",
    ] {
        check_config(text, |c| c.jetstream.enabled = true);
    }
    for text in [
        "jetstream: false",
        "jetstream: disabled",
        "jetstream { enabled: false }",
    ] {
        check_config(text, |_| {});
    }
    check_config(
        "jetstream { store_dir: /d, max_mem: 1GB, max_file: 10GB, domain: hub }",
        |c| {
            c.jetstream.enabled = true;
            c.jetstream.store_dir = "/d".into();
            c.jetstream.memory_bytes_max = Some(1 << 30);
            c.jetstream.file_bytes_max = Some(10 << 30);
            c.jetstream.domain = Some("hub".to_owned());
        },
    );
    check_config(
        "jetstream { max_memory_store: -1, max_file_store: 0, strict: false }",
        |c| {
            c.jetstream.enabled = true;
            c.jetstream.file_bytes_max = Some(0);
            c.jetstream.strict = false;
        },
    );
    check_config("store_dir: /d", |c| c.jetstream.store_dir = "/d".into());
    check_config("jetstream { sync_interval: always }", |c| {
        c.jetstream.enabled = true
    });
    check_config("jetstream { sync_interval: \"1m\" }", |c| {
        c.jetstream.enabled = true;
        c.jetstream.sync_interval = SyncInterval::Every(Duration::from_secs(60));
    });
    check_config(
        "jetstream { max_buffered_msgs: 5, max_buffered_size: 1MB }",
        |c| {
            c.jetstream.enabled = true;
            c.jetstream.buffered_messages_max = Some(5);
            c.jetstream.buffered_bytes_max = Some(1 << 20);
        },
    );
    check_config(
        "jetstream { limits { max_ack_pending: 1, max_request_batch: 2, duplicate_window: \"1m\" } }",
        |c| {
            c.jetstream.enabled = true;
            c.jetstream.limits.ack_pending_max = Some(1);
            c.jetstream.limits.request_batch_max = Some(2);
            c.jetstream.limits.duplicate_window_max = Some(Duration::from_secs(60));
        },
    );
    check_problems(
        "jetstream { cipher: aes }",
        &[
            "a.conf:1:13: \"cipher\": encryption at rest is not supported by this version of Riverlog",
        ],
    );
    check_problems("jetstream { X: 1 }", &["a.conf:1:13: unknown field \"X\""]);
    check_problems(
        "jetstream: maybe",
        &["a.conf:1:12: \"jetstream\": expected true, false, 'enabled', 'disabled' or a block"],
    );
}

#[test]
fn monitoring_and_process_keys() {
    check_config("http_port: 8222\nhttp_base_path: /x/", |c| {
        c.monitor.port = Some(8222);
        c.monitor.base_path = "/x".to_owned();
    });
    check_config("http: \"127.0.0.1:-1\"", |c| {
        c.monitor.host = Some("127.0.0.1".to_owned());
        c.monitor.port = Some(0);
    });
    check_config("http: 8222\nhttp_base_path: y", |c| {
        c.monitor.port = Some(8222);
        c.monitor.base_path = "/y".to_owned();
    });
    check_config("pid_file: /p\nports_file_dir: /q", |c| {
        c.pid_file = Some("/p".into());
        c.ports_file_dir = Some("/q".into());
    });
    check_config(
        "lame_duck_duration: \"40s\"\nlame_duck_grace_period: \"5s\"",
        |c| {
            c.lame_duck_duration = Duration::from_secs(40);
            c.lame_duck_grace_period = Duration::from_secs(5);
        },
    );
    check_config("system_account: SYS\nno_sys_acc: true", |c| {
        c.system_account = Some("SYS".to_owned());
        c.no_system_account = true;
    });
}

#[test]
fn all_problems_are_reported_with_their_lines() {
    check_problems(
        "port: x\nbogus: 3\n\nfoo { a: 1 }\nmax_payload: 0\ncluster { name: c }\ntls {}\n",
        &[
            "a.conf:1:7: \"port\": expected a whole number, found a string",
            "a.conf:2:1: unknown field \"bogus\"",
            "a.conf:4:1: unknown field \"foo\"",
            "a.conf:5:14: \"max_payload\": must be 1 to 2147483647",
            "a.conf:6:1: \"cluster\": clustering is not supported by this version of Riverlog",
            "a.conf:7:1: \"tls\": TLS is not supported by this version of Riverlog",
        ],
    );
    check_problems(
        "port: 1\nhost: [",
        &["a.conf:2:8: array is not closed by ']'"],
    );
}

#[test]
fn values_of_the_wrong_kind_or_range_are_refused() {
    for (text, expected) in [
        ("port: 65536", "a.conf:1:7: \"port\": must be -1 to 65535"),
        ("port: -2", "a.conf:1:7: \"port\": must be -1 to 65535"),
        (
            "debug: 1",
            "a.conf:1:8: \"debug\": expected true or false, found a whole number",
        ),
        (
            "debug: \"true\"",
            "a.conf:1:8: \"debug\": expected true or false, found a string",
        ),
        ("host: \"\"", "a.conf:1:7: \"host\": must not be empty"),
        (
            "listen: h",
            "a.conf:1:9: \"listen\": could not parse address string \"h\"",
        ),
        (
            "listen: \"h:99999\"",
            "a.conf:1:9: \"listen\": could not parse address string \"h:99999\"",
        ),
        (
            "server_name: \"a b\"",
            "a.conf:1:14: \"server_name\": server name cannot contain spaces",
        ),
        (
            "max_control_line: 2GB",
            "a.conf:1:19: \"max_control_line\": must be 1 to 2147483647",
        ),
        (
            "max_payload: 1.5",
            "a.conf:1:14: \"max_payload\": expected a whole number, found a decimal number",
        ),
        (
            "max_sub_tokens: 300",
            "a.conf:1:17: \"max_sub_tokens\": must be 0 to 255",
        ),
        (
            "ping_interval: x",
            "a.conf:1:16: \"ping_interval\": not a duration such as \"2m\" or \"1h30m\"",
        ),
        (
            "ping_interval: -1",
            "a.conf:1:16: \"ping_interval\": not a duration such as \"2m\" or \"1h30m\"",
        ),
        (
            "ping_interval: []",
            "a.conf:1:16: \"ping_interval\": expected a duration such as \"2m\", found an array",
        ),
        (
            "lame_duck_duration: \"1s\"",
            "a.conf:1:21: \"lame_duck_duration\": must be at least 30s",
        ),
        (
            "authorization: 1",
            "a.conf:1:16: \"authorization\": expected a block, found a whole number",
        ),
        (
            "authorization { users: {} }",
            "a.conf:1:24: \"users\": expected an array, found a block",
        ),
        (
            "jetstream { domain: \"a.b\" }",
            "a.conf:1:21: \"domain\": a domain name cannot contain '.', '*', '>' or spaces",
        ),
        (
            "server_tags: 1",
            "a.conf:1:14: \"server_tags\": expected an array of strings, found a whole number",
        ),
    ] {
        check_problems(text, &[expected]);
    }
}

#[test]
fn a_name_used_as_variable_needs_no_key() {
    check_config("X: 5222\nport: $X", |c| c.port = 5222);
    check_config("jetstream { X: 5; max_mem: $X }", |c| {
        c.jetstream.enabled = true;
        c.jetstream.memory_bytes_max = Some(5);
    });
}

#[test]
fn options_that_exclude_each_other() {
    assert!(super::check(&ServerConfig::default()).is_ok());
    let config = load_text("no_auth_user: x").unwrap();
    let problems = super::check(&config).unwrap_err().to_string();
    assert_eq!(problems, "no_auth_user \"x\" is not one of the users");
    let config =
        load_text("max_payload: 2MB\nmax_pending: 1MB\nlame_duck_grace_period: \"3m\"").unwrap();
    assert_eq!(
        super::check(&config).unwrap_err().to_string(),
        "max_payload (2097152) cannot be higher than max_pending (1048576)\n\
         lame_duck_grace_period (180s) must be shorter than lame_duck_duration (120s)"
    );
}

/// Blocks of the documentation are tables whose first column lists the key and its other names.
#[test]
fn every_accepted_key_is_documented_and_every_documented_key_is_accepted() {
    let docs = include_str!("../../docs/configuration.md");
    let mut documented = Vec::new();
    let mut block = String::new();
    for line in docs.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            let name = heading.trim_start_matches('`').trim_end_matches('`');
            block = if heading.starts_with('`') {
                name.to_owned()
            } else {
                String::new()
            };
        }
        let Some(cell) = line
            .strip_prefix("| `")
            .and_then(|rest| rest.split('|').next())
        else {
            continue;
        };
        let names: Vec<&str> = cell
            .split(',')
            .map(|name| name.trim().trim_matches('`'))
            .collect();
        documented.push((block.clone(), names.join(",")));
    }
    let mut accepted: Vec<(String, String)> = keys::accepted()
        .into_iter()
        .map(|(block, names)| (block.to_owned(), names.join(",")))
        .collect();
    documented.sort();
    accepted.sort();
    assert_eq!(documented, accepted);
}

#[test]
fn no_key_is_in_two_tables() {
    let mut seen = std::collections::HashSet::new();
    for (block, names) in keys::accepted() {
        for name in names {
            assert!(seen.insert((block, *name)), "{block} {name}");
        }
    }
}
