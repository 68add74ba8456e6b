//! One row per rule: a configuration, and the error or defaults it leads to.

use super::super::super::json::{UnknownFields, parse_object};
use super::*;

fn stream(body: &str) -> StreamConfig {
    let mut stream: StreamConfig =
        parse_object(body.as_bytes(), "StreamConfig", UnknownFields::Refuse).unwrap();
    stream.num_replicas = 1;
    stream.subjects = vec!["s.>".to_owned()];
    stream
}

fn check_on(
    stream_body: &str,
    body: &str,
    pedantic: bool,
) -> Result<ConsumerConfig, (u16, String)> {
    let wanted: ConsumerConfig =
        parse_object(body.as_bytes(), "ConsumerConfig", UnknownFields::Refuse).unwrap();
    let rules = ConsumerRules {
        pedantic,
        ..ConsumerRules::default()
    };
    check_consumer_config(&wanted, &stream(stream_body), rules)
        .map_err(|e| (e.err_code, e.description.into_owned()))
}

/// A durable consumer with explicit acknowledgement plus `extra`.
fn durable(extra: &str) -> String {
    let ack = if extra.contains("ack_policy") {
        ""
    } else {
        r#","ack_policy":"explicit""#
    };
    let comma = if extra.is_empty() { "" } else { "," };
    format!(r#"{{"durable_name":"d"{ack}{comma}{extra}}}"#)
}

#[test]
fn refused_configurations() {
    let long = format!(r#""description":"{}""#, "x".repeat(4097));
    let large = format!(r#""metadata":{{"a":"{}"}}"#, "x".repeat(131_072));
    let groups = "Valid priority group name must match A-Z, a-z, 0-9, -_/=)+ and may not exceed 16 characters";
    for (extra, err_code, text) in [
        (
            r#""name":"e""#,
            10132,
            "Consumer Durable and Name have to be equal if both are provided",
        ),
        (
            &long,
            10107,
            "consumer description is too long, maximum allowed is 4096",
        ),
        (
            &large,
            10135,
            "consumer metadata exceeds maximum size of 128KB",
        ),
        (
            r#""ack_policy":"flow_control""#,
            10218,
            "flow control ack policy requires a push based consumer",
        ),
        (
            r#""opt_start_seq":5"#,
            10094,
            "consumer delivery policy is deliver all, but optional start sequence is also set",
        ),
        (
            r#""opt_start_time":"2020-01-01T00:00:00Z""#,
            10094,
            "consumer delivery policy is deliver all, but optional start time is also set",
        ),
        (
            r#""deliver_policy":"by_start_sequence""#,
            10094,
            "consumer delivery policy is deliver by start sequence, but optional start sequence is not set",
        ),
        (
            r#""deliver_policy":"by_start_sequence","opt_start_seq":5,"opt_start_time":"2020-01-01T00:00:00Z""#,
            10094,
            "consumer delivery policy is deliver by start sequence, but optional start time is also set",
        ),
        (
            r#""deliver_policy":"by_start_time""#,
            10094,
            "consumer delivery policy is deliver by start time, but optional start time is not set",
        ),
        (
            r#""deliver_policy":"by_start_time","opt_start_time":"2020-01-01T00:00:00Z","opt_start_seq":1"#,
            10094,
            "consumer delivery policy is deliver by start time, but optional start start sequence is also set",
        ),
        (
            r#""deliver_policy":"last","opt_start_seq":1"#,
            10094,
            "consumer delivery policy is deliver last, but optional start sequence is also set",
        ),
        (
            r#""deliver_policy":"new","opt_start_time":"2020-01-01T00:00:00Z""#,
            10094,
            "consumer delivery policy is deliver new, but optional start time is also set",
        ),
        (
            r#""deliver_policy":"last_per_subject""#,
            10094,
            "consumer delivery policy is deliver last per subject, but optional filter subject is not set",
        ),
        (
            r#""deliver_policy":"last_per_subject","filter_subject":"s.a","opt_start_seq":4"#,
            10094,
            "consumer delivery policy is deliver last per subject, but optional start sequence is also set",
        ),
        (
            r#""ack_wait":-1"#,
            10183,
            "consumer ack wait needs to be positive",
        ),
        (
            r#""backoff":[1,2],"max_deliver":1"#,
            10116,
            "max deliver is required to be > length of backoff values",
        ),
        (
            r#""backoff":[-1]"#,
            10184,
            "consumer backoff needs to be positive",
        ),
        (r#""filter_subject":"s..a""#, 10052, "invalid subject"),
        (r#""filter_subjects":["s..a"]"#, 10052, "invalid subject"),
        (
            r#""filter_subjects":["s.a","s.a"]"#,
            10138,
            "consumer subject filters cannot overlap",
        ),
        (
            r#""filter_subjects":["s.*","s.a"]"#,
            10138,
            "consumer subject filters cannot overlap",
        ),
        (
            r#""filter_subjects":["s.a",""]"#,
            10139,
            "consumer filter in FilterSubjects cannot be empty",
        ),
        (
            r#""filter_subjects":["s.a"],"filter_subject":"s.b""#,
            10136,
            "consumer cannot have both FilterSubject and FilterSubjects specified",
        ),
        (
            r#""rate_limit_bps":5"#,
            10086,
            "consumer in pull mode can not have rate limit set",
        ),
        (
            r#""sample_freq":"x""#,
            10095,
            r#"failed to parse consumer sampling configuration: strconv.Atoi: parsing "x": invalid syntax"#,
        ),
        (
            r#""sample_freq":"-1""#,
            10095,
            "failed to parse consumer sampling configuration: <nil>",
        ),
        (
            r#""flow_control":true"#,
            10089,
            "consumer flow control requires a push based consumer",
        ),
        (
            r#""idle_heartbeat":100000000"#,
            10088,
            "consumer idle heartbeat requires a push based consumer",
        ),
        (
            r#""max_expires":5"#,
            10115,
            "consumer max request expires needs to be >= 1ms",
        ),
        (
            r#""num_replicas":3"#,
            10074,
            "replicas > 1 not supported in non-clustered mode",
        ),
        (
            r#""num_replicas":-1"#,
            10133,
            "replicas count cannot be negative",
        ),
        (
            r#""direct":true"#,
            10090,
            "consumer direct requires a push based consumer",
        ),
        (
            r#""priority_groups":["a"]"#,
            10196,
            "consumer can not have priority groups when policy is none",
        ),
        (
            r#""priority_policy":"overflow""#,
            10159,
            "Setting PriorityPolicy requires at least one PriorityGroup to be set",
        ),
        (
            r#""priority_timeout":5"#,
            10197,
            "PinnedTTL cannot be set when PriorityPolicy is none",
        ),
        (
            r#""priority_groups":["a b"],"priority_policy":"overflow""#,
            10162,
            groups,
        ),
        (
            r#""priority_groups":[""],"priority_policy":"overflow""#,
            10161,
            "Group name cannot be an empty string",
        ),
        (
            r#""deliver_subject":"a.*""#,
            10079,
            "consumer deliver subject has wildcards",
        ),
        (
            r#""deliver_subject":"a..b""#,
            10112,
            "invalid push consumer deliver subject",
        ),
        (
            r#""deliver_subject":"s.a""#,
            10081,
            "consumer deliver subject forms a cycle",
        ),
        (
            r#""deliver_subject":"x","max_waiting":5"#,
            10080,
            "consumer in push mode can not set max waiting",
        ),
        (
            r#""deliver_subject":"x","idle_heartbeat":5"#,
            10083,
            "consumer idle heartbeat needs to be >= 100ms",
        ),
        (
            r#""deliver_subject":"x","flow_control":true"#,
            10108,
            "consumer with flow control also needs heartbeats",
        ),
        (
            r#""deliver_subject":"x","priority_policy":"overflow","priority_groups":["a"]"#,
            10178,
            "priority groups can not be used with push consumers",
        ),
    ] {
        let got = check_on("{}", &durable(extra), false);
        assert_eq!(got.unwrap_err(), (err_code, text.to_owned()), "{extra}");
    }
    let got = check_on("{}", r#"{"name":"a.b"}"#, false).unwrap_err();
    assert_eq!(
        got,
        (
            10052,
            r"consumer name can not contain '.', '*', '>', '\', '/'".to_owned()
        )
    );
}

#[test]
fn defaults_are_filled_in() {
    let json = |body: &str| {
        let mut config = check_on("{}", body, false).unwrap();
        config.metadata.clear();
        serde_json::to_string(&config).unwrap()
    };
    assert_eq!(
        json(r#"{"name":"c1","ack_policy":"explicit"}"#),
        r#"{"name":"c1","deliver_policy":"all","ack_policy":"explicit","ack_wait":30000000000,"max_deliver":-1,"replay_policy":"instant","max_waiting":512,"max_ack_pending":1000,"inactive_threshold":5000000000,"num_replicas":0}"#
    );
    assert_eq!(
        json("{}"),
        r#"{"deliver_policy":"all","ack_policy":"none","max_deliver":-1,"replay_policy":"instant","max_waiting":512,"inactive_threshold":5000000000,"num_replicas":0}"#
    );
    assert_eq!(
        json(&durable(
            r#""backoff":[5,10],"ack_wait":50,"max_ack_pending":-9,"max_deliver":-4,"max_batch":-5,"max_waiting":-1"#
        )),
        r#"{"durable_name":"d","name":"d","deliver_policy":"all","ack_policy":"explicit","ack_wait":5,"max_deliver":-1,"backoff":[5,10],"replay_policy":"instant","max_waiting":512,"max_ack_pending":-1,"num_replicas":0}"#
    );
}

#[test]
fn stream_limits_are_defaults_and_ceilings() {
    let limits = r#"{"consumer_limits":{"max_ack_pending":10,"inactive_threshold":60000000000}}"#;
    let got = check_on(limits, &durable(""), false).unwrap();
    assert_eq!(
        (got.max_ack_pending, got.inactive_threshold),
        (10, 60_000_000_000)
    );
    let got = check_on(limits, &durable(r#""max_ack_pending":-1"#), false).unwrap();
    assert_eq!(got.max_ack_pending, -1);
    for (extra, pedantic, err_code, text) in [
        (
            r#""max_ack_pending":11"#,
            false,
            10121,
            "consumer max ack pending exceeds system limit of 10",
        ),
        (
            r#""inactive_threshold":61000000000"#,
            false,
            10153,
            "consumer inactive threshold exceeds system limit of 1m0s",
        ),
        (
            r#""inactive_threshold":1"#,
            true,
            10157,
            "pedantic mode: max_ack_pending must be set if it's configured in stream limits",
        ),
    ] {
        let got = check_on(limits, &durable(extra), pedantic).unwrap_err();
        assert_eq!(got, (err_code, text.to_owned()), "{extra}");
    }
}

#[test]
fn pedantic_requests_refuse_silent_changes() {
    for (extra, text) in [
        (
            r#""max_deliver":-5"#,
            "pedantic mode: max_deliver must be set to -1",
        ),
        (
            r#""ack_wait":5,"backoff":[1,2]"#,
            "pedantic mode: first backoff value has to equal batch AckWait",
        ),
        (
            r#""max_ack_pending":-5"#,
            "pedantic mode: max_ack_pending must be set to -1",
        ),
        (
            r#""max_waiting":-1"#,
            "pedantic mode: max_waiting must not be negative",
        ),
        (
            r#""max_batch":-1"#,
            "pedantic mode: max_batch must not be negative",
        ),
    ] {
        let got = check_on("{}", &durable(extra), true).unwrap_err();
        assert_eq!(got, (10157, text.to_owned()), "{extra}");
    }
    assert!(check_on("{}", &durable(r#""max_deliver":0"#), true).is_ok());
}

#[test]
fn work_queue_rules() {
    let queue = r#"{"retention":"workqueue"}"#;
    for (extra, err_code) in [
        (r#""ack_policy":"none""#, 10084),
        (r#""ack_policy":"all""#, 10098),
        (r#""deliver_policy":"new""#, 10101),
        (r#""deliver_policy":"last""#, 10101),
    ] {
        assert_eq!(
            check_on(queue, &durable(extra), false).unwrap_err().0,
            err_code,
            "{extra}"
        );
    }
    let list = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let overlap = |filters: &[&str], others: &[&[&str]]| {
        let others: Vec<_> = others.iter().map(|o| list(o)).collect();
        check_work_queue_overlap(&list(filters), &others).map_err(|e| e.err_code)
    };
    assert_eq!(overlap(&[], &[]), Ok(()));
    assert_eq!(overlap(&[], &[&["w.a"]]), Err(10099));
    assert_eq!(overlap(&["w.*"], &[&["w.a"]]), Err(10100));
    assert_eq!(overlap(&["w.b", "w.a"], &[&["w.a"]]), Err(10100));
    assert_eq!(overlap(&["w.b"], &[&[]]), Err(10100));
    assert_eq!(overlap(&["w.b"], &[&["w.a"], &["w.c"]]), Ok(()));
}
