//! Sampling rules: the first rule whose conditions all match decides.

use super::conditions::{Conditions, MatchFacts};
use super::limit::Limit;
use super::matching::{StringMatch, any_matches};
use super::path_index::PathIndex;
use super::ratio::Ratio;
use super::search_budget::{BudgetExceeded, SearchBudget};
use crate::http::head::Head;
use crate::http::path;

/// A sampling rule.
#[derive(Debug, Clone)]
pub struct Rule {
    pub name: String,
    /// Conditions on the normal path, without its query; one of them must match. An empty list is no
    /// condition.
    pub paths: Vec<StringMatch>,
    pub conditions: Conditions,
    pub action: Action,
    /// The limit of requests that the rule samples. A request over the limit goes on to the next rule.
    pub limit: Option<Limit>,
}

/// What a rule decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Force,
    Drop,
    Ignore,
    /// Follow the parent's decision; sample requests without one by this ratio.
    Parent(Ratio),
}

/// Sampling rules in order.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    /// The rules that look at the path by exact values and prefixes alone.
    path_index: PathIndex,
    /// Indices of the other rules, ascending.
    unindexed: Vec<usize>,
}

impl Rules {
    pub fn new(rules: Vec<Rule>) -> Self {
        let is_indexed =
            |rule: &Rule| !rule.paths.is_empty() && rule.paths.iter().all(PathIndex::covers);
        let (indexed, unindexed): (Vec<_>, Vec<_>) =
            rules.iter().enumerate().partition(|(_, rule)| is_indexed(rule));
        let paths = indexed.into_iter().map(|(index, rule)| (index, rule.paths.as_slice()));
        let path_index = PathIndex::new(paths);
        let unindexed = unindexed.into_iter().map(|(index, _)| index).collect();
        Self { rules, path_index, unindexed }
    }

    /// Returns the first rule that matches and its index, which is at least `from`. A rule does not
    /// match if a condition exceeds the budget. A path that is too long to be normalized exceeds the
    /// budget and counts as empty.
    pub fn first_match(
        &self,
        head: &Head<'_>,
        facts: MatchFacts<'_>,
        budget: &SearchBudget,
        from: usize,
    ) -> Option<(usize, &Rule)> {
        if self.rules.is_empty() {
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
                && self.rules.get(index).is_some_and(|rule| {
                    (path_matches || rule.path_matches(path, budget) == Ok(true))
                        && rule.conditions.matches(head, facts, budget) == Ok(true)
                })
            {
                first = index;
            }
        };
        self.path_index.for_each_match(path, |index| consider(index, true));
        self.unindexed.iter().for_each(|index| consider(*index, false));
        self.rules.get(first).map(|rule| (first, rule))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// Tells whether a rule needs the direction, which costs a hostcall.
    pub fn needs_direction(&self) -> bool {
        self.rules.iter().any(|rule| rule.conditions.needs_direction())
    }
}

impl Rule {
    fn path_matches(&self, path: &[u8], budget: &SearchBudget) -> Result<bool, BudgetExceeded> {
        Ok(self.paths.is_empty() || any_matches(&self.paths, |it| it.matches(path, budget))?)
    }
}

/// Returns the label value of a rule in metrics: its name, with `_` for every character that is not
/// allowed there.
pub(crate) fn label_value(rule: &str) -> String {
    let is_allowed = |char: char| char.is_ascii_alphanumeric() || "-_./".contains(char);
    rule.chars().map(|char| if is_allowed(char) { char } else { '_' }).collect()
}

/// The label value of requests that no rule decided.
pub(crate) const NO_RULE: &str = "none";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::propagation::testing::head;
    use crate::sampling::conditions::Direction;
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

    fn rule(name: &str, paths: Vec<StringMatch>) -> Rule {
        Rule {
            name: name.to_owned(),
            paths,
            conditions: Conditions::default(),
            action: Action::Force,
            limit: None,
        }
    }

