//! Fault injection: hostcalls that fail although the module made them correctly.

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};

/// Which hostcalls fail, how often, and with which status. A hostcall that fails has no effect.
#[derive(Clone, Debug)]
pub struct Faults {
    /// How many of a thousand hostcalls fail.
    per_mille: u32,
    /// The only hostcall that fails; `None`: any.
    only: Option<String>,
    /// Statuses of failing hostcalls; which of them is random.
    statuses: Vec<u32>,
    /// Hostcalls that fail only with a status that Envoy returns for them.
    as_envoy: Vec<String>,
    random: SplitMix64,
}

impl Faults {
    /// All statuses of the ABI other than OK, and one that the ABI does not have.
    pub const STATUSES: [u32; 13] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 99];

    /// Makes `per_mille` of a thousand hostcalls fail, at random from a seed, with any status.
    pub fn random(per_mille: u32, seed: u64) -> Self {
        let random = SplitMix64::seed_from_u64(seed);
        Self { per_mille, statuses: Self::STATUSES.to_vec(), random, ..Self::default() }
    }

    /// Makes one hostcall fail always, with one status.
    pub fn always(hostcall: &str, status: u32) -> Self {
        let only = Some(hostcall.to_owned());
        Self { per_mille: 1_000, only, statuses: vec![status], ..Self::default() }
    }

    /// Makes these hostcalls fail only with their [`Faults::statuses_of`].
    pub fn as_envoy(mut self, hostcalls: &[&str]) -> Self {
        self.as_envoy = hostcalls.iter().map(|&hostcall| hostcall.to_owned()).collect();
        self
    }

    /// Returns the statuses other than OK (WASI: error numbers) that Envoy returns for a correct
    /// hostcall. In a correct hostcall every pointer is in memory, every enumerator is one of the
    /// ABI's, the metric is defined and the context exists. So statuses that only a faulty module
    /// gets are left out: InvalidMemoryAccess, BadArgument for an enumerator, NotFound for a metric.
    ///
    /// `None` if there is no hostcall with that name.
    pub fn statuses_of(hostcall: &str) -> Option<&'static [u32]> {
        let row = ENVOYS_STATUSES.iter().find(|(name, _)| *name == hostcall);
        row.map(|(_, statuses)| *statuses)
    }

    /// Decides whether the next call of a hostcall fails, and returns its status if so.
    pub(crate) fn next(&mut self, hostcall: &str) -> Option<u32> {
        if self.per_mille == 0 || self.only.as_ref().is_some_and(|only| only != hostcall) {
            return None;
        }
        let (chance, choice) = (self.random.next_u64() % 1_000, self.random.next_u64() as usize);
        let statuses = match self.as_envoy.iter().any(|name| name == hostcall) {
            true => Self::statuses_of(hostcall).unwrap_or_default(),
            false => &self.statuses,
        };
        if statuses.is_empty() || chance >= u64::from(self.per_mille) {
            return None;
        }
        statuses.get(choice % statuses.len()).copied()
    }
}

impl Default for Faults {
    /// No faults.
    fn default() -> Self {
        Self {
            per_mille: 0,
            only: None,
            statuses: Vec::new(),
            as_envoy: Vec::new(),
            random: SplitMix64::seed_from_u64(0),
        }
    }
}

