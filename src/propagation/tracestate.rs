//! `tracestate` of W3C Trace Context, Level 2: <https://www.w3.org/TR/trace-context-2/#tracestate-header>.
//!
//! ```text
//! list   = member *( OWS "," OWS member )    ; the lines of one request are one list, in order
//! member = key "=" value / OWS               ; at most 32 that are not empty
//! key    = ( lcalpha / DIGIT ) 0*255( lcalpha / DIGIT / "_" / "-" / "*" / "/" / "@" )
//! value  = 0*255( %x20 / nblk-chr ) nblk-chr
//! nblk-chr = %x21-2B / %x2D-3C / %x3E-7E     ; printable, without "," and "="
//! ```
//!
//! Level 1 had one `@` at most, between a tenant and its system, and keys that begin with a letter.
//! A key that comes again does not go on again; the first is the latest.

use std::borrow::Cow;

use crate::head::Head;

/// A list as it goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceState<'a> {
    /// Members without what may stand between them but commas; empty where there is none.
    pub list: Cow<'a, [u8]>,
    /// Members that did not fit into [`MAX_BYTES`].
    pub dropped: u32,
}

/// Reads all lines as one list. One member that breaks the grammar makes all of it invalid.
pub fn extract<'a>(head: &Head<'a>) -> Result<TraceState<'a>, &'static str> {
    let mut members: Vec<&[u8]> = Vec::new();
    for member in head.all(TRACESTATE).flat_map(|line| line.split(|byte| *byte == b',')) {
        let member = member.trim_ascii();
        if member.is_empty() {
            continue;
        }
        let key = key(member).ok_or("expected list members of the form key=value")?;
        if members.iter().any(|known| has_key(known, key)) {
            continue;
        }
        if members.len() == MAX_MEMBERS {
            return Err("expected at most 32 list members");
        }
        members.push(member);
    }
    let dropped = truncate(&mut members);
    let mut lines = head.all(TRACESTATE);
    let list = match (lines.next(), lines.next()) {
        (Some(line), None) if joined_len(&members) == line.len() => Cow::Borrowed(line),
        _ => Cow::Owned(members.join(&b',')),
    };
    Ok(TraceState { list, dropped })
}

/// Removes members until the list is short enough: long ones first, then from the end, as the
/// specification has it. Returns how many.
fn truncate(members: &mut Vec<&[u8]>) -> u32 {
    let mut dropped = 0;
    while joined_len(members) > MAX_BYTES {
        let long = members.iter().rposition(|member| member.len() > LONG_MEMBER_BYTES);
        members.remove(long.unwrap_or(members.len().saturating_sub(1)));
        dropped += 1;
    }
    dropped
}

fn joined_len(members: &[&[u8]]) -> usize {
    let commas = members.len().saturating_sub(1);
    members.iter().map(|member| member.len()).sum::<usize>() + commas
}

fn has_key(member: &[u8], key: &[u8]) -> bool {
    member.strip_prefix(key).is_some_and(|rest| rest.first() == Some(&b'='))
}

/// Returns the key of a member that keeps to the grammar.
fn key(member: &[u8]) -> Option<&[u8]> {
    let mut parts = member.splitn(2, |byte| *byte == b'=');
    let (key, value) = (parts.next()?, parts.next()?);
    (is_key(key) && is_value(value)).then_some(key)
}

fn is_key(key: &[u8]) -> bool {
    let first = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    key.len() <= 256
        && key.first().is_some_and(first)
        && key.iter().all(|byte| first(byte) || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@'))
}

/// A member is trimmed before, so its value does not end in a space.
fn is_value(value: &[u8]) -> bool {
    let char = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'=');
    (1..=256).contains(&value.len()) && value.iter().all(char)
}

