//! What the host keeps for one VM.

use std::collections::BTreeMap;

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::SeedableRng as _;
use wasmtime::{Memory, TypedFunc};

use super::calls::{CallAnswer, Calls};
use super::cel::Expression;
use super::faults::Faults;
use super::metrics::Metrics;
use super::shared::{SharedData, SharedQueues};
use super::stream::Stream;

/// What a VM is started with.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The plugin's configuration, handed to `proxy_on_configure`.
    pub configuration: Vec<u8>,
    pub node: Node,
    /// The environment that `vm_config.environment_variables` gives.
    pub environment: Vec<(String, String)>,
    /// Clusters that calls may go to; `None`: any.
    pub clusters: Option<Vec<String>>,
    /// Whether Envoy was built without its CEL parser, and so lacks `expr_create`.
    pub without_cel: bool,
    /// Seed of `random_get`.
    pub seed: u64,
    /// Where the clock starts, in nanoseconds since 1970.
    pub now_ns: u64,
    /// Hostcalls that fail from the start.
    pub faults: Faults,
}

/// The node of Envoy's bootstrap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    pub id: String,
    pub cluster: String,
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// A line that the module logged or wrote to stdout (info) or stderr (error).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    pub level: LogLevel,
    pub message: String,
}

/// Level of a log line, as the ABI numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Critical,
}

impl LogLevel {
    pub fn new(number: u32) -> Option<Self> {
        let levels =
            [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Critical];
        levels.get(number as usize).copied()
    }
}

/// State of one VM beside its memory.
pub struct State {
    pub memory: Option<Memory>,
    /// The module's allocator, by which data goes to it.
    pub allocate: Option<TypedFunc<u32, u32>>,
    pub environment: Vec<(String, String)>,
    pub node: Node,
    pub now_ns: u64,
    /// Source of `random_get`: the same bytes for the same seed.
    pub random: SplitMix64,
    pub faults: Faults,
    pub log: Vec<LogLine>,
    pub metrics: Metrics,
    pub data: SharedData,
    pub queues: SharedQueues,
    pub calls: Calls,
    /// CEL expressions by their tokens; `None` where Envoy has no CEL parser.
    pub expressions: Option<Vec<Expression>>,
    /// Configuration while `proxy_on_configure` runs.
    pub configuration: Option<Vec<u8>>,
    /// Answer that a callback is being told of.
    pub answer: Option<CallAnswer>,
    /// 0: no tick.
    pub tick_period_ms: u32,
    pub next_tick_ns: u64,
    /// Context that hostcalls act for.
    pub effective_context: u32,
    pub streams: BTreeMap<u32, Stream>,
}

impl State {
    pub fn new(settings: &Settings) -> Self {
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
            answer: None,
            tick_period_ms: 0,
            next_tick_ns: 0,
            effective_context: 0,
            streams: BTreeMap::new(),
        }
    }

    /// Stream of the context that hostcalls act for; the root context has none.
    pub fn stream(&self) -> Option<&Stream> {
        self.streams.get(&self.effective_context)
    }

    pub fn stream_mut(&mut self) -> Option<&mut Stream> {
        self.streams.get_mut(&self.effective_context)
    }

    pub fn log(&mut self, level: LogLevel, message: &[u8]) {
        let message = String::from_utf8_lossy(message).trim_end_matches('\n').to_owned();
        self.log.push(LogLine { level, message });
    }
}
