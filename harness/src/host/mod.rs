//! A proxy-wasm host: loads a module as Envoy does, and drives its callbacks.
//!
//! [`Module`] is compiled once; [`Module::start`] makes a [`Vm`] with memory, clock, metrics and
//! log of its own. One VM is one worker of Envoy. Time stands still until the clock is moved.

mod abi;
mod calls;
mod cel;
mod exports;
mod faults;
mod guest;
mod headers;
mod metrics;
mod properties;
mod shared;
mod state;
mod stream;
mod value;
mod vm;
mod wasi;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use wasmtime::{Config, Engine, InstancePre, Linker, Store};

pub use calls::{Call, CallAnswer, GrpcStream, Request};
pub use faults::Faults;
pub use headers::Headers;
pub use state::{LogLevel, LogLine, Node, Settings};
pub use stream::{Direction, Intervention, Message, Phase, Stream, StreamInfo};
pub use vm::{Fault, StartFailure, Vm};

use exports::Exports;
use state::State;

/// A compiled module, linked with the whole ABI.
pub struct Module {
    path: PathBuf,
    metered: bool,
    linked: InstancePre<State>,
}

impl Module {
    /// Compiles a `.wasm` file. `metered` counts executed instructions, at some cost in speed.
    pub fn load(path: &Path, metered: bool) -> anyhow::Result<Self> {
        ensure!(
            path.exists(),
            "{}: expected the filter's module, but found no file: run `make wasm`, or name it with \
             `--module`",
            std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display()
        );
        let mut config = Config::new();
        config.consume_fuel(metered);
        let engine = Engine::new(&config).map_err(plain)?;
        let module = wasmtime::Module::from_file(&engine, path).map_err(|error| {
            anyhow::anyhow!(
                "{}: expected a WebAssembly module, but found: {}",
                path.display(),
                first_line(&error)
            )
        })?;
        let linked = linker(&engine).map_err(plain)?.instantiate_pre(&module).map_err(|error| {
            anyhow::anyhow!(
                "{}: expected imports that Envoy has, but found {error:#}",
                path.display()
            )
        })?;
        Ok(Self { path: path.to_owned(), metered, linked })
    }

    /// Starts a VM and configures the plugin.
    pub fn start(&self, settings: &Settings) -> anyhow::Result<Result<Vm, StartFailure>> {
        let mut store = Store::new(self.linked.module().engine(), State::new(settings));
        if self.metered {
            store.set_fuel(u64::MAX).map_err(plain)?;
        }
        let instance = self.linked.instantiate(&mut store).map_err(plain)?;
        let exports = Exports::find(&mut store, &instance)
            .with_context(|| format!("{}: expected a proxy-wasm module", self.path.display()))?;
        store.data_mut().memory = instance.get_memory(&mut store, "memory");
        store.data_mut().allocate = exports.allocate.clone();
        Ok(Vm::start(store, exports, self.metered, settings))
    }

    /// Names of the functions that the module imports.
    pub fn imports(&self) -> Vec<String> {
        self.linked.module().imports().map(|import| import.name().to_owned()).collect()
    }
}

/// Names of all imports that a module may have, as `module.name`.
pub fn import_names() -> anyhow::Result<Vec<String>> {
    let engine = Engine::default();
    let mut store = Store::new(&engine, State::new(&Settings::default()));
    let linker = linker(&engine).map_err(plain)?;
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

fn plain(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:#}")
}