pub const TRACESTATE: &str = "tracestate";
const MAX_MEMBERS: usize = 32;
/// What the specification asks every hop to pass on at least.
pub const MAX_BYTES: usize = 512;
const LONG_MEMBER_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::propagation::testing::head;

    /// Compares the list, `None` where it is invalid, and how many members were dropped.
    #[track_caller]
    fn check(lines: &[&str], expected: Option<&str>, dropped: u32) {
        let named: Vec<_> = lines.iter().map(|line| (TRACESTATE, *line)).collect();
        let head = head(&named);
        let found = extract(&head).ok();
        let found = found.as_ref().map(|state| (str::from_utf8(&state.list), state.dropped));
        assert_eq!(found, expected.map(|list| (Ok(list), dropped)), "{lines:?}");
    }

    #[track_caller]
    fn check_invalid(line: &str, reason: &str) {
        let head = [(TRACESTATE, line)];
        assert!(extract(&self::head(&head)).is_err(), "{reason}: {line:?}");
    }

    #[test]
    fn lists_go_on_without_what_stands_between_members() {
        check(&[], Some(""), 0);
        check(&["foo=1"], Some("foo=1"), 0);
        check(&["foo=1,bar=2"], Some("foo=1,bar=2"), 0);
        check(&["foo=1 \t , \t bar=2, \t baz=3"], Some("foo=1,bar=2,baz=3"), 0);
        check(&["\t foo=1 \t"], Some("foo=1"), 0);
        check(&[""], Some(""), 0);
        check(&[" ,\t,"], Some(""), 0);
        check(&["", "foo=1"], Some("foo=1"), 0);
        check(&["foo=1", ""], Some("foo=1"), 0);
        check(&["foo=1,,bar=2,"], Some("foo=1,bar=2"), 0);
        check(&["foo=1,bar=2", "rojo=1", "baz=3"], Some("foo=1,bar=2,rojo=1,baz=3"), 0);
        check(&["foo=  1"], Some("foo=  1"), 0);
        check(&["0foo=1,1@2=3"], Some("0foo=1,1@2=3"), 0);
        check(&["foo@=1,foo@@bar=1,foo@bar@baz=1"], Some("foo@=1,foo@@bar=1,foo@bar@baz=1"), 0);
    }

    #[test]
    fn the_first_of_a_key_goes_on() {
        check(&["foo=1,foo=1"], Some("foo=1"), 0);
        check(&["foo=1,bar=2,foo=3"], Some("foo=1,bar=2"), 0);
        check(&["foo=1", "foo=2", "fo=3", "fooo=4"], Some("foo=1,fo=3,fooo=4"), 0);
        check_invalid("foo=1,foo=", "no value, though the key is known");
    }

    #[test]
    fn a_list_as_it_should_be_is_not_copied() {
        let borrowed = |line| {
            matches!(
                extract(&head(&[(TRACESTATE, line)])),
                Ok(TraceState { list: Cow::Borrowed(_), .. })
            )
        };
        assert!(borrowed("foo=1,bar=2"));
        assert!(!borrowed("foo=1, bar=2"));
    }

    #[test]
    fn all_characters_that_are_allowed_go_on() {
        let key = "abcdefghijklmnopqrstuvwxyz0123456789_-*/";
        let value: String = (' '..='~').filter(|char| !",=".contains(*char)).collect();
        for key in [key.to_owned(), format!("{key}@a-z0-9_-*/")] {
            let member = format!("{key}={value}");
            check(&[&member], Some(&member), 0);
        }
    }

    #[test]
    fn one_bad_member_makes_the_list_invalid() {
        for (member, reason) in [
            ("bar", "no equals sign"),
            ("=1", "no key"),
            ("bar=", "no value"),
            ("bar= ", "no value but a space"),
            ("bar=1=2", "an equals sign in the value"),
            ("bar=1\t2", "a tab in the value"),
            ("bar=é", "not ASCII in the value"),
            ("bar=\u{7f}", "a control character in the value"),
            ("bar =1", "a space in the key"),
            ("BAR=1", "upper case"),
            ("b.r=1", "a dot in the key"),
            ("_bar=1", "begins with neither letter nor digit"),
            ("bär=1", "not ASCII in the key"),
            ("@bar=1", "begins with an at sign"),
        ] {
            check_invalid(&format!("foo=1,{member}"), reason);
            check_invalid(&format!("{member},foo=1"), reason);
            check(&["foo=1", member], None, 0);
        }
    }

    #[test]
    fn keys_and_values_have_limits() {
        for key in ["z".repeat(256), format!("{}@{}", "t".repeat(241), "s".repeat(14))] {
            let member = format!("{key}=1");
            check(&["foo=1", &member], Some(&format!("foo=1,{member}")), 0);
            check_invalid(&format!("foo=1,{key}z=1"), "a long key");
        }
        let longest = format!("a={}", "v".repeat(256));
        check(&[&longest], Some(&longest), 0);
        check_invalid(&format!("a={}", "v".repeat(257)), "a long value");
    }

    #[test]
    fn a_list_has_at_most_32_members() {
        let members = |count| (0..count).map(|n| format!("bar{n}={n}")).collect::<Vec<_>>();
        let list = members(32).join(",");
        check(&[&list], Some(&list), 0);
        check(&[&format!("{list},,")], Some(&list), 0);
        check_invalid(&members(33).join(","), "33 members");
        let split = members(33);
        check(&[&split[..20].join(","), &split[20..].join(",")], None, 0);
    }

    #[test]
    fn long_lists_lose_long_members_first_and_then_the_last() {
        let of = |key: &str, length: usize| format!("{key}={}", "v".repeat(length - key.len() - 1));
        let fits = [of("a", 258), of("b", 253)].join(",");
        check(&[&fits], Some(&fits), 0);
        check(&[&of("a", 258), &of("b", 254)], Some(&of("a", 258)), 1);
        let (b, c, d) = (of("b", 100), of("c", 128), of("d", 60));
        check(&[&of("a", 258), &b, &c, &d], Some(&[&*b, &c, &d].join(",")), 1);
        check(&[&of("a", 200), &b, &of("c", 250)], Some(&[&*of("a", 200), &b].join(",")), 1);
        let short: Vec<_> = ["a", "b", "c", "d", "e"].map(|key| of(key, 128)).to_vec();
        check(&[&short.join(",")], Some(&short[..3].join(",")), 2);
        let huge = format!("{}={}", "k".repeat(256), "v".repeat(256));
        check(&[&huge], Some(""), 1);
    }

    proptest! {
        /// What goes on is a list that goes on as it is.
        #[test]
        fn lists_settle(lines in prop::collection::vec("[a-c@=, ]{0,12}(=v{0,200})?", 0..5)) {
            let named: Vec<_> = lines.iter().map(|line| (TRACESTATE, line.as_str())).collect();
            if let Ok(state) = extract(&head(&named)) {
                prop_assert!(state.list.len() <= MAX_BYTES);
                let again = Head::new(vec![(TRACESTATE.as_bytes(), &state.list)]);
                prop_assert_eq!(
                    extract(&again),
                    Ok(TraceState { list: Cow::Borrowed(&*state.list), dropped: 0 }),
                );
            }
        }

        #[test]
        fn no_bytes_panic(lines: Vec<Vec<u8>>) {
            let lines = lines.iter().map(|line| (TRACESTATE.as_bytes(), line.as_slice()));
            let _ = extract(&Head::new(lines.collect()));
        }
    }
}
