//! Behaviour of consumers: one named test per rule, and a comparison with a naive model.

mod ack_rules;
mod bench;
mod delivery_rules;
mod model;
mod property;
mod removal_rules;
