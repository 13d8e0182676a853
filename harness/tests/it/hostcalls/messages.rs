//! Header maps and buffers.

use super::*;

#[test]
fn a_header_can_be_read_in_its_phase_and_in_on_log() {
    let header = |map: u32| {
        format!(
            "(call $header (i32.const {map}) (local.get $at) (local.get $size) (i32.const 16) (i32.const 20))"
        )
    };
    check(&header(REQUEST_HEADERS), ":path", [OK, BAD_ARGUMENT, OK]);
    check(&header(REQUEST_HEADERS), ":PATH", [OK, BAD_ARGUMENT, OK]);
    check(&header(REQUEST_HEADERS), "x-absent", [NOT_FOUND, BAD_ARGUMENT, NOT_FOUND]);
    check(&header(RESPONSE_HEADERS), ":status", [BAD_ARGUMENT, OK, OK]);
    check(&header(RESPONSE_TRAILERS), "x-late", [BAD_ARGUMENT, BAD_ARGUMENT, OK]);
    check(&header(9), ":status", [BAD_ARGUMENT; 3]);
}

#[test]
fn a_whole_map_is_empty_outside_its_phase() {
    check("(call $headers (i32.const 0) (i32.const 16) (i32.const 20))", "", [OK; 3]);
    // The size of the returned pairs.
    let size = "(block (result i32) (drop (call $headers (i32.const 0) (i32.const 16) (i32.const 20))) (i32.load (i32.const 20)))";
    check(size, "", [4 + 24 + 5 + 4 + 7 + 3 + 14 + 1 + 6, 0, 68]);
}

#[test]
fn the_size_of_a_map_can_be_read_only_in_its_phase() {
    check("(call $map_size (i32.const 0) (i32.const 16))", "", [OK, BAD_ARGUMENT, BAD_ARGUMENT]);
}

#[test]
fn absent_trailers_are_not_found_in_on_log() {
    let header = "(call $header (i32.const 1) (local.get $at) (local.get $size) (i32.const 16) (i32.const 20))";
    check(header, "x", [BAD_ARGUMENT, BAD_ARGUMENT, NOT_FOUND]);
}

#[test]
fn a_header_can_be_added_only_in_its_phase() {
    let add = |map: u32| {
        format!(
            "(call $add (i32.const {map}) (local.get $at) (local.get $size) (local.get $at) (local.get $size))"
        )
    };
    check(&add(REQUEST_HEADERS), "x-added", [OK, BAD_ARGUMENT, BAD_ARGUMENT]);
    check(&add(RESPONSE_HEADERS), "x-added", [BAD_ARGUMENT, OK, BAD_ARGUMENT]);
    check(&add(RESPONSE_TRAILERS), "x-added", [BAD_ARGUMENT; 3]);
}

#[test]
fn the_configuration_is_absent_while_requests_are_handled() {
    check(
        "(call $buffer (i32.const 7) (i32.const 0) (i32.const 9) (i32.const 16) (i32.const 20))",
        "",
        [NOT_FOUND; 3],
    );
}

#[test]
fn pointers_outside_memory_are_invalid() {
    for call in [
        "(call $log (i32.const 2) (i32.const -1) (i32.const 2))",
        "(call $log (i32.const 2) (i32.const 131072) (i32.const 1))",
        "(call $headers (i32.const 0) (i32.const -4) (i32.const -4))",
    ] {
        check(call, "", [INVALID_MEMORY_ACCESS; 3]);
    }
}

const REQUEST_HEADERS: u32 = 0;
const RESPONSE_HEADERS: u32 = 2;
const RESPONSE_TRAILERS: u32 = 3;
