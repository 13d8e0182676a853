//! Whose contexts are followed, and to whom they are passed on.

use crate::cidr::Cidr;
use crate::head::Head;
use crate::matching::{Exceeded, HeaderMatch, SearchBudget, any};
use crate::rules::{Authority, Direction, Facts};

/// What becomes of a context that comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// It is followed.
    Accept,
    /// A new trace starts, whose span links to the old one.
    Restart,
    /// Its ids are kept, and sampling is decided anew.
    IgnoreFlags,
}

/// Trust in some requests.
#[derive(Debug, Clone)]
pub struct TrustRule {
    pub direction: Option<Direction>,
    /// Empty where any address will do.
    pub source_ranges: Vec<Cidr>,
    pub headers: Vec<HeaderMatch>,
    pub trust: Trust,
}

/// What leaves with requests to some authorities.
#[derive(Debug, Clone)]
pub struct EgressRule {
    pub authority: Authority,
    pub strip: bool,
}

impl TrustRule {
    /// Tells whether all conditions hold. An address that is not known is in no range.
    pub fn holds(
        &self,
        head: &Head<'_>,
        facts: Facts,
        source_address: &[u8],
        budget: &SearchBudget,
    ) -> Result<bool, Exceeded> {
        Ok((self.direction.is_none() || self.direction == facts.direction)
            && (self.source_ranges.is_empty()
                || self.source_ranges.iter().any(|range| range.holds(source_address)))
            && (self.headers.is_empty()
                || any(&self.headers, |it| it.matches(head, facts.tokens, budget))?))
    }
}
