//! Header maps as Envoy keeps them: lower-case names, a line each, order kept, values of any
//! bytes; and their serialised form in the ABI, the [`pairs`].

use super::value::pairs;

/// Header lines in the order in which they were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    lines: Vec<(String, Vec<u8>)>,
}

impl Headers {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a line below those that are there.
    pub fn add(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.lines.push((name.to_ascii_lowercase(), value.into()));
    }

    /// Sets the one line of that name: what had it goes, the new one comes last.
    pub fn set(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.remove(name);
        self.add(name, value);
    }

    /// Removes all lines of that name.
    pub fn remove(&mut self, name: &str) {
        self.lines.retain(|(line, _)| !line.eq_ignore_ascii_case(name));
    }

    /// Value of the first line of that name; Envoy shows a module no other by name.
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        let line = self.lines.iter().find(|(line, _)| line.eq_ignore_ascii_case(name));
        line.map(|(_, value)| value.as_slice())
    }

    /// Values of all lines of that name with commas between, as Envoy's attributes have them.
    pub fn joined(&self, name: &str) -> Option<Vec<u8>> {
        let lines = self.iter().filter(|(line, _)| line.eq_ignore_ascii_case(name));
        let values: Vec<&[u8]> = lines.map(|(_, value)| value).collect();
        (!values.is_empty()).then(|| values.join(&b','))
    }

    /// All lines, names in lower case.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.lines.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    pub fn len(&self) -> usize {
        self.lines.len()
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Sum of the sizes of names and values, which is Envoy's size of a map.
    pub fn byte_size(&self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Serialises the map for the module.
    pub fn encode(&self) -> Vec<u8> {
        pairs(&self.lines)
    }

    /// Reads a map that the module serialised; `None` where sizes and bytes disagree.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut headers = Self::new();
        let Some((count, rest)) = bytes.split_first_chunk() else {
            return bytes.is_empty().then_some(headers);
        };
        let count = u32::from_le_bytes(*count) as usize;
        let (mut sizes, mut text) = rest.split_at_checked(count.checked_mul(8)?)?;
        for _ in 0..count {
            let name = text_part(&mut sizes, &mut text)?;
            let value = text_part(&mut sizes, &mut text)?;
            headers.add(std::str::from_utf8(name).ok()?, value);
        }
        Some(headers)
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

/// Takes one size and the NUL-terminated text that it measures.
fn text_part<'a>(sizes: &mut &[u8], text: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (size, rest) = sizes.split_first_chunk()?;
    *sizes = rest;
    let (part, rest) = text.split_at_checked(u32::from_le_bytes(*size) as usize)?;
    *text = rest.strip_prefix(&[0])?;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded() {
        let headers: Headers =
            [("b3", b"0".to_vec()), ("x", vec![]), ("x", vec![0xff, 0])].into_iter().collect();
        assert_eq!(Headers::decode(&headers.encode()), Some(headers));
        assert_eq!(Headers::decode(&[]), Some(Headers::new()));
    }

    #[test]
    fn sizes_that_lie_are_refused() {
        let whole = [("b3", "0")].into_iter().collect::<Headers>().encode();
        for cut in 1..whole.len() {
            assert_eq!(Headers::decode(&whole[..cut]), None, "first {cut} bytes");
        }
        assert_eq!(Headers::decode(&[0xff; 12]), None, "a count that overflows");
    }

    #[test]
    fn lookup_by_name_sees_the_first_line_in_any_case() {
        let headers: Headers = [("X-Tag", "a"), ("x-tag", "b")].into_iter().collect();
        assert_eq!(headers.first("x-TAG"), Some(b"a".as_slice()));
        assert_eq!(headers.joined("X-tag").as_deref(), Some(b"a,b".as_slice()));
        assert_eq!(headers.joined("x"), None);
        assert_eq!(headers.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["x-tag", "x-tag"]);
    }
}
