//! A live stream: the engine's stream with its configuration, subscriptions and consumers.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use riverlog_engine as engine;

use super::consumer_handle::ConsumerHandle;
use super::publish::{PublishRules, PublishSubscriber};
use super::shared::Shared;
use super::types::stream_config::StreamConfig;
use crate::routing::InternalSubscription;

/// A stream.
pub(crate) struct StreamHandle {
    pub name: Arc<str>,
    pub engine: engine::Stream,
    settings: RwLock<Settings>,
    consumers: RwLock<HashMap<String, Arc<ConsumerHandle>>>,
    /// Consumers with waiting requests that want to hear of new messages.
    hungry: Mutex<Vec<Arc<ConsumerHandle>>>,
    subscriptions: Mutex<HashMap<String, InternalSubscription>>,
}

/// Configuration and what is derived from it.
#[derive(Clone)]
struct Settings {
    config: Arc<StreamConfig>,
    rules: Arc<PublishRules>,
}

impl StreamHandle {
    /// A handle that nobody can publish to yet.
    pub fn new(
        shared: &Arc<Shared>,
        engine: engine::Stream,
        config: StreamConfig,
    ) -> Arc<StreamHandle> {
        let rules = PublishRules::new(&config, shared.options.domain.as_deref());
        Arc::new(StreamHandle {
            name: engine.name().into(),
            engine,
            settings: RwLock::new(Settings {
                config: Arc::new(config),
                rules: Arc::new(rules),
            }),
            consumers: RwLock::default(),
            hungry: Mutex::default(),
            subscriptions: Mutex::default(),
        })
    }

    /// Configuration in force.
    pub fn config(&self) -> Arc<StreamConfig> {
        Arc::clone(&self.settings.read().config)
    }

    /// What a publish has to obey.
    pub fn rules(&self) -> Arc<PublishRules> {
        Arc::clone(&self.settings.read().rules)
    }

    /// Puts a configuration in force that the engine already has.
    pub fn set_config(&self, shared: &Shared, config: StreamConfig) {
        let rules = PublishRules::new(&config, shared.options.domain.as_deref());
        *self.settings.write() = Settings {
            config: Arc::new(config),
            rules: Arc::new(rules),
        };
    }

    /// Subscribes to the configured subjects and drops subscriptions to others.
    pub fn sync_subscriptions(self: &Arc<Self>, shared: &Arc<Shared>) {
        let config = self.config();
        let mut subscriptions = self.subscriptions.lock();
        subscriptions.retain(|subject, subscription| {
            let keep = config.subjects.contains(subject);
            if !keep {
                shared.account.unsubscribe(subscription);
            }
            keep
        });
        for subject in &config.subjects {
            if subscriptions.contains_key(subject) {
                continue;
            }
            let subscriber = Arc::new(PublishSubscriber::new(shared, self));
            match shared
                .account
                .subscribe(subject.as_bytes(), None, subscriber)
            {
                Ok(subscription) => {
                    subscriptions.insert(subject.clone(), subscription);
                }
                // Validation refuses such subjects before they are stored.
                Err(_) => tracing::error!(stream = %self.name, subject, "subject not subscribed"),
            }
        }
    }

    /// Ends all subscriptions.
    pub fn unsubscribe(&self, shared: &Shared) {
        for (_, subscription) in self.subscriptions.lock().drain() {
            shared.account.unsubscribe(&subscription);
        }
    }

    /// The consumer of this name.
    pub fn consumer(&self, name: &str) -> Option<Arc<ConsumerHandle>> {
        self.consumers.read().get(name).cloned()
    }

    /// All consumers, in name order.
    pub fn consumers(&self) -> Vec<Arc<ConsumerHandle>> {
        let mut consumers: Vec<_> = self.consumers.read().values().cloned().collect();
        consumers.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        consumers
    }

    /// Number of consumers.
    pub fn consumer_count(&self) -> usize {
        self.consumers.read().len()
    }

    pub fn add_consumer(&self, consumer: &Arc<ConsumerHandle>) {
        self.consumers
            .write()
            .insert(consumer.name.to_string(), Arc::clone(consumer));
    }

    /// Forgets a consumer. False when somebody else did before.
    pub fn remove_consumer(&self, name: &str) -> bool {
        self.consumers.write().remove(name).is_some()
    }

    /// Forgets all consumers and returns them.
    pub fn take_consumers(&self) -> Vec<Arc<ConsumerHandle>> {
        self.hungry.lock().clear();
        self.consumers
            .write()
            .drain()
            .map(|(_, consumer)| consumer)
            .collect()
    }

    /// Has `consumer` woken at the next message.
    pub fn add_hungry(&self, consumer: &Arc<ConsumerHandle>) {
        self.hungry.lock().push(Arc::clone(consumer));
    }

    /// A consumer that is gone is not kept until the next message.
    pub fn remove_hungry(&self, consumer: &Arc<ConsumerHandle>) {
        self.hungry
            .lock()
            .retain(|listed| !Arc::ptr_eq(listed, consumer));
    }

    /// New messages are visible.
    pub fn wake_consumers(&self) {
        let hungry = std::mem::take(&mut *self.hungry.lock());
        for consumer in hungry {
            consumer.wake_hungry();
        }
    }
}
