//! Secrets in queries and paths: which values are redacted in `url.*` attributes.
//!
//! ```text
//! target = path *( ";" pair ) [ "?" pair *( ( "&" / ";" ) pair ) ]
//! pair   = key [ "=" value ]                  ; the key percent-encoded
//! ```

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// The keys whose values are secrets. Only the letters and digits of a key count, in lower case:
/// `api_key`, `api-key`, `apiKey` and `api[key]` are the same key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretKeys {
    /// Every value is a secret, but for those of excepted keys.
    pub all: bool,
    /// Keys of secrets besides the built-in ones, by [`normalized_key`].
    pub added: Vec<Vec<u8>>,
    /// Keys whose values are no secrets, by [`normalized_key`].
    pub excepted: Vec<Vec<u8>>,
}

impl SecretKeys {
    /// Returns a query, or a path, with the values of secrets replaced by `REDACTED`.
    pub fn redacted<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        let mut redacted = Vec::new();
        // The index up to which the text was copied to `redacted`.
        let mut copied = 0;
        let mut start = 0;
        for pair in text.split(|byte| matches!(byte, b'&' | b';' | b'/')) {
            let key = pair.splitn(2, |byte| *byte == b'=').next().unwrap_or_default();
            if key.len() < pair.len() && self.is_secret(key) {
                redacted
                    .extend_from_slice(text.get(copied..start + key.len() + 1).unwrap_or_default());
                redacted.extend_from_slice(REDACTED);
                copied = start + pair.len();
            }
            start += pair.len() + 1;
        }
        if copied == 0 {
            return Cow::Borrowed(text);
        }
        redacted.extend_from_slice(text.get(copied..).unwrap_or_default());
        Cow::Owned(redacted)
    }

    /// Returns a path with the values of secrets replaced. Few paths have parameters, and only those can hold
    /// secrets.
    pub fn redacted_path<'t>(&self, path: &'t [u8]) -> Cow<'t, [u8]> {
        if path.contains(&b';') { self.redacted(path) } else { Cow::Borrowed(path) }
    }

    /// Tells whether the value of a key is a secret.
    pub fn is_secret(&self, key: &[u8]) -> bool {
        let Some(words) = Words::of(key) else {
            return true; // a key that is too long to check
        };
        self.are_configured_for(words.letters())
            || (words.is_secret() && !contains(&self.excepted, words.letters()))
    }

    /// Tells whether the configuration makes the value of a key a secret. An exception overrides
    /// [`SecretKeys::all`]. `key` is normalized: see [`normalized_key`].
    pub fn are_configured_for(&self, key: &[u8]) -> bool {
        contains(&self.added, key) || (self.all && !contains(&self.excepted, key))
    }
}

fn contains(keys: &[Vec<u8>], key: &[u8]) -> bool {
    keys.iter().any(|known| known == key)
}

/// Returns the letters and digits of a key in lower case, or `None` if they are more than
/// [`MAX_LETTERS`].
pub(crate) fn normalized_key(key: &[u8]) -> Option<Vec<u8>> {
    Words::of(key).map(|words| words.letters().to_vec())
}

/// The words of a key: its letters and digits in lower case, and where each word begins.
struct Words {
    letters: [u8; MAX_LETTERS],
    len: usize,
    /// A bit for each index at which a word begins.
    starts: u64,
}

impl Words {
    /// Splits a key at each byte that is no letter or digit, and before a capital after a small letter.
    fn of(key: &[u8]) -> Option<Self> {
        let mut words = Self { letters: [0; MAX_LETTERS], len: 0, starts: 0 };
        let mut previous = b' ';
        for byte in percent_decode(key) {
            if byte.is_ascii_alphanumeric() {
                *words.letters.get_mut(words.len)? = byte.to_ascii_lowercase();
                let is_hump = previous.is_ascii_lowercase() && byte.is_ascii_uppercase();
                if !previous.is_ascii_alphanumeric() || is_hump {
                    words.starts |= 1 << words.len;
                }
                words.len += 1;
            }
            previous = byte;
        }
        Some(words)
    }

    fn letters(&self) -> &[u8] {
        self.letters.get(..self.len).unwrap_or_default()
    }

    fn is_secret(&self) -> bool {
        let letters = self.letters();
        if letters.len() < MIN_LETTERS {
            return false;
        }
        if letters == b"code" || ENDINGS.iter().any(|ending| letters.ends_with(ending)) {
            return true;
        }
        let mut rest = letters;
        loop {
            // From the last word to the first.
            let start =
                rest.len() - 1 - (self.starts << (64 - rest.len())).leading_zeros() as usize;
            let (before, word) = rest.split_at_checked(start).unwrap_or((&[], rest));
            let is_last = rest.len() == letters.len();
            if WORDS.contains(&word) || word.starts_with(b"session") || (is_last && word == b"key")
            {
                return true;
            }
            if before.is_empty() {
                return false;
            }
            rest = before;
        }
    }
}

