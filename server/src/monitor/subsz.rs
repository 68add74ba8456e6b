//! `/subsz`: the subscription index (MON-005).

use jiff::Timestamp;
use serde::Serialize;

use super::query::{BadRequest, LIMIT_DEFAULT, Query};
use super::{Monitor, Subscription, format};

#[derive(Serialize)]
pub(super) struct Subsz {
    server_id: String,
    now: String,
    num_subscriptions: u64,
    num_cache: u64,
    num_inserts: u64,
    num_removes: u64,
    num_matches: u64,
    #[serde(serialize_with = "format::float")]
    cache_hit_rate: f64,
    max_fanout: u64,
    #[serde(serialize_with = "format::float")]
    avg_fanout: f64,
    total: usize,
    offset: usize,
    limit: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscriptions_list: Option<Vec<SubscriptionShown>>,
}

#[derive(Serialize)]
pub(super) struct SubscriptionShown {
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_tag: Option<String>,
    subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    qgroup: Option<String>,
    sid: String,
    msgs: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    cid: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl SubscriptionShown {
    /// As listed under a connection, whose account is shown there.
    pub(super) fn without_account(subscription: Subscription) -> Self {
        Self {
            account: None,
            account_tag: None,
            subject: subscription.subject,
            qgroup: subscription.queue,
            sid: subscription.sid,
            msgs: subscription.msgs,
            max: subscription.max,
            cid: subscription.cid,
        }
    }

    fn with_account(subscription: Subscription) -> Self {
        let account = Some(subscription.account.clone());
        let account_tag = account.clone();
        Self {
            account,
            account_tag,
            ..Self::without_account(subscription)
        }
    }
}

/// Whether the literal `subject` is taken by a subscription to `pattern`.
pub(super) fn matches(subject: &str, pattern: &str) -> bool {
    let mut tokens = subject.split('.');
    let mut wanted = pattern.split('.');
    loop {
        match (tokens.next(), wanted.next()) {
            (None, None) => return true,
            (Some(_), Some(">")) => return true,
            (Some(_), Some("*")) => {}
            (Some(token), Some(want)) if token == want => {}
            _ => return false,
        }
    }
}

pub(super) fn subsz(monitor: &Monitor, query: &Query, now: Timestamp) -> Result<Subsz, BadRequest> {
    let page = query.page(LIMIT_DEFAULT)?;
    let test = query.text("test");
    if test.is_some_and(|subject| {
        subject
            .split('.')
            .any(|token| matches!(token, "" | "*" | ">"))
    }) {
        let reason = "invalid test subject, must be valid publish subject";
        return Err(BadRequest(reason.to_owned()));
    }
    let is_listed = query.bool("subs")?;
    let stats = monitor
        .server
        .get()
        .map(|server| server.subscription_stats())
        .unwrap_or_default();
    let mut total = usize::try_from(stats.num_subscriptions).unwrap_or(usize::MAX);
    let mut list = None;
    if let (true, Some(server)) = (is_listed || test.is_some(), monitor.server.get()) {
        let mut all = server.subscriptions();
        if let Some(account) = query.text("acc") {
            all.retain(|subscription| subscription.account == account);
        }
        if let Some(subject) = test {
            all.retain(|subscription| matches(subject, &subscription.subject));
        }
        total = all.len();
        let shown = page
            .cut(all)
            .into_iter()
            .map(SubscriptionShown::with_account)
            .collect();
        list = is_listed.then_some(shown);
    }
    let hits = stats.num_cache_hits as f64;
    Ok(Subsz {
        server_id: monitor.identity().server_id,
        now: now.to_string(),
        num_subscriptions: stats.num_subscriptions,
        num_cache: stats.num_cache,
        num_inserts: stats.num_inserts,
        num_removes: stats.num_removes,
        num_matches: stats.num_matches,
        cache_hit_rate: if stats.num_matches == 0 {
            0.0
        } else {
            hits / stats.num_matches as f64
        },
        max_fanout: 0,
        avg_fanout: 0.0,
        total,
        offset: page.offset,
        limit: page.limit,
        subscriptions_list: list,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (subject, pattern, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.*", true),
            ("a.b", ">", true),
            ("a.b", "a.>", true),
            ("a", "a.>", false),
            ("a.b", "a", false),
            ("a", "a.b", false),
            ("a.b.c", "*.*", false),
            ("a.b", "a.c", false),
        ] {
            assert_eq!(matches(subject, pattern), expected, "{subject} {pattern}");
        }
    }
}
