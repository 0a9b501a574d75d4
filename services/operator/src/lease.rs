//! One operator at a time: whoever holds the Lease.
//!
//! As in client-go, no two clocks are compared: a holder counts as gone once its Lease was
//! seen unchanged for as long as it said it would last, by the clock of who looks. A holder
//! gives up before that, when it could not renew in time; and since every renewal names
//! the version that it read, of two who take an expired Lease one is refused.

use std::time::{Duration, Instant};

use anyhow::bail;
use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, PostParams};
use kube::core::ObjectMeta;
use lifecycle::{CancellationToken, Ticks};

use crate::context::in_time;
use crate::metrics::Metrics;
use crate::time::now;

/// How long it may take to leave the Lease to others: a drain waits for that as well.
pub(crate) const RELEASE: Duration = Duration::from_secs(5);

/// A claim to the Lease of a name.
pub(crate) struct Lease {
    pub(crate) api: Api<Object>,
    pub(crate) name: String,
    /// Who claims; no two may be called so.
    pub(crate) identity: String,
    /// How long it lasts without being renewed.
    pub(crate) lasts: Duration,
    pub(crate) metrics: Metrics,
    seen: Option<Sighting>,
}

/// A version of the Lease, and since when it is the latest.
struct Sighting {
    version: Option<String>,
    since: Instant,
}

/// What to do about a Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It is this one's, or nobody's, or its holder is gone.
    Take,
    /// It is another's.
    Wait,
}

fn turn(spec: Option<&LeaseSpec>, me: &str, unchanged_for: Duration) -> Turn {
    let holder = spec.and_then(|spec| spec.holder_identity.as_deref());
    let seconds = spec
        .and_then(|spec| spec.lease_duration_seconds)
        .unwrap_or(0);
    let lasts = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    match holder {
        None | Some("") => Turn::Take,
        Some(holder) if holder == me || unchanged_for > lasts => Turn::Take,
        Some(_) => Turn::Wait,
    }
}

impl Lease {
    pub(crate) fn new(
        api: Api<Object>,
        name: String,
        identity: String,
        lasts: Duration,
        metrics: Metrics,
    ) -> Self {
        Self {
            api,
            name,
            identity,
            lasts,
            metrics,
            seen: None,
        }
    }

    /// Waits until it is held, and tells when that was asked for: it lasts from then on. None if
    /// the process is to end before.
    pub(crate) async fn acquire(&mut self, shutdown: &CancellationToken) -> Option<Instant> {
        let patience = self.period();
        let mut ticks = Ticks::every(patience, shutdown);
        while ticks.next().await {
            let asked = Instant::now();
            let attempt = in_time(patience, Box::pin(self.attempt()));
            match shutdown.run_until_cancelled(attempt).await? {
                Ok(true) => {
                    tracing::info!(lease = self.name, identity = self.identity, "leads");
                    self.metrics.leader.set(1);
                    return Some(asked);
                }
                Ok(false) => {}
                Err(error) => {
                    lifecycle::seldom!(warn, %error, lease = self.name, "the lease can't be had");
                }
            }
        }
        None
    }

    /// Renews it for as long as that works. It ends only with a failure: another may lead.
    pub(crate) async fn keep(&mut self, asked: Instant) -> anyhow::Result<()> {
        let never = CancellationToken::new();
        let mut ticks = Ticks::every(self.period(), &never);
        let mut renewed = asked;
        // What is left then is the time that a request under way may still take.
        let patience = self.lasts.saturating_sub(self.period() / 2);
        while ticks.next().await {
            let asked = Instant::now();
            let left = patience.saturating_sub(renewed.elapsed());
            match in_time(left, Box::pin(self.attempt())).await {
                Ok(true) => renewed = asked,
                Ok(false) => bail!("the lease {} is another's", self.name),
                Err(error) if renewed.elapsed() < patience => {
                    lifecycle::seldom!(warn, %error, lease = self.name, "the lease can't be renewed");
                }
                Err(_) => bail!("the lease {} could not be renewed in time", self.name),
            }
        }
        Ok(())
    }

    /// Leaves it to whoever asks next, if the API server answers soon: whoever lost it because
    /// of that is to end.
    pub(crate) async fn release(&mut self) {
        self.metrics.leader.set(0);
        let released = async {
            let Some(mut object) = self.api.get_opt(&self.name).await? else {
                return Ok(());
            };
            let spec = object.spec.get_or_insert_default();
            if spec.holder_identity.as_ref() != Some(&self.identity) {
                return Ok(());
            }
            spec.holder_identity = Some(String::new());
            self.metrics.write("lease");
            let parameters = PostParams::default();
            let replaced = self.api.replace(&self.name, &parameters, &object);
            replaced.await.map(drop)
        };
        match in_time(self.period().min(RELEASE), released).await {
            Ok(()) => tracing::info!(lease = self.name, "no longer leads"),
            Err(error) => tracing::warn!(%error, lease = self.name, "the lease has to expire"),
        }
    }

