//! The stock Rust client works unchanged: what users of async-nats do every day.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, consumer, stream};
use futures::{StreamExt, TryStreamExt};
use riverlog_tests::{TestServer, WAIT};

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

#[tokio::test]
async fn publish_subscribe_and_request() -> Outcome {
    let server = TestServer::start();
    let client = async_nats::connect(server.url()).await?;
    let mut all = client.subscribe("greet.>").await?;
    let mut workers = client.queue_subscribe("work", "group".to_string()).await?;
    let mut headers = HeaderMap::new();
    headers.insert("Key", "Value");
    client
        .publish_with_headers("greet.joe", headers, "hello".into())
        .await?;
    let msg = tokio::time::timeout(WAIT, all.next())
        .await?
        .expect("message");
    assert_eq!(
        (msg.subject.as_str(), &msg.payload[..]),
        ("greet.joe", &b"hello"[..])
    );
    assert_eq!(
        msg.headers
            .expect("headers")
            .get("Key")
            .map(|value| value.as_str()),
        Some("Value")
    );

    let answering = client.clone();
    let answer = tokio::spawn(async move {
        let request = workers.next().await.expect("request");
        answering
            .publish(request.reply.expect("reply"), "done".into())
            .await
    });
    let reply = client.request("work", "do it".into()).await?;
    assert_eq!(&reply.payload[..], b"done");
    answer.await??;

    let missing = client.request("nobody.listens", "".into()).await;
    let kind = missing.expect_err("nobody answers").kind();
    assert_eq!(kind, async_nats::RequestErrorKind::NoResponders);
    Ok(())
}

#[tokio::test]
async fn a_stream_is_published_to_and_consumed() -> Outcome {
    let server = TestServer::start();
    let context = jetstream::new(async_nats::connect(server.url()).await?);
    let mut events = context
        .create_stream(stream::Config {
            name: "EVENTS".into(),
            subjects: vec!["events.>".into()],
            max_messages: 10_000,
            ..Default::default()
        })
        .await?;
    for number in 1..=100_u64 {
        let ack = context
            .publish("events.page", format!("{number}").into())
            .await?
            .await?;
        assert_eq!((ack.stream.as_str(), ack.sequence), ("EVENTS", number));
    }
    assert_eq!(events.info().await?.state.messages, 100);

    let pull = events
        .create_consumer(consumer::pull::Config {
            durable_name: Some("reader".into()),
            ..Default::default()
        })
        .await?;
    let mut batch = pull.fetch().max_messages(40).messages().await?;
    let mut expected = 1;
    while let Some(msg) = batch.next().await {
        let msg = msg?;
        assert_eq!(msg.payload, format!("{expected}"));
        assert_eq!(msg.info()?.stream_sequence, expected);
        msg.double_ack().await?;
        expected += 1;
    }
    assert_eq!(expected, 41);

    let mut messages = pull.messages().await?;
    while expected <= 100 {
        let msg = tokio::time::timeout(WAIT, messages.next())
            .await?
            .expect("message")?;
        assert_eq!(msg.payload, format!("{expected}"));
        msg.ack().await?;
        expected += 1;
    }
    drop(messages);

    let mut pull: consumer::PullConsumer = events.get_consumer("reader").await?;
    for _ in 0..100 {
        if pull.info().await?.ack_floor.stream_sequence == 100 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let info = pull.info().await?;
    assert_eq!((info.ack_floor.stream_sequence, info.num_pending), (100, 0));
    Ok(())
}

#[tokio::test]
async fn conditions_and_duplicates_are_seen_by_the_client() -> Outcome {
    let server = TestServer::start();
    let context = jetstream::new(async_nats::connect(server.url()).await?);
    context
        .create_stream(stream::Config {
            name: "S".into(),
            subjects: vec!["s".into()],
            ..Default::default()
        })
        .await?;
    let with_id = || context.send_publish("s", PublishMessage::build().message_id("a"));
    assert!(!with_id().await?.await?.duplicate);
    let again = with_id().await?.await?;
    assert!(again.duplicate);
    assert_eq!(again.sequence, 1);

    let wrong = PublishMessage::build().expected_last_sequence(7);
    let error = context
        .send_publish("s", wrong)
        .await?
        .await
        .expect_err("wrong sequence");
    assert_eq!(
        error.kind(),
        jetstream::context::PublishErrorKind::WrongLastSequence
    );
    let nowhere = context
        .publish("nowhere", "".into())
        .await?
        .await
        .expect_err("no stream");
    assert_eq!(
        nowhere.kind(),
        jetstream::context::PublishErrorKind::StreamNotFound
    );
    Ok(())
}

#[tokio::test]
async fn streams_are_listed_read_purged_and_deleted() -> Outcome {
    let server = TestServer::start();
    let context = jetstream::new(async_nats::connect(server.url()).await?);
    for name in ["A", "B"] {
        let config = stream::Config {
            name: name.into(),
            subjects: vec![format!("{name}.*")],
            ..Default::default()
        };
        context.get_or_create_stream(config).await?;
        for number in 0..5 {
            context
                .publish(format!("{name}.{number}"), "x".into())
                .await?
                .await?;
        }
    }
    let mut names: Vec<String> = context.stream_names().try_collect().await?;
    names.sort();
    assert_eq!(names, ["A", "B"]);
    let stream = context.get_stream("A").await?;
    let raw = stream.get_raw_message(3).await?;
    assert_eq!((raw.subject.as_str(), raw.sequence), ("A.2", 3));
    assert_eq!(
        stream
            .get_last_raw_message_by_subject("A.4")
            .await?
            .sequence,
        5
    );
    assert!(stream.delete_message(2).await?);
    assert_eq!(stream.purge().filter("A.0").await?.purged, 1);
    assert_eq!(stream.purge().await?.purged, 3);
    context.delete_stream("B").await?;
    let gone = context.get_stream("B").await.expect_err("deleted").kind();
    assert!(
        matches!(&gone, jetstream::context::GetStreamErrorKind::JetStream(error)
            if error.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND),
        "{gone:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_client_reconnects_and_goes_on_after_a_kill() -> Outcome {
    let mut server = TestServer::start();
    let client = async_nats::ConnectOptions::new()
        .reconnect_delay_callback(|_| Duration::from_millis(50))
        .connect(server.url())
        .await?;
    let context = jetstream::new(client);
    let stream = context
        .create_stream(stream::Config {
            name: "S".into(),
            subjects: vec!["s".into()],
            ..Default::default()
        })
        .await?;
    let pull = stream
        .create_consumer(consumer::pull::Config {
            durable_name: Some("C".into()),
            ..Default::default()
        })
        .await?;
    context.publish("s", "before".into()).await?.await?;
    server.kill_and_restart();
    // A publish in the gap may fail; a client tries again.
    let deadline = tokio::time::Instant::now() + WAIT;
    loop {
        let attempt = async { context.publish("s", "after".into()).await?.await };
        match attempt.await {
            Ok(_) => break,
            Err(err) => assert!(tokio::time::Instant::now() < deadline, "{err}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut batch = pull.fetch().max_messages(1).messages().await?;
    let msg = batch.next().await.expect("message")?;
    assert_eq!(msg.payload, "before");
    Ok(())
}
