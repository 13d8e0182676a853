//! Whether a request is traced.
//!
//! - [`rules`], [`conditions`], [`matching`]: the rule that matches a request, with [`path_index`],
//!   [`regex`], [`cidr`] and [`search_budget`] below them
//! - [`token`]: signed debug tokens, which a condition may require
//! - [`decision`]: the decision by rule, parent or [`ratio`]
//! - [`limit`]: how many requests a second are sampled
//! - [`trust`]: whose contexts are followed
//! - [`export_on`], [`late_limit`], [`held_heads`]: spans of requests that were not sampled, exported for
//!   how they ended

pub mod cidr;
pub mod conditions;
pub mod decision;
pub mod export_on;
pub mod held_heads;
pub mod late_limit;
pub mod limit;
pub mod matching;
pub mod path_index;
pub mod ratio;
pub mod regex;
pub mod rules;
pub mod search_budget;
pub mod shared_number;
pub mod token;
pub mod trust;
