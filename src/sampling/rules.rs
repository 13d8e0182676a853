//! Sampling rules: the first whose conditions all hold decides.

use crate::http::head::Head;
use crate::http::path;
use crate::http::url;
use crate::sampling::limit::Limit;
use crate::sampling::matching::{
    Exceeded, HeaderMatch, SearchBudget, StringMatch, StringMatchKind, ValidTokens, any,
};
use crate::sampling::ratio::Ratio;

/// The direction of a request as the workload sees it; at a gateway all are inbound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Inbound,
    Outbound,
}

/// One rule, compiled.
#[derive(Debug, Clone)]
pub struct Rule {
    pub name: String,
    pub conditions: Conditions,
    pub action: Action,
    /// What it samples at most; beyond, it is as if its conditions did not hold.
    pub limit: Option<Limit>,
}

/// Returns the label that a rule has in metrics, where names of any characters cannot stand.
pub fn label_value(rule: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_./".contains(char);
    rule.chars().map(|char| if plain(char) { char } else { '_' }).collect()
}

/// The label of requests that no rule decided.
pub const NO_RULE: &str = "none";

/// What a rule decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Force,
    Drop,
    Ignore,
    /// The parent's decision; a request that has none is sampled with this ratio.
    Parent(Ratio),
}

/// What rules ask besides the headers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts {
    /// May be absent where [`Rules::needs_direction`] says that no rule asks for it.
    pub direction: Option<Direction>,
    pub tokens: ValidTokens,
}

/// Conditions on a request: all given ones hold, inside a list any one. Empty lists are not given.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    pub path: Vec<StringMatch>,
    pub method: Vec<StringMatch>,
    pub authority: Authority,
    pub headers: Vec<HeaderMatch>,
    pub direction: Option<Direction>,
}

/// Conditions on the authority: its host, and its port or that of the scheme. Empty lists are not
/// given.
#[derive(Debug, Clone, Default)]
pub struct Authority {
    pub host: Vec<StringMatch>,
    pub port: Vec<u16>,
}

/// Rules in order, with an index over those that look at the path by whole or by prefix, so that a
/// request pays for the rules that its path can meet and not for all.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    paths: PathIndex,
    /// Rules that the index does not cover, ascending.
    unindexed: Vec<usize>,
}

impl Rules {
    pub fn new(rules: Vec<Rule>) -> Self {
        let mut paths = PathIndex::default();
        let mut unindexed = Vec::new();
        for (place, rule) in rules.iter().enumerate() {
            if rule.conditions.path.is_empty() || !rule.conditions.path.iter().all(indexable) {
                unindexed.push(place);
                continue;
            }
            for condition in &rule.conditions.path {
                match &condition.kind {
                    StringMatchKind::Exact(path) => paths.insert(path, place, true),
                    StringMatchKind::Prefix(path) => paths.insert(path, place, false),
                    _ => {}
                }
            }
        }
        paths.link();
        Self { rules, paths, unindexed }
    }

    /// Returns the first rule whose conditions hold, and its place, which is `from` or behind it. A
    /// condition that exceeds the budget does not hold, and a path that is too long to be rewritten
    /// counts as empty.
    pub fn first_match(
        &self,
        head: &Head<'_>,
        facts: Facts,
        budget: &SearchBudget,
        from: usize,
    ) -> Option<(usize, &Rule)> {
        if self.rules.is_empty() {
            return None;
        }
        let path = path::normalized(head.target());
        if path.is_none() {
            budget.exceed();
        }
        let path = path.as_deref().unwrap_or_default();
        let mut first = usize::MAX;
        let mut consider = |place: usize, path_holds: bool| {
            if (from..first).contains(&place)
                && self.rules.get(place).is_some_and(|rule| {
                    (path_holds || rule.conditions.path_holds(path, budget) == Ok(true))
                        && rule.conditions.rest_holds(head, facts, budget) == Ok(true)
                })
            {
                first = place;
            }
        };
        self.paths.for_each(path, |place| consider(place, true));
        self.unindexed.iter().for_each(|place| consider(*place, false));
        self.rules.get(first).map(|rule| (first, rule))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// Tells whether any rule asks for the direction, which costs a property read.
    pub fn needs_direction(&self) -> bool {
        self.rules.iter().any(|rule| rule.conditions.direction.is_some())
    }
}

impl Conditions {
    fn path_holds(&self, path: &[u8], budget: &SearchBudget) -> Result<bool, Exceeded> {
        Ok(self.path.is_empty() || any(&self.path, |it| it.matches(path, budget))?)
    }