/// The most letters and digits of a key. A longer key counts as the key of a secret.
const MAX_LETTERS: usize = 64;
/// The fewest letters and digits of a key that can be a secret's.
const MIN_LETTERS: usize = 3;
/// A key that has one of these words is the key of a secret.
const WORDS: &[&[u8]] = &[
    b"auth",
    b"credential",
    b"credentials",
    b"jsessionid",
    b"jwt",
    b"password",
    b"passwd",
    b"phpsessid",
    b"pwd",
    b"samlrequest",
    b"samlresponse",
    b"secret",
    b"sid",
    b"sig",
    b"signature",
    b"token",
];
/// A key with one of these endings is the key of a secret, for keys whose words are written together.
const ENDINGS: &[&[u8]] = &[
    b"accesskey",
    b"accesskeyid",
    b"apikey",
    b"authcode",
    b"authorizationcode",
    b"credential",
    b"jwt",
    b"passwd",
    b"password",
    b"privatekey",
    b"secret",
    b"secretkey",
    b"signature",
    b"subscriptionkey",
    b"token",
];
/// Stands for a value that is hidden.
pub(crate) const REDACTED: &[u8] = b"REDACTED";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(keys: &SecretKeys, rows: &[(&str, &str)]) {
        for (text, expected) in rows {
            let found = keys.redacted(text.as_bytes());
            assert_eq!(std::str::from_utf8(&found), Ok(*expected), "{text}");
        }
    }

    #[test]
    fn values_of_secrets_are_redacted() {
        check(
            &SecretKeys::default(),
            &[
                ("", ""),
                ("a=1&b=2", "a=1&b=2"),
                ("sig=abc", "sig=REDACTED"),
                ("a=1&Signature=x=y&b", "a=1&Signature=REDACTED&b"),
                (
                    "X-Goog-Signature=&AWSAccessKeyId=k",
                    "X-Goog-Signature=REDACTED&AWSAccessKeyId=REDACTED",
                ),
                ("sig", "sig"),
                ("password=", "password=REDACTED"),
                ("access%5Ftoken=x&%73ig=y", "access%5Ftoken=REDACTED&%73ig=REDACTED"),
                ("%=x&%5=y&_=z&=", "%=x&%5=y&_=z&="),
                ("user[password]=x&token[]=y", "user[password]=REDACTED&token[]=REDACTED"),
                ("a=1;token=x;b=2", "a=1;token=REDACTED;b=2"),
                ("/a;jsessionid=x/b;v=1", "/a;jsessionid=REDACTED/b;v=1"),
                ("state=1&code=x&zipcode=2", "state=1&code=REDACTED&zipcode=2"),
            ],
        );
        for key in [
            "code",
            "x-api-key",
            "subscription-key",
            "private_token",
            "jwt",
            "session",
            "session_id",
            "sessionToken",
            "auth",
            "pwd",
            "key",
            "reset_token",
            "oauth_token",
            "SAMLResponse",
            "accessToken",
            "accesstoken",
            "api-key",
            "apikey",
            "apiKey",
            "X-Amz-Security-Token",
            "X-Amz-Credential",
            "client_secret",
            "auth_code",
            "Passwd",
            "user.password",
            "JSESSIONID",
        ] {
            assert!(SecretKeys::default().is_secret(key.as_bytes()), "{key}");
        }
        let longest = "a".repeat(MAX_LETTERS);
        assert!(!SecretKeys::default().is_secret(longest.as_bytes()));
        assert!(SecretKeys::default().is_secret(format!("{longest}_a").as_bytes()));
        for key in [
            "",
            "a",
            "tokens",
            "X-Amz-Security-Tokens",
            "author",
            "monkey",
            "keyword",
            "country_code",
            "design",
            "assignee",
            "side",
            "page",
            "q",
            "compass",
        ] {
            assert!(!SecretKeys::default().is_secret(key.as_bytes()), "{key}");
        }
    }

    #[test]
    fn keys_can_be_added_and_excepted() {
        let keys = SecretKeys {
            all: false,
            added: vec![normalized_key(b"Promo-Code").unwrap()],
            excepted: vec![normalized_key(b"sort_key").unwrap()],
        };
        check(
            &keys,
            &[(
                "promocode=1&promo_code=2&sortKey=3&key=4",
                "promocode=REDACTED&promo_code=REDACTED&sortKey=3&key=REDACTED",
            )],
        );
        let all = SecretKeys { all: true, ..SecretKeys::default() };
        check(&all, &[("a=1&b&=c", "a=REDACTED&b&=REDACTED")]);
    }

    proptest! {
        #[test]
        fn values_that_are_no_secrets_stay(text: Vec<u8>) {
            let none = SecretKeys::default().redacted(&text).into_owned();
            prop_assert_eq!(text.len() == none.len() || none.windows(8).any(|it| it == REDACTED), true);
        }
    }
}
