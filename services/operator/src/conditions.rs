//! Conditions, as Kubernetes' own resources have them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::time::whole_seconds;

/// The longest message that the API server takes.
const MAX_MESSAGE: usize = 32_768;

/// The reason of a condition while the API server refuses what it takes to know more.
pub(crate) const REFUSED: &str = "Refused";

/// What is said of one aspect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Aspect {
    pub(crate) type_: &'static str,
    pub(crate) status: Truth,
    /// One word in CamelCase.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Truth {
    fn from(truth: bool) -> Self {
        if truth { Self::True } else { Self::False }
    }
}

impl Aspect {
    pub(crate) fn new(
        type_: &'static str,
        status: impl Into<Truth>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            type_,
            status: status.into(),
            reason,
            message: message.into(),
        }
    }

    /// Enters it among the conditions. The time of the transition is that of the last flip of
    /// the status: a new reason alone is none.
    pub(crate) fn enter(
        self,
        conditions: &mut Vec<Condition>,
        generation: Option<i64>,
        now: Timestamp,
    ) {
        let status = self.status.as_str();
        let before = conditions.iter_mut().find(|one| one.type_ == self.type_);
        let since = match &before {
            Some(before) if before.status == status => before.last_transition_time.clone(),
            _ => Time(whole_seconds(now)),
        };
        let condition = Condition {
            type_: self.type_.into(),
            status: status.into(),
            reason: self.reason.into(),
            message: self.message.chars().take(MAX_MESSAGE).collect(),
            last_transition_time: since,
            observed_generation: generation,
        };
        match before {
            Some(before) => *before = condition,
            None => conditions.push(condition),
        }
    }
}

/// The condition of a type.
pub(crate) fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|one| one.type_ == type_)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn the_time_of_transition_is_that_of_the_last_flip() {
        let mut conditions = Vec::new();
        let enter = |conditions: &mut Vec<_>, status: bool, reason, generation, millis| {
            Aspect::new("Ready", status, reason, "").enter(
                conditions,
                Some(generation),
                at(millis),
            );
            let ready = find(conditions, "Ready").unwrap();
            assert_eq!(conditions.len(), 1);
            assert_eq!(ready.reason, reason);
            assert_eq!(ready.observed_generation, Some(generation));
            ready.last_transition_time.0
        };
        assert_eq!(enter(&mut conditions, true, "Good", 1, 1_500), at(1_000));
        assert_eq!(enter(&mut conditions, true, "Better", 2, 2_000), at(1_000));
        assert_eq!(enter(&mut conditions, false, "Bad", 2, 3_000), at(3_000));
        assert_eq!(enter(&mut conditions, true, "Good", 2, 4_000), at(4_000));
    }
}
