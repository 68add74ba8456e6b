//! Which changes of a stream configuration are possible (SCFG-043..048, T-17).

use super::super::errors::{self, ApiError, stream_invalid_config};
use super::super::types::enums::{Discard, Retention};
use super::super::types::stream_config::StreamConfig;

/// Checks the step from `old` to `new` (both already defaulted) and returns the configuration to
/// store, which differs from `new` when the stream is or becomes sealed.
pub fn check_update(old: &StreamConfig, new: StreamConfig) -> Result<StreamConfig, ApiError> {
    let mut new = new;
    let refused = [
        (
            new.name != old.name,
            "stream configuration name must match original",
        ),
        (
            new.storage != old.storage,
            "stream configuration update can not change storage type",
        ),
        (
            new.retention != old.retention
                && (new.retention == Retention::WorkQueue || old.retention == Retention::WorkQueue),
            "stream configuration update can not change retention policy to/from workqueue",
        ),
        (
            old.sealed && !new.sealed,
            "stream configuration update can not unseal a sealed stream",
        ),
        (
            old.deny_delete && !new.deny_delete && !new.sealed,
            "stream configuration update can not cancel deny message deletes",
        ),
        (
            old.deny_purge && !new.deny_purge && !new.sealed,
            "stream configuration update can not cancel deny purge",
        ),
        (
            new.allow_msg_counter != old.allow_msg_counter,
            "stream configuration update can not change message counter setting",
        ),
        (
            new.persist_mode != old.persist_mode,
            "stream configuration update can not change persist mode",
        ),
        (
            old.allow_msg_ttl && !new.allow_msg_ttl,
            "message TTL status can not be disabled",
        ),
        (
            old.allow_msg_schedules && !new.allow_msg_schedules,
            "message schedules can not be disabled",
        ),
    ];
    if let Some((_, text)) = refused.iter().find(|(refused, _)| *refused) {
        return Err(stream_invalid_config(text));
    }
    if new.mirror.is_some() && new.mirror != old.mirror {
        return Err(errors::STREAM_MIRROR_NOT_UPDATABLE);
    }
    if new.sealed {
        // SCFG-029: whatever else the request says.
        new.max_age = 0;
        new.discard = Discard::New;
        new.deny_delete = true;
        new.deny_purge = true;
        new.allow_rollup_hdrs = false;
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::super::super::json::{UnknownFields, parse_object};
    use super::super::stream::{StreamRules, check_stream_config};
    use super::*;

    fn config(body: &str) -> StreamConfig {
        let mut config: StreamConfig =
            parse_object(body.as_bytes(), "StreamConfig", UnknownFields::Refuse).unwrap();
        if config.name.is_empty() {
            config.name = "S".to_owned();
        }
        let rules = StreamRules {
            pedantic: false,
            duplicate_window_ns_max: None,
        };
        check_stream_config(&config, rules).unwrap()
    }

    #[test]
    fn refused_updates() {
        let workqueue =
            "stream configuration update can not change retention policy to/from workqueue";
        for (old, new, text) in [
            (
                "{}",
                r#"{"name":"X"}"#,
                "stream configuration name must match original",
            ),
            (
                "{}",
                r#"{"storage":"memory"}"#,
                "stream configuration update can not change storage type",
            ),
            ("{}", r#"{"retention":"workqueue"}"#, workqueue),
            (r#"{"retention":"workqueue"}"#, "{}", workqueue),
            (
                r#"{"deny_delete":true}"#,
                "{}",
                "stream configuration update can not cancel deny message deletes",
            ),
            (
                r#"{"deny_purge":true}"#,
                "{}",
                "stream configuration update can not cancel deny purge",
            ),
            (
                r#"{"sealed":true}"#,
                "{}",
                "stream configuration update can not unseal a sealed stream",
            ),
            (
                "{}",
                r#"{"allow_msg_counter":true}"#,
                "stream configuration update can not change message counter setting",
            ),
            (
                "{}",
                r#"{"persist_mode":"async"}"#,
                "stream configuration update can not change persist mode",
            ),
            (
                r#"{"allow_msg_ttl":true}"#,
                "{}",
                "message TTL status can not be disabled",
            ),
            (
                r#"{"allow_msg_schedules":true}"#,
                "{}",
                "message schedules can not be disabled",
            ),
        ] {
            let error = check_update(&config(old), config(new)).unwrap_err();
            assert_eq!(
                (error.err_code, error.description.as_ref()),
                (10052, text),
                "{old} {new}"
            );
        }
    }

    #[test]
    fn sealing_sets_everything_that_protects_the_stream() {
        let old = config(r#"{"max_age":2000000000,"duplicate_window":1000000000}"#);
        let new = config(
            r#"{"sealed":true,"max_age":1000000000,"duplicate_window":1000000000,"allow_rollup_hdrs":true}"#,
        );
        let stored = check_update(&old, new).unwrap();
        assert_eq!(stored.max_age, 0);
        assert_eq!(stored.discard, Discard::New);
        assert!(stored.deny_delete && stored.deny_purge && !stored.allow_rollup_hdrs);
    }

    #[test]
    fn possible_updates() {
        for (old, new) in [
            ("{}", r#"{"retention":"interest"}"#),
            (r#"{"retention":"interest"}"#, "{}"),
            (
                "{}",
                r#"{"max_consumers":4,"max_msgs":5,"allow_direct":true,"subjects":["x"]}"#,
            ),
            ("{}", r#"{"deny_delete":true,"deny_purge":true}"#),
        ] {
            assert!(
                check_update(&config(old), config(new)).is_ok(),
                "{old} {new}"
            );
        }
    }
}