    fn rest_holds(
        &self,
        head: &Head<'_>,
        facts: Facts,
        budget: &SearchBudget,
    ) -> Result<bool, Exceeded> {
        Ok((self.direction.is_none() || self.direction == facts.direction)
            && (self.method.is_empty()
                || any(&self.method, |it| it.matches(head.method(), budget))?)
            && self.authority.holds(head, budget)?
            && (self.headers.is_empty()
                || any(&self.headers, |it| it.matches(head, facts.tokens, budget))?))
    }
}

impl Authority {
    /// Tells whether the host and the port of the request are among those that are given.
    pub fn holds(&self, head: &Head<'_>, budget: &SearchBudget) -> Result<bool, Exceeded> {
        if self.host.is_empty() && self.port.is_empty() {
            return Ok(true);
        }
        let (mut host, port) = url::host_and_port(head.authority());
        while let Some((b'.', rest)) = host.split_last() {
            host = rest;
        }
        let port = || port.or_else(|| url::default_port(head.scheme())).unwrap_or(80);
        Ok((self.port.is_empty() || self.port.contains(&port()))
            && (self.host.is_empty() || any(&self.host, |it| it.matches(host, budget))?))
    }
}

/// Exact paths and prefixes in order, each with the longest other prefix of itself: those that
/// hold for a path are found by one binary search and then along these links.
#[derive(Debug, Clone, Default)]
struct PathIndex {
    entries: Vec<PathEntry>,
}

#[derive(Debug, Clone)]
struct PathEntry {
    path: Vec<u8>,
    exact: Vec<usize>,
    prefix: Vec<usize>,
    shorter: Option<usize>,
}

impl PathIndex {
    fn insert(&mut self, path: &[u8], place: usize, exact: bool) {
        let found = self.entries.binary_search_by(|entry| entry.path.as_slice().cmp(path));
        let at = found.unwrap_or_else(|at| {
            let path = path.to_vec();
            let entry = PathEntry { path, exact: vec![], prefix: vec![], shorter: None };
            self.entries.insert(at, entry);
            at
        });
        if let Some(entry) = self.entries.get_mut(at) {
            if exact { &mut entry.exact } else { &mut entry.prefix }.push(place);
        }
    }

    /// Links each entry to the longest other one that begins it. Sorted order puts that one before
    /// it, and on the way from its neighbour along links that are already made.
    fn link(&mut self) {
        for at in 1..self.entries.len() {
            let mut shorter = Some(at - 1);
            while let Some(entry) = shorter.and_then(|place| self.entries.get(place)) {
                if self.entries.get(at).is_some_and(|longer| longer.path.starts_with(&entry.path)) {
                    break;
                }
                shorter = entry.shorter;
            }
            if let Some(entry) = self.entries.get_mut(at) {
                entry.shorter = shorter;
            }
        }
    }

