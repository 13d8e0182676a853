//! Checks that each room uses only those below it, in the order of `lib.rs` and of `host/mod.rs`.

use std::path::{Path, PathBuf};

/// Checks the rooms that `file` declares, in their order. Code names another room with one of `prefixes`.
#[track_caller]
fn check(file: &str, prefixes: &[&str]) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let rooms = rooms(&file);
    assert!(rooms.len() > 5, "{rooms:?}");
    for (index, room) in rooms.iter().enumerate() {
        for source in sources(&file.with_file_name(room)) {
            let text = std::fs::read_to_string(&source).expect("a source file");
            for used in prefixes.iter().flat_map(|prefix| names_after(prefix, &text)) {
                let is_above = rooms.iter().take(index).any(|above| above == used);
                assert!(!is_above, "{} uses `{used}`, which is above it", source.display());
            }
        }
    }
}

/// Returns the modules that a file declares, apart from tests.
fn rooms(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).expect("a source file");
    let text = text.replace("#[cfg(test)]\nmod ", "");
    let names = text
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'));
    names.map(str::to_owned).collect()
}

/// Returns the source files of a room.
fn sources(room: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(room).into_iter().flatten().flatten();
    let files = files.map(|file| file.path());
    files.chain([room.with_extension("rs")]).filter(|file| file.is_file()).collect()
}

fn names_after<'t>(prefix: &str, text: &'t str) -> impl Iterator<Item = &'t str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(prefix).skip(1).filter_map(move |rest| rest.split(|c| !is_name(c)).next())
}

#[test]
fn rooms_use_only_those_below_them() {
    check("src/lib.rs", &["crate::"]);
    check("src/host/mod.rs", &["super::", "crate::host::"]);
}
