use super::*;

/// Evaluates an expression over a few attributes. `None`: the expression does not parse.
#[track_caller]
fn check(text: &str, expected: Option<Result<Value, Status>>) {
    let read = |path: &str| match path {
        "request" | "metadata" => Ok(Value::Message(path.into())),
        "request\0id" => Ok(Value::text("1")),
        "request\0size" => Ok(Value::Int(3)),
        "request\0null" => Ok(Value::Null),
        "request\0headers" => {
            Ok(Value::Headers([("x-a", "a"), ("x-a", "b")].into_iter().collect()))
        }
        "metadata\0filter_metadata" => Ok(Value::Map(vec![])),
        _ => Err(Status::NotFound),
    };
    let found = Expression::parse(text).map(|expression| expression.evaluate(&read));
    assert_eq!(found, expected, "{text}");
}

fn list(texts: &[&str]) -> Option<Result<Value, Status>> {
    Some(Ok(Value::List(texts.iter().map(|text| Value::text(*text)).collect())))
}

fn text(text: &str) -> Option<Result<Value, Status>> {
    Some(Ok(Value::text(text)))
}

fn bool(value: bool) -> Option<Result<Value, Status>> {
    Some(Ok(Value::Bool(value)))
}

#[test]
fn a_list_has_its_values_in_order() {
    check("[]", list(&[]));
    check("[request.id,request.id]", list(&["1", "1"]));
    check(r#"[ request["id"], 'a', "" ]"#, list(&["1", "a", ""]));
    check("[7]", Some(Ok(Value::List(vec![Value::Int(7)]))));
    check("['a',]", list(&["a"]));
    check("[,]", list(&[]));
}

#[test]
fn an_absent_attribute_fails_the_whole_expression() {
    check("[request.id,request.none]", FAIL);
    check(r#"[request.headers["x-none"]]"#, FAIL);
    check("none", FAIL);
    check("request.id.more", FAIL);
}

#[test]
fn has_tests_the_last_field() {
    check(r#"[has(request.id) ? request.id : ""]"#, list(&["1"]));
    check(r#"[has(request.none)?request.none:""]"#, list(&[""]));
    check(r#"[has(request.headers.none) ? 1 : "b"]"#, list(&["b"]));
    check(r#"[has(request.a) ? "a" : has(request.b) ? "b" : request.id, "c"]"#, list(&["1", "c"]));
    check("has( request . id )", bool(true));
    check(r#"has(request["headers"].none)"#, bool(false));
    check(r#"[has(request.none.none) ? "a" : "b"]"#, FAIL);
    check(r#"[has(none.none) ? "a" : "b"]"#, FAIL);
}

#[test]
fn has_is_false_for_an_empty_map_field() {
    check("has(metadata.filter_metadata)", bool(false));
    check("metadata.filter_metadata", Some(Ok(Value::Map(vec![]))));
    check("has(metadata.filter_metadata.a)", bool(false));
}

#[test]
fn in_tests_keys_and_items() {
    let guarded = |name: &str| {
        format!(
            r#"[has(request.headers) && "{name}" in request.headers ? request.headers["{name}"] : ""]"#
        )
    };
    check(&guarded("x-a"), list(&["a,b"]));
    check(&guarded("X-A"), list(&["a,b"]));
    check(&guarded("x-none"), list(&[""]));
    check("\"id\" in request", bool(true));
    check("2 in [1, 2.0]", bool(true));
    check("index", FAIL);
    check("1 in 1", FAIL);
}

#[test]
fn an_operand_that_decides_the_result_hides_an_error_in_the_other() {
    check("request.none == 1 || true", bool(true));
    check("true || request.none", bool(true));
    check("request.none && false", bool(false));
    check("request.none && true", FAIL);
    check("false || request.none", FAIL);
    check("1 && true", FAIL);
    check("true || false && false", bool(true));
    check("!(true && false)", bool(true));
    check("!!true", bool(true));
    check("!1", FAIL);
}

#[test]
fn values_are_compared_and_added() {
    check("request.id == \"1\"", bool(true));
    check("request.id == 1", bool(false));
    check("request.size == 3u && request.size == 3.0 && request.size != 4", bool(true));
    check("\"a\" + 'b' == \"ab\"", bool(true));
    check("-1 + 3", Some(Ok(Value::Int(2))));
    check("--1", Some(Ok(Value::Int(1))));
    check("1.5 + 5e-1", Some(Ok(Value::Double(2.0))));
    check("[\"a\"] + [\"b\"]", list(&["a", "b"]));
    check("[1, 2][1]", Some(Ok(Value::Int(2))));
    check("[1][1]", FAIL);
    check("1 + \"a\"", FAIL);
    check("9223372036854775807 + 1", FAIL);
    check("request.null == null", bool(true));
    check("request.id ? 1 : 2", FAIL);
}

#[test]
fn strings_have_escapes() {
    check(r#"["a\"\\\n", 'a"']"#, list(&["a\"\\\n", "a\""]));
    check(r#"["\u0001\u00e9"]"#, list(&["\u{1}é"]));
}

#[test]
fn functions_have_values() {
    check("string(request.size) + string(1.5) + string(7u) + string(true)", text("31.57true"));
    check("string([1])", FAIL);
    check("string(null)", FAIL);
    check("size('é') + size([1, 2]) == 3", bool(true));
    check("int('12') + int(2.9) == 14", bool(true));
    check("uint(3) == 3u && double('1.5') == 1.5", bool(true));
    check("int('a')", FAIL);
    check("uint(-1)", FAIL);
    check("type(request.size) == int && type('') == string && type(1) != bool", bool(true));
    check("'abc'.startsWith('ab') && 'abc'.endsWith('bc') && 'abc'.contains('')", bool(true));
    check("'abc'.contains('cb') || 'abc'.startsWith('b')", bool(false));
    check(r"'a1'.matches(r'^[a-z]\d$') && matches('b', '[ab]')", bool(true));
    check("'a'.matches('(')", FAIL);
    check("1.startsWith(1)", FAIL);
    check("request.size.startsWith('a')", FAIL);
    check("timestamp('a')", FAIL);
    check("request.size.getHours()", FAIL);
}

#[test]
fn macros_see_each_item() {
    check("[1, 2].map(x, x + 1)", Some(Ok(Value::List(vec![Value::Int(2), Value::Int(3)]))));
    check("[1, 2].filter(x, x > 1)", Some(Ok(Value::List(vec![Value::Int(2)]))));
    check("[1, 2].all(x, x > 1) || [1, 2].exists(x, x > 2)", bool(false));
    check("[1].map(x, [2].map(y, x + y)[0])[0]", Some(Ok(Value::Int(3))));
    check("['a'].map(x, x + request.id)", list(&["a1"]));
    check("[(request.id // comment\n)].map(v, string(v))[0]", text("1"));
    check("[1].map(x, x.none)", FAIL);
    check("[1].filter(x, x)", FAIL);
    check("1u in [1u].map(x, x) && 'a'.map(x, x)", FAIL);
}

#[test]
fn numbers_are_computed_and_ordered() {
    check("7 - 2 * 3 + 9 / 2 % 3", Some(Ok(Value::Int(2))));
    check("5.0 / 2.0 - 0.5", Some(Ok(Value::Double(2.0))));
    check("3u - 2u", Some(Ok(Value::Uint(1))));
    check("2u - 3u", FAIL);
    check("1 / 0", FAIL);
    check("5.0 % 2.0", FAIL);
    check("1 - 1.0", FAIL);
    check("1 < 2 && 2 <= 2.0 && 3u > 2 && 'b' >= 'a'", bool(true));
    check("1 < 'a'", FAIL);
    check("null < null", FAIL);
}

#[test]
fn text_outside_the_grammar_is_rejected() {
    for text in [
        "",
        "[",
        "[request.id",
        "[,,]",
        "[,'a']",
        "request.id]",
        "[request.]",
        "[.id]",
        "has(request)",
        "has(request[\"id\"])",
        "[has(request.id) ? 1]",
        "[has request.id ? 1 : 2]",
        "['a]",
        r#"["\q"]"#,
        r#"["\u12"]"#,
        r#"["\ud800"]"#,
        "\"a\nb\"",
        "a = b",
        "a & b",
        "a in",
        "in",
        "1u8",
        "99999999999999999999",
        "split(a)",
        "a.split(b)",
        "size (",
        "size(a b)",
        "a.map(1, c)",
        "a.map(b)",
        "a // comment \n b",
        "a /",
        "a < = b",
    ] {
        check(text, None);
    }
}

const FAIL: Option<Result<Value, Status>> = Some(Err(Status::InternalFailure));