    fn period(&self) -> Duration {
        self.lasts / 3
    }

    /// Takes or renews it if it is this one's turn; says whether it holds it now. It is large,
    /// so whoever waits for it holds it on the heap.
    async fn attempt(&mut self) -> kube::Result<bool> {
        let Some(object) = self.api.get_opt(&self.name).await? else {
            let object = Object {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.claim(None)),
            };
            self.metrics.write("lease");
            let created = self.api.create(&PostParams::default(), &object).await;
            return held(created);
        };
        let version = object.metadata.resource_version.clone();
        let since = match &self.seen {
            Some(seen) if seen.version == version => seen.since,
            _ => Instant::now(),
        };
        self.seen = Some(Sighting { version, since });
        match turn(object.spec.as_ref(), &self.identity, since.elapsed()) {
            Turn::Wait => Ok(false),
            Turn::Take => {
                let spec = Some(self.claim(object.spec.as_ref()));
                let object = Object { spec, ..object };
                self.metrics.write("lease");
                let parameters = PostParams::default();
                held(self.api.replace(&self.name, &parameters, &object).await)
            }
        }
    }

    fn claim(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(now());
        let mine = before.filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.lasts.as_secs()).ok(),
            acquire_time: mine.map_or_else(|| Some(now.clone()), |spec| spec.acquire_time.clone()),
            renew_time: Some(now),
            lease_transitions: Some(transitions + i32::from(before.is_some() && mine.is_none())),
            ..LeaseSpec::default()
        }
    }
}

/// Whether a write was taken, and not another's before it.
fn held(written: kube::Result<Object>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::context::Context;
    use crate::fixtures::Cluster;

    const LASTS: Duration = Duration::from_millis(300);

    fn lease(context: &Arc<Context>) -> Lease {
        let name = "sekali-operator".into();
        let (api, metrics) = (context.api(), context.metrics.clone());
        Lease::new(api, name, "me".into(), LASTS, metrics)
    }

    /// An API server that takes requests and says nothing.
    fn silent() -> Cluster {
        Cluster::default().unanswering(usize::MAX)
    }

    async fn soon<T>(work: impl Future<Output = T>) -> T {
        let done = tokio::time::timeout(Duration::from_secs(30), work).await;
        done.expect("it lingers")
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_asked_again_and_holds_up_no_shutdown() {
        let never = CancellationToken::new();
        let work = async |context| lease(&context).acquire(&never).await;
        let (asked, writes) = soon(Cluster::default().unanswering(2).run(work)).await;
        assert!(asked.is_some() && !writes.is_empty(), "{writes:?}");

        let shutdown = CancellationToken::new();
        let work = async |context| {
            let mut lease = lease(&context);
            lease.lasts = Duration::from_hours(1);
            let stop = async {
                tokio::task::yield_now().await;
                shutdown.cancel();
            };
            tokio::join!(lease.acquire(&shutdown), stop).0
        };
        let (asked, _) = soon(silent().run(work)).await;
        assert_eq!(asked, None);
    }

    #[tokio::test]
    async fn who_lost_the_lease_ends_though_the_server_does_not_answer() {
        let work = async |context| {
            let mut lease = lease(&context);
            let kept = lease.keep(Instant::now()).await;
            lease.release().await;
            kept
        };
        let (kept, _) = soon(silent().run(work)).await;
        let why = kept.unwrap_err().to_string();
        assert_eq!(
            why,
            "the lease sekali-operator could not be renewed in time"
        );
    }

    #[tokio::test]
    async fn a_lease_lasts_from_when_it_was_asked_for() {
        let work = async |context| {
            let mut lease = lease(&context);
            lease.lasts = Duration::from_mins(2);
            let asked = Instant::now().checked_sub(lease.lasts).unwrap();
            lease.keep(asked).await
        };
        let (kept, _) = soon(silent().run(work)).await;
        kept.unwrap_err();
    }

    #[test]
    fn a_lease_is_taken_only_from_nobody_and_from_who_is_gone() {
        let spec = |holder: Option<&str>| LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        };
        let seconds = Duration::from_secs;
        for (holder, unchanged_for, expected) in [
            (None, 0, Turn::Take),
            (Some(""), 0, Turn::Take),
            (Some("me"), 0, Turn::Take),
            (Some("other"), 0, Turn::Wait),
            (Some("other"), 15, Turn::Wait),
            (Some("other"), 16, Turn::Take),
        ] {
            let found = turn(Some(&spec(holder)), "me", seconds(unchanged_for));
            assert_eq!(found, expected, "{holder:?} for {unchanged_for} s");
        }
        assert_eq!(turn(None, "me", seconds(0)), Turn::Take);
    }
}
