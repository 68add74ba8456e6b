//! Defaulting and checks of a stream configuration that hold for create and update (SCFG rows).

use super::super::errors::{self, ApiError, stream_invalid_config};
use super::super::limits::{
    ASSET_NAME_BYTES_MAX, DESCRIPTION_BYTES_MAX, DUPLICATE_WINDOW_NS_DEFAULT, METADATA_BYTES_MAX,
    REPLICAS_MAX, WINDOW_NS_MIN,
};
use super::super::time::format_duration;
use super::super::types::enums::Discard;
use super::super::types::stream_config::{Placement, StreamConfig};
use super::{metadata, names, subjects};

/// What the server adds to the rules.
#[derive(Clone, Copy, Debug)]
pub struct StreamRules {
    /// Refuse values that would be changed silently (JSAPI-014).
    pub pedantic: bool,
    /// Longest `duplicate_window` in nanoseconds; `None` = no server limit.
    pub duplicate_window_ns_max: Option<i64>,
}

/// Fills in defaults and checks everything that needs no knowledge of other streams.
pub fn check_stream_config(
    wanted: &StreamConfig,
    rules: StreamRules,
) -> Result<StreamConfig, ApiError> {
    let mut config = wanted.clone();
    check_texts(&config)?;
    check_replicas(&mut config)?;
    default_limits(&mut config, rules.pedantic)?;
    check_windows(&mut config, rules)?;
    check_permissions(&mut config, rules.pedantic)?;
    check_discard(&config)?;
    check_subjects(&mut config)?;
    check_placement(&mut config)?;
    let level = metadata::stream_level(&config);
    metadata::set_stored(&mut config.metadata, level);
    Ok(config)
}