    #[track_caller]
    fn check(rules: &Rules, headers: &[(&str, &str)], from: usize, expected: Option<&str>) {
        let budget = SearchBudget::default();
        let head = head(headers);
        let found = rules.first_match(&head, MatchFacts::default(), &budget, from);
        assert_eq!(found.map(|(_, rule)| &*rule.name), expected, "{headers:?} from {from}");
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let posts = Conditions { methods: vec![exact("POST")], ..Conditions::default() };
        let rules = Rules::new(vec![
            rule("css", vec![suffix(".css")]),
            rule("deep", vec![prefix("/api/v1/items")]),
            rule("cart", vec![exact("/cart"), exact("/basket")]),
            rule("api", vec![prefix("/api"), prefix("/internal")]),
            Rule { conditions: posts, ..rule("posts", vec![]) },
        ]);
        for (path, expected) in [
            ("/api/v1/items/1", Some("deep")),
            ("/api/v1/items.css", Some("css")),
            ("/api/v2", Some("api")),
            ("/internal", Some("api")),
            ("/cart", Some("cart")),
            ("/cart?x=/api", Some("cart")),
            ("/basket", Some("cart")),
            ("/cart/1", None),
            ("/ap", None),
            ("/b", None),
        ] {
            check(&rules, &[(":method", "GET"), (":path", path)], 0, expected);
        }
        check(&rules, &[(":method", "POST"), (":path", "/x")], 0, Some("posts"));
        check(&rules, &[], 0, None);
    }

    #[test]
    fn a_search_from_an_index_skips_the_rules_before() {
        let rules = Rules::new(vec![
            rule("deep", vec![prefix("/a/b")]),
            rule("css", vec![suffix(".css")]),
            rule("all", vec![prefix("/a")]),
        ]);
        for (from, expected) in [(0, Some("deep")), (1, Some("css")), (2, Some("all")), (3, None)] {
            check(&rules, &[(":path", "/a/b.css")], from, expected);
        }
    }

    #[test]
    fn a_rule_matches_if_its_path_and_its_other_conditions_do() {
        let gets = Conditions { methods: vec![exact("GET")], ..Conditions::default() };
        let paths = [exact("/a"), suffix("/a")].map(|condition| vec![condition]);
        for paths in paths {
            let rules = Rules::new(vec![Rule { conditions: gets.clone(), ..rule("a", paths) }]);
            check(&rules, &[(":method", "GET"), (":path", "/a")], 0, Some("a"));
            check(&rules, &[(":method", "PUT"), (":path", "/a")], 0, None);
            check(&rules, &[(":method", "GET"), (":path", "/b")], 0, None);
        }
    }

    #[test]
    fn the_direction_is_needed_if_a_rule_has_one() {
        let direction = Some(Direction::Inbound);
        let inbound = Conditions { direction, ..Conditions::default() };
        let without = rule("a", vec![]);
        let with = Rule { conditions: inbound, ..rule("b", vec![]) };
        assert!(!Rules::new(vec![without.clone()]).needs_direction());
        assert!(Rules::new(vec![without, with]).needs_direction());
    }

    proptest! {
        /// The index is an optimisation: it finds the rule that a scan of all rules finds.
        #[test]
        fn the_index_finds_the_rule_that_a_scan_finds(
            paths in prop::collection::vec(prop::collection::vec(("[ab/]{0,4}", 0usize..4), 1..3), 0..12),
            target in "[ab/]{0,6}",
        ) {
            let rules: Vec<_> = paths
                .iter()
                .map(|conditions| {
                    let conditions = conditions.iter().map(|(value, kind)| match kind {
                        0 => exact(value),
                        1 | 2 => prefix(value),
                        _ => StringMatch { ignore_case: true, ..prefix(value) },
                    });
                    rule("", conditions.collect())
                })
                .collect();
            let path = path::normalized(target.as_bytes()).unwrap();
            let budget = SearchBudget::default();
            let scanned = rules.iter().position(|rule| rule.path_matches(&path, &budget) == Ok(true));
            let headers = [(":path", target.as_str())];
            let found = Rules::new(rules);
            let found = found.first_match(&head(&headers), MatchFacts::default(), &budget, 0);
            prop_assert_eq!(found.map(|(index, _)| index), scanned);
        }
    }
}
