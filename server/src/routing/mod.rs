//! Routing: subjects, the subscription trie, accounts, and the way from a message to its receivers.

pub mod account;
mod cache;
pub mod interest;
pub mod publisher;
pub mod subject;
pub mod subscriber;
pub mod trie;

pub use account::{Account, InternalSubscription};
pub use publisher::{Message, Publisher};
pub use subscriber::{ClientSubscription, Inbound, InternalSubscriber, Origin, Subscriber};
