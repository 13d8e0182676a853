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

use opentelemetry::trace::TraceId;

use super::ot::{self, Announced};
use crate::head::Head;
use crate::ratio;

/// A list as it goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceState<'a> {
    /// Members without what may stand between them but commas; empty where there is none.
    pub list: Cow<'a, [u8]>,
    /// Members that did not fit into [`MAX_BYTES`].
    pub dropped: u32,
    /// OpenTelemetry's member is among them.
    pub has_ot: bool,
}

impl TraceState<'_> {
    /// Returns the value of OpenTelemetry's member, empty where there is none.
    fn ot(&self) -> &[u8] {
        let of_ot = |member: &[u8]| has_key(member, ot::KEY);
        let member = if self.has_ot { members(&self.list).find(|it| of_ot(it)) } else { None };
        member.and_then(|member| member.get(ot::KEY.len() + 1..)).unwrap_or_default()
    }

    /// Returns the randomness that the list states for its trace.
    pub fn randomness(&self) -> Option<u64> {
        if self.has_ot { ot::randomness(self.ot()) } else { None }
    }

    /// Brings the list up to a decision on this trace. A member that changes moves to the front
    /// (section 3.3.1.3.1); where there is no room for it, others give way as when a list is read.
    /// Where the trace was decided by randomness of our own, nothing of the old member stays.
    #[inline(never)]
    pub fn announce(
        &mut self,
        announced: Announced,
        sampled: bool,
        trace_id: TraceId,
        own_randomness: Option<u64>,
    ) {
        let value = if own_randomness.is_some() { &[] } else { self.ot() };
        let threshold = match announced {
            Announced::Threshold(threshold) => Some(threshold),
            Announced::Erase => None,
            Announced::Keep => {
                let randomness = ot::randomness(value);
                let randomness = randomness.unwrap_or_else(|| ratio::randomness(trace_id));
                ot::threshold(value).filter(|threshold| sampled == (randomness >= *threshold))
            }
        };
        let rewritten = match (own_randomness, threshold) {
            (Some(randomness), Some(threshold)) => ot::stated(threshold, randomness),
            (Some(_), None) => Vec::new(),
            (None, _) => {
                if threshold == ot::threshold(value) && threshold.is_some() {
                    return;
                }
                ot::rewritten(value, threshold)
            }
        };
        if rewritten == self.ot() {
            return;
        }
        let mut others: Vec<&[u8]> = Vec::new();
        others.extend(members(&self.list).filter(|member| !has_key(member, ot::KEY)));
        let mut list = Vec::new();
        let mut dropped = 0;
        if !rewritten.is_empty() {
            list.extend_from_slice(ot::KEY);
            list.push(b'=');
            list.extend_from_slice(&rewritten);
            if others.len() == MAX_MEMBERS {
                others.pop();
                dropped += 1;
            }
            dropped += truncate(&mut others, MAX_BYTES - list.len() - 1);
        }
        for member in others {
            if !list.is_empty() {
                list.push(b',');
            }
            list.extend_from_slice(member);
        }
        let has_ot = !rewritten.is_empty();
        *self = Self { list: Cow::Owned(list), dropped: self.dropped + dropped, has_ot };
    }
}

/// The members of a list whose grammar was checked.
fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').filter(|member| !member.is_empty())
}

/// Reads all lines as one list. One member that breaks the grammar makes all of it invalid.
pub fn extract<'a>(head: &Head<'a>) -> Result<TraceState<'a>, &'static str> {
    let sizes = head.all(TRACESTATE).map(<[u8]>::len);
    if sizes.sum::<usize>() > MAX_READ_BYTES {
        return Err("expected a list of at most 16 KiB");
    }
    let mut members: Vec<&[u8]> = Vec::new();
    let mut count = 0;
    for member in head.all(TRACESTATE).flat_map(|line| line.split(|byte| *byte == b',')) {
        let member = member.trim_ascii();
        if member.is_empty() {
            continue;
        }
        let key = key(member).ok_or("expected list members of the form key=value")?;
        count += 1;
        if count > MAX_MEMBERS {
            return Err("expected at most 32 list members");
        }
        if !members.iter().any(|known| has_key(known, key)) {
            members.push(member);
        }
    }
    let dropped = truncate(&mut members, MAX_BYTES);
    let has_ot = members.iter().any(|member| has_key(member, ot::KEY));
    let mut lines = head.all(TRACESTATE);
    let list = match (lines.next(), lines.next()) {
        (Some(line), None) if joined_len(&members) == line.len() => Cow::Borrowed(line),
        _ => Cow::Owned(members.join(&b',')),
    };
    Ok(TraceState { list, dropped, has_ot })
}

