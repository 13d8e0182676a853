//! Sets of bytes: what a character class of a pattern stands for.

/// A set of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ByteSet([u64; 4]);

impl ByteSet {
    /// Returns the set of the bytes for which `is_member` holds.
    pub(super) fn of(is_member: impl Fn(u8) -> bool) -> Self {
        let mut set = Self::default();
        (0..=u8::MAX).filter(|byte| is_member(*byte)).for_each(|byte| set.insert(byte));
        set
    }

    /// Returns a POSIX class by its name, such as `alpha`.
    pub(super) fn named(name: &str) -> Option<Self> {
        let is_member: fn(u8) -> bool = match name {
            "alnum" => |byte| byte.is_ascii_alphanumeric(),
            "alpha" => |byte| byte.is_ascii_alphabetic(),
            "ascii" => |byte| byte.is_ascii(),
            "blank" => |byte| matches!(byte, b' ' | b'\t'),
            "cntrl" => |byte| byte.is_ascii_control(),
            "digit" => |byte| byte.is_ascii_digit(),
            "graph" => |byte| byte.is_ascii_graphic(),
            "lower" => |byte| byte.is_ascii_lowercase(),
            "print" => |byte| matches!(byte, b' '..=b'~'),
            "punct" => |byte| byte.is_ascii_punctuation(),
            "space" => is_space,
            "upper" => |byte| byte.is_ascii_uppercase(),
            "word" => is_word,
            "xdigit" => |byte| byte.is_ascii_hexdigit(),
            _ => return None,
        };
        Some(Self::of(is_member))
    }

    pub(super) fn contains(&self, byte: u8) -> bool {
        self.0.get(usize::from(byte >> 6)).is_some_and(|word| word >> (byte & 63) & 1 == 1)
    }

    pub(super) fn insert(&mut self, byte: u8) {
        if let Some(word) = self.0.get_mut(usize::from(byte >> 6)) {
            *word |= 1 << (byte & 63);
        }
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word |= other);
    }

    /// Returns the set of all other bytes.
    pub(super) fn inverted(self) -> Self {
        Self(self.0.map(|word| !word))
    }

    /// Returns the set with the other case of each letter added.
    pub(super) fn in_any_case(self) -> Self {
        Self::of(|byte| {
            self.contains(byte.to_ascii_lowercase()) || self.contains(byte.to_ascii_uppercase())
        })
    }
}

/// Tells whether a byte is in `\w`.
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Tells whether a byte is in `\s`.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ')
}
