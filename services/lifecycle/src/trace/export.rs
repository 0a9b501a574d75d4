//! Where traces go: to whom the standard variables name
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).
//!
//! `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` turns traces on.
//! Of the rest these are read here: `OTEL_SDK_DISABLED`, `OTEL_TRACES_EXPORTER` (`none`),
//! `OTEL_EXPORTER_OTLP_PROTOCOL` (`http/protobuf`, the default, or `grpc`),
//! `OTEL_TRACES_SAMPLER` and its `_ARG`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`; the
//! exporter itself reads those of headers, time-outs, certificates and batches.
//!
//! Spans wait in a queue that is bounded and drops what is beyond it, and a thread of its own
//! sends them: a receiver that is dead, slow or refuses costs no request anything.

mod client;

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{WithHttpConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, SpanData, SpanExporter};

use super::SAMPLER;
use crate::args::ConfigError;

/// How long the end of a process waits for what is not sent yet.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// How spans are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http,
    Grpc,
}

/// What makes spans, if the environment says where to. Must be called within a runtime.
pub(crate) fn tracer(process: &'static str) -> Result<Option<SdkTracer>, ConfigError> {
    let Some(protocol) = protocol(variable)? else {
        return Ok(None);
    };
    let sampler = sampler(variable)?;
    let exporter = exporter(protocol)
        .map_err(|error| ConfigError::new(format!("OTEL_EXPORTER_OTLP_*: {error:#}")))?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(Told {
            exporter,
            lost: Mutex::default(),
        })
        // What is not to be recorded has no span by then.
        .with_sampler(Sampler::AlwaysOn)
        .with_resource(resource(process))
        .build();
    let tracer = provider.tracer("sekali");
    // A second start in one process, which only tests have, goes on with the first.
    let _ = (SAMPLER.set(sampler), PROVIDER.set(provider));
    Ok(Some(tracer))
}

/// Who tells. The name of one's own gives way to the environment's, of which
/// `OTEL_SERVICE_NAME` goes before that among `OTEL_RESOURCE_ATTRIBUTES`.
fn resource(process: &'static str) -> Resource {
    let mut resource = Resource::builder_empty()
        .with_service_name(process)
        .with_detectors(&[
            Box::new(TelemetryResourceDetector),
            Box::new(EnvResourceDetector::new()),
        ]);
    if let Some(name) = variable("OTEL_SERVICE_NAME") {
        resource = resource.with_service_name(name);
    }
    let version = opentelemetry::KeyValue::new("service.version", crate::process::VERSION);
    resource.with_attribute(version).build()
}

/// Sends what waits, but not for longer than a moment.
pub(crate) async fn flush() {
    let Some(provider) = PROVIDER.get() else {
        return;
    };
    let shutdown = tokio::task::spawn_blocking(|| provider.shutdown_with_timeout(FLUSH_TIMEOUT));
    // A receiver that takes nothing was told of when it began to.
    let _ = tokio::time::timeout(FLUSH_TIMEOUT, shutdown).await;
}

