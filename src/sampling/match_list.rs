//! Conditions on requests in order, of which the first that a request meets counts: those of sampling
//! rules, and those of span names.

use super::conditions::{Conditions, MatchFacts};
use super::matching::{StringMatch, any_matches};
use super::path_index::PathIndex;
use super::search_budget::{BudgetExceeded, SearchBudget};
use crate::http::head::Head;
use crate::http::path;

/// Conditions on a request. All of them must match.
#[derive(Debug, Clone, Default)]
pub struct RequestMatch {
    /// Conditions on the normal path, without its query; one of them must match. An empty list is no
    /// condition.
    pub paths: Vec<StringMatch>,
    pub conditions: Conditions,
}

/// Conditions of several entries, in order.
#[derive(Debug, Clone, Default)]
pub struct MatchList {
    entries: Vec<RequestMatch>,
    /// The entries that look at the path by exact values and prefixes alone.
    path_index: PathIndex,
    /// Indices of the other entries, ascending.
    unindexed: Vec<usize>,
}

impl MatchList {
    pub fn new(entries: Vec<RequestMatch>) -> Self {
        let is_indexed = |entry: &RequestMatch| {
            !entry.paths.is_empty() && entry.paths.iter().all(PathIndex::covers)
        };
        let (indexed, unindexed): (Vec<_>, Vec<_>) =
            entries.iter().enumerate().partition(|(_, entry)| is_indexed(entry));
        let paths = indexed.into_iter().map(|(index, entry)| (index, entry.paths.as_slice()));
        let path_index = PathIndex::new(paths);
        let unindexed = unindexed.into_iter().map(|(index, _)| index).collect();
        Self { entries, path_index, unindexed }
    }

    /// Returns the index of the first entry that matches; it is at least `from`. An entry does not
    /// match if a condition exceeds the budget. A path that is too long to be normalized exceeds the
    /// budget and counts as empty.
    pub fn first(
        &self,
        head: &Head<'_>,
        facts: MatchFacts<'_>,
        budget: &SearchBudget,
        from: usize,
    ) -> Option<usize> {
        if self.entries.is_empty() {
            return None;
        }
        let path = path::normalized(head.target());
        if path.is_none() {
            budget.exhaust();
        }
        let path = path.as_deref().unwrap_or_default();
        let mut first = usize::MAX;
        let mut consider = |index: usize, path_matches: bool| {
            if (from..first).contains(&index)
                && self.entries.get(index).is_some_and(|entry| {
                    (path_matches || entry.path_matches(path, budget) == Ok(true))
                        && entry.conditions.matches(head, facts, budget) == Ok(true)
                })
            {
                first = index;
            }
        };
        self.path_index.for_each_match(path, |index| consider(index, true));
        self.unindexed.iter().for_each(|index| consider(*index, false));
        (first != usize::MAX).then_some(first)
    }

    /// Returns the conditions of each entry, without those on the path.
    pub fn conditions(&self) -> impl Iterator<Item = &Conditions> {
        self.entries.iter().map(|entry| &entry.conditions)
    }
}

