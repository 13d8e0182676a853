//! A request's header section: pseudo headers and headers, as bytes, in the order of arrival.

/// Header lines by name. Names are lower-case, as Envoy hands them over; values are any bytes.
#[derive(Debug, Clone, Default)]
pub struct Head<'a> {
    lines: Vec<(&'a [u8], &'a [u8])>,
    /// The marks of all names. Most look-ups are for headers that are absent, and a missing mark
    /// says so at once.
    marks: u64,
}

impl<'a> Head<'a> {
    pub fn new(lines: Vec<(&'a [u8], &'a [u8])>) -> Self {
        let marks = lines.iter().fold(0, |marks, (name, _)| marks | mark(name));
        Self { lines, marks }
    }

    /// Returns the value of the first line of that name.
    #[inline(never)]
    pub fn first(&self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// Returns the values of all lines of that name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let name = name.as_bytes();
        let lines = if self.marks & mark(name) == 0 { &[] } else { self.lines.as_slice() };
        lines.iter().filter(move |(key, _)| *key == name).map(|(_, value)| *value)
    }

    /// Returns `:path` as it was sent, with its query.
    pub fn target(&self) -> &'a [u8] {
        self.first(PATH).unwrap_or_default()
    }

    /// Returns `:path` without its query.
    pub fn path(&self) -> &'a [u8] {
        split_query(self.target()).0
    }

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

/// Returns whether a byte may stand in a token (RFC 9110, section 5.6.2).
pub fn is_tchar(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// One of 64 bits, by the length and the ends of a name.
fn mark(name: &[u8]) -> u64 {
    let end = |byte: Option<&u8>| u64::from(byte.copied().unwrap_or_default());
    let spread = (name.len() as u64) * 11 + end(name.first()) * 3 + end(name.last()) * 5;
    1 << (spread % 64)
}

/// Splits a request target at its first `?`: path, and query where there is one.
pub fn split_query(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut parts = target.splitn(2, |byte| *byte == b'?');
    (parts.next().unwrap_or_default(), parts.next())
}

pub const PATH: &str = ":path";
pub const METHOD: &str = ":method";
pub const AUTHORITY: &str = ":authority";
pub const SCHEME: &str = ":scheme";
pub const USER_AGENT: &str = "user-agent";
pub const CONTENT_LENGTH: &str = "content-length";
pub const CONTENT_TYPE: &str = "content-type";
pub const UPGRADE: &str = "upgrade";
pub const REQUEST_ID: &str = "x-request-id";