    fn for_each(&self, path: &[u8], mut consider: impl FnMut(usize)) {
        let after = self.entries.partition_point(|entry| entry.path.as_slice() <= path);
        let mut next = after.checked_sub(1);
        while let Some(entry) = next.and_then(|at| self.entries.get(at)) {
            if path.starts_with(&entry.path) {
                entry.prefix.iter().for_each(|place| consider(*place));
                if path.len() == entry.path.len() {
                    entry.exact.iter().for_each(|place| consider(*place));
                }
            }
            next = entry.shorter;
        }
    }
}

fn indexable(condition: &StringMatch) -> bool {
    let by_whole_or_prefix =
        matches!(condition.kind, StringMatchKind::Exact(_) | StringMatchKind::Prefix(_));
    by_whole_or_prefix && !condition.ignore_case
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(kind: StringMatchKind, ignore_case: bool) -> StringMatch {
        StringMatch { kind, ignore_case }
    }

    fn exact(value: &str) -> StringMatch {
        path(StringMatchKind::Exact(value.into()), false)
    }

    fn prefix(value: &str) -> StringMatch {
        path(StringMatchKind::Prefix(value.into()), false)
    }

    fn suffix(value: &str) -> StringMatch {
        path(StringMatchKind::Suffix(value.into()), false)
    }

    fn rule(name: &str, conditions: Conditions) -> Rule {
        Rule { name: name.to_owned(), conditions, action: Action::Force, limit: None }
    }

    fn on_path(path: Vec<StringMatch>) -> Conditions {
        Conditions { path, ..Conditions::default() }
    }

    #[track_caller]
    fn check(rules: &[Rule], head: &[(&str, &str)], direction: Direction, expected: Option<&str>) {
        let head = crate::propagation::testing::head(head);
        let rules = Rules::new(rules.to_vec());
        let facts = Facts { direction: Some(direction), ..Facts::default() };
        let found = rules
            .first_match(&head, facts, &SearchBudget::default(), 0)
            .map(|(_, rule)| rule.name.as_str());
        assert_eq!(found, expected);
    }

    #[test]
    fn the_first_rule_that_matches_wins() {
        let rules = [
            rule("css", on_path(vec![suffix(".css")])),
            rule("deep", on_path(vec![prefix("/api/v1/items")])),
            rule("cart", on_path(vec![exact("/cart"), exact("/basket")])),
            rule("api", on_path(vec![prefix("/api"), prefix("/internal")])),
            rule("rest", Conditions { method: vec![exact("POST")], ..Conditions::default() }),
        ];
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
            check(&rules, &[(":method", "GET"), (":path", path)], Direction::Inbound, expected);
        }
        check(&rules, &[(":method", "POST"), (":path", "/x")], Direction::Inbound, Some("rest"));
        check(&rules, &[], Direction::Inbound, None);
    }

    #[test]
    fn a_rule_that_is_passed_over_leaves_the_request_to_the_next() {
        let rules = [
            rule("deep", on_path(vec![prefix("/a/b")])),
            rule("css", on_path(vec![suffix(".css")])),
            rule("all", on_path(vec![prefix("/a")])),
        ];
        let rules = Rules::new(rules.to_vec());
        let head = [(":path", "/a/b.css")];
        let head = crate::propagation::testing::head(&head);
        for (from, expected) in [(0, Some(0)), (1, Some(1)), (2, Some(2)), (3, None)] {
            let found = rules.first_match(&head, Facts::default(), &SearchBudget::default(), from);
            assert_eq!(found.map(|(place, _)| place), expected, "from {from}");
        }
    }

    #[test]
    fn all_conditions_of_a_rule_hold() {
        let rules = [rule(
            "all",
            Conditions {
                path: vec![prefix("/")],
                method: vec![exact("GET")],
                authority: Authority { host: vec![suffix(".shop")], port: vec![] },
                headers: vec![],
                direction: Some(Direction::Outbound),
            },
        )];
        let head =
            |method, authority| [(":path", "/"), (":method", method), (":authority", authority)];
        check(&rules, &head("GET", "a.shop"), Direction::Outbound, Some("all"));
        check(&rules, &head("GET", "a.shop"), Direction::Inbound, None);
        check(&rules, &head("PUT", "a.shop"), Direction::Outbound, None);
        check(&rules, &head("GET", "a.shed"), Direction::Outbound, None);
    }

    proptest! {
        /// The index is an optimisation: it finds what trying every rule in order finds.
        #[test]
        fn the_index_finds_what_a_scan_finds(
            paths in prop::collection::vec(prop::collection::vec(("[ab/]{0,4}", 0usize..4), 1..3), 0..12),
            target in "[ab/]{0,6}",
        ) {
            let rules: Vec<_> = paths
                .iter()
                .map(|conditions| {
                    let conditions = conditions.iter().map(|(value, kind)| match kind {
                        0 => exact(value),
                        1 | 2 => prefix(value),
                        _ => path(StringMatchKind::Prefix(value.clone().into()), true),
                    });
                    rule("", on_path(conditions.collect()))
                })
                .collect();
            let scanned = rules.iter().position(|rule| {
                let path = path::normalized(target.as_bytes()).unwrap();
                rule.conditions.path_holds(&path, &SearchBudget::default()) == Ok(true)
            });
            let head = [(":path", target.as_str())];
            let head = crate::propagation::testing::head(&head);
            let rules = Rules::new(rules);
            let found = rules.first_match(&head, Facts::default(), &SearchBudget::default(), 0);
            prop_assert_eq!(found.map(|(place, _)| place), scanned);
        }
    }
}
