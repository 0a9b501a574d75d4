//! What the operator may do, and what it does with nothing to do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tests::metrics;

use crate::release::{Forward, shared};

/// Each resource (and the one name, if there is one) with its verbs, as docs/operator.md has
/// them with their reasons.
pub(crate) const MAY: &[(&str, &str)] = &[
    ("pipelines.sekali.dev", "create delete get list patch watch"),
    ("chaosruns.sekali.dev", "delete get list patch watch"),
    ("pipelines.sekali.dev/status", "patch"),
    ("chaosruns.sekali.dev/status", "patch"),
    ("deployments.apps sekali-worker", "get"),
    ("deployments.apps/scale sekali-worker", "patch"),
    ("horizontalpodautoscalers.autoscaling", "list"),
    ("scaledobjects.keda.sh", "list"),
    ("jobs.batch", "create delete list"),
    ("pods", "delete list"),
    ("events.events.k8s.io", "create patch"),
    ("leases.coordination.k8s.io sekali-operator", "get update"),
    ("leases.coordination.k8s.io", "create"),
];

/// What every account may ask of itself.
const OF_ANYONE: &str = "create";

#[test]
fn the_operator_may_do_what_is_written_down_and_nothing_else() {
    let release = &shared();
    let account = format!(
        "--as=system:serviceaccount:{}:sekali-operator",
        release.namespace.name()
    );
    let listed = release
        .namespace
        .kubectl(&["auth", "can-i", "--list", "--no-headers", &account]);
    let mut may = BTreeMap::<String, BTreeSet<&str>>::new();
    for line in listed.lines() {
        let lists: Vec<_> = line
            .split('[')
            .map(|part| part.trim_end_matches([']', ' ']))
            .collect();
        let [resource, _, name, verbs] = lists[..] else {
            panic!("{line}");
        };
        let (resource, name) = (resource.trim(), name.trim());
        let verbs: BTreeSet<_> = verbs.trim_end_matches(']').split_whitespace().collect();
        let is_of_anyone = resource.ends_with(".k8s.io")
            && resource.starts_with("self")
            && verbs == BTreeSet::from([OF_ANYONE]);
        if resource.is_empty() || is_of_anyone {
            continue;
        }
        let what = format!("{resource} {name}").trim().to_owned();
        may.entry(what).or_default().extend(verbs);
    }
    let written: BTreeMap<_, BTreeSet<_>> = MAY
        .iter()
        .map(|(what, verbs)| ((*what).to_owned(), verbs.split(' ').collect()))
        .collect();
    assert_eq!(may, written);
    // Nor anything outside its namespace.
    for what in ["pipelines.sekali.dev", "pods", "nodes"] {
        let asked = [
            "auth",
            "can-i",
            "list",
            what,
            "--namespace=default",
            &account,
        ];
        let answer = release.namespace.try_kubectl(&asked);
        assert!(answer.is_err(), "{what}: {answer:?}");
    }
}

#[tokio::test]
#[ignore = "it takes a minute: make e2e-full"]
async fn with_nothing_to_do_the_operator_writes_nothing_and_takes_next_to_no_time() {
    let release = &shared();
    release.settled();
    let forward = Forward::to(release, "deployment/sekali-operator", 9090).await;
    let read = async || {
        let text = forward.get("/metrics").await.body;
        let sum = |name, label| metrics::sum(&text, name, label).unwrap();
        let writes = |label| sum("sekali_operator_writes_total", label);
        (
            // The Lease is renewed, come what may.
            writes("") - writes("what=\"lease\""),
            sum("sekali_operator_reconciles_total", ""),
            metrics::value(&text, "process_cpu_seconds_total"),
        )
    };
    let mut before = read().await;
    let mut since = Instant::now();
    let calm = Duration::from_mins(1);
    let begun = Instant::now();
    let mut look = tokio::time::interval(Duration::from_secs(1));
    let mut after = before;
    while since.elapsed() < calm {
        assert!(begun.elapsed() < calm * 4, "it writes all the time");
        look.tick().await;
        after = read().await;
        if after.0 != before.0 {
            (before, since) = (after, Instant::now());
        }
    }
    let share = (after.2 - before.2) / since.elapsed().as_secs_f64();
    println!(
        "at rest after {:.0} s: {} looks and {:.2} % of a core",
        begun.elapsed().as_secs_f64(),
        after.1 - before.1,
        share * 100.0
    );
    assert!(after.1 > before.1, "it goes on looking");
    assert!(share < 0.01, "{share}");
}
