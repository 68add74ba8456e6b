//! What a client says about itself (CORE-003).

use serde::Deserialize;

/// Options of a connection; the defaults hold until a CONNECT says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Answer every accepted line with `+OK`.
    pub verbose: bool,
    /// Check publish subjects.
    pub pedantic: bool,
    /// Deliver the connection's own messages to its own subscriptions.
    pub echo: bool,
    /// The client understands HMSG and may send HPUB.
    pub headers: bool,
    /// Answer requests nobody received with status 503.
    pub no_responders: bool,
    /// 0, or 1 when the client accepts INFO at any time.
    pub protocol: i64,
    /// Name of the client program.
    pub name: String,
    /// Language of the client library.
    pub lang: String,
    /// Version of the client library.
    pub version: String,
    /// User name.
    pub user: String,
    /// Password.
    pub pass: String,
    /// Token instead of user and password.
    pub auth_token: String,
    /// Asks for an account, which is refused: accounts follow from the user.
    pub account: String,
    /// Asks for a new account, which is refused.
    pub new_account: bool,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        ConnectOptions {
            verbose: true,
            pedantic: true,
            echo: true,
            headers: false,
            no_responders: false,
            protocol: 0,
            name: String::new(),
            lang: String::new(),
            version: String::new(),
            user: String::new(),
            pass: String::new(),
            auth_token: String::new(),
            account: String::new(),
            new_account: false,
        }
    }
}

/// The JSON of one CONNECT line. Unknown keys are ignored, absent and null ones change nothing.
#[derive(Default, Deserialize)]
struct Update {
    verbose: Option<bool>,
    pedantic: Option<bool>,
    echo: Option<bool>,
    headers: Option<bool>,
    no_responders: Option<bool>,
    protocol: Option<i64>,
    name: Option<String>,
    lang: Option<String>,
    version: Option<String>,
    user: Option<String>,
    pass: Option<String>,
    auth_token: Option<String>,
    account: Option<String>,
    new_account: Option<bool>,
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

impl ConnectOptions {
    /// Applies a CONNECT line. A second one changes only what it names.
    pub fn update(&mut self, json: &[u8]) -> Result<(), serde_json::Error> {
        let update: Option<Update> = serde_json::from_slice(json)?;
        let update = update.unwrap_or_default();
        set(&mut self.verbose, update.verbose);
        set(&mut self.pedantic, update.pedantic);
        set(&mut self.echo, update.echo);
        set(&mut self.headers, update.headers);
        set(&mut self.no_responders, update.no_responders);
        set(&mut self.protocol, update.protocol);
        set(&mut self.name, update.name);
        set(&mut self.lang, update.lang);
        set(&mut self.version, update.version);
        set(&mut self.user, update.user);
        set(&mut self.pass, update.pass);
        set(&mut self.auth_token, update.auth_token);
        set(&mut self.account, update.account);
        set(&mut self.new_account, update.new_account);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_keys_keep_their_value() {
        let mut options = ConnectOptions::default();
        options
            .update(br#"{"verbose":false,"name":"n","headers":true,"future":[1]}"#)
            .unwrap();
        assert!(!options.verbose && options.pedantic && options.echo && options.headers);
        options.update(br#"{"echo":false,"name":null}"#).unwrap();
        options.update(b"null").unwrap();
        assert!(!options.verbose && !options.echo && options.headers);
        assert_eq!(options.name, "n");
    }

    #[test]
    fn what_is_not_an_object_of_the_right_types_is_refused() {
        for bad in [
            "",
            "{",
            "[]",
            "1",
            "\"x\"",
            r#"{"verbose":1}"#,
            r#"{"protocol":"1"}"#,
        ] {
            assert!(
                ConnectOptions::default().update(bad.as_bytes()).is_err(),
                "{bad}"
            );
        }
    }
}