/// [`Faults::statuses_of`] each hostcall. Sources: proxy-wasm-cpp-host `src/exports.cc` (E),
/// `src/shared_data.cc` (D), `src/shared_queue.cc` (Q), `src/wasm.cc` (W); Envoy
/// `source/extensions/common/wasm/context.cc` (C) and `foreign.cc` (F).
const ENVOYS_STATUSES: [(&str, &[u32]); 57] = [
    // Log and time
    ("proxy_log", &[]),
    ("proxy_get_log_level", &[]),
    ("proxy_get_current_time_nanoseconds", &[]),
    ("proxy_set_tick_period_milliseconds", &[]),
    // C: a map that is absent in this phase; for writes, one that cannot be changed in it.
    ("proxy_get_header_map_size", &[BAD_ARGUMENT]),
    ("proxy_get_header_map_pairs", &[]),
    ("proxy_set_header_map_pairs", &[BAD_ARGUMENT]),
    ("proxy_get_header_map_value", &[NOT_FOUND, BAD_ARGUMENT]),
    ("proxy_add_header_map_value", &[BAD_ARGUMENT]),
    ("proxy_replace_header_map_value", &[BAD_ARGUMENT]),
    ("proxy_remove_header_map_value", &[BAD_ARGUMENT]),
    // E: no buffer of that type now, a start beyond what 32 bits hold.
    ("proxy_get_buffer_status", &[NOT_FOUND]),
    ("proxy_get_buffer_bytes", &[NOT_FOUND, BAD_ARGUMENT]),
    ("proxy_set_buffer_bytes", &[NOT_FOUND, BAD_ARGUMENT]),
    // C, `getProperty`, `serializeValue`, `setProperty`: an absent property; null, or a map whose
    // keys cannot be listed; a message's field that cannot be read; a read-only property.
    ("proxy_get_property", &[NOT_FOUND, SERIALIZATION_FAILURE, INTERNAL_FAILURE]),
    ("proxy_set_property", &[NOT_FOUND, BAD_ARGUMENT]),
    // C, `continueStream`: the upstream side of TCP.
    ("proxy_continue_stream", &[UNIMPLEMENTED]),
    ("proxy_close_stream", &[]),
    ("proxy_send_local_response", &[]),
    ("proxy_get_status", &[]),
    // D
    ("proxy_get_shared_data", &[NOT_FOUND]),
    ("proxy_set_shared_data", &[CAS_MISMATCH]),
    // Q; C: a queue that is not registered.
    ("proxy_register_shared_queue", &[]),
    ("proxy_resolve_shared_queue", &[NOT_FOUND]),
    ("proxy_enqueue_shared_queue", &[NOT_FOUND]),
    ("proxy_dequeue_shared_queue", &[NOT_FOUND, EMPTY]),
    // C: an unknown cluster (gRPC: a name in place of a GrpcService); a call that fails at once; a call
    // or stream that has ended.
    ("proxy_http_call", &[BAD_ARGUMENT, INTERNAL_FAILURE]),
    ("proxy_grpc_call", &[BAD_ARGUMENT, PARSE_FAILURE, INTERNAL_FAILURE]),
    ("proxy_grpc_stream", &[BAD_ARGUMENT, PARSE_FAILURE, INTERNAL_FAILURE]),
    ("proxy_grpc_send", &[NOT_FOUND, BAD_ARGUMENT]),
    ("proxy_grpc_cancel", &[NOT_FOUND, BAD_ARGUMENT]),
    ("proxy_grpc_close", &[NOT_FOUND, BAD_ARGUMENT]),
    // E and F: an unknown function or expression; an expression that does not parse; a failure of zlib,
    // or a value that cannot be serialised; an expression that fails.
    (
        "proxy_call_foreign_function",
        &[NOT_FOUND, BAD_ARGUMENT, SERIALIZATION_FAILURE, INTERNAL_FAILURE],
    ),
    // C: a histogram cannot be read or incremented, nor a counter incremented by less than 1.
    ("proxy_define_metric", &[]),
    ("proxy_get_metric", &[BAD_ARGUMENT]),
    ("proxy_record_metric", &[]),
    ("proxy_increment_metric", &[BAD_ARGUMENT]),
    // E
    ("proxy_set_effective_context", &[]),
    // W: the context did not ask to be kept.
    ("proxy_done", &[NOT_FOUND]),
    // E, WASI
    ("args_get", &[]),
    ("args_sizes_get", &[]),
    ("clock_time_get", &[WASI_NOTSUP]),
    ("environ_get", &[]),
    ("environ_sizes_get", &[]),
    ("fd_close", &[]),
    ("fd_fdstat_get", &[WASI_BADF]),
    ("fd_fdstat_set_flags", &[WASI_NOSYS]),
    ("fd_prestat_dir_name", &[WASI_NOSYS]),
    ("fd_prestat_get", &[WASI_BADF]),
    ("fd_read", &[WASI_NOSYS]),
    ("fd_seek", &[]),
    ("fd_write", &[WASI_BADF]),
    ("path_open", &[WASI_NOENT]),
    ("poll_oneoff", &[WASI_NOSYS]),
    ("proc_exit", &[]),
    ("random_get", &[WASI_INVAL]),
    ("sched_yield", &[]),
];

const NOT_FOUND: u32 = 1;
const BAD_ARGUMENT: u32 = 2;
const SERIALIZATION_FAILURE: u32 = 3;
const PARSE_FAILURE: u32 = 4;
const EMPTY: u32 = 7;
const CAS_MISMATCH: u32 = 8;
const INTERNAL_FAILURE: u32 = 10;
const UNIMPLEMENTED: u32 = 12;

const WASI_BADF: u32 = 8;
const WASI_INVAL: u32 = 28;
const WASI_NOENT: u32 = 44;
const WASI_NOSYS: u32 = 52;
const WASI_NOTSUP: u32 = 58;
