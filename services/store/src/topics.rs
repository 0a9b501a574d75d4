//! What a process remembers of the topics.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use crate::record::TopicIds;

/// Names and numbers as they were last read, all of them at once. It may be behind, so it
/// only saves work: whoever writes checks the epoch. What is read is taken whatever its epoch,
/// since a database that was put back from a copy has a lower one.
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
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Known { ids, epoch };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_of_a_database_that_was_put_back_take_the_place_of_later_ones() {
        let topics = TopicCache::new(1);
        topics.learn(HashMap::from([("after".into(), 7)]), 2);
        topics.learn(HashMap::from([("before".into(), 1)]), 1);
        let (ids, epoch) = topics.look_up(["before"].into_iter()).unwrap();
        assert_eq!((ids["before"], epoch), (Some(1), 1));
        assert!(topics.look_up(["after"].into_iter()).is_none());
        assert!(topics.is_beyond_limit("after") && !topics.is_beyond_limit("before"));
    }
}
