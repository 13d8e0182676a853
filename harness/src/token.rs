//! Mints debug tokens. `src/sampling/token.rs`, which verifies them, has their grammar.

use anyhow::ensure;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The contents of a token.
#[derive(Debug)]
pub struct Token<'t> {
    pub key_id: &'t str,
    pub expires_unix_seconds: u64,
    /// The token is valid only for paths with this prefix.
    pub path_prefix: &'t str,
}

impl Token<'_> {
    /// Signs the token with a key of at least 32 bytes.
    pub fn mint(&self, key: &[u8]) -> anyhow::Result<String> {
        let bytes = key.len();
        ensure!(bytes >= MIN_KEY_BYTES, "expected a key of at least 32 bytes, but found {bytes}");
        let id = self.key_id.as_bytes();
        let found = id.len();
        ensure!((1..=64).contains(&found), "expected a key id of 1 to 64 bytes, but found {found}");
        let mut token = vec![VERSION];
        token.extend(self.expires_unix_seconds.to_be_bytes());
        token.push(id.len() as u8);
        token.extend(id);
        token.extend(self.path_prefix.as_bytes());
        let mut mac = Hmac::<Sha256>::new_from_slice(key)?;
        mac.update(CONTEXT);
        mac.update(&token);
        token.extend(mac.finalize().into_bytes());
        let token = URL_SAFE_NO_PAD.encode(token);
        let digits = token.len();
        ensure!(
            digits <= MAX_DIGITS,
            "expected a path prefix that leaves the token at most {MAX_DIGITS} characters, but found \
             {digits}"
        );
        Ok(token)
    }
}

const VERSION: u8 = 1;
const CONTEXT: &[u8] = b"sidespan token\0";
const MIN_KEY_BYTES: usize = 32;
const MAX_DIGITS: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

    #[track_caller]
    fn check_refused(key_id: &str, path_prefix: &str, key: &[u8], expected: &str) {
        let token = Token { key_id, expires_unix_seconds: 1, path_prefix };
        let error = token.mint(key).unwrap_err().to_string();
        assert_eq!(error, expected);
    }

    /// The filter's own tests verify the same token.
    #[test]
    fn a_token_is_signed() {
        let token =
            Token { key_id: "ops", expires_unix_seconds: 1_767_226_200, path_prefix: "/api" };
        assert_eq!(
            token.mint(KEY).unwrap(),
            "AQAAAABpVbtYA29wcy9hcGl5WIPMiMpyDQPHH0tcw_9HAbyK01iu8CoDjexpn2lOnw"
        );
    }

    #[test]
    fn tokens_that_the_filter_would_reject_are_not_minted() {
        let long = "a".repeat(65);
        check_refused("a", "", &KEY[1..], "expected a key of at least 32 bytes, but found 31");
        check_refused("", "", KEY, "expected a key id of 1 to 64 bytes, but found 0");
        check_refused(&long, "", KEY, "expected a key id of 1 to 64 bytes, but found 65");
        check_refused(
            "a",
            &"/".repeat(400),
            KEY,
            "expected a path prefix that leaves the token at most 512 characters, but found 591",
        );
    }
}
