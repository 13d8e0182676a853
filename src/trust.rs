//! Whose contexts are followed, and to whom they are passed on.

use crate::cidr::Cidr;
use crate::head::Head;
use crate::matching::{HeaderMatch, StringMatch};
use crate::rules::{Direction, Facts};

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
    /// Empty where it is for every authority.
    pub authority: Vec<StringMatch>,
    pub strip: bool,
}

impl TrustRule {
    /// Tells whether all conditions hold. An address that is not known is in no range.
    pub fn holds(&self, head: &Head<'_>, facts: Facts, source_address: &[u8]) -> bool {
        (self.direction.is_none() || self.direction == facts.direction)
            && (self.source_ranges.is_empty()
                || self.source_ranges.iter().any(|range| range.holds(source_address)))
            && (self.headers.is_empty()
                || self.headers.iter().any(|header| header.matches(head, facts.tokens)))
    }
}

impl EgressRule {
    pub fn holds(&self, authority: &[u8]) -> bool {
        self.authority.is_empty() || self.authority.iter().any(|it| it.matches(authority))
    }
}
