//! Signed debug tokens: only holders of an operator's key can force a request to be traced.
//!
//! ```text
//! token   = base64url( payload signature )     ; without padding, at most 512 digits
//! payload = %x01 expiry id-length id path-prefix
//! expiry  = 8OCTET                              ; Unix seconds, big-endian
//! signature = 32OCTET                           ; HMAC-SHA-256 of "sidespan token" %x00 payload
//! ```
//!
//! A token is valid for paths that begin with its path prefix, until it expires.
//!
//! <https://www.rfc-editor.org/rfc/rfc2104>, <https://www.rfc-editor.org/rfc/rfc4648#section-5>

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A key that signs tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// Each token names the key that signed it.
    pub id: String,
    secret: Vec<u8>,
}

impl Key {
    /// Returns a key, or none if the secret is shorter than 32 bytes.
    pub fn new(id: String, secret: Vec<u8>) -> Option<Self> {
        (secret.len() >= MIN_SECRET_BYTES).then_some(Self { id, secret })
    }

    /// Tells whether this key signed the payload. The signatures are compared in constant time.
    fn has_signed(&self, payload: &[u8], signature: &[u8]) -> bool {
        // No error: HMAC takes keys of any length.
        Hmac::<Sha256>::new_from_slice(&self.secret).is_ok_and(|mac| {
            mac.chain_update(CONTEXT).chain_update(payload).verify_slice(signature).is_ok()
        })
    }
}

/// Shows the id, and not the secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

/// The keys and the lifetime by which tokens are verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenCheck {
    pub keys: Vec<Key>,
    /// The longest time until a valid token expires.
    pub max_ttl_seconds: u64,
}

/// A header that holds a token, and how the token is verified.
#[derive(Debug, Clone)]
pub struct TokenHeader {
    pub name: String,
    pub check: TokenCheck,
}

/// Why a token is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFault {
    /// The token breaks the grammar.
    Malformed,
    /// No known key signed the token, or it is for another path, or it lives too long. Metrics call this
    /// `foreign`.
    Rejected,
    Expired,
}

impl TokenCheck {
    /// Verifies the token of a request to this path, which has no query.
    pub fn verify(
        &self,
        token: &[u8],
        path: &[u8],
        now_unix_seconds: u64,
    ) -> Result<(), TokenFault> {
        if token.len() > MAX_TOKEN_DIGITS {
            return Err(TokenFault::Malformed);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).unwrap_or_default();
        let (payload, signature) =
            bytes.split_last_chunk::<SIGNATURE_BYTES>().ok_or(TokenFault::Malformed)?;
        let Some(([VERSION, a, b, c, d, e, f, g, h, id_len], rest)) =
            payload.split_first_chunk::<10>()
        else {
            return Err(TokenFault::Malformed);
        };
        let expiry = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
        let (id, path_prefix) =
            rest.split_at_checked(usize::from(*id_len)).ok_or(TokenFault::Malformed)?;
        let key = self.keys.iter().find(|key| key.id.as_bytes() == id);
        let signed = key.is_some_and(|key| key.has_signed(payload, signature));
        if !signed || !path.starts_with(path_prefix) {
            return Err(TokenFault::Rejected);
        }
        match expiry.checked_sub(now_unix_seconds) {
            None | Some(0) => Err(TokenFault::Expired),
            Some(left) if left > self.max_ttl_seconds => Err(TokenFault::Rejected),
            Some(_) => Ok(()),
        }
    }
}

