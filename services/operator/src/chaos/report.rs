//! What a publisher says in its termination message.

use serde::Deserialize;

/// The report of `sekali-publisher`, as far as it is of interest here.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct Report {
    pub(crate) passed: bool,
    pub(crate) sent: i64,
    pub(crate) acknowledged: i64,
    pub(crate) refused: Refused,
    /// Until the last answer.
    pub(crate) seconds: f64,
    pub(crate) latency_ms: Latency,
    pub(crate) end_to_end: Option<EndToEnd>,
    pub(crate) verdict: Option<Findings>,
    pub(crate) failures: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct Refused {
    pub(crate) expected: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p99: f64,
}

/// Until the queue was empty.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct EndToEnd {
    pub(crate) seconds: f64,
}

/// What was found when all was read back.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct Findings {
    pub(crate) good: bool,
    pub(crate) words: String,
    pub(crate) expected: i64,
    pub(crate) stored: i64,
    pub(crate) duplicates: i64,
    pub(crate) conflicts: i64,
    pub(crate) missing: i64,
    pub(crate) doubled: i64,
    pub(crate) foreign: i64,
    pub(crate) altered: i64,
}

/// Reads a termination message; what can't be read is told with its beginning.
pub(crate) fn parse(message: &str) -> Result<Report, String> {
    serde_json::from_str(message).map_err(|error| {
        let beginning: String = message.chars().take(200).collect();
        format!("its termination message is no report ({error}): {beginning}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the publisher writes it; its own tests hold it to that.
    const REPORT: &str = r#"{"passed":true,"target":"http://sekali:8080","run":"r","seed":7,
        "complete":true,"sent":1000,"attempted":1100,"acknowledged":990,
        "refused":{"expected":10,"unexpected":0},"failed":0,"requests":10,"retried":1,
        "seconds":1.5,"events_per_second":660.0,
        "latency_ms":{"p50":1.0,"p99":12.345,"p999":20.0,"max":30.0},
        "end_to_end":{"seconds":2.0,"events_per_second":495.0},
        "verdict":{"good":true,"words":"GOOD: all","expected":700,"stored":700,"duplicates":290,
            "conflicts":1,"missing":0,"doubled":0,"foreign":0,"altered":0,"earlier":0,
            "books_off":0,"examples":[]},
        "resume_from_line":null,"failures":[]}"#;

    #[test]
    fn a_report_is_read() {
        let report = parse(REPORT).unwrap();
        assert!(report.passed);
        assert_eq!((report.sent, report.acknowledged), (1_000, 990));
        assert_eq!(report.end_to_end, Some(EndToEnd { seconds: 2.0 }));
        let findings = report.verdict.unwrap();
        assert_eq!((findings.expected, findings.duplicates), (700, 290));
    }

    #[test]
    fn what_is_no_report_is_told_and_short() {
        let why = parse(&"x".repeat(5_000)).unwrap_err();
        assert!(why.contains("no report") && why.len() < 400, "{why}");
        assert!(parse("{}").is_err());
    }
}
