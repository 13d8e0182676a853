//! `propagation.trust` and `propagation.egress`: whose contexts come in, and where they go.

use super::super::error::{ConfigError, quoted};
use super::super::raw::{RawEgress, RawEgressRule, RawTrust, RawTrustRule};
use super::Result;
use super::matching::{Headers, each, string_match};
use super::sampling::direction;
use crate::cidr::Cidr;
use crate::trust::{EgressRule, Trust, TrustRule};

pub fn rules(raw: Vec<RawTrustRule>, headers: &mut Headers<'_>) -> Result<Vec<TrustRule>> {
    let mut rules = Vec::new();
    for (place, raw) in raw.into_iter().enumerate() {
        rules.push(rule(raw, headers).map_err(|error| error.at(place))?);
    }
    Ok(rules)
}

fn rule(raw: RawTrustRule, headers: &mut Headers<'_>) -> Result<TrustRule> {
    let source_ranges = each(raw.r#match.source_ranges, &mut range)
        .map_err(|error| error.under("source_ranges").under("match"))?;
    let headers =
        headers.each(raw.r#match.headers).map_err(|error| error.under("headers").under("match"))?;
    let direction = raw.r#match.direction.map(direction);
    Ok(TrustRule { direction, source_ranges, headers, trust: trust(raw.trust) })
}

pub fn trust(raw: RawTrust) -> Trust {
    match raw {
        RawTrust::Accept => Trust::Accept,
        RawTrust::Restart => Trust::Restart,
        RawTrust::IgnoreFlags => Trust::IgnoreFlags,
    }
}

fn range(text: String) -> Result<Cidr> {
    Cidr::parse(&text).ok_or_else(|| {
        ConfigError::new("an address range, such as 10.0.0.0/8 or fd00::/8", quoted(&text))
    })
}

pub fn egress(raw: Vec<RawEgressRule>) -> Result<Vec<EgressRule>> {
    let mut rules = Vec::new();
    for (place, raw) in raw.into_iter().enumerate() {
        let authority = each(raw.authority, &mut string_match)
            .map_err(|error| error.under("authority").at(place))?;
        rules.push(EgressRule { authority, strip: raw.action == RawEgress::Strip });
    }
    Ok(rules)
}
