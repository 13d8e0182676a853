//! Makes the tables of keys in docs/configuration.md from the doc comments of the raw structs.
//!
//! `make docs` writes the tables, and a test fails where they are out of date.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, Fields, GenericArgument, Item, Lit, Meta, PathArguments, Token, Type};

use super::propagation::{NAMES, NONE};

/// Structs that many keys share, and that have a table of their own: the struct, the heading of its
/// table, and the words by which keys refer to it.
const SHAPES: [(&str, &str, &str); 4] = [
    ("RawStringMatch", "String conditions", "a [string condition](#string-conditions)"),
    ("RawHeaderMatch", "Header conditions", "a [header condition](#header-conditions)"),
    ("RawToken", "Tokens", "a [token](#tokens)"),
    ("RawLimit", "Limits", "a [limit](#limits)"),
];
/// Types with a hand-written `Deserialize`, and the types that document their values.
const STAND_FOR: [(&str, &str); 3] = [
    ("RawMethodMatch", "RawStringMatch"),
    ("RawCustomTags", "RawCustomTag"),
    ("RawResourceValue", "RawResourceSource"),
];
const BEGIN: &str = "<!-- keys: written by `make docs` -->\n";
const END: &str = "<!-- end of keys -->\n";

/// The fields of a raw struct, or the values of an enum, with their comments.
#[derive(Default)]
struct Documented {
    is_enum: bool,
    comment: String,
    members: Vec<Member>,
}

struct Member {
    name: String,
    comment: String,
    kind: Kind,
}

/// The type of a field's value.
#[derive(Clone, Default)]
struct Kind {
    name: String,
    is_list: bool,
    is_map: bool,
}

/// Returns the structs and enums of the configuration by their names.
fn documented() -> HashMap<String, Documented> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config");
    let (mut files, mut folders) = (Vec::new(), vec![folder]);
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    let mut found = HashMap::new();
    for file in files {
        for item in syn::parse_file(&std::fs::read_to_string(file).unwrap()).unwrap().items {
            match item {
                Item::Struct(item) if is_read(&item.attrs) => {
                    let Fields::Named(fields) = item.fields else { continue };
                    let comment_of_all = comment(&item.attrs);
                    let members = fields.named.into_iter().map(|field| Member {
                        name: field.ident.unwrap().to_string().trim_start_matches("r#").to_owned(),
                        comment: comment(&field.attrs),
                        kind: kind(&field.ty),
                    });
                    let members = members.collect();
                    found.insert(
                        item.ident.to_string(),
                        Documented { is_enum: false, comment: comment_of_all, members },
                    );
                }
                Item::Enum(item) if is_read(&item.attrs) => {
                    let members = item.variants.into_iter().map(|variant| Member {
                        name: snake_case(&variant.ident.to_string()),
                        comment: comment(&variant.attrs),
                        kind: Kind::default(),
                    });
                    let members = members.collect();
                    found.insert(
                        item.ident.to_string(),
                        Documented { is_enum: true, comment: String::new(), members },
                    );
                }
                _ => {}
            }
        }
    }
    found
}

/// Tells whether a type derives serde's `Deserialize`.
fn is_read(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let Meta::List(list) = &attribute.meta else { return false };
        list.path.is_ident("derive")
            && list
                .parse_args_with(Punctuated::<syn::Path, Token![,]>::parse_terminated)
                .is_ok_and(|derived| derived.iter().any(|path| path.is_ident("Deserialize")))
    })
}

fn comment(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| {
        let Meta::NameValue(pair) = &attribute.meta else { return None };
        let Expr::Lit(literal) = &pair.value else { return None };
        let Lit::Str(text) = &literal.lit else { return None };
        pair.path.is_ident("doc").then(|| text.value().trim().to_owned())
    });
    let comment = lines.collect::<Vec<_>>().join(" ");
    comment.replace("[`NAMES`]", &names_of_formats()).trim().to_owned()
}

