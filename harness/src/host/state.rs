//! What the host keeps for one VM, apart from the VM's memory.

use std::collections::BTreeMap;

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::SeedableRng as _;
use wasmtime::{Memory, TypedFunc};

use super::calls::{CallResponse, Calls};
use super::cel::Expression;
use super::faults::Faults;
use super::log::{LogLevel, LogLine};
use super::metrics::Metrics;
use super::shared::{SharedData, SharedQueues};
use super::stream::Stream;

/// The settings of a VM at its start.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The plugin's configuration, handed to `proxy_on_configure`.
    pub configuration: Vec<u8>,
    pub node: Node,
    /// Environment variables: `vm_config.environment_variables`.
    pub environment: Vec<(String, String)>,
    /// Names of the clusters that exist; `None`: every name does.
    pub clusters: Option<Vec<String>>,
    /// True for an Envoy that was built without its CEL parser, and so lacks `expr_create`.
    pub without_cel: bool,
    /// Seed of `random_get`.
    pub seed: u64,
    /// Time at which the clock starts, in nanoseconds since 1970.
    pub now_ns: u64,
    /// Hostcalls that fail from the start.
    pub faults: Faults,
}

/// The node in Envoy's bootstrap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    pub id: String,
    pub cluster: String,
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// State of one VM.
pub(crate) struct State {
    pub(crate) memory: Option<Memory>,
    /// The module's allocator, which reserves memory for the data that the host returns.
    pub(crate) allocate: Option<TypedFunc<u32, u32>>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) node: Node,
    pub(crate) now_ns: u64,
    /// Source of `random_get`: the same bytes for the same seed.
    pub(crate) random: SplitMix64,
    pub(crate) faults: Faults,
    pub(crate) log: Vec<LogLine>,
    pub(crate) metrics: Metrics,
    pub(crate) data: SharedData,
    pub(crate) queues: SharedQueues,
    pub(crate) calls: Calls,
    /// CEL expressions by their tokens, but for deleted ones; `None` for an Envoy without a CEL parser.
    pub(crate) expressions: Option<Vec<Option<Expression>>>,
    /// The configuration, only while `proxy_on_configure` runs.
    pub(crate) configuration: Option<Vec<u8>>,
    /// The response to a call, only while its callback runs.
    pub(crate) call_response: Option<CallResponse>,
    /// 0: no ticks.
    pub(crate) tick_period_ms: u32,
    pub(crate) next_tick_ns: u64,
    /// Context for which hostcalls act.
    pub(crate) effective_context: u32,
    pub(crate) streams: BTreeMap<u32, Stream>,
}

impl State {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            memory: None,
            allocate: None,
            environment: settings.environment.clone(),
            node: settings.node.clone(),
            now_ns: settings.now_ns,
            random: SplitMix64::seed_from_u64(settings.seed),
            faults: settings.faults.clone(),
            log: Vec::new(),
            metrics: Metrics::default(),
            data: SharedData::default(),
            queues: SharedQueues::default(),
            calls: Calls::new(settings.clusters.as_deref()),
            expressions: (!settings.without_cel).then(Vec::new),
            configuration: None,
            call_response: None,
            tick_period_ms: 0,
            next_tick_ns: 0,
            effective_context: 0,
            streams: BTreeMap::new(),
        }
    }

    /// Returns the stream of the effective context; the root context has none.
    pub(crate) fn stream(&self) -> Option<&Stream> {
        self.streams.get(&self.effective_context)
    }

    pub(crate) fn stream_mut(&mut self) -> Option<&mut Stream> {
        self.streams.get_mut(&self.effective_context)
    }

    pub(crate) fn push_log(&mut self, level: LogLevel, message: &[u8]) {
        let message = String::from_utf8_lossy(message).trim_end_matches('\n').to_owned();
        self.log.push(LogLine { level, message });
    }
}

/// Envoy's first context; the contexts of streams follow it.
pub(crate) const ROOT_CONTEXT: u32 = 1;
