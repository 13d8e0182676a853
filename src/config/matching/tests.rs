use crate::config::testing::{check_refused, parse, rule};

#[test]
fn wrong_conditions_are_refused_with_their_path() {
    let kinds = "one of `exact`, `prefix`, `suffix`, `contains`, `regex`";
    let valid = "a valid regular expression";
    let normal = "a normalized path";
    let several = "`present`, `token` or a condition on the value";
    let name = "the name of a header";
    let stripped = "a header that neither HTTP, Envoy nor a trace context needs";
    for (members, path, findings) in [
        (r#""path": {"exact": "/a/../b"}"#, "path.exact", [normal, "found \"/a/../b\""]),
        (r#""path": {"exact": "/a?b"}"#, "path.exact", [normal, "found \"/a?b\""]),
        (r#""path": {"prefix": "//a"}"#, "path.prefix", [normal, "found \"//a\""]),
        (r#""path": {"prefix": "/%61"}"#, "path.prefix", [normal, "found \"/%61\""]),
        (r#""path": {"regex": "("}"#, "path.regex", [valid, "found \"(\""]),
        (r#""path": [{"regex": "a)|(b"}]"#, "path[0].regex", [valid, "found \"a)|(b\""]),
        (
            r#""path": [{"regex": "(a{1000}){1000}"}]"#,
            "path[0].regex",
            ["a regular expression with fewer repetitions", "found \"(a{1000}){1000}\""],
        ),
        (r#""path": ["/a"]"#, "path[0]", ["an object", "found a string"]),
        (r#""path": "/a""#, "path", ["an object", "found a string"]),
        (r#""path": []"#, "path", ["at least one", "an empty array"]),
        (r#""path": null"#, "path", ["an object", "found null"]),
        (r#""path": [[{"exact": "/"}]]"#, "path[0]", ["an object", "found an array"]),
        (r#""path": [{}]"#, "path[0]", [kinds, "none of them"]),
        (r#""path": {"ignore_case": true}"#, "path", [kinds, "none of them"]),
        (
            r#""path": [{"exact": "/", "prefix": "/"}]"#,
            "path[0]",
            [kinds, "both `exact` and `prefix`"],
        ),
        (
            r#""path": {"glob": "/*"}"#,
            "path.glob",
            [
                "a known key, one of `exact`, `prefix`, `suffix`, `contains`, `regex`, \
                 `ignore_case`, but",
                "found \"glob\"",
            ],
        ),
        (
            r#""path": {"exact": "/", "ignoreCase": true, "ignore_case": true}"#,
            "path.ignore_case",
            ["the key once", "it twice"],
        ),
        (r#""method": 1"#, "method", ["a method or an object", "found 1"]),
        (r#""method": ["GET", {"exact": 1}]"#, "method[1].exact", ["a string", "found 1"]),
        (r#""method": [{}]"#, "method[0]", [kinds, "none of them"]),
        (r#""headers": [{"exact": "1"}]"#, "headers[0].name", ["required", "none"]),
        (r#""headers": {"exact": "1"}"#, "headers.name", ["required", "none"]),
        (r#""headers": [{"name": "x y", "exact": "1"}]"#, "headers[0].name", [name, "\"x y\""]),
        (r#""headers": [{"name": "", "exact": "1"}]"#, "headers[0].name", [name, "\"\""]),
        (r#""headers": {"name": ":status", "exact": "1"}"#, "headers.name", [name, "\":status\""]),
        (r#""headers": {"name": "x", "exact": true}"#, "headers.exact", ["a string", "true"]),
        (r#""headers": {"name": "x", "regex": "["}"#, "headers.regex", [valid, "found \"[\""]),
        (
            r#""headers": {"name": "x"}"#,
            "headers",
            [
                "one of `exact`, `prefix`, `suffix`, `contains`, `regex`, `present`, `token`",
                "none of them",
            ],
        ),
        (r#""headers": {"name": "x", "ignore_case": true}"#, "headers", [kinds, "none of them"]),
        (
            r#""headers": {"name": "x", "present": true, "exact": "1"}"#,
            "headers",
            [several, "several of them"],
        ),
        (
            r#""headers": {"name": "x", "present": true, "ignoreCase": false}"#,
            "headers",
            [several, "several of them"],
        ),
        (
            r#""headers": [{"name": "x", "present": true, "token": {}}]"#,
            "headers[0]",
            [several, "several of them"],
        ),
        (
            r#""headers": {"name": "x", "exact": "1", "ignore_case": null}"#,
            "headers.ignore_case",
            ["true or false", "found null"],
        ),
        (
            r#""headers": {"name": "x", "equals": "1"}"#,
            "headers.equals",
            [
                "a known key, one of `name`, `present`, `invert`, `token`, `strip`, `exact`, \
                 `prefix`, `suffix`, `contains`, `regex`, `ignore_case`, but",
                "found \"equals\"",
            ],
        ),
        (
            r#""headers": {"name": "Baggage", "present": true, "strip": true}"#,
            "headers.name",
            [stripped, "\"baggage\""],
        ),
        (
            r#""headers": {"name": "X-Forwarded-Proto", "present": true, "strip": true}"#,
            "headers.name",
            [stripped, "\"x-forwarded-proto\""],
        ),
        (
            r#""headers": {"name": "Host", "present": true, "strip": true}"#,
            "headers.name",
            [stripped, "\":authority\""],
        ),
        (
            r#""headers": {"name": ":path", "present": true, "strip": true}"#,
            "headers.name",
            [stripped, "\":path\""],
        ),
    ] {
        let json = rule(&format!(r#""match": {{{members}}}"#));
        check_refused(&json, &format!("sampling.rules[1].match.{path}"), &findings);
    }
}

#[test]
fn normalized_paths_are_accepted() {
    for path in ["/", "/a/", "/.well-known/x", "/a.b/..c", "/caf%C3%A9", "/a%2Fb", "*", ""] {
        for kind in ["exact", "prefix"] {
            parse(&rule(&format!(r#""match": {{"path": {{"{kind}": "{path}"}}}}"#))).unwrap();
        }
    }
    // Dots at the end of a prefix may begin a longer name.
    parse(&rule(r#""match": {"path": {"prefix": "/."}}"#)).unwrap();
    parse(&rule(r#""match": {"path": {"prefix": "/a/.."}}"#)).unwrap();
}
