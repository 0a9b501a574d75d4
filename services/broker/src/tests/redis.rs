//! A real Redis, which tests fill, kill and start again.

use std::net::SocketAddr;

use ::redis::Value;
use ::tests::{servers, until};

use crate::{Args, Broker};

/// A Redis of its own for each test. Ends with it.
pub(super) struct Redis(servers::Redis);

impl Redis {
    pub(super) async fn start() -> Self {
        Self(servers::Redis::start().await)
    }

    pub(super) fn kill(&mut self) {
        self.0.program().kill();
    }

    pub(super) async fn restart(&mut self) {
        self.0.restart().await;
    }

    pub(super) fn url(&self) -> String {
        self.0.url()
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.0.address()
    }

    pub(super) fn broker(&self) -> Broker {
        at(&self.url())
    }

    /// A broker that has been heard from.
    pub(super) async fn ready(&self) -> Broker {
        let broker = self.broker();
        until("redis answers", async || broker.check().await.is_ok()).await;
        broker
    }

    pub(super) async fn command(&self, words: &[&str]) -> Value {
        let mut command = ::redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        self.broker().link.query(&command).await.unwrap()
    }
}

/// The queue at an address.
pub(super) fn at(url: &str) -> Broker {
    let args = Args {
        broker_password_file: None,
        broker_prefix: "test".into(),
    };
    Broker::new(&url.parse().unwrap(), &args)
}
