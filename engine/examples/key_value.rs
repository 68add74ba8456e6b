//! A key/value view of a stream: the last message of a subject is the value of that key.
//!
//! ```text
//! cargo run -p riverlog-engine --example key_value
//! ```

use std::error::Error;

use riverlog_engine::{
    Append, AppendError, ExpectSubject, Filter, PurgeRequest, ReadError, Seq, Store, StoreOptions,
    Stream, StreamConfig,
};

/// A value and its revision.
type Value = (Vec<u8>, Seq);

/// Values by key, with a revision for compare-and-set.
struct KeyValue {
    stream: Stream,
}

impl KeyValue {
    fn get(&self, key: &str) -> Result<Option<Value>, Box<dyn Error>> {
        let filter = Filter::new(key.as_bytes())?;
        let last = self.stream.last_by_subject(&filter)?;
        Ok(last.map(|message| (message.payload().to_vec(), message.seq)))
    }

    fn put(&self, key: &str, value: &[u8]) -> Result<Seq, AppendError> {
        let append = Append {
            subject: key.as_bytes(),
            payload: value,
            ..Append::default()
        };
        self.stream.append(&append).map(|done| done.seq)
    }

    /// Stores the value if the key still has this revision; 0 = if it has no value.
    fn put_if(&self, key: &str, value: &[u8], revision: u64) -> Result<Seq, AppendError> {
        let append = Append {
            subject: key.as_bytes(),
            payload: value,
            expect_last_subject_seq: Some(ExpectSubject {
                seq: revision,
                filter: None,
            }),
            ..Append::default()
        };
        self.stream.append(&append).map(|done| done.seq)
    }

    fn delete(&self, key: &str) -> Result<bool, Box<dyn Error>> {
        let request = PurgeRequest {
            filter: Some(Filter::new(key.as_bytes())?),
            ..PurgeRequest::default()
        };
        let (removed, on_disk) = self.stream.purge(&request)?;
        on_disk.wait()?;
        Ok(removed > 0)
    }

    fn keys(&self, prefix: &str) -> Result<Vec<String>, Box<dyn Error>> {
        let filter = Filter::new(format!("{prefix}.>").as_bytes())?;
        let subjects = self.stream.subjects(&filter)?;
        Ok(subjects
            .keys()
            .map(|subject| String::from_utf8_lossy(subject).into_owned())
            .collect())
    }

    /// Every value of the keys, oldest first.
    fn values(&self, filter: &Filter) -> impl Iterator<Item = Result<String, ReadError>> {
        let all = Seq(1)..=self.stream.state().last_seq;
        let messages = self.stream.messages(std::slice::from_ref(filter), all);
        messages.map(|message| {
            message.map(|message| String::from_utf8_lossy(message.payload()).into_owned())
        })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let (store, _) = Store::open(dir.path(), StoreOptions::default())?;
    let config = StreamConfig {
        name: "settings".into(),
        // Only the newest value of a key is kept.
        msgs_per_subject_max: Some(1),
        ..StreamConfig::default()
    };
    let (stream, created) = store.create_stream(config)?;
    created.wait()?;
    let settings = KeyValue { stream };

    settings.put("color.background", b"white")?;
    settings.put("color.text", b"black")?;
    let revision = settings.put("color.background", b"grey")?;
    println!("keys: {:?}", settings.keys("color")?);

    // Compare and set: the one who comes second is told.
    settings.put_if("color.background", b"blue", revision.0)?;
    match settings.put_if("color.background", b"green", revision.0) {
        Err(AppendError::WrongLastSeq(now)) => println!("too late: revision {now} came before"),
        other => return Err(format!("expected a refusal, got {other:?}").into()),
    }
    let (value, revision) = settings.get("color.background")?.ok_or("no such key")?;
    let value = String::from_utf8_lossy(&value).into_owned();
    println!("color.background is {value} at revision {revision}");

    println!("deleted: {}", settings.delete("color.text")?);
    assert!(settings.get("color.text")?.is_none());
    let values: Vec<String> = settings
        .values(&Filter::new(b"color.>")?)
        .collect::<Result<_, _>>()?;
    println!("values: {values:?}");
    store.close();
    Ok(())
}
