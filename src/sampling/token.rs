//! Signed debug tokens: who has a key of the operator's may have a request traced, and nobody else.
//!
//! ```text
//! token   = base64url( payload signature )     ; without padding, at most 512 digits
//! payload = %x01 expiry id-length id path-prefix
//! expiry  = 8OCTET                              ; Unix seconds, the greatest byte first
//! signature = 32OCTET                           ; HMAC-SHA-256 of "sidespan token" %x00 payload
//! ```
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
    /// Tokens say which key signed them.
    pub id: String,
    secret: Vec<u8>,
}

impl Key {
    /// Returns a key, and none where the secret is shorter than 32 bytes.
    pub fn new(id: String, secret: Vec<u8>) -> Option<Self> {
        (secret.len() >= MIN_SECRET_BYTES).then_some(Self { id, secret })
    }

    /// Tells whether this key signed the payload, in a time that does not depend on how much of the
    /// signature is right.
    fn has_signed(&self, payload: &[u8], signature: &[u8]) -> bool {
        // HMAC takes keys of any length.
        Hmac::<Sha256>::new_from_slice(&self.secret).is_ok_and(|mac| {
            mac.chain_update(CONTEXT).chain_update(payload).verify_slice(signature).is_ok()
        })
    }
}

/// Does not show the secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

/// Whose tokens are valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenCheck {
    pub keys: Vec<Key>,
    /// Seconds that a token may still live: one that lives longer was not meant for this.
    pub max_ttl_seconds: u64,
}

/// A header that holds a token, and who may have signed it.
#[derive(Debug, Clone)]
pub struct TokenHeader {
    pub name: String,
    pub check: TokenCheck,
}

/// Why a token is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFault {
    /// It breaks the grammar.
    Malformed,
    /// No key of ours signed it, or it is for another path, or for longer than may be.
    Foreign,
    Expired,
}

impl TokenCheck {
    /// Checks a token for a request to this path, which is without its query.
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
            return Err(TokenFault::Foreign);
        }
        match expiry.checked_sub(now_unix_seconds) {
            None | Some(0) => Err(TokenFault::Expired),
            Some(left) if left > self.max_ttl_seconds => Err(TokenFault::Foreign),
            Some(_) => Ok(()),
        }
    }
}

const VERSION: u8 = 1;
/// Keeps signatures of other protocols that use the same key apart.
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

    fn keys() -> TokenCheck {
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
        let found = keys().verify(token, path.as_bytes(), NOW);
        assert_eq!(found, expected, "{:?} for {path}", String::from_utf8_lossy(token));
    }

    #[test]
    fn valid_tokens_are_accepted() {
        check(&token(NOW + 1, "ops", ""), "/", Ok(()));
        check(&token(NOW + 3600, "ops", "/api"), "/api/cart", Ok(()));
        check(&token(NOW + 3600, "ops", "/api"), "/apiary", Ok(()));
        check(&signed(&[7; 100], &payload(NOW + 9, "dev", "")), "/", Ok(()));
    }

    /// What the command line mints from the same key, id, time and path.
    #[test]
    fn a_minted_token_is_accepted() {
        check(MINTED.as_bytes(), "/api", Ok(()));
        assert_eq!(MINTED.as_bytes(), token(NOW + 600, "ops", "/api"));
    }

    const MINTED: &str = "AQAAAABpVbtYA29wcy9hcGl5WIPMiMpyDQPHH0tcw_9HAbyK01iu8CoDjexpn2lOnw";

    #[test]
    fn tokens_that_are_not_valid_say_why() {
        use TokenFault::{Expired, Foreign, Malformed};
        let valid = token(NOW + 9, "ops", "");
        let of = |bytes: &[u8]| signed(SECRET, bytes);
        for (token, expected, reason) in [
            (token(NOW, "ops", ""), Expired, "expires now"),
            (token(0, "ops", ""), Expired, "expired long ago"),
            (token(NOW + 3601, "ops", ""), Foreign, "lives too long"),
            (token(u64::MAX, "ops", ""), Foreign, "lives for ever"),
            (token(NOW + 9, "ops", "/api"), Foreign, "for another path"),
            (token(NOW + 9, "op", ""), Foreign, "an unknown key"),
            (token(NOW + 9, "", ""), Foreign, "no key"),
            (token(NOW + 9, "dev", ""), Foreign, "signed by another key than it says"),
            (signed(&[0; 32], &payload(NOW + 9, "ops", "")), Foreign, "signed by nobody"),
            (url_safe(&[payload(NOW + 9, "ops", ""), vec![0; 32]].concat()), Foreign, "unsigned"),
            (vec![], Malformed, "empty"),
            (b"true".to_vec(), Malformed, "no token"),
            (b"a".to_vec(), Malformed, "no base64"),
            (valid[1..].to_vec(), Malformed, "the first digit is missing"),
            ([&valid[..], b"="].concat(), Malformed, "padding"),
            ([&valid[..], b" "].concat(), Malformed, "a space"),
            ([b"Bearer ", &valid[..]].concat(), Malformed, "a scheme"),
            (b"+/+/".repeat(20), Malformed, "the other alphabet"),
            (b"AAAA".repeat(128), Malformed, "an unknown version"),
            ([&valid[..], &b"A".repeat(512)].concat(), Malformed, "too long"),
            (of(&[VERSION]), Malformed, "no expiry"),
            (of(&[2, 0, 0, 0, 0, 0x7f, 0, 0, 0, 0]), Malformed, "another version"),
            (of(&[VERSION, 0, 0, 0, 0, 0x7f, 0, 0, 0, 9, b'o']), Malformed, "the id is cut"),
            (of(&[]), Malformed, "no payload"),
        ] {
            let found = keys().verify(&token, b"/", NOW);
            assert_eq!(found, Err(expected), "{reason}");
        }
    }

    #[test]
    fn short_keys_are_none_and_no_key_is_shown() {
        assert_eq!(Key::new("a".to_owned(), vec![0; 31]), None);
        let shown = format!("{:?}", keys());
        assert!(!shown.contains("0123") && !shown.contains("48, 49") && !shown.contains("7, 7"));
    }

    proptest! {
        #[test]
        fn no_changed_token_is_accepted(place in 0usize..80, bit in 0u8..8, ttl in 1u64..3600) {
            let mut bytes = URL_SAFE_NO_PAD.decode(token(NOW + ttl, "ops", "/")).unwrap();
            let place = place % bytes.len();
            bytes[place] ^= 1 << bit;
            prop_assert!(keys().verify(&url_safe(&bytes), b"/", NOW).is_err());
        }

        #[test]
        fn no_bytes_panic(token: Vec<u8>, path: Vec<u8>, now: u64) {
            let _ = keys().verify(&token, &path, now);
            let _ = keys().verify(&url_safe(&token), &path, now);
        }
    }
}
