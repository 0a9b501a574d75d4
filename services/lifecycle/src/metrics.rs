//! What every process counts about itself, and how it is read.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{IntGauge, Opts, PullingGauge, Registry, TEXT_FORMAT, TextEncoder};
use tokio_util::sync::CancellationToken;

use crate::Readiness;

/// A registry with what all processes have: `sekali_build_info{process, version}`, always
/// 1, and on Linux `process_start_time_seconds`, `process_cpu_seconds_total`,
/// `process_resident_memory_bytes`, `process_virtual_memory_bytes`, `process_open_fds`,
/// `process_max_fds` and `process_threads`, as Prometheus's own client libraries name
/// them.
pub fn registry(process: &str) -> prometheus::Result<Registry> {
    let registry = Registry::new();
    let build = IntGauge::with_opts(
        Opts::new("sekali_build_info", "The release that runs; always 1.")
            .const_label("process", process)
            .const_label("version", crate::process::VERSION),
    )?;
    build.set(1);
    registry.register(Box::new(build))?;
    #[cfg(target_os = "linux")]
    registry.register(Box::new(
        prometheus::process_collector::ProcessCollector::for_self(),
    ))?;
    Ok(registry)
}

/// `sekali_ready` and `sekali_draining`: 1 while they are so.
pub(crate) fn register_phase(
    registry: &Registry,
    readiness: &Readiness,
    draining: &CancellationToken,
) -> prometheus::Result<()> {
    let (readiness, draining) = (readiness.clone(), draining.clone());
    registry.register(Box::new(PullingGauge::new(
        "sekali_ready",
        "1 while it has started, does not drain and no check fails.",
        Box::new(move || u8::from(readiness.is_ready()).into()),
    )?))?;
    registry.register(Box::new(PullingGauge::new(
        "sekali_draining",
        "1 from the beginning of the drain.",
        Box::new(move || u8::from(draining.is_cancelled()).into()),
    )?))
}

/// `/metrics`, in Prometheus's text format.
pub fn router(registry: Registry) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(registry)
}

async fn metrics(State(registry): State<Registry>) -> Response {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => ([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics can't be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_says_its_version_and_what_it_takes() {
        let registry = registry("sekali-test").unwrap();
        let text = TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        let version = crate::process::VERSION;
        assert!(
            text.contains(&format!(
                r#"sekali_build_info{{process="sekali-test",version="{version}"}} 1"#
            )),
            "{text}"
        );
        #[cfg(target_os = "linux")]
        for name in [
            "process_start_time_seconds",
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_open_fds",
        ] {
            assert!(text.contains(&format!("\n{name} ")), "{name}: {text}");
        }
    }
}
