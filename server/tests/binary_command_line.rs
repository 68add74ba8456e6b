//! What the program says and returns without serving: flags, help, version, configuration check
//! (CLI-001 .. CLI-007, CONF-004).

mod support;

use std::path::Path;

use support::{BINARY, folder, run, run_program, text};

/// Runs the program, expecting an exit code, nothing on standard output, and on standard error
/// what is given, behind the program's name.
fn check_refused(arguments: &[&str], code: i32, expected: &str) {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    assert_eq!(text(&output.stdout), "", "{arguments:?}");
    assert_eq!(
        text(&output.stderr),
        format!("riverlog: {expected}\n"),
        "{arguments:?}"
    );
}

#[test]
fn version() {
    let own = format!(
        "riverlog: v{} (nats-server: v2.15.1 compatible)\n",
        env!("CARGO_PKG_VERSION")
    );
    for flag in ["-v", "--version", "-version", "version"] {
        let output = run(&[flag]);
        assert!(output.status.success());
        assert_eq!(text(&output.stdout), own);
    }
}

#[test]
fn a_link_named_like_the_reference_answers_like_it() {
    let folder = folder();
    let link = folder.path().join("nats-server");
    std::os::unix::fs::symlink(BINARY, &link).unwrap();
    assert_eq!(
        text(&run_program(&link, &["-v"]).stdout),
        "nats-server: v2.15.1\n"
    );
    let help = run_program(&link, &["-h"]);
    assert!(text(&help.stdout).starts_with("\nUsage: nats-server [options]\n"));
    let refused = run_program(&link, &["--bogus"]);
    assert!(
        text(&refused.stderr).starts_with("nats-server: flag provided but not defined: --bogus")
    );
}

#[test]
fn help() {
    for flag in ["-h", "--help", "help"] {
        let output = run(&[flag]);
        assert!(output.status.success());
        let help = text(&output.stdout);
        assert!(help.starts_with("\nUsage: riverlog [options]\n"), "{help}");
        assert!(help.contains("-sd, --store_dir <dir>"));
    }
}

#[test]
fn flags_that_cannot_be_used_are_named_with_exit_code_2() {
    let hint = "\nTry 'riverlog -h' for the list of options.";
    for (arguments, expected) in [
        (&["--bogus"][..], "flag provided but not defined: --bogus"),
        (&["-p"], "flag needs an argument: -p"),
        (
            &["-p", "x"],
            "invalid value \"x\" for flag --port: expected a number",
        ),
        (
            &["--tls"],
            "flag --tls: TLS is not supported in this version of Riverlog",
        ),
        (
            &["--routes", "nats://127.0.0.1:1"],
            "flag --routes: clustering is not supported in this version of Riverlog",
        ),
        (&["start"], "unrecognized command: \"start\""),
        (
            &["--user", "a"],
            "--user and --pass need each other, not empty",
        ),
    ] {
        check_refused(arguments, 2, &format!("{expected}{hint}"));
    }
}

fn write(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_valid_configuration_is_confirmed_with_its_digest() {
    let folder = folder();
    let path = write(folder.path(), "a.conf", "port: -1\n");
    let output = run(&["-t", "-c", &path]);
    assert!(output.status.success());
    // The digest is the one the reference server prints for this text.
    let digest = "7ea4cc5c6864139d814ce940a40ee6546b7ac5285eec3c390a4ce11e34dc1102";
    let expected = format!("riverlog: configuration file {path} is valid (sha256:{digest})\n");
    assert_eq!(text(&output.stderr), expected);
}

#[test]
fn an_invalid_configuration_is_refused_with_every_problem() {
    let folder = folder();
    write(folder.path(), "inner.conf", "debug: 7\n");
    let path = write(
        folder.path(),
        "a.conf",
        "port: -1\nbogus: 3\nmax_payload: x\ncluster { name: c }\ninclude 'inner.conf'\n",
    );
    let inner = folder.path().join("inner.conf");
    let inner = inner.to_str().unwrap();
    let expected = format!(
        "{path}:2:1: unknown field \"bogus\"\n\
         {path}:3:14: \"max_payload\": expected a whole number, found a string\n\
         {path}:4:1: \"cluster\": clustering is not supported by this version of Riverlog\n\
         {inner}:1:8: \"debug\": expected true or false, found a whole number"
    );
    check_refused(&["-t", "-c", &path], 1, &expected);
    // Starting with it is refused in the same words.
    check_refused(&["-c", &path], 1, &expected);

    let path = write(folder.path(), "b.conf", "port: 1\nhost: [\n");
    check_refused(
        &["-c", &path],
        1,
        &format!("{path}:3:1: array is not closed by ']'"),
    );
    let path = write(
        folder.path(),
        "c.conf",
        "max_payload: 2MB\nmax_pending: 1MB\n",
    );
    let conflict = "max_payload (2097152) cannot be higher than max_pending (1048576)";
    check_refused(&["-t", "-c", &path], 1, conflict);
    check_refused(
        &["-c", "/no/such.conf"],
        1,
        "open /no/such.conf: no such file or directory",
    );
    let missing = "must specify [-c, --config] option to check configuration file syntax";
    check_refused(&["-t"], 1, missing);
}

#[test]
fn signals_need_a_target() {
    check_refused(
        &["--signal", "dance=1"],
        1,
        "unknown signal \"dance\": expected ldm, stop, quit, term, reopen or reload",
    );
    check_refused(
        &["--signal", "quit=/no/such/pid"],
        1,
        "\"/no/such/pid\" is neither a process id nor a pid file: No such file or directory (os error 2)",
    );
}
