//! The `authorization` block (CONF-008, AUTH-002, AUTH-003).

use std::collections::HashSet;
use std::time::Duration;

use super::super::grammar::{Map, Value};
use super::super::options::{AuthConfig, Credentials, ServerConfig, User};
use super::read::Reader;
use super::{Key, apply, set, unsupported};

const PERMISSIONS: &str = "permissions are";

/// The block as written, before it is known whether its keys go together.
#[derive(Default)]
pub(super) struct Block {
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
    users: Option<Vec<User>>,
    timeout: Option<Duration>,
}

/// One entry of `users`.
#[derive(Default)]
pub(super) struct UserBlock {
    name: Option<String>,
    password: Option<String>,
}

pub(super) const KEYS: &[Key<Block>] = &[
    set(&["user", "username"], |b, v, r| b.user = r.text(v)),
    set(&["password", "pass"], |b, v, r| b.password = r.text(v)),
    set(&["token"], |b, v, r| b.token = r.text(v)),
    set(&["timeout"], |b, v, r| {
        b.timeout = r.duration_min(v, Duration::from_millis(1))
    }),
    set(&["users"], |b, v, r| b.users = users(v, r)),
    unsupported(&["permissions", "default_permissions"], PERMISSIONS),
    unsupported(&["auth_callout"], "authorization by callout is"),
    unsupported(&["proxy_required"], "proxy authentication is"),
];

pub(super) const USER_KEYS: &[Key<UserBlock>] = &[
    set(&["user", "username"], |u, v, r| u.name = r.text(v)),
    set(&["password", "pass"], |u, v, r| u.password = r.text(v)),
    unsupported(&["permissions", "permission", "authorization"], PERMISSIONS),
    unsupported(&["nkey"], "authorization by nkey is"),
    unsupported(
        &["allowed_connection_types", "connection_types", "clients"],
        PERMISSIONS,
    ),
    unsupported(&["proxy_required"], "proxy authentication is"),
];

pub(super) fn apply_block(config: &mut ServerConfig, value: &Value, reader: &mut Reader<'_>) {
    let Some(map) = reader.map(value) else { return };
    let problems_before = reader.problems.0.len();
    let mut block = Block::default();
    apply(map, &[KEYS], &mut block, reader.problems);
    if reader.problems.0.len() > problems_before {
        return;
    }
    let timeout = block.timeout.unwrap_or(config.auth.timeout);
    match credentials(block, map) {
        Ok(credentials) => {
            let no_auth_user = config.auth.no_auth_user.take();
            config.auth = AuthConfig {
                credentials,
                no_auth_user,
                timeout,
            };
        }
        Err(reason) => {
            reader.refuse::<()>(value, reason);
        }
    }
}

/// One kind of credentials; mixing them would leave open which one counts.
fn credentials(block: Block, map: &Map) -> Result<Credentials, &'static str> {
    match (block.user, block.password, block.token, block.users) {
        (None, None, None, None) if map.get("users").is_some() => Err("no users"),
        (None, None, None, None) => Ok(Credentials::None),
        (Some(name), Some(password), None, None) => Ok(Credentials::User(User { name, password })),
        (None, None, Some(token), None) => Ok(Credentials::Token(token)),
        (None, None, None, Some(users)) => Ok(Credentials::Users(users)),
        (Some(_), None, ..) => Err("a user needs a password"),
        (None, Some(_), ..) => Err("a password needs a user"),
        (Some(_), Some(_), Some(_), _) => Err("cannot have a user/pass and token"),
        (Some(_), Some(_), None, Some(_)) => {
            Err("cannot have a single user/pass and a users array")
        }
        (None, None, Some(_), Some(_)) => Err("cannot have a token and a users array"),
    }
}

fn users(value: &Value, reader: &mut Reader<'_>) -> Option<Vec<User>> {
    let mut users = Vec::new();
    let mut names = HashSet::new();
    for value in reader.array(value)? {
        let Some(map) = reader.map(value) else {
            continue;
        };
        let mut block = UserBlock::default();
        apply(map, &[USER_KEYS], &mut block, reader.problems);
        let (Some(name), Some(password)) = (block.name, block.password) else {
            reader.refuse::<()>(value, "a user entry needs a user and a password");
            continue;
        };
        if !names.insert(name.clone()) {
            reader.refuse::<()>(value, format!("duplicate user {name:?}"));
        }
        users.push(User { name, password });
    }
    Some(users)
}
