//! Enumerations of the configurations and their wire texts. An unknown text is refused as
//! malformed JSON (SCFG-052).

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::super::json::{FromJson, JsonError, Place};

macro_rules! wire_enum {
    (
        $(#[$doc:meta])*
        $name:ident, error $error:expr;
        $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)?
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$vdoc])* $variant),*
        }

        impl $name {
            /// The wire text.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $text),*
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl FromJson for $name {
            fn from_json(value: Value, _place: &Place) -> Result<$name, JsonError> {
                match value.as_str() {
                    $(Some($text) => Ok($name::$variant),)*
                    _ => Err(JsonError($error(&value))),
                }
            }
        }

        impl $name {
            /// Whether this is the default.
            pub fn is_default(&self) -> bool {
                *self == $name::default()
            }
        }
    };
}

fn can_not_unmarshal(value: &Value) -> String {
    format!("can not unmarshal {:?}", value.to_string())
}

wire_enum! {
    /// When messages leave a stream by themselves (SCFG-007).
    Retention, error can_not_unmarshal;
    /// By limits only.
    #[default]
    Limits = "limits",
    /// When every interested consumer acknowledged.
    Interest = "interest",
    /// At the first acknowledgement.
    WorkQueue = "workqueue",
}

wire_enum! {
    /// Where a stream lives (SCFG-008).
    Storage, error can_not_unmarshal;
    /// On disk.
    #[default]
    File = "file",
    /// In memory; lost at a restart.
    Memory = "memory",
}

wire_enum! {
    /// What happens at a limit (SCFG-016).
    Discard, error can_not_unmarshal;
    /// The oldest messages go.
    #[default]
    Old = "old",
    /// New messages are refused.
    New = "new",
}

wire_enum! {
    /// Block compression of a file stream (SCFG-023).
    Compression, error |_: &Value| "unknown compression algorithm".to_owned();
    /// None.
    #[default]
    None = "none",
    /// S2.
    S2 = "s2",
}

wire_enum! {
    /// When a publish is acknowledged (SCFG-039).
    PersistMode, error can_not_unmarshal;
    /// After the message is durable.
    #[default]
    Default = "default",
    /// Before. Not offered by this server.
    Async = "async",
}

wire_enum! {
    /// Where a new consumer starts (CCFG-005).
    DeliverPolicy, error can_not_unmarshal;
    /// At the first message.
    #[default]
    All = "all",
    /// At the last message.
    Last = "last",
    /// After the last message.
    New = "new",
    /// At a sequence.
    ByStartSequence = "by_start_sequence",
    /// At a time.
    ByStartTime = "by_start_time",
    /// At the last message of every subject.
    LastPerSubject = "last_per_subject",
}

wire_enum! {
    /// How deliveries are acknowledged (CCFG-009).
    AckPolicy, error can_not_unmarshal;
    /// Not at all.
    #[default]
    None = "none",
    /// An acknowledgement covers all earlier deliveries.
    All = "all",
    /// Each delivery by itself.
    Explicit = "explicit",
    /// By flow control answers of a push consumer.
    FlowControl = "flow_control",
}

wire_enum! {
    /// How fast stored messages are replayed (CCFG-015).
    ReplayPolicy, error can_not_unmarshal;
    /// As fast as possible.
    #[default]
    Instant = "instant",
    /// With the gaps they were stored with.
    Original = "original",
}

wire_enum! {
    /// How pull requests of priority groups are served (CCFG-036).
    PriorityPolicy, error |value: &Value| format!("unknown priority policy: {value}");
    /// No groups.
    #[default]
    None = "none",
    /// Requests are served only above a backlog.
    Overflow = "overflow",
    /// One client at a time.
    PinnedClient = "pinned_client",
    /// Lower numbers first.
    Prioritized = "prioritized",
}

wire_enum! {
    /// What a consumer create request may do (CAPI-006).
    CreateAction, error |value: &Value| format!("unknown consumer action: {value}");
    /// Create or update.
    #[default]
    CreateOrUpdate = "",
    /// Create only.
    Create = "create",
    /// Update only.
    Update = "update",
}

#[cfg(test)]
mod tests {
    use super::super::super::json::{Fields, UnknownFields};
    use super::*;

    fn read<T: FromJson + Default>(body: &str) -> Result<T, String> {
        let mut fields = Fields::parse(body.as_bytes(), "X", UnknownFields::Refuse).unwrap();
        let mut value = T::default();
        fields.read("v", &mut value).map_err(|e| e.0)?;
        Ok(value)
    }

    #[test]
    fn unknown_texts_are_refused_with_the_known_message() {
        assert_eq!(
            read::<Retention>(r#"{"v":"interest"}"#),
            Ok(Retention::Interest)
        );
        assert_eq!(
            read::<Retention>(r#"{"v":"x"}"#).unwrap_err(),
            r#"can not unmarshal "\"x\"""#
        );
        assert_eq!(
            read::<Retention>(r#"{"v":""}"#).unwrap_err(),
            r#"can not unmarshal "\"\"""#
        );
        assert_eq!(
            read::<Storage>(r#"{"v":5}"#).unwrap_err(),
            r#"can not unmarshal "5""#
        );
        assert_eq!(
            read::<Compression>(r#"{"v":"x"}"#).unwrap_err(),
            "unknown compression algorithm"
        );
        assert_eq!(
            read::<PriorityPolicy>(r#"{"v":"x"}"#).unwrap_err(),
            r#"unknown priority policy: "x""#
        );
        assert_eq!(
            read::<CreateAction>(r#"{"v":"x"}"#).unwrap_err(),
            r#"unknown consumer action: "x""#
        );
        assert_eq!(read::<AckPolicy>(r#"{"v":null}"#), Ok(AckPolicy::None));
    }
}
