//! Patterns for property tests.

use proptest::prelude::*;

/// Returns patterns of all parts of the syntax that both this crate and the `regex` crate have.
pub(in crate::sampling::regex) fn any_pattern() -> impl Strategy<Value = String> {
    let atom = prop_oneof![
        "[ab_\n-]",
        Just(".".to_owned()),
        Just("[^a]".to_owned()),
        Just("[a-b]".to_owned()),
        Just(r"\w".to_owned()),
        Just(r"\b".to_owned()),
        Just(r"\B".to_owned()),
        Just("^".to_owned()),
        Just("$".to_owned()),
        Just("(?m:^)".to_owned()),
        Just("(?m:$)".to_owned()),
        Just("(?i:a)".to_owned()),
    ];
    atom.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|parts| parts.concat()),
            prop::collection::vec(inner.clone(), 1..4)
                .prop_map(|parts| format!("({})", parts.join("|"))),
            (inner.clone(), 0..3_u32, 0..3_u32)
                .prop_map(|(it, min, more)| format!("({it}){{{min},{}}}", min + more)),
            inner.clone().prop_map(|it| format!("({it})*")),
            inner.prop_map(|it| format!("({it})+?")),
        ]
    })
}
