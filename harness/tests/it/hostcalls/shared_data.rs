//! Shared data and shared queues.

use super::*;

#[test]
fn a_write_with_an_outdated_cas_number_fails() {
    let read = "(call $get_data (local.get $at) (local.get $size) (i32.const 16) (i32.const 20) (i32.const 24))";
    check(read, "key", [NOT_FOUND; 3]);
    let write = |cas: u32| {
        format!(
            "(call $set_data (local.get $at) (local.get $size) (i32.const 0) (i32.const 1) (i32.const {cas}))"
        )
    };
    check(&write(0), "key", [OK; 3]);
    // The first write makes number 1; the second expects 1, and makes 2; the third expects 1 too.
    check(&write(1), "key", [OK, OK, CAS_MISMATCH]);
}

#[test]
fn an_unknown_queue_is_not_found() {
    check("(call $dequeue (i32.const 1) (i32.const 16) (i32.const 20))", "", [NOT_FOUND; 3]);
}
