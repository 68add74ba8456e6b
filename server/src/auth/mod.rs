//! Who may connect (AUTH-001..003, AUTH-006, AUTH-008).

use std::fmt;

use crate::protocol::connect::ConnectOptions;

/// What a client must present. Passwords and tokens may be bcrypt hashes (`$2a$…`).
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Auth {
    /// Nothing: everybody joins the account `$G`.
    #[default]
    None,
    /// One user.
    User {
        /// User name.
        user: String,
        /// Password.
        password: String,
    },
    /// A token, sent as `auth_token`.
    Token(String),
    /// Several users.
    Users {
        /// The users.
        users: Vec<User>,
        /// Name of the user a client becomes that presents nothing.
        no_auth_user: Option<String>,
    },
}

/// One user of [`Auth::Users`].
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
}

// Secrets stay out of logs.
impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Auth::None => f.write_str("None"),
            Auth::User { user, .. } => write!(f, "User({user})"),
            Auth::Token(_) => f.write_str("Token"),
            Auth::Users {
                users,
                no_auth_user,
            } => write!(f, "Users({users:?}, {no_auth_user:?})"),
        }
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.user)
    }
}

/// The credentials were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

impl Auth {
    /// True when a client has to present something, which INFO tells it (`auth_required`).
    pub fn is_required(&self) -> bool {
        !matches!(self, Auth::None)
    }

    /// True when a client may start without CONNECT (CORE-040, CORE-052).
    pub fn allows_anonymous(&self) -> bool {
        match self {
            Auth::None => true,
            Auth::Users {
                users,
                no_auth_user: Some(name),
            } => users.iter().any(|user| user.user == *name),
            _ => false,
        }
    }

    /// True when checking may take a tenth of a second of computation.
    pub fn is_slow(&self) -> bool {
        match self {
            Auth::None => false,
            Auth::User { password, .. } => is_bcrypt(password),
            Auth::Token(token) => is_bcrypt(token),
            Auth::Users { users, .. } => users.iter().any(|user| is_bcrypt(&user.password)),
        }
    }

    /// Checks what a client presented. Returns the name of the user, if it has one.
    pub fn check(&self, options: &ConnectOptions) -> Result<Option<String>, Refused> {
        match self {
            Auth::None => Ok(None),
            Auth::User { user, password } => {
                let known = constant_time_eq(user.as_bytes(), options.user.as_bytes());
                if known & secret_matches(password, &options.pass) {
                    Ok(Some(user.clone()))
                } else {
                    Err(Refused)
                }
            }
            Auth::Token(token) => {
                if secret_matches(token, &options.auth_token) {
                    Ok(None)
                } else {
                    Err(Refused)
                }
            }
            Auth::Users {
                users,
                no_auth_user,
            } => {
                let anonymous = options.user.is_empty()
                    && options.pass.is_empty()
                    && options.auth_token.is_empty();
                let named = |name: &str| users.iter().find(|user| user.user == name);
                if anonymous && let Some(user) = no_auth_user.as_deref().and_then(named) {
                    return Ok(Some(user.user.clone()));
                }
                match named(&options.user) {
                    Some(user) if secret_matches(&user.password, &options.pass) => {
                        Ok(Some(user.user.clone()))
                    }
                    _ => Err(Refused),
                }
            }
        }
    }
}

/// True for a hash in the modular crypt format of bcrypt.
pub fn is_bcrypt(secret: &str) -> bool {
    ["$2a$", "$2b$", "$2x$", "$2y$"]
        .iter()
        .any(|prefix| secret.starts_with(prefix))
}

fn secret_matches(configured: &str, presented: &str) -> bool {
    if is_bcrypt(configured) {
        // A malformed hash matches nothing.
        bcrypt::verify(presented, configured).unwrap_or(false)
    } else {
        constant_time_eq(configured.as_bytes(), presented.as_bytes())
    }
}

/// Compares without telling by its duration where the first difference is.
fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .fold(0, |difference, (x, y)| difference | (x ^ y))
            == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(user: &str, pass: &str, auth_token: &str) -> ConnectOptions {
        ConnectOptions {
            user: user.into(),
            pass: pass.into(),
            auth_token: auth_token.into(),
            ..ConnectOptions::default()
        }
    }

    #[test]
    fn without_auth_everybody_is_welcome() {
        assert_eq!(Auth::None.check(&client("x", "y", "z")), Ok(None));
        assert!(Auth::None.allows_anonymous() && !Auth::None.is_required());
    }

    #[test]
    fn user_and_password_in_clear_and_hashed() {
        let hash = bcrypt::hash("secret", 4).unwrap();
        for password in ["secret", &hash] {
            let auth = Auth::User {
                user: "u".into(),
                password: password.into(),
            };
            assert_eq!(auth.check(&client("u", "secret", "")), Ok(Some("u".into())));
            for (user, pass) in [
                ("u", "Secret"),
                ("u", ""),
                ("", "secret"),
                ("v", "secret"),
                ("u", &hash),
            ] {
                assert_eq!(
                    auth.check(&client(user, pass, "")),
                    Err(Refused),
                    "{user} {pass}"
                );
            }
            assert!(!auth.allows_anonymous());
        }
    }

    #[test]
    fn token_in_clear_and_hashed() {
        let hash = bcrypt::hash("tok", 4).unwrap();
        for token in ["tok", &hash] {
            let auth = Auth::Token(token.into());
            assert_eq!(auth.check(&client("", "", "tok")), Ok(None));
            assert_eq!(auth.check(&client("", "", "")), Err(Refused));
            assert_eq!(auth.check(&client("tok", "tok", "")), Err(Refused));
        }
        assert_eq!(
            Auth::Token("$2a$broken".into()).check(&client("", "", "$2a$broken")),
            Err(Refused)
        );
    }

    #[test]
    fn several_users_and_the_one_for_nobody() {
        let user = |name: &str| User {
            user: name.into(),
            password: format!("{name}!"),
        };
        let users = vec![user("a"), user("b")];
        let auth = Auth::Users {
            users: users.clone(),
            no_auth_user: None,
        };
        assert_eq!(auth.check(&client("b", "b!", "")), Ok(Some("b".into())));
        assert_eq!(auth.check(&client("a", "b!", "")), Err(Refused));
        assert_eq!(auth.check(&client("", "", "")), Err(Refused));
        let open = Auth::Users {
            users,
            no_auth_user: Some("a".into()),
        };
        assert_eq!(open.check(&client("", "", "")), Ok(Some("a".into())));
        assert_eq!(open.check(&client("c", "", "")), Err(Refused));
        assert!(open.allows_anonymous() && open.is_required());
    }

    #[test]
    fn secrets_are_not_shown() {
        let auth = Auth::Users {
            users: vec![User {
                user: "u".into(),
                password: "hidden".into(),
            }],
            no_auth_user: None,
        };
        assert!(!format!("{auth:?}{:?}", Auth::Token("hidden".into())).contains("hidden"));
    }
}
