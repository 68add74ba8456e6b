use std::path::PathBuf;

use super::*;
use crate::config::ServerConfig;
use crate::config::options::{Credentials, Syslog, User};

fn parse(line: &str) -> Result<Arguments, UsageError> {
    let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    Arguments::parse_from_args(&arguments)
}

/// The configuration that a command line makes of the defaults.
fn check(line: &str, change: impl FnOnce(&mut ServerConfig)) {
    let mut config = ServerConfig::default();
    parse(line).unwrap().apply_to(&mut config).unwrap();
    let mut expected = ServerConfig::default();
    change(&mut expected);
    assert_eq!(config, expected, "{line}");
}

fn check_error(line: &str, expected: &str) {
    let found = parse(line).and_then(|arguments| arguments.apply_to(&mut ServerConfig::default()));
    assert_eq!(found.unwrap_err().to_string(), expected, "{line}");
}

#[test]
fn every_spelling_of_a_value() {
    for line in [
        "-p 5222",
        "-p=5222",
        "--p 5222",
        "--p=5222",
        "--port 5222",
        "-port=5222",
    ] {
        check(line, |c| c.port = 5222);
    }
    for line in ["-p -1", "-p=-1", "--port -1", "--port=-1"] {
        check(line, |c| c.port = 0);
    }
    for line in ["-a h", "--addr=h", "-net h", "--net h", "--host h"] {
        check(line, |c| c.host = "h".to_owned());
    }
    check("-p 0", |_| {});
    check("-m 0", |_| {});
    check("-p 1 -p 2", |c| c.port = 2);
}

#[test]
fn every_spelling_of_a_switch() {
    for line in [
        "-js",
        "--js",
        "-jetstream",
        "--jetstream",
        "-js=true",
        "-js=1",
        "--jetstream=T",
    ] {
        check(line, |c| c.jetstream.enabled = true);
    }
    let mut config = ServerConfig::default();
    config.jetstream.enabled = true;
    parse("-js=false").unwrap().apply_to(&mut config).unwrap();
    assert!(!config.jetstream.enabled);
}

#[test]
fn server_flags() {
    check("-n x", |c| c.server_name = Some("x".to_owned()));
    check("--name x", |c| c.server_name = Some("x".to_owned()));
    check("--server_name x", |c| c.server_name = Some("x".to_owned()));
    check("-P f", |c| c.pid_file = Some("f".into()));
    check("--pid f", |c| c.pid_file = Some("f".into()));
    check("-m 8222", |c| c.monitor.port = Some(8222));
    check("--http_port -1", |c| c.monitor.port = Some(0));
    check("--client_advertise a:1", |c| {
        c.client_advertise = Some("a:1".to_owned())
    });
    check("--ports_file_dir d", |c| {
        c.ports_file_dir = Some("d".into())
    });
    assert_eq!(parse("-c f").unwrap().config, Some(PathBuf::from("f")));
    assert_eq!(parse("--config=f -t").unwrap().test_config, Some(true));
    assert_eq!(
        parse("-sl reload=1").unwrap().signal.as_deref(),
        Some("reload=1")
    );
    assert_eq!(
        parse("--signal=quit=/x").unwrap().signal.as_deref(),
        Some("quit=/x")
    );
}

#[test]
fn log_flags() {
    check("-l f", |c| c.log.file = Some("f".into()));
    check("--log f --log_size_limit 100 --max_traced_msg_len 9", |c| {
        c.log.file = Some("f".into());
        c.log.file_bytes_max = 100;
        c.log.traced_bytes_max = 9;
    });
    check("-T=false", |c| c.log.timestamps = false);
    check("--logtime=0 --logtime_utc", |c| {
        c.log.timestamps = false;
        c.log.utc = true;
    });
    check("-D", |c| c.log.debug = true);
    check("-V", |c| c.log.trace = true);
    check("-VV", |c| (c.log.trace, c.log.trace_verbose) = (true, true));
    for line in ["-DV", "-D -V", "--debug --trace"] {
        check(line, |c| (c.log.debug, c.log.trace) = (true, true));
    }
    check("-DVV", |c| {
        (c.log.debug, c.log.trace, c.log.trace_verbose) = (true, true, true);
    });
    check("-s", |c| c.log.syslog = Some(Syslog::Local));
    check("-s -r udp://h:514", |c| {
        c.log.syslog = Some(Syslog::Remote("udp://h:514".to_owned()));
    });
}

