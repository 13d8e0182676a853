//! The module under test, and the checkout that contains it.

use std::path::{Path, PathBuf};

use once_cell::sync::OnceCell;
use sidespan_harness::host::Module;

/// Returns the path of the filter's module. Without the module a test fails.
#[track_caller]
pub fn path() -> PathBuf {
    let path = checkout().join("target/sidespan.wasm");
    assert!(path.is_file(), "target/sidespan.wasm is missing: run make wasm");
    path
}

/// Returns the filter's module, which the first test that needs it compiles. An error is not stored, so
/// that each test reports it.
#[track_caller]
pub fn load() -> &'static Module {
    static MODULE: OnceCell<Module> = OnceCell::new();
    MODULE.get_or_try_init(|| Module::load(&path(), false)).expect("the module loads")
}

/// Compiles a module from its body in WebAssembly's text format.
#[track_caller]
pub fn from_wat(body: &str) -> anyhow::Result<Module> {
    let file = tempfile::Builder::new().suffix(".wasm").tempfile()?;
    let text = format!("(module {body} (func (export \"proxy_abi_version_0_2_1\")))");
    std::fs::write(
        file.path(),
        wat::parse_str(text).expect("the text of the test is WebAssembly"),
    )?;
    Module::load(file.path(), false)
}

pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the harness is a folder of the checkout")
}
