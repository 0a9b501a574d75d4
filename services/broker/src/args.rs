//! Where the queue is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use redis::{Client, IntoConnectionInfo as _};

use crate::link;

/// The settings of a queue besides its address.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Queue")]
pub struct Args {
    /// Like --database-password-file, for the queue
    #[arg(long, env, requires = "broker_url")]
    pub broker_password_file: Option<PathBuf>,

    /// What the names of all keys in Redis begin with. Two installations can share a Redis
    /// under two names; gateways and workers of one installation must have the same, or
    /// what the gateways take is never stored
    #[arg(long, env, default_value = "sekali", value_parser = prefix)]
    pub broker_prefix: String,
}

fn prefix(text: &str) -> Result<String, String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(good) {
        Ok(text.to_owned())
    } else {
        // A brace would move the keys into different slots of a cluster.
        Err("1 to 64 of letters, digits, dot, underscore and hyphen".into())
    }
}

/// The address of a Redis. Its text may hold a password, so it has no `Display`, and
/// `Debug` shows nothing of it.
#[derive(Clone)]
pub struct BrokerUrl(Client);

impl BrokerUrl {
    pub(crate) fn client(&self) -> Client {
        self.0.clone()
    }

    /// The same with a password in place of the address's, if it has one.
    pub fn with_password(self, password: &str) -> Result<Self, String> {
        let info = self.0.get_connection_info().clone();
        let settings = info.redis_settings().clone().set_password(password);
        link::client(info.set_redis_settings(settings))
            .map(Self)
            .map_err(|error| format!("the password can't be used: {error}"))
    }
}

impl FromStr for BrokerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.starts_with("redis://") && !text.starts_with("rediss://") {
            return Err("a queue's address starts with redis:// or rediss://".into());
        }
        text.into_connection_info()
            .and_then(link::client)
            .map(Self)
            .map_err(|error| format!("not an address such as redis://host:6379: {error}"))
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redis://...")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_checked_and_never_shown() {
        let url: BrokerUrl = "redis://:hunter2@localhost:6379/1".parse().unwrap();
        assert_eq!(format!("{url:?}"), "redis://...");
        for wrong in [
            "",
            "localhost:6379",
            "http://localhost",
            "redis://h:port:port",
            "redis://:hunter2@h/database",
        ] {
            let error = wrong.parse::<BrokerUrl>().unwrap_err();
            assert!(error.contains("redis://"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_password_beside_the_address_may_hold_anything() {
        const PASSWORD: &str = "a b:/@?#%'\"\\$é";
        for url in ["redis://h:1/2", "redis://:old@h:1/2", "redis://user@h:1/2"] {
            let url: BrokerUrl = url.parse().unwrap();
            let client = url.clone().with_password(PASSWORD).unwrap().client();
            let settings = client.get_connection_info().redis_settings();
            assert_eq!(settings.password(), Some(PASSWORD));
            assert_eq!(
                settings.username(),
                url.0.get_connection_info().redis_settings().username()
            );
            assert_eq!(settings.db(), 2);
        }
    }

    #[test]
    fn a_prefix_is_a_plain_word() {
        assert_eq!(prefix("sekali-2.x_y"), Ok("sekali-2.x_y".into()));
        for wrong in ["", "a b", "{a}", "a:b", &"a".repeat(65)] {
            assert!(prefix(wrong).is_err(), "{wrong}");
        }
    }
}