#[test]
fn store_and_access_flags() {
    check("-js -sd d", |c| {
        c.jetstream.enabled = true;
        c.jetstream.store_dir = "d".into();
    });
    check("--store_dir=d --ephemeral", |c| {
        c.jetstream.store_dir = "d".into();
        c.jetstream.ephemeral = true;
    });
    check("--salvage", |c| c.jetstream.salvage = true);
    check("--user a --pass b", |c| {
        let user = User {
            name: "a".to_owned(),
            password: "b".to_owned(),
        };
        c.auth.credentials = Credentials::User(user);
    });
    check("--auth t", |c| {
        c.auth.credentials = Credentials::Token("t".to_owned())
    });
    check_error("--user a", "--user and --pass need each other, not empty");
    check_error("--pass a", "--user and --pass need each other, not empty");
    check_error("--auth=", "--auth must not be empty");
    check_error(
        "--auth t --user a --pass b",
        "--user and --pass exclude --auth",
    );
}

#[test]
fn words() {
    assert_eq!(parse("version").unwrap().version, Some(true));
    assert_eq!(parse("-p 1 help").unwrap().help, Some(true));
    assert_eq!(parse("-v").unwrap().version, Some(true));
    assert_eq!(parse("--help").unwrap().help, Some(true));
    check_error("start", "unrecognized command: \"start\"");
    check_error("-js start", "unrecognized command: \"start\"");
    check_error("-- -js", "unrecognized command: \"-js\"");
    check_error("-", "unrecognized command: \"-\"");
}

#[test]
fn what_cannot_be_used_is_named() {
    check_error("--bogus", "flag provided but not defined: --bogus");
    check_error("-bogus=1", "flag provided but not defined: -bogus");
    check_error("---p 1", "flag provided but not defined: ---p");
    check_error("-p", "flag needs an argument: -p");
    check_error(
        "-p x",
        "invalid value \"x\" for flag --port: expected a number",
    );
    check_error(
        "-p 65536",
        "invalid value \"65536\" for flag -p: expected a port from -1 to 65535",
    );
    check_error(
        "-m -2",
        "invalid value \"-2\" for flag -m: expected a port from -1 to 65535",
    );
    check_error(
        "-js=maybe",
        "invalid value \"maybe\" for flag -js: expected true or false",
    );
    check_error(
        "--log_size_limit=1MB",
        "invalid value \"1MB\" for flag --log_size_limit: expected a number",
    );
    for (line, flag) in [
        ("--tls", "--tls"),
        ("-tlscert=x", "-tlscert"),
        ("--tlskey x", "--tlskey"),
        ("--tlsverify", "--tlsverify"),
        ("--tlscacert x", "--tlscacert"),
        ("-ms 1", "-ms"),
    ] {
        let expected = format!("flag {flag}: TLS is not supported in this version of Riverlog");
        check_error(line, &expected);
    }
    for flag in [
        "--routes",
        "--cluster",
        "--cluster_name",
        "--cluster_listen",
        "--cluster_advertise",
        "--no_advertise",
        "--connect_retries",
    ] {
        let expected =
            format!("flag {flag}: clustering is not supported in this version of Riverlog");
        check_error(&format!("{flag}=x"), &expected);
    }
}

#[test]
fn every_flag_is_known_to_clap_and_to_the_help_text() {
    let known: Vec<String> = <Arguments as clap::CommandFactory>::command()
        .get_arguments()
        .filter_map(|argument| argument.get_long().map(str::to_owned))
        .collect();
    let text = help("riverlog");
    for flag in FLAGS {
        if flag.unsupported.is_none() {
            assert!(known.iter().any(|name| name == flag.names[0]), "{flag:?}");
            // Spelled in the help under at least one of its names.
            let is_shown = |name: &&str| {
                text.contains(&format!(" -{name}")) || text.contains(&format!(" --{name}"))
            };
            assert!(flag.names.iter().any(is_shown), "{flag:?}");
        }
    }
    assert_eq!(
        known.len(),
        FLAGS
            .iter()
            .filter(|flag| flag.unsupported.is_none())
            .count()
    );
}

#[test]
fn no_spelling_means_two_flags() {
    let mut seen = std::collections::HashSet::new();
    for flag in FLAGS {
        for name in flag.names {
            assert!(seen.insert(name), "{name}");
        }
    }
}

#[test]
fn the_version_line_follows_the_name_of_the_program() {
    assert_eq!(program_name(Some("/usr/bin/nats-server")), "nats-server");
    assert_eq!(program_name(Some("riverlog")), "riverlog");
    assert_eq!(program_name(None), "riverlog");
    assert_eq!(version_line("nats-server"), "nats-server: v2.15.1");
    let own = format!("riverlog: v{VERSION} (nats-server: v2.15.1 compatible)");
    assert_eq!(version_line("riverlog"), own);
}
