//! CEL expressions for the paths of Envoy's attributes, and for the operator's own expressions. Envoy's
//! foreign function `expr_create` compiles them.
//!
//! <https://github.com/google/cel-spec/blob/master/doc/langdef.md>
//!
//! ```text
//! path  = IDENT *( "." IDENT / "[" STRING "]" )
//! ```

/// Returns an expression for the value of an attribute, or for `""` where any part of its path is
/// absent. `path` has a zero byte between its parts.
///
/// Returns `None` for a path of one part, whose absence CEL cannot test, and where the first part is
/// not an identifier, since that part is written into the expression unquoted.
pub(crate) fn value_or_empty(path: &str) -> Option<String> {
    let mut parts = path.split('\0');
    let mut value = parts.next().filter(|root| is_identifier(root))?.to_owned();
    let mut tests = Vec::new();
    for part in parts {
        if is_identifier(part) {
            value = format!("{value}.{part}");
            tests.push(format!("has({value})"));
            if NULLABLE.contains(&value.as_str()) {
                tests.push(format!("{value}!=null"));
            }
        } else {
            let key = quoted(part);
            tests.push(format!("{key} in {value}"));
            value = format!("{value}[{key}]");
        }
    }
    (!tests.is_empty()).then(|| format!("({}?{value}:\"\")", tests.join("&&")))
}

/// Returns a CEL expression that converts the value of `expression` to text. It fails where `expression`
/// fails, and for null, lists and maps, which have no text.
pub(crate) fn text_of(expression: &str) -> String {
    // The newline ends a comment at the end of the expression. `string` accepts no boolean in Envoy 1.36.
    format!("[({expression}\n)].map(v,type(v)==bool?(v?\"true\":\"false\"):string(v))[0]")
}

fn is_identifier(part: &str) -> bool {
    let is_start = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    part.as_bytes().first().is_some_and(is_start)
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !RESERVED.contains(&part)
}

/// Returns a CEL string literal.
fn quoted(text: &str) -> String {
    let mut literal = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => literal.extend(['\\', char]),
            '\0'..' ' => literal.push_str(&format!("\\u{:04x}", u32::from(char))),
            _ => literal.push(char),
        }
    }
    literal.push('"');
    literal
}

/// Attributes that Envoy sets to null instead of leaving them out
/// (`source/extensions/filters/common/expr`).
const NULLABLE: [&str; 3] =
    ["xds.cluster_metadata", "xds.route_metadata", "xds.upstream_host_metadata"];
/// Words that CEL reserves, which are not identifiers.
const RESERVED: [&str; 20] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "while",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: &str) {
        assert_eq!(value_or_empty(&path.replace('/', "\0")).as_deref(), Some(expected));
    }

    #[test]
    fn every_part_of_a_path_is_tested() {
        check("response/code", r#"(has(response.code)?response.code:"")"#);
        check(
            "request/headers/x-user",
            r#"(has(request.headers)&&"x-user" in request.headers?request.headers["x-user"]:"")"#,
        );
        check(
            "metadata/filter_metadata/a.b/in",
            "(has(metadata.filter_metadata)&&\"a.b\" in metadata.filter_metadata\
             &&\"in\" in metadata.filter_metadata[\"a.b\"]\
             ?metadata.filter_metadata[\"a.b\"][\"in\"]:\"\")",
        );
    }

    #[test]
    fn an_attribute_that_may_be_null_is_tested_for_null() {
        check(
            "xds/upstream_host_metadata/filter_metadata",
            "(has(xds.upstream_host_metadata)&&xds.upstream_host_metadata!=null\
             &&has(xds.upstream_host_metadata.filter_metadata)\
             ?xds.upstream_host_metadata.filter_metadata:\"\")",
        );
    }

    #[test]
    fn a_value_is_written_as_text() {
        assert_eq!(
            text_of("request.size // bytes"),
            "[(request.size // bytes\n)].map(v,type(v)==bool?(v?\"true\":\"false\"):string(v))[0]"
        );
    }

    #[test]
    fn a_path_cannot_inject_an_expression() {
        for path in [
            "plugin_name",
            "request.headers/authorization",
            "response.code,response.code/a",
            "1/a",
            "'x'/a",
            "in/a",
            "/a",
            "",
        ] {
            assert_eq!(value_or_empty(&path.replace('/', "\0")), None, "{path}");
        }
    }

    #[test]
    fn keys_are_quoted() {
        check("a/\"]\\\n", r#"("\"]\\\u000a" in a?a["\"]\\\u000a"]:"")"#);
        check("a/é", r#"("é" in a?a["é"]:"")"#);
        check("a/1b", r#"("1b" in a?a["1b"]:"")"#);
        check("a/", r#"("" in a?a[""]:"")"#);
    }
}
