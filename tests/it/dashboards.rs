//! What Grafana and Prometheus are given, asked of a real Prometheus that has scraped a real
//! run with faults.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::prometheus::Api;
use tests::servers::Prometheus;
use tests::{Program, Sekali, servers, until};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A query of a panel or a page, and why it may find nothing, if it may.
struct Query {
    place: String,
    text: String,
    empty_when: Option<String>,
}

fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(Path::new(ROOT).join(directory)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|one| one == extension))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{directory} is empty");
    paths
}

/// Every query of every panel, with the variables as they are where nothing is chosen.
fn of_panels() -> Vec<Query> {
    let mut queries = Vec::new();
    for path in files("charts/sekali/dashboards", "json") {
        let text = std::fs::read_to_string(&path).unwrap();
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        let title = dashboard["title"].as_str().unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            let targets = panel["targets"].as_array().into_iter().flatten();
            queries.extend(targets.map(|target| {
                Query {
                    place: format!("{title}: {}", panel["title"]),
                    text: target["expr"]
                        .as_str()
                        .unwrap()
                        .replace("$namespace", ".*")
                        .replace("$__rate_interval", "1m")
                        .replace("$__range", "5m"),
                    empty_when: target["emptyWhen"].as_str().map(str::to_owned),
                }
            }));
        }
    }
    queries
}

/// Every query of the runbooks, one a line.
fn of_runbooks() -> Vec<Query> {
    let mut queries = Vec::new();
    for path in files("docs/runbooks", "md") {
        let text = std::fs::read_to_string(&path).unwrap();
        let blocks = text.split("```promql\n").skip(1);
        let lines = blocks.flat_map(|block| block.split("```").next().unwrap().lines());
        queries.extend(lines.map(|line| Query {
            place: path.display().to_string(),
            text: line.to_owned(),
            empty_when: Some("nothing is wrong".into()),
        }));
    }
    queries
}

/// What our metrics are told apart by, as their tables say, and what a scrape adds.
fn labels(docs: &str) -> BTreeSet<&str> {
    let metrics = docs.split("`sekali_").skip(1);
    let labels = metrics.filter_map(|rest| rest.split('`').next()?.split_once('{'));
    let labels = labels.flat_map(|(_, labels)| labels.trim_end_matches('}').split(", "));
    labels
        .chain(["namespace", "job", "instance", "pod", "le"])
        .collect()
}

/// The names of our metrics in a text.
fn names(text: &str) -> BTreeSet<&str> {
    // A recorded series has colons in its name.
    let words =
        text.split(|letter: char| !(letter.is_ascii_alphanumeric() || "_:".contains(letter)));
    words
        .filter(|word| word.starts_with("sekali_") && !word.contains(':') && !word.ends_with('_'))
        .collect()
}

/// The names under which a histogram is asked are its own and a word.
fn documented(name: &str, documented: &BTreeSet<&str>) -> bool {
    let histogram = ["_bucket", "_count", "_sum"];
    let of_histogram = histogram.iter().find_map(|end| name.strip_suffix(end));
    documented.contains(name) || of_histogram.is_some_and(|name| documented.contains(name))
}

#[test]
fn every_metric_that_is_asked_for_is_documented_and_every_one_that_is_documented_exists() {
    let docs = std::fs::read_to_string(Path::new(ROOT).join("docs/observability.md")).unwrap();
    let described = names(&docs);
    let queries = of_panels().into_iter().chain(of_runbooks());
    let mut asked: Vec<_> = queries.map(|query| query.text).collect();
    for path in files("charts/sekali/rules", "yaml") {
        asked.push(std::fs::read_to_string(path).unwrap());
    }
    let labels = labels(&docs);
    for text in &asked {
        for name in names(text) {
            assert!(documented(name, &described), "{name} is in no table");
        }
        for group in text.split("by (").skip(1) {
            for label in group.split(')').next().unwrap().split(", ") {
                assert!(labels.contains(label), "{label} is no label: {text}");
            }
        }
    }
    let mut code = String::new();
    for service in [
        "aggregator",
        "broker",
        "lifecycle",
        "operator",
        "publisher",
        "store",
        "worker",
    ] {
        read_all(
            &Path::new(ROOT).join("services").join(service).join("src"),
            &mut code,
        );
    }
    let exist = names(&code);
    for name in &described {
        assert!(
            documented(name, &exist),
            "{name} is documented and is not there"
        );
    }
    let unmentioned: Vec<_> = exist
        .iter()
        .filter(|name| !described.contains(*name) && code.contains(&format!("\"{name}\"")))
        .collect();
    assert!(unmentioned.is_empty(), "{unmentioned:?} are not documented");
}

