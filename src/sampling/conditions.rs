//! Conditions on a request. Rules of sampling, trust and egress, and names of spans share them.
//!
//! A new condition is a field of [`Conditions`], its check in [`Conditions::matches`], and its key in
//! `config/sampling.rs` or `config/propagation.rs`. The conditions on the path are apart, in [`super::match_list`], which has an index
//! over them.

use super::cidr::Cidr;
use super::matching::{HeaderMatch, StringMatch, ValidTokens, any_matches};
use super::search_budget::{BudgetExceeded, SearchBudget};
use crate::http::head::Head;
use crate::http::url;

/// Conditions on a request. All of them must match; within a list, any one. An empty list is no
/// condition.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    pub direction: Option<Direction>,
    /// Ranges of the client's address. An unknown address is in no range.
    pub source_ranges: Vec<Cidr>,
    pub methods: Vec<StringMatch>,
    /// Conditions on the host of the authority, which has neither its port nor trailing dots.
    pub hosts: Vec<StringMatch>,
    /// Ports of the authority; without one the scheme's.
    pub ports: Vec<u16>,
    pub headers: Vec<HeaderMatch>,
}

/// The direction of a request as the workload sees it; at a gateway every request is inbound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Inbound,
    Outbound,
}

/// What conditions need to know of a request beside its headers.
#[derive(Debug, Clone, Copy, Default)]
pub struct MatchFacts<'a> {
    /// May be absent if no condition needs it: see [`Conditions::needs_direction`].
    pub direction: Option<Direction>,
    /// `source.address`; may be empty if no condition needs it: see
    /// [`Conditions::needs_source_address`].
    pub source_address: &'a [u8],
    pub tokens: ValidTokens,
}

impl Conditions {
    /// Tells whether all conditions match, or that the budget is too small to find out. Conditions that
    /// search no values are checked first.
    pub fn matches(
        &self,
        head: &Head<'_>,
        facts: MatchFacts<'_>,
        budget: &SearchBudget,
    ) -> Result<bool, BudgetExceeded> {
        // Names all fields, so that the compiler finds one that is not checked.
        let Self { direction, source_ranges, methods, hosts, ports, headers } = self;
        Ok((direction.is_none() || *direction == facts.direction)
            && (source_ranges.is_empty()
                || source_ranges.iter().any(|range| range.contains(facts.source_address)))
            && (methods.is_empty()
                || any_matches(methods, |it| it.matches(head.method(), budget))?)
            && authority_matches(hosts, ports, head, budget)?
            && (headers.is_empty()
                || any_matches(headers, |it| it.matches(head, facts.tokens, budget))?))
    }

    /// Tells whether a condition needs the direction, which costs a hostcall.
    pub fn needs_direction(&self) -> bool {
        self.direction.is_some()
    }

    /// Tells whether a condition needs the client's address, which costs a hostcall.
    pub fn needs_source_address(&self) -> bool {
        !self.source_ranges.is_empty()
    }
}

/// Tells whether the authority has one of these hosts and one of these ports.
fn authority_matches(
    hosts: &[StringMatch],
    ports: &[u16],
    head: &Head<'_>,
    budget: &SearchBudget,
) -> Result<bool, BudgetExceeded> {
    if hosts.is_empty() && ports.is_empty() {
        return Ok(true);
    }
    let (mut host, port) = url::host_and_port(head.authority());
    while let Some((b'.', rest)) = host.split_last() {
        host = rest;
    }
    let port = || port.or_else(|| url::default_port(head.scheme())).unwrap_or(80);
    Ok((ports.is_empty() || ports.contains(&port()))
        && (hosts.is_empty() || any_matches(hosts, |it| it.matches(host, budget))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagation::testing::head;
    use crate::sampling::matching::{HeaderCondition, StringMatchKind};

    fn string_match(kind: StringMatchKind) -> Vec<StringMatch> {
        vec![StringMatch { kind, ignore_case: false }]
    }

    const HEADERS: [(&str, &str); 3] =
        [(":method", "GET"), (":authority", "a.shop."), ("x-debug", "1")];
    const FACTS: MatchFacts<'_> = MatchFacts {
        direction: Some(Direction::Outbound),
        source_address: b"10.0.0.1:80",
        tokens: ValidTokens(0),
    };

    #[track_caller]
    fn check(conditions: &Conditions, headers: &[(&str, &str)], facts: MatchFacts, expected: bool) {
        let found = conditions.matches(&head(headers), facts, &SearchBudget::default());
        assert_eq!(found, Ok(expected), "{headers:?} {facts:?}");
    }

    #[test]
    fn without_conditions_every_request_matches() {
        check(&Conditions::default(), &HEADERS, FACTS, true);
        check(&Conditions::default(), &[], MatchFacts::default(), true);
    }

    #[test]
    fn all_conditions_must_match() {
        let conditions = Conditions {
            direction: Some(Direction::Outbound),
            source_ranges: vec![Cidr::parse("10.0.0.0/8").unwrap()],
            methods: string_match(StringMatchKind::Exact(b"GET".to_vec())),
            hosts: string_match(StringMatchKind::Suffix(b".shop".to_vec())),
            ports: vec![80],
            headers: vec![HeaderMatch {
                name: "x-debug".to_owned(),
                condition: HeaderCondition::Present(true),
                invert: false,
            }],
        };
        check(&conditions, &HEADERS, FACTS, true);
        let [method, authority, debug] = HEADERS;
        for headers in [
            [(":method", "PUT"), authority, debug],
            [method, (":authority", "a.shed"), debug],
            [method, (":authority", "a.shop:81"), debug],
            [method, authority, ("x-other", "1")],
        ] {
            check(&conditions, &headers, FACTS, false);
        }
        for facts in [
            MatchFacts { direction: Some(Direction::Inbound), ..FACTS },
            MatchFacts { direction: None, ..FACTS },
            MatchFacts { source_address: b"11.0.0.1:80", ..FACTS },
            MatchFacts { source_address: b"", ..FACTS },
        ] {
            check(&conditions, &HEADERS, facts, false);
        }
    }

    #[test]
    fn an_authority_without_a_port_has_the_port_of_its_scheme() {
        let https = Conditions { ports: vec![443], ..Conditions::default() };
        for (authority, scheme, expected) in [
            ("a:443", "http", true),
            ("a", "https", true),
            ("a", "http", false),
            ("a", "", false),
            ("a:80", "https", false),
        ] {
            let headers = [(":authority", authority), (":scheme", scheme)];
            check(&https, &headers, FACTS, expected);
        }
    }
}
