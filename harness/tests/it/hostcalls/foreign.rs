//! Foreign functions, most of all CEL expressions.

use super::*;

#[test]
fn one_failing_attribute_fails_the_expression() {
    let evaluate = "(block (result i32)
        (drop (call $foreign (i32.const 1024) (i32.const 11) (i32.const 1048) (i32.sub (local.get $size) (i32.const 24))
          (i32.const 16) (i32.const 20)))
        (call $foreign (i32.const 1035) (i32.const 13) (i32.load (i32.const 16)) (i32.const 4) (i32.const 16) (i32.const 20)))";
    let check = |expression: &str, expected| {
        check(evaluate, &format!("expr_createexpr_evaluate{expression}"), expected);
    };
    check("[request.path,response.code]", [INTERNAL_FAILURE, INTERNAL_FAILURE, OK]);
    check("[response.flags,xds.listener_direction]", [OK; 3]);
    check(
        "[has(connection.tls) ? connection.tls : \"\", response.code]",
        [INTERNAL_FAILURE, OK, OK],
    );
    check("[metadata.given.canary]", [OK; 3]);
    check("[has(metadata.given.none) ? 1 : 0]", [OK; 3]);
    check("[request.headers[\"content-length\"]]", [OK, INTERNAL_FAILURE, OK]);
    let guarded =
        "\"content-length\" in request.headers ? request.headers[\"content-length\"] : \"\"";
    check(&format!("[{guarded}]"), [OK; 3]);
    check("[has(metadata.filter_metadata) && has(metadata.filter_metadata.none) ? 1 : 0]", [OK; 3]);
    check("[request]", [SERIALIZATION_FAILURE; 3]);
    check("[has(xds.route_metadata.filter_metadata) ? 1 : 0]", [OK; 3]);
}

#[test]
fn malformed_expressions_and_unknown_tokens_fail() {
    let create = "(call $foreign (local.get $at) (i32.const 11) (i32.const 1035)
        (i32.sub (local.get $size) (i32.const 11)) (i32.const 16) (i32.const 20))";
    check(create, "expr_create[", [BAD_ARGUMENT; 3]);
    check(create, "expr_create[a", [BAD_ARGUMENT; 3]);
    check(create, "expr_create[]", [OK; 3]);
    let evaluate = "(call $foreign (local.get $at) (i32.const 13) (i32.const 1037)
        (i32.sub (local.get $size) (i32.const 13)) (i32.const 16) (i32.const 20))";
    check(evaluate, "expr_evaluate\0\0\0", [BAD_ARGUMENT; 3]);
    check(evaluate, "expr_evaluate\0\0\0\0", [NOT_FOUND; 3]);
    check(evaluate, "expr_evaluate", [BAD_ARGUMENT; 3]);
}

#[test]
fn functions_that_envoy_does_not_have_are_not_found() {
    check(
        "(call $foreign (local.get $at) (local.get $size) (i32.const 0) (i32.const 0) (i32.const 16) (i32.const 20))",
        "sign",
        [NOT_FOUND; 3],
    );
}
