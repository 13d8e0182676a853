//! An index over paths and prefixes, so that a request pays only for the rules that its path can match.

use super::matching::{StringMatch, StringMatchKind};

/// Rules by the paths and prefixes that they match.
///
/// Each entry links to the longest other entry that is a prefix of it. So one binary search finds the
/// longest entry that a path begins with, and the links lead to all shorter ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct PathIndex {
    /// Sorted by path.
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    path: Vec<u8>,
    /// Indices of the rules that match this path alone.
    exact: Vec<usize>,
    /// Indices of the rules that match all paths with this prefix.
    prefix: Vec<usize>,
    /// Index of the longest other entry that is a prefix of this one.
    shorter: Option<usize>,
}

impl PathIndex {
    /// Returns the index over rules, each given by its index and its conditions on the path. Only those
    /// conditions count for which [`PathIndex::covers`] holds.
    pub(crate) fn new<'m>(rules: impl Iterator<Item = (usize, &'m [StringMatch])>) -> Self {
        let mut index = Self::default();
        for (rule, conditions) in rules {
            for condition in conditions {
                match &condition.kind {
                    StringMatchKind::Exact(path) => index.insert(path, rule, true),
                    StringMatchKind::Prefix(path) => index.insert(path, rule, false),
                    _ => {}
                }
            }
        }
        index.link();
        index
    }

    /// Tells whether an index can hold a condition.
    pub(crate) fn covers(condition: &StringMatch) -> bool {
        let is_path_or_prefix =
            matches!(condition.kind, StringMatchKind::Exact(_) | StringMatchKind::Prefix(_));
        is_path_or_prefix && !condition.ignore_case
    }

    /// Calls `visit` with the index of each rule that matches a path, in no particular order.
    pub(crate) fn for_each_match(&self, path: &[u8], mut visit: impl FnMut(usize)) {
        let after = self.entries.partition_point(|entry| entry.path.as_slice() <= path);
        let mut next = after.checked_sub(1);
        while let Some(entry) = next.and_then(|index| self.entries.get(index)) {
            if path.starts_with(&entry.path) {
                entry.prefix.iter().for_each(|rule| visit(*rule));
                if path.len() == entry.path.len() {
                    entry.exact.iter().for_each(|rule| visit(*rule));
                }
            }
            next = entry.shorter;
        }
    }

    fn insert(&mut self, path: &[u8], rule: usize, is_exact: bool) {
        let found = self.entries.binary_search_by(|entry| entry.path.as_slice().cmp(path));
        let index = found.unwrap_or_else(|index| {
            let path = path.to_vec();
            let entry = Entry { path, exact: vec![], prefix: vec![], shorter: None };
            self.entries.insert(index, entry);
            index
        });
        if let Some(entry) = self.entries.get_mut(index) {
            if is_exact { &mut entry.exact } else { &mut entry.prefix }.push(rule);
        }
    }

    /// Sets the links. In sorted order the longest prefix of an entry is its neighbour before, or one of
    /// those that the neighbour's links lead to.
    fn link(&mut self) {
        for index in 1..self.entries.len() {
            let mut shorter = Some(index - 1);
            while let Some(entry) = shorter.and_then(|shorter| self.entries.get(shorter)) {
                if self.entries.get(index).is_some_and(|it| it.path.starts_with(&entry.path)) {
                    break;
                }
                shorter = entry.shorter;
            }
            if let Some(entry) = self.entries.get_mut(index) {
                entry.shorter = shorter;
            }
        }
    }
}
