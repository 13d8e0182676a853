//! W3C Baggage: <https://www.w3.org/TR/baggage/>.
//!
//! ```text
//! list     = member *( "," member )           ; the lines of one request are one list, in order
//! member   = OWS key OWS "=" OWS value *( OWS ";" property ) OWS
//! key      = 1*tchar                          ; a token of RFC 9110, section 5.6.2
//! value    = *baggage-octet                   ; percent-encoded
//! baggage-octet = %x21 / %x23-2B / %x2D-3A / %x3C-5B / %x5D-7E
//! property = OWS key [ OWS "=" OWS value ]
//! ```

use std::borrow::Cow;

use crate::head::{Head, is_tchar};
use crate::percent;

/// Returns the value of a member, percent-decoded and without its properties; it need not be
/// UTF-8. The first member of that key wins; those that break the grammar are passed over.
pub fn value<'a>(head: &Head<'a>, key: &str) -> Option<Cow<'a, [u8]>> {
    let members = head.all(BAGGAGE).flat_map(|line| line.split(|byte| *byte == b','));
    let mut pairs = members.filter_map(parse);
    let (_, value) = pairs.find(|(name, _)| *name == key.as_bytes())?;
    Some(percent::decoded(value))
}

/// Splits a member into its key and its value, as it is written. Its properties are not looked at.
fn parse(member: &[u8]) -> Option<(&[u8], &[u8])> {
    let pair = member.split(|byte| *byte == b';').next()?;
    let mut parts = pair.splitn(2, |byte| *byte == b'=');
    let (key, value) = (parts.next()?.trim_ascii(), parts.next()?.trim_ascii());
    let valid = !key.is_empty() && key.iter().all(is_tchar) && value.iter().all(is_baggage_octet);
    valid.then_some((key, value))
}

fn is_baggage_octet(byte: &u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\')
}

pub const BAGGAGE: &str = "baggage";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::propagation::testing::head;

    /// Looks `k` up in these lines.
    #[track_caller]
    fn check(lines: &[&str], expected: Option<&str>) {
        let lines: Vec<_> = lines.iter().map(|line| (BAGGAGE, *line)).collect();
        let head = head(&lines);
        let found = value(&head, "k");
        assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{lines:?}");
    }

    #[test]
    fn members_are_found_by_their_keys() {
        check(&["k=v"], Some("v"));
        check(&["k="], Some(""));
        check(&["a=1,k=v,b=2"], Some("v"));
        check(&[" a = 1 ,\tk\t=\tv "], Some("v"));
        check(&["a=1", "b=2,k=v"], Some("v"));
        check(&["k=1,k=2", "k=3"], Some("1"));
        check(&["k=v;p;q=1"], Some("v"));
        check(&["k=v ; p = \"any\\thing\" "], Some("v"));
        check(&["k=a=b"], Some("a=b"));
        check(&["k=a%20b%2C%C3%A9"], Some("a b,é"));
        check(&["k=100%"], Some("100%"));
        check(&[",,k=v,"], Some("v"));
    }

    #[test]
    fn what_is_no_member_is_passed_over() {
        check(&[], None);
        check(&[""], None);
        check(&["K=v"], None);
        check(&["ak=v"], None);
        check(&["k"], None);
        check(&["k;p=1"], None);
        check(&["=v"], None);
        check(&["a=1;k=v"], None);
        check(&["%6b=v"], None);
        check(&["k=a b"], None);
        check(&["k=\"v\""], None);
        check(&["k=a\\b"], None);
        check(&["k=é"], None);
        check(&["k=a b,k=v"], Some("v"));
        check(&["k k=1,k=v"], Some("v"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(line: Vec<u8>) {
            let _ = value(&Head::new(vec![(BAGGAGE.as_bytes(), &line)]), "k");
        }
    }
}
