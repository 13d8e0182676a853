//! A request's header section: pseudo headers and headers, as bytes, in the order of arrival.

/// Header lines by name. Names are lower-case, as Envoy hands them over; values are any bytes.
#[derive(Debug, Clone)]
pub struct Head<'a> {
    lines: Vec<(&'a [u8], &'a [u8])>,
    /// For each hash of a name, an index before which no line has a name with that hash, or [`ABSENT`].
    /// Most look-ups are for headers that are absent, and this tells so at once.
    starts: [u8; HASHES],
}

impl<'a> Head<'a> {
    /// Makes a head of names and values, in the order of arrival.
    pub fn new(lines: Vec<(&'a [u8], &'a [u8])>) -> Self {
        let mut starts = [ABSENT; HASHES];
        for (index, (name, _)) in lines.iter().enumerate().rev() {
            if let Some(start) = starts.get_mut(hash(name)) {
                *start = u8::try_from(index).unwrap_or(ABSENT).min(ABSENT - 1);
            }
        }
        Self { lines, starts }
    }

    /// Returns the value of the first line of that name.
    #[inline(never)]
    pub fn first(&self, name: &str) -> Option<&'a [u8]> {
        for (key, value) in self.candidates(name) {
            if are_equal(key, name.as_bytes()) {
                return Some(value);
            }
        }
        None
    }

    /// Returns the name of every line.
    pub fn names(&self) -> impl Iterator<Item = &'a [u8]> {
        self.lines.iter().map(|(name, _)| *name)
    }

    /// Returns the values of all lines of that name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let lines = self.candidates(name).iter();
        lines.filter(move |(key, _)| *key == name.as_bytes()).map(|(_, value)| *value)
    }

    /// Returns the lines that may have that name.
    #[inline(always)]
    fn candidates(&self, name: &str) -> &[(&'a [u8], &'a [u8])] {
        match self.starts.get(hash(name.as_bytes())) {
            Some(&start) if start != ABSENT => self.lines.get(start.into()..).unwrap_or_default(),
            _ => &[],
        }
    }

    /// Returns `:path` as it was sent, with its query.
    pub fn target(&self) -> &'a [u8] {
        self.first(PATH).unwrap_or_default()
    }

    /// Returns `:method`; empty if it is missing, as for the others.
    pub fn method(&self) -> &'a [u8] {
        self.first(METHOD).unwrap_or_default()
    }

    pub fn authority(&self) -> &'a [u8] {
        self.first(AUTHORITY).unwrap_or_default()
    }

    pub fn scheme(&self) -> &'a [u8] {
        self.first(SCHEME).unwrap_or_default()
    }
}

/// Reads names and values as proxy-wasm serializes a header map. The list ends where the bytes break
/// the format.
///
/// ```text
/// map = count *( name-length value-length ) *( name %x00 value %x00 )   ; numbers: 32 bits, little-endian
/// ```
pub(crate) fn pairs(serialized: &[u8]) -> Vec<(&[u8], &[u8])> {
    let Some((count, rest)) = serialized.split_first_chunk::<4>() else {
        return Vec::new();
    };
    let count = (u32::from_le_bytes(*count) as usize).min(rest.len() / 8);
    let (lengths, mut text) = rest.split_at(count * 8);
    let mut pairs = Vec::with_capacity(count);
    for [a, b, c, d, e, f, g, h] in lengths.as_chunks::<8>().0 {
        let name = split_text(text, u32::from_le_bytes([*a, *b, *c, *d]));
        let Some((name, after_name)) = name else { break };
        let value = split_text(after_name, u32::from_le_bytes([*e, *f, *g, *h]));
        let Some((value, after_value)) = value else { break };
        text = after_value;
        pairs.push((name, value));
    }
    pairs
}

/// Splits off a text of this length, and the zero byte after it.
fn split_text(bytes: &[u8], len: u32) -> Option<(&[u8], &[u8])> {
    let (text, rest) = bytes.split_at_checked(len as usize)?;
    Some((text, rest.split_first()?.1))
}

