//! Entry point for fuzzing of everything clients can write into JetStream requests.

use riverlog_engine::ids::TimestampNs;

use super::ack_subject::{self, AckKind};
use super::direct::GetRequest;
use super::engine_config::{
    consumer_from_engine, consumer_to_engine, stream_from_engine, stream_to_engine,
};
use super::json::{UnknownFields, is_empty_body, parse_object};
use super::publish_headers::{PublishHeaders, parse_seq, requires_newer_api, stored_block};
use super::pull_request::PullRequest;
use super::types::consumer_config::{ConsumerConfig, CreateConsumerRequest};
use super::types::stream_config::{StreamConfig, StreamConfigRequest};
use super::validate::consumer::{ConsumerRules, check_consumer_config};
use super::validate::stream::{StreamRules, check_stream_config};
use super::validate::{consumer_update, stream_update};

const STREAM_RULES: StreamRules = StreamRules {
    pedantic: false,
    duplicate_window_ns_max: None,
};

/// Request bodies, acknowledgements, subjects and headers. The first byte chooses which.
///
/// A configuration that is accepted is complete: checking it again changes nothing, it can replace
/// itself, and it comes back from the store as it was.
pub fn fuzz_jetstream_requests(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else {
        return;
    };
    match choice % 6 {
        0 => stream_request(bytes),
        1 => consumer_request(bytes),
        2 => {
            let _ = PullRequest::parse(bytes, TimestampNs(1));
            let _ = is_empty_body(bytes);
        }
        3 => {
            let _ = parse_object::<GetRequest>(bytes, "Get", UnknownFields::Ignore);
        }
        4 => {
            let _ = AckKind::parse(bytes);
            let _ = std::str::from_utf8(bytes).map(ack_subject::parse);
        }
        _ => publish_headers(bytes),
    }
}

fn stream_request(bytes: &[u8]) {
    let request: Result<StreamConfigRequest, _> =
        parse_object(bytes, "Stream", UnknownFields::Refuse);
    let Ok(request) = request else { return };
    let Ok(config) = check_stream_config(&request.config, STREAM_RULES) else {
        return;
    };
    assert_eq!(
        check_stream_config(&config, STREAM_RULES).as_ref(),
        Ok(&config)
    );
    assert_eq!(
        stream_from_engine(&stream_to_engine(&config)).as_ref(),
        Ok(&config)
    );
    if !config.sealed && config.mirror.is_none() {
        assert_eq!(
            stream_update::check_update(&config, config.clone()).as_ref(),
            Ok(&config)
        );
    }
}

fn consumer_request(bytes: &[u8]) {
    let request: Result<CreateConsumerRequest, _> =
        parse_object(bytes, "Consumer", UnknownFields::Refuse);
    let Ok(request) = request else { return };
    let stream = StreamConfig {
        num_replicas: 1,
        ..StreamConfig::default()
    };
    let check =
        |config: &ConsumerConfig| check_consumer_config(config, &stream, ConsumerRules::default());
    let Ok(config) = check(&request.config) else {
        return;
    };
    assert_eq!(check(&config).as_ref(), Ok(&config));
    let stored = consumer_to_engine(&config, "c");
    assert_eq!(consumer_from_engine(&stored).as_ref(), Ok(&config));
    assert_eq!(consumer_update::check_update(&config, &config), Ok(()));
}