const VERSION: u8 = 1;
/// Is signed with the payload, so that no signature of another protocol with the same key is valid here.
const CONTEXT: &[u8] = b"sidespan token\0";
const MIN_SECRET_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 32;
const MAX_TOKEN_DIGITS: usize = 512;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_767_225_600;
    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn token_check() -> TokenCheck {
        let key = |id: &str, secret: &[u8]| Key::new(id.to_owned(), secret.to_vec()).unwrap();
        let keys = vec![key("ops", SECRET), key("dev", &[7; 100])];
        TokenCheck { keys, max_ttl_seconds: 3600 }
    }

    fn url_safe(bytes: &[u8]) -> Vec<u8> {
        URL_SAFE_NO_PAD.encode(bytes).into_bytes()
    }

    fn hmac_sha_256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }

    fn signed(secret: &[u8], payload: &[u8]) -> Vec<u8> {
        url_safe(&[payload, &hmac_sha_256(secret, &[CONTEXT, payload])].concat())
    }

    fn payload(expiry: u64, id: &str, path_prefix: &str) -> Vec<u8> {
        let head = [&[VERSION], &expiry.to_be_bytes()[..], &[id.len() as u8]].concat();
        [&head, id.as_bytes(), path_prefix.as_bytes()].concat()
    }

    fn token(expiry: u64, id: &str, path_prefix: &str) -> Vec<u8> {
        signed(SECRET, &payload(expiry, id, path_prefix))
    }

    #[track_caller]
    fn check(token: &[u8], path: &str, expected: Result<(), TokenFault>) {
        let found = token_check().verify(token, path.as_bytes(), NOW);
        assert_eq!(found, expected, "{:?} for {path}", String::from_utf8_lossy(token));
    }

    #[test]
    fn valid_tokens_are_accepted() {
        check(&token(NOW + 1, "ops", ""), "/", Ok(()));
        check(&token(NOW + 3600, "ops", "/api"), "/api/cart", Ok(()));
        check(&token(NOW + 3600, "ops", "/api"), "/apiary", Ok(()));
        check(&signed(&[7; 100], &payload(NOW + 9, "dev", "")), "/", Ok(()));
    }

    #[test]
    fn a_token_that_the_command_line_minted_is_accepted() {
        check(MINTED.as_bytes(), "/api", Ok(()));
        assert_eq!(MINTED.as_bytes(), token(NOW + 600, "ops", "/api"));
    }

    /// Minted by `sidespan token` from the same key, id, time and path.
    const MINTED: &str = "AQAAAABpVbtYA29wcy9hcGl5WIPMiMpyDQPHH0tcw_9HAbyK01iu8CoDjexpn2lOnw";

    #[test]
    fn invalid_tokens_are_refused_with_their_fault() {
        use TokenFault::{Expired, Malformed, Rejected};
        let valid = token(NOW + 9, "ops", "");
        let of = |bytes: &[u8]| signed(SECRET, bytes);
        for (token, expected, reason) in [
            (token(NOW, "ops", ""), Expired, "expires now"),
            (token(0, "ops", ""), Expired, "expired long ago"),
            (token(NOW + 3601, "ops", ""), Rejected, "lives too long"),
            (token(u64::MAX, "ops", ""), Rejected, "lives for ever"),
            (token(NOW + 9, "ops", "/api"), Rejected, "for another path"),
            (token(NOW + 9, "op", ""), Rejected, "an unknown key"),
            (token(NOW + 9, "", ""), Rejected, "no key"),
            (token(NOW + 9, "dev", ""), Rejected, "signed by another key than it names"),
            (signed(&[0; 32], &payload(NOW + 9, "ops", "")), Rejected, "signed by an unknown key"),
            (
                url_safe(&[payload(NOW + 9, "ops", ""), vec![0; 32]].concat()),
                Rejected,
                "the signature is zeros",
            ),
            (vec![], Malformed, "empty"),
            (b"true".to_vec(), Malformed, "too short"),
            (b"a".to_vec(), Malformed, "not base64"),
            (valid[1..].to_vec(), Malformed, "the first digit is missing"),
            ([&valid[..], b"="].concat(), Malformed, "padding"),
            ([&valid[..], b" "].concat(), Malformed, "a space"),
            ([b"Bearer ", &valid[..]].concat(), Malformed, "an authorization scheme before it"),
            (b"+/+/".repeat(20), Malformed, "the alphabet that is not URL-safe"),
            (b"AAAA".repeat(128), Malformed, "version 0"),
            ([&valid[..], &b"A".repeat(512)].concat(), Malformed, "too long"),
            (of(&[VERSION]), Malformed, "no expiry"),
            (of(&[2, 0, 0, 0, 0, 0x7f, 0, 0, 0, 0]), Malformed, "version 2"),
            (of(&[VERSION, 0, 0, 0, 0, 0x7f, 0, 0, 0, 9, b'o']), Malformed, "the id is cut"),
            (of(&[]), Malformed, "no payload"),
        ] {
            let found = token_check().verify(&token, b"/", NOW);
            assert_eq!(found, Err(expected), "{reason}");
        }
    }

    #[test]
    fn short_keys_are_refused_and_no_key_is_shown() {
        assert_eq!(Key::new("a".to_owned(), vec![0; 31]), None);
        let shown = format!("{:?}", token_check());
        assert!(!shown.contains("0123") && !shown.contains("48, 49") && !shown.contains("7, 7"));
    }

    proptest! {
        #[test]
        fn no_changed_token_is_accepted(index in 0usize..80, bit in 0u8..8, ttl in 1u64..3600) {
            let mut bytes = URL_SAFE_NO_PAD.decode(token(NOW + ttl, "ops", "/")).unwrap();
            let index = index % bytes.len();
            bytes[index] ^= 1 << bit;
            prop_assert!(token_check().verify(&url_safe(&bytes), b"/", NOW).is_err());
        }

        #[test]
        fn no_bytes_panic(token: Vec<u8>, path: Vec<u8>, now: u64) {
            let _ = token_check().verify(&token, &path, now);
            let _ = token_check().verify(&url_safe(&token), &path, now);
        }
    }
}
