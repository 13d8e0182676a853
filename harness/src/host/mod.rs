//! A proxy-wasm host: loads a module as Envoy does, and calls its callbacks.
//!
//! A [`Module`] is compiled once. [`Module::start`] creates a [`Vm`] with its own memory, clock, metrics
//! and log, which stands for one worker thread of Envoy. Only the scenario moves the clock.
//!
//! Each file uses only those below it:
//!
//! - `vm`, with `exports`: the callbacks of a running VM
//! - `abi`, `wasi`: the imports of a module
//! - `guest`: the calling module's memory and state
//! - `properties`: Envoy's attributes
//! - `state`: what the host keeps for one VM
//! - `stream`, `calls`, `cel`, `metrics`, `shared`, `faults`, `log`: the parts of the state
//! - `value`, `headers`, `pairs`, `status`: values of the ABI

mod vm;

mod exports;

mod abi;

mod wasi;

mod guest;

mod properties;

mod state;

mod stream;

mod calls;

mod cel;

mod metrics;

mod shared;

mod faults;

mod log;

mod value;

mod headers;

mod pairs;

mod status;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use wasmtime::{Cache, Config, Engine, InstancePre, Linker, Store};

pub use calls::{Call, CallResponse, Request};
pub use faults::Faults;
pub use headers::Headers;
pub use log::LogLine;
pub use state::{Node, Settings};
pub use stream::{Direction, Intervention, Message, Stream, StreamInfo};
pub use vm::{StartFailure, Trap, Vm};

pub(crate) use log::LogLevel;

use exports::Exports;
use state::State;

/// A compiled module, linked to the whole ABI.
pub struct Module {
    path: PathBuf,
    metered: bool,
    linked: InstancePre<State>,
}

impl Module {
    /// Loads a `.wasm` file. A metered module counts executed instructions, and is slower.
    ///
    /// wasmtime keeps the compiled code in the user's cache folder, if there is one, so that only the first
    /// load compiles.
    pub fn load(path: &Path, metered: bool) -> anyhow::Result<Self> {
        ensure!(
            path.exists(),
            "{}: expected the filter's module, but found no file: run `make wasm`, or pass its path \
             with `--module`",
            std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display()
        );
        let mut config = Config::new();
        config.consume_fuel(metered).cache(Cache::from_file(None).ok());
        let engine = Engine::new(&config).map_err(without_backtrace)?;
        let module = wasmtime::Module::from_file(&engine, path).map_err(|error| {
            anyhow::anyhow!(
                "{}: expected a WebAssembly module, but found: {}",
                path.display(),
                first_line(&error)
            )
        })?;
        let linked = linker(&engine).map_err(without_backtrace)?.instantiate_pre(&module).map_err(
            |error| {
                anyhow::anyhow!(
                    "{}: expected imports that Envoy has, but found {error:#}",
                    path.display()
                )
            },
        )?;
        Ok(Self { path: path.to_owned(), metered, linked })
    }

    /// Starts a VM and configures the plugin.
    pub fn start(&self, settings: &Settings) -> anyhow::Result<Result<Vm, StartFailure>> {
        let mut store = Store::new(self.linked.module().engine(), State::new(settings));
        if self.metered {
            store.set_fuel(u64::MAX).map_err(without_backtrace)?;
        }
        let instance = self.linked.instantiate(&mut store).map_err(without_backtrace)?;
        let exports = Exports::find(&mut store, &instance)
            .with_context(|| format!("{}: expected a proxy-wasm module", self.path.display()))?;
        store.data_mut().memory = instance.get_memory(&mut store, "memory");
        store.data_mut().allocate = exports.allocate.clone();
        Ok(Vm::start(store, exports, self.metered, settings))
    }

    /// Returns the names of the functions that the module imports.
    pub fn imports(&self) -> Vec<String> {
        self.linked.module().imports().map(|import| import.name().to_owned()).collect()
    }
}

/// Returns the names of all imports that a module may have, as `module.name`.
pub fn import_names() -> anyhow::Result<Vec<String>> {
    let engine = Engine::default();
    let mut store = Store::new(&engine, State::new(&Settings::default()));
    let linker = linker(&engine).map_err(without_backtrace)?;
    Ok(linker.iter(&mut store).map(|(module, name, _)| format!("{module}.{name}")).collect())
}

fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    abi::link(&mut linker)?;
    wasi::link(&mut linker)?;
    Ok(linker)
}

fn first_line(error: &wasmtime::Error) -> String {
    format!("{error:#}").lines().next().unwrap_or_default().to_owned()
}

fn without_backtrace(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:#}")
}