fn publish_headers(block: &[u8]) {
    let found = PublishHeaders::scan(block);
    let _ = found.expected_last_seq.map(parse_seq);
    let _ = requires_newer_api(Some(block));
    if let Some(stored) = stored_block(block) {
        let again = PublishHeaders::scan(&stored);
        assert!(!again.has_status);
        assert!(!again.has_request_info);
        assert_eq!(again.msg_id, found.msg_id);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WORDS: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\\",
        "null",
        "true",
        "0",
        "-1",
        "5",
        "1000000000",
        "1.5",
        "\"name\":\"S\"",
        "\"subjects\":[\"a.*\",\"b\"]",
        "\"max_age\":",
        "\"config\":{",
        "\"durable_name\":\"d\"",
        "\"ack_policy\":\"explicit\"",
        "\"backoff\":[1,2]",
        "\"filter_subjects\":[\"a\"]",
        "\"opt_start_time\":\"2020-01-01T00:00:00Z\"",
        "\"batch\":",
        "\"expires\":",
        "\"max_msgs\":",
        "\"duplicate_window\":",
        "\"metadata\":{",
        "\"a\":\"b\"",
        "\"deliver_subject\":\"x\"",
        "\"idle_heartbeat\":",
        "$JS.ACK.S.c.1.2.3.4.5",
        ".",
        "+ACK",
        "-NAK ",
        "{\"delay\":",
        "5s",
        "+NXT ",
        "+TERM",
        "NATS/1.0",
        " 503",
        "\r\n",
        "Nats-Msg-Id: x",
        "Nats-Request-Info: {}",
        "Nats-Rollup:sub",
        "é",
        "\0",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn nothing_a_client_writes_breaks_a_reader(
            choice in 0u8..6,
            words in prop::collection::vec(prop::sample::select(WORDS), 0..24),
        ) {
            let mut data = vec![choice];
            data.extend_from_slice(words.concat().as_bytes());
            fuzz_jetstream_requests(&data);
        }

        #[test]
        fn accepted_configurations_are_complete(
            stream in prop::collection::vec(prop::sample::select(STREAM_FIELDS), 0..8),
            consumer in prop::collection::vec(prop::sample::select(CONSUMER_FIELDS), 0..8),
        ) {
            let body = format!("\0{{\"name\":\"S\",{}\"no_ack\":null}}", list(&stream));
            fuzz_jetstream_requests(body.as_bytes());
            let body = format!("\u{1}{{\"config\":{{{}\"name\":null}}}}", list(&consumer));
            fuzz_jetstream_requests(body.as_bytes());
        }
    }

    fn list(fields: &[&str]) -> String {
        fields.iter().map(|field| format!("{field},")).collect()
    }

    const STREAM_FIELDS: &[&str] = &[
        r#""subjects":["a.*","b"]"#,
        r#""subjects":[]"#,
        r#""retention":"workqueue""#,
        r#""max_msgs":-7"#,
        r#""max_bytes":0"#,
        r#""max_age":1000000000"#,
        r#""duplicate_window":500000000"#,
        r#""discard":"new","max_msgs_per_subject":2,"discard_new_per_subject":true"#,
        r#""storage":"memory""#,
        r#""num_replicas":1"#,
        r#""sealed":true"#,
        r#""deny_purge":true"#,
        r#""allow_rollup_hdrs":true"#,
        r#""subject_delete_marker_ttl":1000000000"#,
        r#""allow_msg_schedules":true"#,
        r#""placement":{}"#,
        r#""placement":{"tags":["x"]}"#,
        r#""metadata":{"_nats.ver":"1","k":"v"}"#,
        r#""sources":[{"name":"X","opt_start_time":"2020-01-01T00:00:00.5Z"}]"#,
        r#""consumer_limits":{"max_ack_pending":5}"#,
        r#""first_seq":7"#,
        r#""compression":"s2""#,
    ];

    const CONSUMER_FIELDS: &[&str] = &[
        r#""durable_name":"d""#,
        r#""ack_policy":"explicit""#,
        r#""ack_policy":"all""#,
        r#""ack_wait":7"#,
        r#""backoff":[1,2],"max_deliver":3"#,
        r#""max_deliver":-5"#,
        r#""deliver_policy":"last_per_subject","filter_subject":"a""#,
        r#""deliver_policy":"by_start_time","opt_start_time":"2020-01-01T00:00:00.000000001Z""#,
        r#""filter_subjects":["a.*","b"]"#,
        r#""deliver_subject":"x","idle_heartbeat":200000000,"flow_control":true"#,
        r#""inactive_threshold":-1"#,
        r#""max_waiting":-1"#,
        r#""max_ack_pending":-9"#,
        r#""sample_freq":"50%""#,
        r#""pause_until":"2100-01-01T00:00:00Z""#,
        r#""priority_policy":"overflow","priority_groups":["g"]"#,
        r#""headers_only":true"#,
        r#""metadata":{"k":"v"}"#,
    ];
}
