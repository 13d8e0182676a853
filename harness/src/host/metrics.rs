//! Counters, gauges and histograms that the module defines, with Envoy's rules.

use std::collections::BTreeMap;

use super::status::Status;

/// Type of a metric; Envoy keeps it in the low bits of the metric's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter = 0,
    Gauge = 1,
    Histogram = 2,
}

/// All metrics of a VM. A metric that is defined twice keeps one value.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    defined: Vec<Metric>,
    by_name: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct Metric {
    kind: Kind,
    value: i64,
    /// How many values a histogram recorded; the values themselves are not kept.
    recorded: u64,
}

impl Metrics {
    /// Defines a metric, or finds the one with that name, and returns its id.
    pub(crate) fn define(&mut self, kind: u32, name: &str) -> Result<u32, Status> {
        let kind = match kind {
            0 => Kind::Counter,
            1 => Kind::Gauge,
            2 => Kind::Histogram,
            _ => return Err(Status::BadArgument),
        };
        let index = *self.by_name.entry(prometheus_name(name)).or_insert(self.defined.len());
        if index == self.defined.len() {
            self.defined.push(Metric { kind, value: 0, recorded: 0 });
        } else if self.defined[index].kind != kind {
            return Err(Status::BadArgument);
        }
        Ok((index as u32) << KIND_BITS | kind as u32)
    }

    /// Adds to a counter or a gauge. A counter must be incremented by at least 1, and a histogram
    /// cannot be.
    pub(crate) fn increment(&mut self, id: u32, offset: i64) -> Result<(), Status> {
        let metric = self.metric(id)?;
        match metric.kind {
            Kind::Counter if offset > 0 => metric.value = metric.value.wrapping_add(offset),
            Kind::Gauge => metric.value = metric.value.wrapping_add(offset),
            Kind::Counter | Kind::Histogram => return Err(Status::BadArgument),
        }
        Ok(())
    }

    /// Adds to a counter, sets a gauge, or records in a histogram.
    pub(crate) fn record(&mut self, id: u32, value: u64) -> Result<(), Status> {
        let metric = self.metric(id)?;
        match metric.kind {
            Kind::Counter => metric.value = metric.value.wrapping_add(value as i64),
            Kind::Gauge => metric.value = value as i64,
            Kind::Histogram => metric.recorded += 1,
        }
        Ok(())
    }

    /// Returns the value of a counter or a gauge; a histogram has none.
    pub(crate) fn read(&mut self, id: u32) -> Result<u64, Status> {
        let metric = self.metric(id)?;
        match metric.kind {
            Kind::Counter | Kind::Gauge => Ok(metric.value as u64),
            Kind::Histogram => Err(Status::BadArgument),
        }
    }

    /// Returns the value of the metric with that Prometheus name; for a histogram, its count.
    pub(crate) fn value(&self, name: &str) -> Option<i64> {
        let metric = self.by_name.get(name).and_then(|&index| self.defined.get(index))?;
        Some(match metric.kind {
            Kind::Histogram => metric.recorded as i64,
            Kind::Counter | Kind::Gauge => metric.value,
        })
    }

    /// Iterates over all Prometheus names, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    fn metric(&mut self, id: u32) -> Result<&mut Metric, Status> {
        let metric = self.defined.get_mut((id >> KIND_BITS) as usize);
        let metric = metric.filter(|metric| metric.kind as u32 == id & ((1 << KIND_BITS) - 1));
        metric.ok_or(Status::NotFound)
    }
}

/// Returns the name that Prometheus has for a metric of Envoy's. Its labels are extracted from the name,
/// in which they are written as Istio writes them: `key=.=value;.;`.
fn prometheus_name(name: &str) -> String {
    let (mut family, mut labels, mut rest) = (String::new(), Vec::new(), name);
    while let Some((label, after)) = rest.split_once(";.;") {
        let Some((before, value)) = label.split_once("=.=") else {
            break;
        };
        let start = before.rfind('.').map_or(0, |dot| dot + 1);
        family.push_str(&before[..start]);
        labels.push(format!("{}=\"{value}\"", &before[start..]));
        rest = after;
    }
    family.push_str(rest);
    let mut series = family.replace(['.', '-'], "_");
    if !labels.is_empty() {
        series.push_str(&format!("{{{}}}", labels.join(",")));
    }
    series
}

const KIND_BITS: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: &str) {
        assert_eq!(prometheus_name(name), expected, "{name}");
    }

    #[test]
    fn labels_are_extracted_from_the_name() {
        check("a", "a");
        check("a.b-c", "a_b_c");
        check("a.reason=.=full;.;b_total", r#"a_b_total{reason="full"}"#);
        check("a.x=.=1.2;.;y=.=-;.;b", r#"a_b{x="1.2",y="-"}"#);
        check("a;.;b", "a;_;b");
    }
}
