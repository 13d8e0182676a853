//! Metrics.

use super::*;

#[test]
fn counters_only_increase_and_histograms_cannot_be_incremented() {
    let increment = |kind: u32, offset: i64| {
        format!(
            "(block (result i32)
               (drop (call $define (i32.const {kind}) (local.get $at) (local.get $size) (i32.const 16)))
               (call $increment (i32.load (i32.const 16)) (i64.const {offset})))"
        )
    };
    check(&increment(COUNTER, 1), "a", [OK; 3]);
    check(&increment(COUNTER, 0), "a", [BAD_ARGUMENT; 3]);
    check(&increment(COUNTER, -1), "a", [BAD_ARGUMENT; 3]);
    check(&increment(GAUGE, -1), "a", [OK; 3]);
    check(&increment(HISTOGRAM, 1), "a", [BAD_ARGUMENT; 3]);
    check("(call $metric (i32.const 400) (i32.const 16))", "", [NOT_FOUND; 3]);
    check(
        "(call $define (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 16))",
        "",
        [BAD_ARGUMENT; 3],
    );
}

const COUNTER: u32 = 0;
const GAUGE: u32 = 1;
const HISTOGRAM: u32 = 2;