/// Removes members until the list is short enough: long ones first, then from the end, as the
/// specification has it. Returns how many.
fn truncate(members: &mut Vec<&[u8]>, max_bytes: usize) -> u32 {
    let mut dropped = 0;
    while joined_len(members) > max_bytes {
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
/// A list of that length is not looked at. The longest that is valid, without spaces, is a little
/// longer: 32 keys and values of 256 bytes.
const MAX_READ_BYTES: usize = 16 * 1024;
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

    /// The id's random bits are 8 and zeros: of a threshold of 8 or less it is sampled.
    const TRACE: u128 = 0xff << 120 | 8 << 52;

    #[track_caller]
    fn check_announced(list: &str, announced: Announced, sampled: bool, expected: (&str, u32)) {
        let lines = [(TRACESTATE, list)];
        let mut state = extract(&head(&lines)).unwrap();
        state.announce(announced, sampled, TraceId::from(TRACE), None);
        let found = (str::from_utf8(&state.list).unwrap(), state.dropped);
        assert_eq!(found, expected, "{list}");
    }

    #[test]
    fn decisions_are_announced() {
        use Announced::{Erase, Keep};
        let half = Announced::Threshold(8 << 52);
        for (list, announced, sampled, expected, reason) in [
            ("", half, true, "ot=th:8", "a new trace"),
            ("a=1", half, true, "ot=th:8,a=1", "a new member is the first"),
            ("a=1,ot=th:c,b=2", half, true, "ot=th:8,a=1,b=2", "one that changes moves"),
            ("a=1,ot=th:8,b=2", half, true, "a=1,ot=th:8,b=2", "one that does not stays"),
            ("a=1,ot=rv:80000000000000;x:1", half, true, "ot=th:8;rv:80000000000000;x:1,a=1", ""),
            ("", Erase, true, "", "nothing to erase"),
            ("a=1", Erase, true, "a=1", "nothing to erase"),
            ("a=1,ot=th:c", Erase, false, "a=1", "nothing is left"),
            ("a=1,ot=th:c;x:1", Erase, false, "ot=x:1,a=1", "others are left"),
            ("a=1,ot=rv:80000000000000", Erase, false, "a=1,ot=rv:80000000000000", "only rv"),
            ("a=1,ot=th:8", Keep, true, "a=1,ot=th:8", "sampled, and it would be"),
            ("a=1,ot=th:c", Keep, false, "a=1,ot=th:c", "not sampled, and it would not be"),
            ("a=1,ot=th:8", Keep, false, "a=1", "not sampled, and it would be"),
            ("a=1,ot=th:c", Keep, true, "a=1", "sampled, and it would not be"),
            ("ot=th:c;rv:c0000000000000", Keep, true, "ot=th:c;rv:c0000000000000", "by rv"),
            ("ot=th:8;rv:70000000000000", Keep, true, "ot=rv:70000000000000", "not by rv"),
            ("ot=th:rubbish", Keep, true, "", "malformed"),
            ("ot=x:1", Keep, true, "ot=x:1", "nothing to keep"),
        ] {
            check_announced(list, announced, sampled, (expected, 0));
            assert!(!reason.is_empty() || list.contains("rv"));
        }
    }

    #[test]
    fn others_give_way_to_a_new_member() {
        let half = Announced::Threshold(8 << 52);
        let many: Vec<_> = (0..32).map(|place| format!("k{place}=v")).collect();
        let expected = format!("ot=th:8,{}", many[..31].join(","));
        check_announced(&many.join(","), half, true, (&expected, 1));
        let long = format!("a={},b={},c={}", "v".repeat(250), "v".repeat(250), "v");
        let expected = format!("ot=th:8,a={},c=v", "v".repeat(250));
        check_announced(&long, half, true, (&expected, 1));
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
                    Ok(TraceState { list: Cow::Borrowed(&*state.list), dropped: 0, has_ot: state.has_ot }),
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
