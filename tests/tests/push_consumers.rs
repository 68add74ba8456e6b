//! Consumers that deliver to a subject.

use riverlog_tests::TestServer;
use serde_json::{Value, json};

#[test]
fn push_consumers_cannot_be_pulled() {
    // PULL-005, T-78
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "S", "subjects": ["s.>"]}));
    client.create_consumer("S", "C", &json!({"deliver_subject": "push.here"}));
    assert_eq!(
        client.pull("S", "C", &Value::Null).status(),
        "409 Consumer is push based"
    );
}
