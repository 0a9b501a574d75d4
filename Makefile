# Every target is a word for something that `scripts/` or `.ci/run` does.

.DEFAULT_GOAL := menu
MAKEFLAGS += --no-print-directory

# So that the programs and the tests share what is compiled: see tests/Cargo.toml.
AS_TESTS := --features tests/as-tests

.PHONY: menu run up test chaos api-fuzz bench recovery bench-telemetry fuzz check fmt lint rules dashboards crds openapi image kind-up kind-down e2e e2e-full manifests

menu:
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## A Sekali over an SQLite file on port 8080 (PORT=...), with events to look at
	@scripts/run

up: ## The same with Redis, PostgreSQL, one aggregator and two workers
	@scripts/up

test: ## Every test, against real Redis and PostgreSQL (one: see CONTRIBUTING.md)
	@scripts/servers need redis postgres sqlite
	cargo build --workspace --bins $(AS_TESTS)
	cargo test --workspace

chaos: ## Random faults under load, a run a seed (SEEDS=10; SEED=... repeats one; JOBS=2 at once)
	@scripts/servers need redis postgres
	cargo run --bin chaos $(AS_TESTS)

api-fuzz: ## Whatever the OpenAPI document allows, asked of a gateway (EXAMPLES=50)
	@scripts/api-fuzz

bench: ## The figures of docs/performance.md on this machine, beside PostgreSQL's own limit
	@scripts/servers need redis postgres
	@scripts/bench

recovery: ## How soon events are stored again after each fault, twenty times each
	@scripts/servers need redis postgres
	@RUNS=20 ONLY=recovery scripts/bench

bench-telemetry: ## What traces and scrapes cost, with and without in turns
	@scripts/servers need redis postgres
	@ONLY=telemetry scripts/bench

fuzz: ## Bytes nobody has thought of, for what reads bodies and entries (FOR=60 seconds each)
	@scripts/fuzz

check: ## What CI runs, without the cluster
	@.ci/run --no-cluster

fmt: ## Format
	cargo fmt --all

lint: ## Format and lints, as strict as CI
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --workspace --test e2e -- -D warnings

rules: ## The rules for Prometheus: their tests, and a page for each alert
	@scripts/rules

crds: ## Write the CustomResourceDefinitions into the chart from the code
	@scripts/crds

openapi: ## Write docs/openapi.json from the code
	@scripts/openapi

dashboards: ## Ask a Prometheus that has scraped a run with faults all that Grafana would
	@scripts/servers need jq prometheus redis postgres
	@scripts/dashboards
	cargo build --workspace --bins $(AS_TESTS)
	cargo test --workspace --test it -- --include-ignored dashboards::

image: ## The container image sekali:VERSION, with Docker or buildah (IMAGE=..., RUNTIME=...)
	@scripts/image

kind-up: ## A cluster in Docker with Sekali in it, tested, and the first request
	@scripts/kind up

kind-down: ## The end of that cluster
	@scripts/kind down

e2e: ## The tests on the cluster that KUBECONFIG names (ONLY=... for some)
	@scripts/e2e

e2e-full: ## The same, and what takes two nodes
	@scripts/e2e full

manifests: ## Write k8s/sekali.yaml and the chart's README from the chart
	@scripts/manifests