/// Where the values are that a label of these metrics has.
const VALUES: [(&str, &str); 5] = [
    ("sekali_gateway_refused_", "aggregator/src/error.rs"),
    ("sekali_store_failures_total", "store/src/metrics.rs"),
    ("sekali_store_recorded_events_total", "store/src/metrics.rs"),
    ("sekali_broker_failures_total", "broker/src/metrics.rs"),
    ("sekali_publisher_events_total", "publisher/src/metrics.rs"),
];

#[test]
fn a_panel_names_no_value_of_a_label_that_there_is_not() {
    let mut named = 0;
    for path in files("charts/sekali/dashboards", "json") {
        let text = std::fs::read_to_string(&path).unwrap();
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            let targets = panel["targets"].to_string();
            let sources = VALUES.iter().filter(|(metric, _)| targets.contains(metric));
            let sources = sources.map(|(_, source)| Path::new(ROOT).join("services").join(source));
            let code: String = sources
                .map(|path| std::fs::read_to_string(path).unwrap())
                .collect();
            let description = panel["description"].as_str().unwrap_or_default();
            for value in description.split('`').skip(1).step_by(2) {
                let title = &panel["title"];
                assert!(code.contains(&format!("\"{value}\"")), "{title}: {value}");
                named += 1;
            }
        }
    }
    assert!(named > 20, "{named}");
}

fn read_all(directory: &Path, into: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, into);
        } else if path.extension().is_some_and(|one| one == "rs") {
            into.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[tokio::test]
#[ignore = "it needs Prometheus: make dashboards"]
async fn every_panel_and_every_rule_finds_something_in_a_real_run() {
    let mut sekali = Sekali::full_with(2, &["--metrics-topics=5"]).await;
    let mut targets = vec![sekali.address(0)];
    for number in 0..2 {
        targets.push(sekali.worker(number).address("admin").await);
    }
    let prometheus = Prometheus::start(&targets).await;
    let flags = [
        "--duplicates=0.3",
        "--conflicts=0.05",
        "--malformed=0.05",
        "--batch=10",
        "--rate=2000",
        "--seed=1",
        "--target-url",
        &sekali.url(""),
    ];
    let publisher = Program::start("sekali-publisher", &flags);
    for _ in 0..2 {
        sekali.redis().restart().await;
        sekali.redis().set("maxmemory", "1gb");
        servers::cut_off(sekali.database()).await;
        sekali.stores_more(2_000).await;
    }
    sekali.get("/events").await.ok();
    every_query_finds_something(prometheus.api()).await;
    every_rule_records_something(prometheus.api()).await;
    drop(publisher);
}

async fn every_query_finds_something(prometheus: &Api) {
    let (panels, runbooks) = (of_panels(), of_runbooks());
    assert!(panels.len() > 50 && runbooks.len() > 20, "some are gone");
    for Query {
        place,
        text,
        empty_when,
    } in panels.iter().chain(&runbooks)
    {
        let mut found = Vec::new();
        let what = format!("{place} finds something with {text}");
        if empty_when.is_some() {
            // It is to be asked all the same: it must not be wrong.
            prometheus
                .query(text)
                .await
                .unwrap_or_else(|error| panic!("{place}: {error}: {text}"));
            continue;
        }
        until(&what, async || {
            found = prometheus
                .query(text)
                .await
                .unwrap_or_else(|error| panic!("{place}: {error}: {text}"));
            !found.is_empty()
        })
        .await;
    }
}

async fn every_rule_records_something(prometheus: &Api) {
    for rule in prometheus.evaluates_every_rule().await {
        if rule["type"] == "recording" {
            let name = rule["name"].as_str().unwrap();
            let what = format!("{name} records something");
            until(&what, async || {
                !prometheus.query(name).await.unwrap().is_empty()
            })
            .await;
        }
    }
}
