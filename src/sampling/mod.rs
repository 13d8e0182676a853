//! Whether a request is traced.
//!
//! - [`rules`], [`match_list`], [`conditions`], [`matching`]: the rule that matches a request, with
//!   [`path_index`], [`regex`], [`cidr`] and [`search_budget`] below them
//! - [`token`]: signed debug tokens, which a condition may require
//! - [`decision`]: the decision by rule, parent or [`ratio`]
//! - [`limit`]: how many requests a second are sampled
//! - [`trust`]: whose contexts are followed
//! - [`export_on`], [`export_reason`], [`late_limit`], [`held_heads`]: spans of requests that were not
//!   sampled, exported because of how they ended

pub(crate) mod cidr;
pub(crate) mod conditions;
pub(crate) mod decision;
pub(crate) mod export_on;
pub(crate) mod export_reason;
pub(crate) mod held_heads;
pub(crate) mod late_limit;
pub(crate) mod limit;
pub(crate) mod match_list;
pub(crate) mod matching;
pub(crate) mod path_index;
pub(crate) mod ratio;
pub(crate) mod regex;
pub(crate) mod rules;
pub(crate) mod search_budget;
pub(crate) mod shared_number;
pub(crate) mod token;
pub(crate) mod trust;