/// Tells whether a byte may be part of a token (RFC 9110, section 5.6.2).
pub(crate) fn is_tchar(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// Returns a number below [`HASHES`], by the length, the first and the last byte of a name.
#[inline(always)]
fn hash(name: &[u8]) -> usize {
    let end = |byte: Option<&u8>| usize::from(byte.copied().unwrap_or_default());
    (name.len() * 11 + end(name.first()) * 3 + end(name.last()) * 5) % HASHES
}

/// Compares eight bytes at a time if there are as many: byte by byte takes several times as long.
#[inline(always)]
fn are_equal(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    match (one.last_chunk::<8>(), other.last_chunk::<8>()) {
        (Some(one_end), Some(other_end)) => {
            let (one, other) = (one.as_chunks::<8>().0, other.as_chunks::<8>().0);
            one_end == other_end && one.iter().zip(other).all(|(one, other)| one == other)
        }
        _ => one == other,
    }
}

/// Splits a request target at its first `?` into the path and the query, if there is one.
pub(crate) fn split_query(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut parts = target.splitn(2, |byte| *byte == b'?');
    (parts.next().unwrap_or_default(), parts.next())
}

/// A power of two.
const HASHES: usize = 64;
const ABSENT: u8 = u8::MAX;

pub(crate) const PATH: &str = ":path";
pub(crate) const METHOD: &str = ":method";
pub(crate) const AUTHORITY: &str = ":authority";
pub(crate) const SCHEME: &str = ":scheme";
pub(crate) const USER_AGENT: &str = "user-agent";
pub(crate) const CONTENT_LENGTH: &str = "content-length";
pub(crate) const CONTENT_TYPE: &str = "content-type";
pub(crate) const UPGRADE: &str = "upgrade";
pub(crate) const REQUEST_ID: &str = "x-request-id";

#[cfg(test)]
pub(crate) mod testing {
    //! What the tests of several rooms share.

    /// Returns names and values as proxy-wasm serializes a header map: see [`super::pairs`].
    pub(crate) fn serialized(pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
        let number = |number: usize| (number as u32).to_le_bytes();
        let lengths = pairs.iter().flat_map(|(a, b)| [number(a.len()), number(b.len())].concat());
        let text = pairs.iter().flat_map(|(a, b)| [*a, b"\0", *b, b"\0"].concat());
        number(pairs.len()).into_iter().chain(lengths).chain(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::testing::serialized;
    use super::*;

    #[test]
    fn the_list_ends_where_bytes_break_the_format() {
        let whole = serialized(&[(b"a", b"1"), (b"bc", b"")]);
        assert_eq!(pairs(&whole), [(&b"a"[..], &b"1"[..]), (b"bc", b"")]);
        assert_eq!(pairs(&whole[..whole.len() - 1]), [(&b"a"[..], &b"1"[..])]);
        let mut huge = whole.clone();
        huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        for (bytes, reason) in [
            (&b""[..], "no count"),
            (b"\x01\0\0", "three bytes of a count"),
            (b"\xff\xff\xff\xff", "a count without lengths"),
            (b"\x01\0\0\0\x01\0\0\0\0\0\0\0", "lengths without text"),
            (&huge, "a length beyond the text"),
        ] {
            assert_eq!(pairs(bytes), [], "{reason}");
        }
    }

    proptest! {
        #[test]
        fn serialized_pairs_are_read_back(
            lines in prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..20),
        ) {
            let lines: Vec<_> = lines.iter().map(|(a, b)| (a.as_slice(), b.as_slice())).collect();
            let bytes = serialized(&lines);
            prop_assert_eq!(pairs(&bytes), lines);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = pairs(&bytes);
        }

        #[test]
        fn look_ups_find_the_same_lines_as_a_scan(
            names in prop::collection::vec("[a-c]{0,3}|[a-b]{8,12}|[ax]-[a-z-]{6}-[ax]", 0..400),
            wanted in "[a-c]{0,3}|[a-b]{8,12}",
        ) {
            let values: Vec<_> = (0..names.len()).map(|index| index.to_string()).collect();
            let lines = names.iter().zip(&values).map(|(a, b)| (a.as_bytes(), b.as_bytes()));
            let head = Head::new(lines.clone().collect());
            for name in names.iter().take(9).chain([&wanted]) {
                let of_name = lines.clone().filter(|(key, _)| *key == name.as_bytes());
                let expected: Vec<_> = of_name.map(|(_, value)| value).collect();
                prop_assert_eq!(head.first(name), expected.first().copied());
                prop_assert_eq!(head.all(name).collect::<Vec<_>>(), expected);
            }
        }
    }
}
