//! A header map as Envoy keeps it: names in lower case, one entry a header line, in order; values
//! are any bytes.

use super::pairs;

/// Header lines in the order in which they were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    lines: Vec<(String, Vec<u8>)>,
}

impl Headers {
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a line.
    pub fn add(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.lines.push((name.to_ascii_lowercase(), value.into()));
    }

    /// Replaces all lines with that name by one line at the end.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.remove(name);
        self.add(name, value);
    }

    /// Removes all lines with that name.
    pub(crate) fn remove(&mut self, name: &str) {
        self.lines.retain(|(line, _)| !line.eq_ignore_ascii_case(name));
    }

    /// Returns the value of the first line with that name. A module that looks a header up by name
    /// gets no other from Envoy.
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        let line = self.lines.iter().find(|(line, _)| line.eq_ignore_ascii_case(name));
        line.map(|(_, value)| value.as_slice())
    }

    /// Returns the values of all lines with that name, joined by commas, as Envoy's attributes have
    /// them.
    pub(crate) fn joined(&self, name: &str) -> Option<Vec<u8>> {
        let lines = self.iter().filter(|(line, _)| line.eq_ignore_ascii_case(name));
        let values: Vec<&[u8]> = lines.map(|(_, value)| value).collect();
        (!values.is_empty()).then(|| values.join(&b','))
    }

    /// Iterates over all lines, names in lower case.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.lines.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Returns the sum of the sizes of names and values, which is Envoy's size of a map.
    pub(crate) fn byte_size(&self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Serialises the map for the module.
    pub fn encode(&self) -> Vec<u8> {
        pairs::encode(&self.lines)
    }

    /// Parses a map that the module serialised. `None` if it is malformed or a name is not UTF-8.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let lines = pairs::decode(bytes)?.into_iter();
        lines.map(|(name, value)| Some((str::from_utf8(name).ok()?, value))).collect()
    }
}

impl<N: AsRef<str>, V: Into<Vec<u8>>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(lines: I) -> Self {
        let mut headers = Self::new();
        for (name, value) in lines {
            headers.add(name.as_ref(), value);
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_returns_the_encoded_map() {
        let headers: Headers =
            [("b3", b"0".to_vec()), ("x", vec![]), ("x", vec![0xff, 0])].into_iter().collect();
        assert_eq!(Headers::decode(&headers.encode()), Some(headers));
        assert_eq!(Headers::decode(&[]), Some(Headers::new()));
        assert_eq!(Headers::decode(&pairs::encode(&[(b"\xff", "0")])), None, "name not UTF-8");
    }

    #[test]
    fn lookup_ignores_case_and_returns_the_first_line() {
        let headers: Headers = [("X-Tag", "a"), ("x-tag", "b")].into_iter().collect();
        assert_eq!(headers.first("x-TAG"), Some(b"a".as_slice()));
        assert_eq!(headers.joined("X-tag").as_deref(), Some(b"a,b".as_slice()));
        assert_eq!(headers.joined("x"), None);
        assert_eq!(headers.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["x-tag", "x-tag"]);
    }
}
