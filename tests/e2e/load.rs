//! Load from inside the cluster, by the chart's publisher Job, and what it came to.

use serde_json::Value;

use crate::cluster::until;
use crate::release::Release;

/// A Job that runs.
pub(crate) struct Load<'a> {
    release: &'a Release,
    job: String,
}

impl<'a> Load<'a> {
    /// Starts one at so many requests a second, for about so many seconds, and waits until
    /// its events arrive.
    pub(crate) fn start(
        release: &'a Release,
        run: &str,
        rate: u32,
        seconds: u32,
        batch: u32,
    ) -> Self {
        let before = received(release);
        let load = Self::start_with(
            release,
            run,
            &[
                &format!("events={}", rate * seconds * batch),
                &format!("rate={}", rate * batch),
                &format!("batch={batch}"),
            ],
        );
        until("the load arrives", || received(release) > before);
        load
    }

    /// Starts one with settings of its own.
    pub(crate) fn start_with(release: &'a Release, run: &str, settings: &[&str]) -> Self {
        let settings: Vec<_> = settings
            .iter()
            .map(|setting| format!("publisher.settings.{setting}"))
            .chain([
                format!("publisher.settings.run={run}"),
                "publisher.enabled=true".into(),
            ])
            .collect();
        let settings: Vec<_> = settings.iter().map(String::as_str).collect();
        let only = ["--show-only=templates/publisher/job.yaml"];
        let manifest = release.render(&settings, &only).unwrap();
        let job = release.namespace.apply(&manifest, &[]).unwrap();
        Self {
            release,
            job: job.trim().to_owned(),
        }
    }

    /// It still sends, or what was done meanwhile was not done under it.
    pub(crate) fn outlasts(&self) {
        let job = self.job();
        assert_eq!(job["status"]["active"], 1, "it ended too soon: {job}");
    }

    /// Waits for its end and returns its report; the verdict must be good.
    pub(crate) fn verdict(self) -> Value {
        let report = self.report();
        assert_eq!(report["passed"], true, "{report}");
        assert_eq!(report["verdict"]["good"], true, "{report}");
        self.release.namespace.kubectl(&["delete", &self.job]);
        report
    }

    /// The same of a load during whose time nothing may have failed: no request was sent a
    /// second time.
    pub(crate) fn verdict_without_a_failed_request(self) -> Value {
        let report = self.verdict();
        assert_eq!(report["retried"], 0, "{report}");
        report
    }

    fn report(&self) -> Value {
        let mut job = Value::Null;
        until("the load is over", || {
            job = self.job();
            job["status"]["succeeded"] == 1 || job["status"]["failed"] == 1
        });
        let name = job["metadata"]["name"].as_str().unwrap();
        let selector = format!("--selector=batch.kubernetes.io/job-name={name}");
        let pods = self.release.namespace.get(&["pods", &selector]);
        let state = &pods["items"][0]["status"]["containerStatuses"][0]["state"];
        let message = state["terminated"]["message"].as_str().unwrap_or_default();
        serde_json::from_str(message).unwrap_or_else(|error| {
            let log = self.release.namespace.kubectl(&["logs", &self.job]);
            panic!("no report ({error}): {state} {log}")
        })
    }

    fn job(&self) -> Value {
        self.release.namespace.get(&[&self.job])
    }
}

fn received(release: &Release) -> i64 {
    let stats = release.stats().unwrap_or_default();
    stats["received"].as_i64().unwrap_or_default()
}
