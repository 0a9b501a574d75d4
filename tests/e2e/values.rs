//! Values that can't work are refused with a sentence, before anything is installed.

use crate::cluster::helm;
use crate::release::flag;

/// What is set, and what is said of it.
const REFUSED: &[(&[&str], &str)] = &[
    (
        &["redis.enabled=false"],
        "say in externalRedis.host where there is one",
    ),
    (
        &["postgresql.enabled=false"],
        "say in externalPostgresql.host where there is one",
    ),
    (
        &["externalRedis.host=r"],
        "set it to false to use what is there already",
    ),
    (
        &["externalPostgresql.host=p"],
        "set it to false to use what is there already",
    ),
    (
        &["redis.enabled=false", "externalRedis.host=redis://r"],
        "externalRedis.host is a name or an address alone",
    ),
    (
        &[
            "redis.enabled=false",
            "externalRedis.host=r",
            "externalRedis.user=u",
        ],
        "externalRedis.user needs externalRedis.existingSecret",
    ),
    (
        &["auth.existingSecret=s", "auth.redisPassword=p"],
        "auth.redisPassword and auth.postgresqlPassword would not be used",
    ),
    (
        &[
            "publisher.enabled=true",
            "operator.enabled=false",
            "apiKeys.existingSecret=k",
        ],
        "publisher.enabled with apiKeys.existingSecret needs publisher.apiKey.existingSecret",
    ),
    (
        &["apiKeys.existingSecret=k"],
        "operator.enabled with apiKeys.existingSecret needs publisher.apiKey.existingSecret",
    ),
    (
        &["operator.workers.targetLag=500ms"],
        "does not match pattern",
    ),
    (&["operator.workers.targetLag=2h"], "does not match pattern"),
    (
        &["operator.workers.quietPeriod=25h"],
        "does not match pattern",
    ),
    (
        &["--set-string=postgresql.settings.synchronous_commit=off"],
        "what was acknowledged could be lost",
    ),
    (
        &["--set-string=postgresql.settings.fsync=off"],
        "what was acknowledged could be lost",
    ),
    (
        &["postgresql.settings.fsync=f"],
        "what was acknowledged could be lost",
    ),
    (
        &["postgresql.settings.FSYNC=off"],
        "what was acknowledged could be lost",
    ),
    (
        &["postgresql.settings.full_page_writes=n"],
        "what was acknowledged could be lost",
    ),
    (
        &["postgresql.settings.Synchronous_Commit=local"],
        "what was acknowledged could be lost",
    ),
    // PostgreSQL takes it for the other spelling.
    (
        &["postgresql.settings.synchronous-commit=off"],
        "does not match pattern",
    ),
    (&["redis.settings.appendonly=no"], "is the chart's to set"),
    (
        &["redis.settings.no-appendfsync-on-rewrite=yes"],
        "is the chart's to set",
    ),
    (
        &["redis.settings.include=/tmp/other.conf"],
        "is the chart's to set",
    ),
    (&["redis.settings.port=6380"], "is the chart's to set"),
    (&["redis.settings.replicaof=a 1"], "is the chart's to set"),
    (&["redis.settings.aclfile=/tmp/a"], "is the chart's to set"),
    (
        &["redis.settings.appendfilename=other"],
        "is the chart's to set",
    ),
    (&["redis.settings.appendonly =no"], "does not match pattern"),
    (&["redis.settings.APPENDONLY=no"], "does not match pattern"),
    (
        &["redis.settings.hz=20\nappendonly no"],
        "does not match pattern",
    ),
    (
        &["redis.appendfsync=no"],
        "value must be one of 'always', 'everysec'",
    ),
    (
        &[
            "metrics.scrapeAnnotations=true",
            "metrics.podMonitor.enabled=true",
        ],
        "what finds both counts every event twice",
    ),
    (
        &[
            "metrics.serviceMonitor.enabled=true",
            "networkPolicy.publishFrom[0].podSelector.matchLabels.a=b",
        ],
        "say in networkPolicy.metricsFrom where Prometheus is",
    ),
    (
        &["tracing.endpoint=collector:4318"],
        "it has to be an address such as http://collector:4318",
    ),
    (
        &["tracing.endpoint=http://user:secret@collector:4318"],
        "goes into tracing.headers",
    ),
    (
        &["tracing.protocol=http/json"],
        "value must be one of 'http/protobuf', 'grpc'",
    ),
    (&["tracing.sampleRatio=10"], "maximum: got 10, want 1"),
    (&["tracing.sampleRatio=1.5"], "does not match pattern"),
    (&["redis.maxmemory=1Mi"], "less than 16Mi holds no queue"),
    (&["redis.maxmemory=300Mi"], "at least twice redis.maxmemory"),
    (
        &["redis.persistence.size=2Gi"],
        "at least three times redis.maxmemory",
    ),
    (&["redis.maxmemory=lots"], "does not match pattern"),
    (
        &["worker.replicas=17"],
        "postgresql.settings.max_connections is 150",
    ),
    // Those that drain have theirs still.
    (
        &["aggregator.replicas=7"],
        "need up to 155 connections, and postgresql.settings.max_connections is 150",
    ),
    (
        &["worker.extraArgs[0]=--database-connections=30"],
        "need up to 169 connections",
    ),
    (
        &[
            "aggregator.extraEnv[0].name=DATABASE_CONNECTIONS",
            "--set-string=aggregator.extraEnv[0].value=60",
        ],
        "need up to 163 connections",
    ),
    (
        &[
            "aggregator.autoscaling.enabled=true",
            "aggregator.autoscaling.min=5",
            "aggregator.autoscaling.max=4",
        ],
        "aggregator.autoscaling.min (5) is more than max (4)",
    ),
    (
        &[
            "aggregator.autoscaling.enabled=true",
            "aggregator.resources.requests.cpu=null",
        ],
        "needs aggregator.resources.requests.cpu",
    ),
    (
        &["aggregator.service.nodePort=30080"],
        "needs aggregator.service.type NodePort",
    ),
    (
        &["aggregator.drain.delaySeconds=25"],
        "has to be less than deadlineSeconds",
    ),
    (
        &["worker.terminationGracePeriodSeconds=25"],
        "or pods are killed in it",
    ),
    (
        &["worker.replicsa=2"],
        "additional properties 'replicsa' not allowed",
    ),
    (&["brokerPrefix=a b"], "does not match pattern"),
    (&["image.digest=sha256:1"], "does not match pattern"),
    (
        &["externalPostgresql.sslMode=maybe"],
        "value must be one of",
    ),
];

#[test]
fn values_that_can_not_work_are_refused_with_a_sentence() {
    assert!(REFUSED.len() >= 20);
    for (settings, sentence) in REFUSED {
        let flags: Vec<_> = settings.iter().map(|setting| flag(setting)).collect();
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let rendered = helm(&[&["template", "sekali", "charts/sekali"], &*flags].concat());
        let error = rendered.expect_err(&settings.join(" "));
        assert!(error.contains(sentence), "{settings:?}: {error}");
    }
    helm(&["template", "sekali", "charts/sekali"]).unwrap();
}

#[test]
fn values_at_the_edge_of_what_can_work_are_taken() {
    for setting in [
        "postgresql.settings.fsync=on",
        "postgresql.settings.synchronous_commit=remote_apply",
        "aggregator.replicas=6",
        "operator.workers.targetLag=1s",
        "operator.workers.targetLag=1h",
        "operator.workers.quietPeriod=0s",
        "operator.workers.quietPeriod=24h",
    ] {
        let setting = flag(setting);
        helm(&["template", "sekali", "charts/sekali", &setting]).unwrap();
    }
}
