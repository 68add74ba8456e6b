//! From the subject of a request to an operation and its arguments.

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    AccountInfo,
    StreamCreate,
    StreamUpdate,
    StreamInfo,
    StreamNames,
    StreamList,
    StreamDelete,
    StreamPurge,
    MessageGet,
    MessageDelete,
    StreamSnapshot,
    StreamRestore,
    StreamPeerRemove,
    StreamPeerEvacuate,
    StreamLeaderStepdown,
    StreamCancelMove,
    ConsumerCreate,
    ConsumerCreateDurable,
    ConsumerInfo,
    ConsumerNames,
    ConsumerList,
    ConsumerDelete,
    ConsumerPause,
    ConsumerReset,
    ConsumerUnpin,
    ConsumerLeaderStepdown,
    ConsumerPeerRemove,
    ConsumerPeerEvacuate,
}

impl Operation {
    /// Response type of the operation (WIRE section 9).
    pub fn response_type(self) -> &'static str {
        match self {
            Operation::AccountInfo => "account_info_response",
            Operation::StreamCreate => "stream_create_response",
            Operation::StreamUpdate => "stream_update_response",
            Operation::StreamInfo => "stream_info_response",
            Operation::StreamNames => "stream_names_response",
            Operation::StreamList => "stream_list_response",
            Operation::StreamDelete => "stream_delete_response",
            Operation::StreamPurge => "stream_purge_response",
            Operation::MessageGet => "stream_msg_get_response",
            Operation::MessageDelete => "stream_msg_delete_response",
            Operation::StreamSnapshot => "stream_snapshot_response",
            Operation::StreamRestore => "stream_restore_response",
            Operation::StreamPeerRemove => "stream_remove_peer_response",
            Operation::StreamPeerEvacuate => "stream_evacuate_peer_response",
            Operation::StreamLeaderStepdown => "stream_leader_stepdown_response",
            Operation::StreamCancelMove => "stream_cancel_move_response",
            Operation::ConsumerCreate | Operation::ConsumerCreateDurable => {
                "consumer_create_response"
            }
            Operation::ConsumerInfo => "consumer_info_response",
            Operation::ConsumerNames => "consumer_names_response",
            Operation::ConsumerList => "consumer_list_response",
            Operation::ConsumerDelete => "consumer_delete_response",
            Operation::ConsumerPause => "consumer_pause_response",
            Operation::ConsumerReset => "consumer_reset_response",
            Operation::ConsumerUnpin => "consumer_unpin_response",
            Operation::ConsumerLeaderStepdown => "consumer_leader_stepdown_response",
            Operation::ConsumerPeerRemove => "consumer_remove_peer_response",
            Operation::ConsumerPeerEvacuate => "consumer_evacuate_peer_response",
        }
    }

    /// Whether it changes nothing.
    pub fn is_question(self) -> bool {
        matches!(
            self,
            Operation::AccountInfo
                | Operation::StreamInfo
                | Operation::StreamNames
                | Operation::StreamList
                | Operation::MessageGet
                | Operation::ConsumerInfo
                | Operation::ConsumerNames
                | Operation::ConsumerList
        )
    }
}

/// An operation with what its subject names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// What is wanted.
    pub operation: Operation,
    /// Stream in the subject; empty if there is none.
    pub stream: String,
    /// Consumer in the subject; empty if there is none.
    pub consumer: String,
    /// Filter at the end of a consumer create subject.
    pub filter: Option<String>,
}

/// Reads the part of a subject behind `$JS.API.`. `None` = no such API.
pub(crate) fn parse(rest: &str) -> Option<Route> {
    let tokens: Vec<&str> = rest.split('.').collect();
    let route = |operation, stream: &str, consumer: &str| {
        let (stream, consumer) = (stream.to_owned(), consumer.to_owned());
        Some(Route {
            operation,
            stream,
            consumer,
            filter: None,
        })
    };
    match tokens[..] {
        ["INFO"] => route(Operation::AccountInfo, "", ""),
        ["STREAM", "NAMES"] => route(Operation::StreamNames, "", ""),
        ["STREAM", "LIST"] => route(Operation::StreamList, "", ""),
        ["STREAM", verb, stream] => route(stream_verb(verb)?, stream, ""),
        ["STREAM", group, verb, stream] => route(stream_group(group, verb)?, stream, ""),
        ["CONSUMER", "CREATE", stream, consumer, ref filter @ ..] if !filter.is_empty() => {
            let filter = Some(filter.join("."));
            let (stream, consumer) = (stream.to_owned(), consumer.to_owned());
            Some(Route {
                operation: Operation::ConsumerCreate,
                stream,
                consumer,
                filter,
            })
        }
        ["CONSUMER", "CREATE", stream] => route(Operation::ConsumerCreate, stream, ""),
        ["CONSUMER", "NAMES", stream] => route(Operation::ConsumerNames, stream, ""),
        ["CONSUMER", "LIST", stream] => route(Operation::ConsumerList, stream, ""),
        ["CONSUMER", verb, stream, consumer] => route(consumer_verb(verb)?, stream, consumer),
        ["CONSUMER", group, verb, stream, consumer] => {
            route(consumer_group(group, verb)?, stream, consumer)
        }
        _ => None,
    }
}

