//! What the host keeps for one VM.

use std::collections::BTreeMap;

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
    pub random: Random,
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
    /// Contexts whose `proxy_on_done` asked to be kept until `proxy_done`.
    pub pending_done: Vec<u32>,
}

impl State {
    pub fn new(settings: &Settings) -> Self {
        Self {
            memory: None,
            allocate: None,
            environment: settings.environment.clone(),
            node: settings.node.clone(),
            now_ns: settings.now_ns,
            random: Random::new(settings.seed),
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
            pending_done: Vec::new(),
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

/// Bytes that only look random: SplitMix64, the same for the same seed.
#[derive(Clone, Debug, Default)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^= mixed >> 31;
            chunk.copy_from_slice(&mixed.to_le_bytes()[..chunk.len()]);
        }
    }
}
