//! What a process remembers of the topics.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use crate::record::TopicIds;

/// Names and numbers as they were last read, all of them at once. It may be behind, so it
/// only saves work: whoever writes checks the epoch.
#[derive(Debug)]
pub(crate) struct TopicCache {
    limit: usize,
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    ids: HashMap<String, i32>,
    epoch: i64,
}

impl TopicCache {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            limit: limit as usize,
            known: RwLock::default(),
        }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// The numbers of these topics and the epoch they are of, if all are known.
    pub(crate) fn look_up<'t>(
        &self,
        names: impl Iterator<Item = &'t str>,
    ) -> Option<(TopicIds, i64)> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let id = |name: &str| known.ids.get(name).map(|id| (name.to_owned(), Some(*id)));
        Some((names.map(id).collect::<Option<_>>()?, known.epoch))
    }

    pub(crate) fn learn(&self, ids: HashMap<String, i32>, epoch: i64) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if epoch >= known.epoch {
            *known = Known { ids, epoch };
        }
    }

    pub(crate) fn forget(&self) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Known::default();
    }

    /// Whether there was no room for a topic of this name when the topics were last read.
    pub(crate) fn is_beyond_limit(&self, name: &str) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.ids.len() >= self.limit && !known.ids.contains_key(name)
    }
}