impl RequestMatch {
    fn path_matches(&self, path: &[u8], budget: &SearchBudget) -> Result<bool, BudgetExceeded> {
        Ok(self.paths.is_empty() || any_matches(&self.paths, |it| it.matches(path, budget))?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::propagation::testing::head;
    use crate::sampling::matching::StringMatchKind;

    fn string_match(kind: StringMatchKind) -> StringMatch {
        StringMatch { kind, ignore_case: false }
    }

    fn exact(value: &str) -> StringMatch {
        string_match(StringMatchKind::Exact(value.into()))
    }

    fn prefix(value: &str) -> StringMatch {
        string_match(StringMatchKind::Prefix(value.into()))
    }

    fn suffix(value: &str) -> StringMatch {
        string_match(StringMatchKind::Suffix(value.into()))
    }

    fn of_paths(paths: Vec<StringMatch>) -> RequestMatch {
        RequestMatch { paths, conditions: Conditions::default() }
    }

    #[track_caller]
    fn check(list: &MatchList, headers: &[(&str, &str)], from: usize, expected: Option<usize>) {
        let budget = SearchBudget::default();
        let found = list.first(&head(headers), MatchFacts::default(), &budget, from);
        assert_eq!(found, expected, "{headers:?} from {from}");
    }

    #[test]
    fn the_first_match_counts() {
        let posts = Conditions { methods: vec![exact("POST")], ..Conditions::default() };
        let list = MatchList::new(vec![
            of_paths(vec![suffix(".css")]),
            of_paths(vec![prefix("/api/v1/items")]),
            of_paths(vec![exact("/cart"), exact("/basket")]),
            of_paths(vec![prefix("/api"), prefix("/internal")]),
            RequestMatch { conditions: posts, ..RequestMatch::default() },
        ]);
        for (path, expected) in [
            ("/api/v1/items/1", Some(1)),
            ("/api/v1/items.css", Some(0)),
            ("/api/v2", Some(3)),
            ("/internal", Some(3)),
            ("/cart", Some(2)),
            ("/cart?x=/api", Some(2)),
            ("/basket", Some(2)),
            ("/cart/1", None),
            ("/ap", None),
            ("/b", None),
        ] {
            check(&list, &[(":method", "GET"), (":path", path)], 0, expected);
        }
        check(&list, &[(":method", "POST"), (":path", "/x")], 0, Some(4));
        check(&list, &[], 0, None);
        check(&MatchList::default(), &[(":path", "/")], 0, None);
    }

    #[test]
    fn a_search_from_an_index_skips_the_entries_before() {
        let list = MatchList::new(vec![
            of_paths(vec![prefix("/a/b")]),
            of_paths(vec![suffix(".css")]),
            of_paths(vec![prefix("/a")]),
        ]);
        for (from, expected) in [(0, Some(0)), (1, Some(1)), (2, Some(2)), (3, None)] {
            check(&list, &[(":path", "/a/b.css")], from, expected);
        }
    }

    #[test]
    fn an_entry_matches_if_its_path_and_its_other_conditions_do() {
        let gets = Conditions { methods: vec![exact("GET")], ..Conditions::default() };
        for path in [exact("/a"), suffix("/a")] {
            let list =
                MatchList::new(vec![RequestMatch { paths: vec![path], conditions: gets.clone() }]);
            check(&list, &[(":method", "GET"), (":path", "/a")], 0, Some(0));
            check(&list, &[(":method", "PUT"), (":path", "/a")], 0, None);
            check(&list, &[(":method", "GET"), (":path", "/b")], 0, None);
        }
    }

    proptest! {
        /// The index is an optimisation: it finds the entry that a scan of all entries finds.
        #[test]
        fn the_index_finds_the_entry_that_a_scan_finds(
            paths in prop::collection::vec(prop::collection::vec(("[ab/]{0,4}", 0usize..4), 1..3), 0..12),
            target in "[ab/]{0,6}",
        ) {
            let entries: Vec<_> = paths
                .iter()
                .map(|conditions| {
                    let conditions = conditions.iter().map(|(value, kind)| match kind {
                        0 => exact(value),
                        1 | 2 => prefix(value),
                        _ => StringMatch { ignore_case: true, ..prefix(value) },
                    });
                    of_paths(conditions.collect())
                })
                .collect();
            let path = path::normalized(target.as_bytes()).unwrap();
            let budget = SearchBudget::default();
            let scanned =
                entries.iter().position(|entry| entry.path_matches(&path, &budget) == Ok(true));
            let headers = [(":path", target.as_str())];
            let list = MatchList::new(entries);
            let found = list.first(&head(&headers), MatchFacts::default(), &budget, 0);
            prop_assert_eq!(found, scanned);
        }
    }
}
