use proptest::prelude::*;

use super::*;
use crate::propagation::testing::head;

/// Compares the list, which is `None` if it is invalid, and how many members were dropped.
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
fn lists_are_passed_on_without_spaces_and_empty_members() {
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
fn only_the_first_member_of_a_key_is_passed_on() {
    check(&["foo=1,foo=1"], Some("foo=1"), 0);
    check(&["foo=1,bar=2,foo=3"], Some("foo=1,bar=2"), 0);
    check(&["foo=1", "foo=2", "fo=3", "fooo=4"], Some("foo=1,fo=3,fooo=4"), 0);
    check_invalid("foo=1,foo=", "no value, although the key is repeated");
}

#[test]
fn a_list_that_needs_no_change_is_not_copied() {
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
fn all_allowed_characters_are_passed_on() {
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

/// The random bits of this id are 8 and zeros, so a threshold of at most 8 samples it.
const TRACE: u128 = 0xff << 120 | 8 << 52;

#[track_caller]
fn check_updated(list: &str, update: ThresholdUpdate, sampled: bool, expected: (&str, u32)) {
    let lines = [(TRACESTATE, list)];
    let mut state = extract(&head(&lines)).unwrap();
    state.update_threshold(update, sampled, TraceId::from(TRACE), None);
    let found = (str::from_utf8(&state.list).unwrap(), state.dropped);
    assert_eq!(found, expected, "{list}");
}

#[test]
fn decisions_update_the_threshold() {
    use ThresholdUpdate::{Erase, Keep};
    let half = ThresholdUpdate::Set(8 << 52);
    for (list, update, sampled, expected, reason) in [
        ("", half, true, "ot=th:8", "a new trace"),
        ("a=1", half, true, "ot=th:8,a=1", "a new member is the first"),
        (
            "a=1,ot=th:c,b=2",
            half,
            true,
            "ot=th:8,a=1,b=2",
            "a member that changes moves to the front",
        ),
        ("a=1,ot=th:8,b=2", half, true, "a=1,ot=th:8,b=2", "a member that does not change stays"),
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
        check_updated(list, update, sampled, (expected, 0));
        assert!(!reason.is_empty() || list.contains("rv"));
    }
}

#[test]
fn other_members_are_dropped_for_a_new_one() {
    let half = ThresholdUpdate::Set(8 << 52);
    let many: Vec<_> = (0..32).map(|index| format!("k{index}=v")).collect();
    let expected = format!("ot=th:8,{}", many[..31].join(","));
    check_updated(&many.join(","), half, true, (&expected, 1));
    let long = format!("a={},b={},c={}", "v".repeat(250), "v".repeat(250), "v");
    let expected = format!("ot=th:8,a={},c=v", "v".repeat(250));
    check_updated(&long, half, true, (&expected, 1));
}

proptest! {
    #[test]
    fn a_list_that_was_passed_on_needs_no_further_change(lines in prop::collection::vec("[a-c@=, ]{0,12}(=v{0,200})?", 0..5)) {
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