/// Returns the names of formats as the page lists them; it describes `none` apart from the others.
fn names_of_formats() -> String {
    let names = NAMES.iter().filter(|name| **name != NONE);
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Returns the type inside `Option`, lists and maps.
fn kind(of: &Type) -> Kind {
    let Type::Path(path) = of else { return Kind::default() };
    let Some(last) = path.path.segments.last() else { return Kind::default() };
    let name = last.ident.to_string();
    let inner = match &last.arguments {
        PathArguments::AngleBracketed(arguments) => arguments.args.iter().find_map(|argument| {
            let GenericArgument::Type(inner) = argument else { return None };
            Some(kind(inner))
        }),
        _ => None,
    };
    match (name.as_str(), inner) {
        ("Option", Some(inner)) => inner,
        ("Vec" | "OneOrMany", Some(inner)) => Kind { is_list: true, ..inner },
        ("Entries", Some(inner)) => Kind { is_map: true, ..inner },
        ("RawCustomTags", _) => Kind { name, is_list: true, is_map: false },
        _ => Kind { name, ..Kind::default() },
    }
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for char in name.chars() {
        if char.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(char.to_ascii_lowercase());
    }
    snake
}

/// Returns the table of all keys, and one table for each shape.
fn tables() -> String {
    let documented = documented();
    let mut page = String::new();
    let mut rows = Vec::new();
    add_rows(&documented, "RawConfig", "", &mut rows);
    write_table(&mut page, &rows);
    for (shape, heading, _) in SHAPES {
        write!(page, "\n## {heading}\n\n{}\n\n", documented[shape].comment).unwrap();
        let mut rows = Vec::new();
        add_rows(&documented, shape, "", &mut rows);
        write_table(&mut page, &rows);
    }
    page
}

fn add_rows(
    documented: &HashMap<String, Documented>,
    of: &str,
    prefix: &str,
    rows: &mut Vec<[String; 4]>,
) {
    for member in &documented[of].members {
        let key = format!("{prefix}{}", member.name);
        let Kind { name, is_list, is_map } = &member.kind;
        let stands_for = STAND_FOR.iter().find(|(from, _)| from == name).map(|(_, to)| *to);
        let name = stands_for.unwrap_or(name);
        let [mut meaning, default, example] = parts(&member.comment);
        if let Some((_, _, link)) = SHAPES.iter().find(|(shape, _, _)| *shape == name) {
            let link = if *is_list { link.replacen("a ", "each ", 1) } else { (*link).to_owned() };
            meaning = format!("{meaning} ({link})");
        }
        let values = documented.get(name);
        if let Some(values) = values.filter(|values| values.is_enum) {
            for value in values.members.iter().filter(|value| !value.comment.is_empty()) {
                let (first, rest) = value.comment.trim_end_matches('.').split_at(1);
                let comment = first.to_ascii_lowercase() + rest;
                write!(meaning, ". `{}`: {comment}", value.name).unwrap();
            }
        }
        rows.push([key.clone(), meaning, default, example]);
        let is_shape = SHAPES.iter().any(|(shape, _, _)| *shape == name);
        if !is_shape && values.is_some_and(|values| !values.is_enum) {
            let suffix = if *is_list {
                "[]."
            } else if *is_map {
                ".*."
            } else {
                "."
            };
            add_rows(documented, name, &format!("{key}{suffix}"), rows);
        }
    }
}

/// Splits a comment into meaning, default and example.
fn parts(comment: &str) -> [String; 3] {
    let (rest, example) = comment.split_once("Example: ").unwrap_or((comment, ""));
    let (meaning, default) = match rest.split_once("Default: ") {
        Some((meaning, default)) => (meaning, default),
        None => match rest.split_once("Required") {
            Some((meaning, _)) => (meaning, "*required*"),
            None => (rest, ""),
        },
    };
    [meaning, default, example].map(|part| part.trim().trim_end_matches('.').to_owned())
}

fn write_table(page: &mut String, rows: &[[String; 4]]) {
    page.push_str("| key | meaning | default | example |\n|---|---|---|---|\n");
    for [key, meaning, default, example] in rows {
        let [meaning, default, example] =
            [meaning, default, example].map(|cell| cell.replace('|', "\\|"));
        let row = format!("| `{key}` | {meaning} | {default} | {example} |");
        page.push_str(&row.replace("|  |", "| |").replace("|  |", "| |"));
        page.push('\n');
    }
}

#[test]
fn the_page_has_the_keys_of_the_raw_structs() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let page = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let written = format!("{before}{BEGIN}\n{}\n{END}{after}", tables());
    if std::env::var_os("WRITE_DOCS").is_some() {
        return std::fs::write(&file, &written).unwrap();
    }
    assert!(page == written, "docs/configuration.md is out of date: run `make docs`");
}

#[test]
fn every_key_has_a_meaning() {
    let documented = documented();
    assert!(documented.len() > 30);
    for (name, of) in documented.iter().filter(|(_, of)| !of.is_enum) {
        for member in &of.members {
            assert!(!member.comment.is_empty(), "{name}.{}", member.name);
        }
    }
}