fn stream_verb(verb: &str) -> Option<Operation> {
    Some(match verb {
        "CREATE" => Operation::StreamCreate,
        "UPDATE" => Operation::StreamUpdate,
        "INFO" => Operation::StreamInfo,
        "DELETE" => Operation::StreamDelete,
        "PURGE" => Operation::StreamPurge,
        "SNAPSHOT" => Operation::StreamSnapshot,
        "RESTORE" => Operation::StreamRestore,
        "CANCEL_MOVE" => Operation::StreamCancelMove,
        _ => return None,
    })
}

fn stream_group(group: &str, verb: &str) -> Option<Operation> {
    Some(match (group, verb) {
        ("MSG", "GET") => Operation::MessageGet,
        ("MSG", "DELETE") => Operation::MessageDelete,
        ("PEER", "REMOVE") => Operation::StreamPeerRemove,
        ("PEER", "EVACUATE") => Operation::StreamPeerEvacuate,
        ("LEADER", "STEPDOWN") => Operation::StreamLeaderStepdown,
        _ => return None,
    })
}

fn consumer_verb(verb: &str) -> Option<Operation> {
    Some(match verb {
        "CREATE" => Operation::ConsumerCreate,
        "INFO" => Operation::ConsumerInfo,
        "DELETE" => Operation::ConsumerDelete,
        "PAUSE" => Operation::ConsumerPause,
        "RESET" => Operation::ConsumerReset,
        "UNPIN" => Operation::ConsumerUnpin,
        _ => return None,
    })
}

fn consumer_group(group: &str, verb: &str) -> Option<Operation> {
    Some(match (group, verb) {
        ("DURABLE", "CREATE") => Operation::ConsumerCreateDurable,
        ("LEADER", "STEPDOWN") => Operation::ConsumerLeaderStepdown,
        ("PEER", "REMOVE") => Operation::ConsumerPeerRemove,
        ("PEER", "EVACUATE") => Operation::ConsumerPeerEvacuate,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_of_the_api() {
        for (subject, operation, stream, consumer, filter) in [
            ("INFO", Operation::AccountInfo, "", "", None),
            ("STREAM.CREATE.S", Operation::StreamCreate, "S", "", None),
            ("STREAM.NAMES", Operation::StreamNames, "", "", None),
            ("STREAM.MSG.GET.S", Operation::MessageGet, "S", "", None),
            (
                "STREAM.LEADER.STEPDOWN.S",
                Operation::StreamLeaderStepdown,
                "S",
                "",
                None,
            ),
            (
                "CONSUMER.CREATE.S",
                Operation::ConsumerCreate,
                "S",
                "",
                None,
            ),
            (
                "CONSUMER.CREATE.S.c",
                Operation::ConsumerCreate,
                "S",
                "c",
                None,
            ),
            (
                "CONSUMER.CREATE.S.c.a.>",
                Operation::ConsumerCreate,
                "S",
                "c",
                Some("a.>"),
            ),
            (
                "CONSUMER.DURABLE.CREATE.S.c",
                Operation::ConsumerCreateDurable,
                "S",
                "c",
                None,
            ),
            ("CONSUMER.INFO.S.c", Operation::ConsumerInfo, "S", "c", None),
            ("CONSUMER.NAMES.S", Operation::ConsumerNames, "S", "", None),
            (
                "CONSUMER.PEER.REMOVE.S.c",
                Operation::ConsumerPeerRemove,
                "S",
                "c",
                None,
            ),
        ] {
            let wanted = Route {
                operation,
                stream: stream.to_owned(),
                consumer: consumer.to_owned(),
                filter: filter.map(str::to_owned),
            };
            assert_eq!(parse(subject), Some(wanted), "{subject}");
        }
    }

    #[test]
    fn unknown_subjects() {
        for subject in [
            "",
            "FOO",
            "INFO.x",
            "STREAM",
            "STREAM.INFO",
            "STREAM.FOO.S",
            "STREAM.INFO.S.x",
            "STREAM.CREATE.a.b",
            "CONSUMER.CREATE",
            "CONSUMER.DURABLE.CREATE.S",
            "CONSUMER.DURABLE.CREATE.S.d.e",
            "STREAM.TEMPLATE.CREATE.x",
        ] {
            assert_eq!(parse(subject), None, "{subject}");
        }
    }
}
