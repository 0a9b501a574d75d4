//! What the operator counts. No label names an object: what is said of one stands in its
//! status.

use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    exponential_buckets,
};

#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) reconciles: IntCounterVec,
    pub(crate) failures: IntCounterVec,
    pub(crate) seconds: HistogramVec,
    pub(crate) active: IntGaugeVec,
    pub(crate) backing_off: IntGaugeVec,
    pub(crate) writes: IntCounterVec,
    pub(crate) scalings: IntCounterVec,
    pub(crate) faults: IntCounterVec,
    pub(crate) chaos_runs: IntCounterVec,
    pub(crate) leader: IntGauge,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &["kind"])?;
            registry.register(Box::new(gauge.clone()))?;
            prometheus::Result::Ok(gauge)
        };
        let metrics = Self {
            reconciles: counter(
                "sekali_operator_reconciles_total",
                "Looks at resources.",
                &["kind"],
            )?,
            failures: counter(
                "sekali_operator_failures_total",
                "Looks that failed and are made again, by what failed.",
                &["kind", "error"],
            )?,
            seconds: seconds(registry)?,
            active: gauge(
                "sekali_operator_active_reconciles",
                "Resources that are being looked at.",
            )?,
            backing_off: gauge(
                "sekali_operator_backing_off_resources",
                "Resources whose last look failed.",
            )?,
            writes: counter(
                "sekali_operator_writes_total",
                "Requests to the API server that change something, by what they change.",
                &["what"],
            )?,
            scalings: counter(
                "sekali_operator_scalings_total",
                "Changes of the number of workers, up or down.",
                &["direction"],
            )?,
            faults: counter(
                "sekali_operator_faults_total",
                "Pods deleted as faults of runs.",
                &["target", "action"],
            )?,
            chaos_runs: counter(
                "sekali_operator_chaos_runs_total",
                "Chaos runs that came to a verdict: passed or failed.",
                &["result"],
            )?,
            leader: leader(registry)?,
        };
        // A counter that appears with its first event has no rate at it.
        for result in ["passed", "failed"] {
            metrics.chaos_runs.with_label_values(&[result]);
        }
        Ok(metrics)
    }

    pub(crate) fn write(&self, what: &str) {
        self.writes.with_label_values(&[what]).inc();
    }
}

fn seconds(registry: &Registry) -> prometheus::Result<HistogramVec> {
    let seconds = HistogramVec::new(
        HistogramOpts::new(
            "sekali_operator_reconcile_duration_seconds",
            "One look at a resource and what followed from it.",
        )
        // From a millisecond to half a minute.
        .buckets(exponential_buckets(0.001, 2.0, 16)?),
        &["kind"],
    )?;
    registry.register(Box::new(seconds.clone()))?;
    Ok(seconds)
}

fn leader(registry: &Registry) -> prometheus::Result<IntGauge> {
    let leader = IntGauge::new(
        "sekali_operator_leader",
        "1 for the operator that holds the lease; only that one acts.",
    )?;
    registry.register(Box::new(leader.clone()))?;
    Ok(leader)
}