/// A variable that says something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// How to send. None if nothing is to be sent.
fn protocol(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Protocol>, ConfigError> {
    let is = |name, value: &str| variable(name).is_some_and(|v| v.eq_ignore_ascii_case(value));
    let of_traces = |name: &str| {
        let specific = format!("OTEL_EXPORTER_OTLP_TRACES_{name}");
        variable(&specific).or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{name}")))
    };
    if is("OTEL_SDK_DISABLED", "true")
        || is("OTEL_TRACES_EXPORTER", "none")
        || of_traces("ENDPOINT").is_none()
    {
        return Ok(None);
    }
    match of_traces("PROTOCOL").as_deref() {
        None | Some("http/protobuf") => Ok(Some(Protocol::Http)),
        Some("grpc") => Ok(Some(Protocol::Grpc)),
        Some(other) => Err(ConfigError::new(format!(
            "OTEL_EXPORTER_OTLP_PROTOCOL: {other} is not known; it is http/protobuf or grpc"
        ))),
    }
}

fn sampler(variable: impl Fn(&str) -> Option<String>) -> Result<Sampler, ConfigError> {
    let ratio = || {
        let text = variable("OTEL_TRACES_SAMPLER_ARG").unwrap_or_else(|| "1".into());
        let ratio = text
            .parse()
            .ok()
            .filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.map(Sampler::TraceIdRatioBased).ok_or_else(|| {
            ConfigError::new(format!(
                "OTEL_TRACES_SAMPLER_ARG: {text} is no share between 0 and 1"
            ))
        })
    };
    let name = variable("OTEL_TRACES_SAMPLER").unwrap_or_else(|| "parentbased_always_on".into());
    let (based, root) = match name.strip_prefix("parentbased_") {
        Some(root) => (true, root),
        None => (false, &name[..]),
    };
    let root = match root {
        "always_on" => Sampler::AlwaysOn,
        "always_off" => Sampler::AlwaysOff,
        "traceidratio" => ratio()?,
        _ => {
            return Err(ConfigError::new(format!(
                "OTEL_TRACES_SAMPLER: {name} is not known; it is always_on, always_off or \
                 traceidratio, or one of them after parentbased_"
            )));
        }
    };
    Ok(if based {
        Sampler::ParentBased(Box::new(root))
    } else {
        root
    })
}

fn exporter(protocol: Protocol) -> anyhow::Result<opentelemetry_otlp::SpanExporter> {
    let builder = opentelemetry_otlp::SpanExporter::builder();
    let built = match protocol {
        Protocol::Http => builder
            .with_http()
            .with_http_client(client::Client::new()?)
            .build(),
        Protocol::Grpc => builder
            .with_tonic()
            .with_tls_config(ClientTlsConfig::new().with_enabled_roots())
            .build(),
    };
    Ok(built?)
}

/// Says once when spans can't be sent, and once when they can again.
#[derive(Debug)]
struct Told<E> {
    exporter: E,
    /// Spans that were lost since it began.
    lost: Mutex<Option<usize>>,
}

impl<E: SpanExporter> SpanExporter for Told<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Ok(()) => {
                if let Some(spans) = lost.take() {
                    tracing::info!(spans, "traces are exported again; these spans are lost");
                }
            }
            Err(error) => {
                if lost.is_none() {
                    tracing::warn!(%error, "can't export traces; spans are dropped until it works");
                }
                *lost = Some(lost.unwrap_or_default() + spans);
            }
        }
        drop(lost);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'e>(variables: &'e [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'e {
        |wanted| {
            let found = variables.iter().find(|(name, _)| *name == wanted)?;
            Some(found.1.to_owned())
        }
    }

    #[test]
    fn without_an_endpoint_nothing_is_sent() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        let specific = (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "http://collector:4317",
        );
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        for (variables, expected) in [
            (&[][..], None),
            (&[grpc], None),
            (&[endpoint], Some(Protocol::Http)),
            (&[specific, grpc], Some(Protocol::Grpc)),
            (&[endpoint, ("OTEL_SDK_DISABLED", "true")], None),
            (&[endpoint, ("OTEL_TRACES_EXPORTER", "none")], None),
        ] {
            assert_eq!(protocol(env(variables)).unwrap(), expected, "{variables:?}");
        }
        let json = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json");
        let error = protocol(env(&[endpoint, json])).unwrap_err().to_string();
        assert!(error.contains("http/json is not known"), "{error}");
    }

    #[test]
    fn the_sampler_is_one_of_the_standard_s() {
        let named = |name, ratio| {
            let variables = [
                ("OTEL_TRACES_SAMPLER", name),
                ("OTEL_TRACES_SAMPLER_ARG", ratio),
            ];
            sampler(env(&variables)).map(|sampler| format!("{sampler:?}"))
        };
        assert_eq!(named("always_off", "").unwrap(), "AlwaysOff");
        let ratio = "ParentBased(TraceIdRatioBased(0.01))";
        assert_eq!(named("parentbased_traceidratio", "0.01").unwrap(), ratio);
        let default = format!("{:?}", sampler(env(&[])).unwrap());
        assert_eq!(default, "ParentBased(AlwaysOn)");
        for (name, ratio) in [("xray", "1"), ("traceidratio", "2"), ("traceidratio", "x")] {
            assert!(named(name, ratio).is_err(), "{name} {ratio}");
        }
    }
}
