//! The module under test, and the checkout that it is in.

use std::path::{Path, PathBuf};

use once_cell::sync::OnceCell;
use sidespan_harness::host::Module;

/// The built filter. A test without it fails: it has nothing to say.
#[track_caller]
pub fn path() -> PathBuf {
    let path = checkout().join("target/sidespan.wasm");
    assert!(path.is_file(), "target/sidespan.wasm is missing: run make wasm");
    path
}

/// The filter, compiled by the first test that needs it. A failure is not kept, so that each test
/// says why.
#[track_caller]
pub fn load() -> &'static Module {
    static MODULE: OnceCell<Module> = OnceCell::new();
    MODULE.get_or_try_init(|| Module::load(&path(), false)).expect("the module loads")
}

/// Compiles a module that is written in WebAssembly's text format.
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