fn check_texts(config: &StreamConfig) -> Result<(), ApiError> {
    if !names::is_valid_asset_name(&config.name) {
        return Err(stream_invalid_config(
            "stream name is required and can not contain '.', '*', '>', '\\', '/'",
        ));
    }
    if config.name.len() > ASSET_NAME_BYTES_MAX {
        return Err(stream_invalid_config(format_args!(
            "stream name is too long, maximum allowed is {ASSET_NAME_BYTES_MAX}"
        )));
    }
    if config.description.len() > DESCRIPTION_BYTES_MAX {
        return Err(stream_invalid_config(format_args!(
            "stream description is too long, maximum allowed is {DESCRIPTION_BYTES_MAX}"
        )));
    }
    if !metadata::is_within_limit(&config.metadata) {
        return Err(stream_invalid_config(format_args!(
            "stream metadata exceeds maximum size of {METADATA_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

fn check_replicas(config: &mut StreamConfig) -> Result<(), ApiError> {
    if config.num_replicas == 0 {
        config.num_replicas = 1;
    }
    if config.num_replicas > REPLICAS_MAX {
        return Err(stream_invalid_config(format_args!(
            "maximum replicas is {REPLICAS_MAX}"
        )));
    }
    if config.num_replicas < 0 {
        return Err(errors::REPLICAS_COUNT_CANNOT_BE_NEGATIVE);
    }
    if config.num_replicas > 1 {
        return Err(errors::STREAM_REPLICAS_NOT_SUPPORTED);
    }
    Ok(())
}

/// 0 and everything below -1 become -1, "no limit".
fn default_limits(config: &mut StreamConfig, pedantic: bool) -> Result<(), ApiError> {
    let limits = [
        ("max_msgs", &mut config.max_msgs),
        ("max_bytes", &mut config.max_bytes),
        ("max_msgs_per_subject", &mut config.max_msgs_per_subject),
        ("max_consumers", &mut config.max_consumers),
    ];
    for (name, limit) in limits {
        if *limit < -1 && pedantic {
            return Err(errors::pedantic(format_args!("{name} must be set to -1")));
        }
        if *limit <= 0 {
            *limit = -1;
        }
    }
    if config.max_msg_size < -1 && pedantic {
        return Err(errors::pedantic("max_msg_size must be set to -1"));
    }
    if config.max_msg_size <= 0 {
        config.max_msg_size = -1;
    }
    Ok(())
}

fn check_windows(config: &mut StreamConfig, rules: StreamRules) -> Result<(), ApiError> {
    if config.max_age < 0 {
        return Err(stream_invalid_config("max age can not be negative"));
    }
    if config.max_age != 0 && config.max_age < WINDOW_NS_MIN {
        return Err(stream_invalid_config("max age needs to be >= 100ms"));
    }
    let copies = config.mirror.is_some() || !config.sources.is_empty();
    if config.duplicate_window == 0 && !copies {
        config.duplicate_window = default_window(config, rules)?;
    }
    if config.duplicate_window < 0 {
        return Err(stream_invalid_config(
            "duplicates window can not be negative",
        ));
    }
    if config.duplicate_window != 0 && config.duplicate_window < WINDOW_NS_MIN {
        return Err(stream_invalid_config(
            "duplicates window needs to be >= 100ms",
        ));
    }
    if config.max_age > 0 && config.duplicate_window > config.max_age {
        return Err(stream_invalid_config(
            "duplicates window can not be larger then max age",
        ));
    }
    match rules.duplicate_window_ns_max {
        Some(max) if config.duplicate_window > max => Err(stream_invalid_config(format_args!(
            "duplicates window can not be larger then server limit of {}",
            format_duration(max)
        ))),
        _ => Ok(()),
    }
}

/// T-32: the smallest of two minutes, the server's limit and `max_age`.
fn default_window(config: &StreamConfig, rules: StreamRules) -> Result<i64, ApiError> {
    let mut window = DUPLICATE_WINDOW_NS_DEFAULT;
    if let Some(max) = rules.duplicate_window_ns_max.filter(|max| *max < window) {
        if rules.pedantic {
            return Err(errors::pedantic(
                "duplicate window limits are higher than current limits",
            ));
        }
        window = max;
    }
    if config.max_age != 0 && config.max_age < window {
        if rules.pedantic {
            return Err(errors::pedantic(
                "duplicate window cannot be bigger than max age",
            ));
        }
        window = config.max_age;
    }
    Ok(window)
}

fn check_permissions(config: &mut StreamConfig, pedantic: bool) -> Result<(), ApiError> {
    if config.subject_delete_marker_ttl < 0 {
        return Err(stream_invalid_config(
            "subject delete marker TTL must not be negative",
        ));
    }
    if config.subject_delete_marker_ttl > 0 {
        if config.subject_delete_marker_ttl < 1_000_000_000 {
            return Err(stream_invalid_config(
                "subject delete marker TTL must be at least 1 second",
            ));
        }
        if config.mirror.is_some() {
            return Err(stream_invalid_config(
                "subject delete markers forbidden on mirrors",
            ));
        }
        if pedantic && !config.allow_msg_ttl {
            return Err(stream_invalid_config(
                "subject delete marker cannot be set if message TTLs are disabled",
            ));
        }
        config.allow_msg_ttl = true;
        if !config.allow_rollup_hdrs {
            if pedantic {
                return Err(stream_invalid_config(
                    "subject delete marker cannot be set if roll-ups are disabled",
                ));
            }
            config.allow_rollup_hdrs = true;
            config.deny_purge = false;
        }
    }
    if config.allow_msg_schedules {
        config.allow_rollup_hdrs = true;
    }
    if config.deny_purge && config.allow_rollup_hdrs {
        return Err(stream_invalid_config(
            "roll-ups require the purge permission",
        ));
    }
    if config.mirror.is_none() && config.mirror_direct {
        return Err(stream_invalid_config(
            "stream has no mirror but does have mirror direct",
        ));
    }
    Ok(())
}

fn check_discard(config: &StreamConfig) -> Result<(), ApiError> {
    if config.discard_new_per_subject {
        if config.discard != Discard::New {
            return Err(stream_invalid_config(
                "discard new per subject requires discard new policy to be set",
            ));
        }
        if config.max_msgs_per_subject <= 0 {
            return Err(stream_invalid_config(
                "discard new per subject requires max msgs per subject > 0",
            ));
        }
    }
    Ok(())
}

fn check_subjects(config: &mut StreamConfig) -> Result<(), ApiError> {
    if config.mirror.is_some() {
        if !config.subjects.is_empty() {
            return Err(errors::MIRROR_WITH_SUBJECTS);
        }
        if !config.sources.is_empty() {
            return Err(errors::MIRROR_WITH_SOURCES);
        }
        if config.first_seq > 0 {
            return Err(errors::MIRROR_WITH_FIRST_SEQ);
        }
        return Ok(());
    }
    if config.subjects.is_empty() && config.sources.is_empty() {
        config.subjects = vec![config.name.clone()];
    }
    for (i, subject) in config.subjects.iter().enumerate() {
        if !subjects::is_valid(subject) {
            return Err(stream_invalid_config("invalid subject"));
        }
        check_reserved(subject, config.no_ack)?;
        if let Some(other) = config.subjects[..i]
            .iter()
            .find(|s| subjects::collide(s, subject))
        {
            return Err(stream_invalid_config(format_args!(
                "subject \"{other}\" overlaps with \"{subject}\""
            )));
        }
    }
    Ok(())
}

/// SCFG-005, SCFG-006: acknowledgements of captured API traffic would answer API requests.
fn check_reserved(subject: &str, no_ack: bool) -> Result<(), ApiError> {
    if no_ack {
        return Ok(());
    }
    if subject == ">" {
        return Err(stream_invalid_config(
            "capturing all subjects requires no-ack to be true",
        ));
    }
    let api = ["$JS.>", "$JSC.>", "$NRG.>"];
    if api
        .iter()
        .any(|reserved| subjects::collide(subject, reserved))
        && !subjects::is_subset(subject, "$JS.EVENT.>")
    {
        return Err(stream_invalid_config(
            "subjects that overlap with jetstream api require no-ack to be true",
        ));
    }
    if subjects::collide(subject, "$SYS.>") && !subjects::is_subset(subject, "$SYS.ACCOUNT.>") {
        return Err(stream_invalid_config(
            "subjects that overlap with system api require no-ack to be true",
        ));
    }
    Ok(())
}

fn check_placement(config: &mut StreamConfig) -> Result<(), ApiError> {
    if config
        .placement
        .as_ref()
        .is_some_and(|p| !p.preferred.is_empty())
    {
        return Err(stream_invalid_config(
            "preferred server not permitted in placement",
        ));
    }
    if config.placement == Some(Placement::default()) {
        config.placement = None;
    }
    Ok(())
}

/// What only a create request must not ask for (SCFG-029).
pub fn check_create(config: &StreamConfig) -> Result<(), ApiError> {
    if config.sealed {
        return Err(stream_invalid_config(
            "stream configuration for create can not be sealed",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::json::{UnknownFields, parse_object};
    use super::*;

    const RULES: StreamRules = StreamRules {
        pedantic: false,
        duplicate_window_ns_max: None,
    };

    fn config(body: &str) -> StreamConfig {
        let mut config: StreamConfig =
            parse_object(body.as_bytes(), "StreamConfig", UnknownFields::Refuse).unwrap();
        if config.name.is_empty() {
            config.name = "T".to_owned();
        }
        config
    }

    fn check(body: &str, rules: StreamRules) -> Result<StreamConfig, (u16, String)> {
        check_stream_config(&config(body), rules)
            .and_then(|c| check_create(&c).map(|()| c))
            .map_err(|e| (e.err_code, e.description.into_owned()))
    }

    #[test]
    fn refused_configurations() {
        let long = format!(r#"{{"description":"{}"}}"#, "x".repeat(4097));
        let large = format!(r#"{{"metadata":{{"a":"{}"}}}}"#, "x".repeat(131_072));
        let name = format!(r#"{{"name":"{}"}}"#, "x".repeat(256));
        let api = "subjects that overlap with jetstream api require no-ack to be true";
        let system = "subjects that overlap with system api require no-ack to be true";
        for (body, err_code, text) in [
            (
                r#"{"name":"a*"}"#,
                10052,
                r"stream name is required and can not contain '.', '*', '>', '\', '/'",
            ),
            (
                &name,
                10052,
                "stream name is too long, maximum allowed is 255",
            ),
            (
                &long,
                10052,
                "stream description is too long, maximum allowed is 4096",
            ),
            (
                &large,
                10052,
                "stream metadata exceeds maximum size of 131072 bytes",
            ),
            (
                r#"{"subjects":["a","a"]}"#,
                10052,
                r#"subject "a" overlaps with "a""#,
            ),
            (
                r#"{"subjects":["a.*","a.b"]}"#,
                10052,
                r#"subject "a.*" overlaps with "a.b""#,
            ),
            (r#"{"subjects":["a..b"]}"#, 10052, "invalid subject"),
            (r#"{"subjects":[""]}"#, 10052, "invalid subject"),
            (r#"{"subjects":["a b"]}"#, 10052, "invalid subject"),
            (
                r#"{"subjects":[">"]}"#,
                10052,
                "capturing all subjects requires no-ack to be true",
            ),
            (r#"{"subjects":["$JS.>"]}"#, 10052, api),
            (r#"{"subjects":["$JSC.a"]}"#, 10052, api),
            (r#"{"subjects":["$NRG.a"]}"#, 10052, api),
            (r#"{"subjects":["*.>"]}"#, 10052, api),
            (r#"{"subjects":["$SYS.a"]}"#, 10052, system),
            (r#"{"num_replicas":6}"#, 10052, "maximum replicas is 5"),
            (
                r#"{"num_replicas":-1}"#,
                10133,
                "replicas count cannot be negative",
            ),
            (
                r#"{"num_replicas":3}"#,
                10074,
                "replicas > 1 not supported in non-clustered mode",
            ),
            (r#"{"max_age":-1}"#, 10052, "max age can not be negative"),
            (r#"{"max_age":5}"#, 10052, "max age needs to be >= 100ms"),
            (
                r#"{"duplicate_window":-1}"#,
                10052,
                "duplicates window can not be negative",
            ),
            (
                r#"{"duplicate_window":5}"#,
                10052,
                "duplicates window needs to be >= 100ms",
            ),
            (
                r#"{"duplicate_window":1000000000,"max_age":500000000}"#,
                10052,
                "duplicates window can not be larger then max age",
            ),
            (
                r#"{"discard_new_per_subject":true}"#,
                10052,
                "discard new per subject requires discard new policy to be set",
            ),
            (
                r#"{"discard_new_per_subject":true,"discard":"new"}"#,
                10052,
                "discard new per subject requires max msgs per subject > 0",
            ),
            (
                r#"{"deny_purge":true,"allow_rollup_hdrs":true}"#,
                10052,
                "roll-ups require the purge permission",
            ),
            (
                r#"{"sealed":true}"#,
                10052,
                "stream configuration for create can not be sealed",
            ),
            (
                r#"{"mirror_direct":true}"#,
                10052,
                "stream has no mirror but does have mirror direct",
            ),
            (
                r#"{"placement":{"preferred":"x"}}"#,
                10052,
                "preferred server not permitted in placement",
            ),
            (
                r#"{"subjects":["t"],"mirror":{"name":"X"}}"#,
                10034,
                "stream mirrors can not contain subjects",
            ),
        ] {
            assert_eq!(
                check(body, RULES).unwrap_err(),
                (err_code, text.to_owned()),
                "{body}"
            );
        }
    }

    #[test]
    fn reserved_subjects_that_are_allowed() {
        for body in [
            r#"{"subjects":["$JS.EVENT.>"]}"#,
            r#"{"subjects":["$SYS.ACCOUNT.a"]}"#,
            r#"{"subjects":[">"],"no_ack":true}"#,
            r#"{"subjects":["$JS.>"],"no_ack":true}"#,
        ] {
            assert!(check(body, RULES).is_ok(), "{body}");
        }
    }

    #[test]
    fn defaults_are_filled_in() {
        let got = check("{}", RULES).unwrap();
        assert_eq!(
            serde_json::to_string(&got).unwrap(),
            r#"{"name":"T","subjects":["T"],"retention":"limits","max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"max_age":0,"max_msgs_per_subject":-1,"max_msg_size":-1,"discard":"old","storage":"file","num_replicas":1,"duplicate_window":120000000000,"compression":"none","allow_direct":false,"mirror_direct":false,"sealed":false,"deny_delete":false,"deny_purge":false,"allow_rollup_hdrs":false,"consumer_limits":{},"allow_msg_ttl":false,"metadata":{"_nats.req.level":"0"}}"#
        );
        let got = check(r#"{"max_msgs":-5,"max_bytes":-7,"max_msg_size":-3}"#, RULES).unwrap();
        assert_eq!(
            (got.max_msgs, got.max_bytes, got.max_msg_size),
            (-1, -1, -1)
        );
        let got = check(r#"{"max_age":1000000000}"#, RULES).unwrap();
        assert_eq!(got.duplicate_window, 1_000_000_000);
        let got = check(r#"{"max_age":300000000000}"#, RULES).unwrap();
        assert_eq!(got.duplicate_window, 120_000_000_000);
        assert_eq!(check(r#"{"placement":{}}"#, RULES).unwrap().placement, None);
    }

    #[test]
    fn pedantic_requests_refuse_silent_changes() {
        let rules = StreamRules {
            pedantic: true,
            ..RULES
        };
        for (body, text) in [
            (
                r#"{"max_msgs":-5}"#,
                "pedantic mode: max_msgs must be set to -1",
            ),
            (
                r#"{"max_bytes":-5}"#,
                "pedantic mode: max_bytes must be set to -1",
            ),
            (
                r#"{"max_msg_size":-5}"#,
                "pedantic mode: max_msg_size must be set to -1",
            ),
            (
                r#"{"max_age":1000000000}"#,
                "pedantic mode: duplicate window cannot be bigger than max age",
            ),
        ] {
            assert_eq!(
                check(body, rules).unwrap_err(),
                (10157, text.to_owned()),
                "{body}"
            );
        }
        assert!(check("{}", rules).is_ok());
        let limited = StreamRules {
            pedantic: false,
            duplicate_window_ns_max: Some(1_000_000_000),
        };
        assert_eq!(
            check("{}", limited).unwrap().duplicate_window,
            1_000_000_000
        );
        assert_eq!(
            check(r#"{"duplicate_window":2000000000}"#, limited)
                .unwrap_err()
                .1,
            "duplicates window can not be larger then server limit of 1s"
        );
    }
}
