use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{find, free_port};
use crate::prometheus::{Api, rules};
use crate::{Program, directory, until};

/// A Prometheus that scrapes every second.
pub struct Prometheus {
    api: Api,
    _program: Program,
    _directory: TempDir,
}

impl Prometheus {
    /// Starts one that scrapes these, as targets of one job, and evaluates our rules.
    pub async fn start(targets: &[SocketAddr]) -> Self {
        let directory = directory();
        let mut config = String::from(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\n\
             rule_files: [rules.yaml]\n\
             scrape_configs: [{job_name: sekali, static_configs: [{targets: [",
        );
        for target in targets {
            write!(config, "'{target}', ").unwrap();
        }
        config.push_str("]}]}]\n");
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("prometheus.yaml"), config).unwrap();
        std::fs::write(path("rules.yaml"), rules()).unwrap();
        let port = free_port();
        let mut command = Command::new(find("find_program prometheus"));
        command
            .arg(format!(
                "--config.file={}",
                path("prometheus.yaml").display()
            ))
            .arg(format!("--storage.tsdb.path={}", path("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let prometheus = Self {
            api: Api::at(format!("http://127.0.0.1:{port}")),
            _program: Program::spawn("prometheus", &mut command),
            _directory: directory,
        };
        until("prometheus is ready", async || {
            prometheus.api.is_ready().await
        })
        .await;
        prometheus
    }

    /// What is asked of it.
    pub fn api(&self) -> &Api {
        &self.api
    }
}
