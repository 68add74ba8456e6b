use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::*;

/// Files and variables in memory.
#[derive(Default)]
struct MemorySource {
    files: HashMap<PathBuf, String>,
    variables: HashMap<String, String>,
}

impl Source for MemorySource {
    fn read(&self, path: &Path) -> Result<(PathBuf, String), String> {
        let mut identity = PathBuf::new();
        for part in path.components() {
            match part {
                Component::ParentDir => {
                    identity.pop();
                }
                Component::CurDir => {}
                part => identity.push(part),
            }
        }
        let text = self
            .files
            .get(&identity)
            .ok_or("no such file or directory")?;
        Ok((identity, text.clone()))
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
}

fn source(files: &[(&str, &str)], variables: &[(&str, &str)]) -> MemorySource {
    MemorySource {
        files: files
            .iter()
            .map(|(path, text)| (path.into(), (*text).to_owned()))
            .collect(),
        variables: variables
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
    }
}

/// Values in a compact, unambiguous notation.
fn show(value: &ValueKind) -> String {
    match value {
        ValueKind::Bool(value) => value.to_string(),
        ValueKind::Int(value) => value.to_string(),
        ValueKind::Float(value) => format!("{value:?}"),
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Array(values) => {
            format!(
                "[{}]",
                values
                    .iter()
                    .map(|v| show(&v.kind))
                    .collect::<Vec<_>>()
                    .join(" ")
            )
        }
        ValueKind::Map(map) => show_map(map),
    }
}

fn show_map(map: &Map) -> String {
    let entries: Vec<_> = map
        .iter()
        .map(|entry| format!("{}:{}", entry.key, show(&entry.value.kind)))
        .collect();
    format!("{{{}}}", entries.join(" "))
}

fn check_with(source: &MemorySource, expected: &str) {
    let map = parse(source, Path::new("dir/a.conf"));
    match map {
        Ok(map) => assert_eq!(show_map(&map), expected),
        Err(error) => panic!("{error}, expected {expected}"),
    }
}

fn check(text: &str, expected: &str) {
    check_with(&source(&[("dir/a.conf", text)], &[]), expected);
}

fn check_error_with(source: &MemorySource, expected: &str) {
    match parse(source, Path::new("dir/a.conf")) {
        Ok(map) => panic!("accepted as {}, expected {expected}", show_map(&map)),
        Err(error) => assert_eq!(error.to_string(), expected),
    }
}

fn check_error(text: &str, expected: &str) {
    check_error_with(
        &source(&[("dir/a.conf", text)], &[]),
        &format!("dir/a.conf:{expected}"),
    );
}

#[test]
fn keys_values_and_separators() {
    check("port 4222", "{port:4222}");
    check("port: 4222", "{port:4222}");
    check("port=4222", "{port:4222}");
    check("port = 4222 ; host:\"x\"", r#"{port:4222 host:"x"}"#);
    check("port: 4222, host: x", r#"{port:4222 host:"x"}"#);
    check("{port: 4222}", "{port:4222}");
    check(
        r#"{"port": 4222, "host": "a", "a": [1, {"b": null}]}"#,
        r#"{port:4222 host:"a" a:[1 {b:"null"}]}"#,
    );
    check("'port': 4222", "{port:4222}");
    check("port: 1,\n", "{port:1}");
    check(
        "port 4222 # c\r\n\r\n // d\r\n host a\r\n",
        r#"{port:4222 host:"a"}"#,
    );
    check("port: 1\nport: 2", "{port:2}");
    check("\u{feff}port: 1", "{port:1}");
    check("{port: 1}\nhost: a", r#"{port:1 host:"a"}"#);
}

#[test]
fn blocks_and_arrays() {
    check("a { b: 1; c { d: x } }", r#"{a:{b:1 c:{d:"x"}}}"#);
    check("a{b:1}", "{a:{b:1}}");
    check("a\n{\n  b: 1\n}\n", "{a:{b:1}}");
    check("a: {}", "{a:{}}");
    check("a: []", "{a:[]}");
    check(
        "a: [a, b,\n c # x\n d\n // y\n]",
        r#"{a:["a" "b" "c" "d"]}"#,
    );
    check("a: [[1,2],[3]]", "{a:[[1 2] [3]]}");
    check("a: [{b:1}, {b:2}]", "{a:[{b:1} {b:2}]}");
}

#[test]
fn scalars() {
    for word in ["true", "yes", "on", "TRUE", "Yes"] {
        check(&format!("a: {word}"), "{a:true}");
    }
    for word in ["false", "no", "off", "OFF"] {
        check(&format!("a: {word}"), "{a:false}");
    }
    for (word, value) in [
        ("0", "0"),
        ("-1", "-1"),
        ("1k", "1000"),
        ("1K", "1000"),
        ("1kb", "1024"),
        ("1KiB", "1024"),
        ("1Ki", "1024"),
        ("2MB", "2097152"),
        ("3m", "3000000"),
        ("1GiB", "1073741824"),
        ("1T", "1000000000000"),
        ("-1K", "-1000"),
        ("9223372036854775807", "9223372036854775807"),
        ("1.5", "1.5"),
        ("-0.25", "-0.25"),
    ] {
        check(&format!("a: {word}"), &format!("{{a:{value}}}"));
    }
    for word in [
        "1.2.3.4",
        "1.2.3.4:5",
        "10s",
        "1h2m",
        "0x10",
        "1e3",
        "1_000",
        "trueish",
        "1KB2",
        "a#b",
        "a//b",
        "localhost:4222",
        "2020-01-01T00:00:00Z",
        "-",
        "-x",
        "1.5K",
    ] {
        check(&format!("a: {word}"), &format!("{{a:{word:?}}}"));
    }
    check(r#"a: "x\x41\t\n\"\\b""#, r#"{a:"xA\t\n\"\\b"}"#);
    check(r"a: 'x\n'", r#"{a:"x\\n"}"#);
    check("a: \"x\ny\"", r#"{a:"x\ny"}"#);
    check("a: \"true\"", r#"{a:"true"}"#);
    check("a: (\nx ( y )\n z\n)\nb: 1", r#"{a:"\nx ( y )\n z\n" b:1}"#);
    check("a: $2a$11$abc", r#"{a:"$2a$11$abc"}"#);
    check("a: $2y$11$abc", r#"{a:"$2y$11$abc"}"#);
    check("a: $", r#"{a:"$"}"#);
}

#[test]
fn syntax_errors_have_a_line() {
    check_error("", "1:1: config has no values or is empty");
    check_error("# only a comment", "1:1: config has no values or is empty");
    check_error("a: 1\n\nb:\n 2", "3:3: expected a value for \"b\"");
    check_error("a: 1\nb", "2:2: expected a value for \"b\"");
    check_error(
        "a: 1 b: 2",
        "1:6: expected a new line, comma or comment after the value, found 'b'",
    );
    check_error(
        "a: 1\nx: \"a\" \"b\"",
        "2:8: expected a new line, comma or comment after the value, found '\"'",
    );
    check_error("\n\n: 3", "3:1: expected a key, found ':'");
    check_error("a: 1\n}", "2:1: expected a value for \"\"");
    check_error("a {\n b: 1\n", "3:1: block is not closed by '}'");
    check_error("{a: 1\nb: 2", "2:5: block is not closed by '}'");
    check_error("a: [1,\n2", "2:2: array is not closed by ']'");
    check_error(
        "a: [1 2]",
        "1:7: expected ',' or ']' after the array element, found '2'",
    );
    check_error(
        "a: [a;b]",
        "1:6: expected ',' or ']' after the array element, found ';'",
    );
    check_error("a: 1\nb: \"x\ny", "2:4: string is not closed");
    check_error("a: 1\nb: 'x", "2:4: string is not closed");
    check_error(
        "b: (x\n)y\n",
        "1:4: '(' is not closed by a ')' on a line of its own",
    );
    check_error(
        "\na: \"x\\q\"",
        "2:7: invalid escape 'q': only \\xXX, \\t, \\n, \\r, \\\" and \\\\ are known",
    );
    check_error(
        "a: \"\\x4g\"",
        "1:6: invalid escape 'x': only \\xXX, \\t, \\n, \\r, \\\" and \\\\ are known",
    );
    check_error(
        "\na: 99999999999999999999",
        "2:4: number 99999999999999999999 is out of range",
    );
    check_error(
        "a: 9999999999999G",
        "1:4: number 9999999999999G is out of range",
    );
    check_error("a: ]", "1:4: expected a value, found ']'");
    check_error(
        "/* c */ a: 1",
        "1:6: expected a new line, comma or comment after the value, found '*'",
    );
}

#[test]
fn variables_come_from_earlier_keys_then_from_the_environment() {
    let variables = &[
        ("PORT", "4333"),
        ("NAME", "abc"),
        ("LIST", "[1, 2]"),
        ("SIZE", "1KB"),
        ("EMPTY", ""),
        ("SELF", "$SELF"),
        ("NEXT", "$PORT"),
        ("TWO", "1 2"),
        ("BOMB", "[$BOMB, $BOMB]"),
    ];
    let with = |text| source(&[("dir/a.conf", text)], variables);
    check_with(&with("p: $PORT\nn: $NAME"), r#"{p:4333 n:"abc"}"#);
    check_with(
        &with("l: $LIST\ns: $SIZE\ne: $EMPTY\nx: $NEXT"),
        r#"{l:[1 2] s:1024 e:"" x:4333}"#,
    );
    check_with(&with("PORT: 1\np: $PORT"), "{PORT:1 p:1}");
    check_with(
        &with("X: 1\na { X: 2\n b: $X }\nc: $X"),
        "{X:1 a:{X:2 b:2} c:1}",
    );
    check_with(&with("X: 1\na { b { c: $X } }"), "{X:1 a:{b:{c:1}}}");
    check_with(&with("X: { y: 1 }\na: [$X]"), "{X:{y:1} a:[{y:1}]}");

    check_error_with(
        &with("\np: $NOPE"),
        "dir/a.conf:2:4: variable $NOPE is not defined",
    );
    check_error_with(
        &with("p: $X\nX: 1"),
        "dir/a.conf:1:4: variable $X is not defined",
    );
    check_error_with(
        &with("p: $SELF"),
        "dir/a.conf:1:4: variable $SELF refers to itself",
    );
    check_error_with(
        &with("p: $TWO"),
        "dir/a.conf:1:4: the environment variable $TWO does not hold a single value",
    );
    assert!(parse(&with("p: $BOMB"), Path::new("dir/a.conf")).is_err());
}

#[test]
fn used_variables_are_marked() {
    let source = source(&[("dir/a.conf", "X: 1\nY: 2\nport: $X")], &[]);
    let map = parse(&source, Path::new("dir/a.conf")).unwrap();
    assert!(map.get("X").unwrap().is_variable);
    assert!(!map.get("Y").unwrap().is_variable);
}

#[test]
fn includes_are_relative_to_the_including_file() {
    let with = |text| {
        source(
            &[
                ("dir/a.conf", text),
                ("dir/b.conf", "b: 1\nX: 7"),
                ("dir/sub/c.conf", "include 'd.conf'\nc: 2"),
                ("dir/sub/d.conf", "d: 3\ninclude ../b.conf"),
                ("dir/loop.conf", "include './a.conf'"),
                ("dir/bad.conf", "x: 1\ny: ]"),
                ("dir/empty.conf", "# nothing"),
            ],
            &[],
        )
    };
    check_with(&with("include 'b.conf'\na: $X"), "{b:1 X:7 a:7}");
    check_with(&with("include ./sub/c.conf\na: 0"), "{d:3 b:1 X:7 c:2 a:0}");
    check_with(&with("z { include b.conf }"), "{z:{b:1 X:7}}");
    check_with(&with("a: 1; include empty.conf"), "{a:1}");
    check_with(&with("include: 5"), "{include:5}");
    check_error_with(
        &with("a: 1\ninclude 'nope.conf'"),
        "dir/a.conf:2:9: open dir/nope.conf: no such file or directory",
    );
    check_error_with(
        &with("include loop.conf"),
        "dir/loop.conf:1:9: include cycle: dir/./a.conf includes itself",
    );
    check_error_with(
        &with("include a.conf"),
        "dir/a.conf:1:9: include cycle: dir/a.conf includes itself",
    );
    check_error_with(
        &with("include bad.conf"),
        "dir/bad.conf:2:4: expected a value, found ']'",
    );
    check_error_with(
        &with("include 5"),
        "dir/a.conf:1:9: include needs the path of a file",
    );
}

#[test]
fn a_missing_main_file_is_named_once() {
    check_error_with(
        &source(&[], &[]),
        "open dir/a.conf: no such file or directory",
    );
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| format!("a: {}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse(&source(&[("a", &nested(64))], &[]), Path::new("a")).is_ok());
    let error = parse(&source(&[("a", &nested(65))], &[]), Path::new("a")).unwrap_err();
    assert_eq!(error.kind, SyntaxErrorKind::NestedTooDeep { depth_max: 64 });

    let chain = |length: usize| {
        let mut files: Vec<(String, String)> = (0..length - 1)
            .map(|i| (format!("f{i}"), format!("include f{}", i + 1)))
            .collect();
        files.push((format!("f{}", length - 1), "x: 1".to_owned()));
        MemorySource {
            files: files
                .into_iter()
                .map(|(path, text)| (path.into(), text))
                .collect(),
            variables: HashMap::new(),
        }
    };
    assert!(parse(&chain(16), Path::new("f0")).is_ok());
    let error = parse(&chain(17), Path::new("f0")).unwrap_err();
    assert_eq!(
        error.kind,
        SyntaxErrorKind::IncludeTooDeep { depth_max: 16 }
    );
}

#[test]
fn variables_cannot_multiply_a_small_file_into_an_endless_one() {
    let mut text = String::from("V0: [1,1,1,1,1,1,1,1,1,1]\n");
    for i in 1..40 {
        let reference = format!("$V{},", i - 1);
        text.push_str(&format!("V{i}: [{}]\n", reference.repeat(10)));
    }
    let error = parse(&source(&[("a", &text)], &[]), Path::new("a")).unwrap_err();
    assert_eq!(
        error.kind,
        SyntaxErrorKind::TooManyValues {
            values_max: 1_000_000
        }
    );
}

/// The digests were computed by the reference server (`-t`) for the same texts.
#[test]
fn digest_equals_the_reference() {
    for (text, expected) in [
        (
            "port: -1\n",
            "7ea4cc5c6864139d814ce940a40ee6546b7ac5285eec3c390a4ce11e34dc1102",
        ),
        (
            "{port:4222}",
            "797533ebd0dfba7d34a0f9337ecf147e442871f48ddfd07ed751575a5737267e",
        ),
        (
            "port=4222;host:\"x\"",
            "4e31f80dd34c230ec8681415e9e9babe1b3878b189bd7e19ddae5c8d5250dfa9",
        ),
        (
            "server_name: <a>",
            "dc709a65900f41f055a7ae4c04c2e54385169410315057172cf56e06c6077cab",
        ),
        (
            "server_name: (\nabc\n)\n",
            "476bc98977c2b0b11ed1bac4620058c95ba3ba0f62927457f426b971c6b8d10b",
        ),
        (
            "max_payload: -1K",
            "148d20a3d04585d310171bbb1dc270536aa6b1083ea410d729557c3b5e52e59d",
        ),
        (
            "jetstream {max_mem: 1GB; max_file: 1T}",
            "cc975ae2e2dedd99cf513b6527d79ca07f52bad14dc5cca2f1c44f6c36ac2dc8",
        ),
    ] {
        let map = parse(&source(&[("a", text)], &[]), Path::new("a")).unwrap();
        assert_eq!(digest(&map), format!("sha256:{expected}"), "{text}");
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Any text gives a map or an error, never a panic.
        #[test]
        fn any_text_is_read(text in r#"[ab1$'"(){}\[\]:=,;#/\\ \n.-]{0,60}"#) {
            let _ = parse(&source(&[("a", &text)], &[("a", "$b"), ("b", "[$a]")]), Path::new("a"));
        }
    }
}
