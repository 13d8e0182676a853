//! Several attributes of Envoy's in one hostcall.
//!
//! For each property that it returns, Envoy calls this module's allocator, which costs more than the
//! property. Its foreign functions `expr_create` and `expr_evaluate`
//! (`source/extensions/common/wasm/foreign.cc`) evaluate a CEL expression. A list of attributes is such
//! an expression, and is returned at once. An Envoy that is built without its CEL parser lacks these
//! functions; the properties are then read one by one.
//!
//! <https://github.com/google/cel-spec/blob/master/doc/langdef.md>

use std::cell::{Cell, RefCell};

use once_cell::unsync::OnceCell;
use proxy_wasm::types::{Bytes, LogLevel};

use super::host::{self, Failure};
use super::limits;
use crate::http::head::pairs;
use crate::span::cel;
use crate::span::tags::property::PropertySource;

/// Attributes that are read together: `N` that every span needs, and what tags read beside them.
///
/// Envoy keeps compiled expressions for each root context, so that a list is used in one of them only.
pub(super) struct PropertyList<const N: usize> {
    /// Named as in CEL: `response.code`.
    own: [&'static str; N],
    of_tags: Vec<TagProperty>,
    lists: RefCell<Lists>,
}

/// What a tag reads.
struct TagProperty {
    /// The path of an attribute, with a zero byte between its parts; none of a CEL expression.
    path: Option<String>,
    /// The value alone, with a test that an attribute is present; empty where CEL cannot test its path.
    alone: Expression,
    /// Whether the lists have it. An expression that failed once leaves them, since it would fail
    /// them as a whole.
    is_listed: Cell<bool>,
}

/// Lists of all attributes and expressions.
struct Lists {
    /// It fails if one of `own` is absent; most requests have them all.
    plain: Expression,
    /// The same with a test for each that it is present. It costs half as much again.
    guarded: Expression,
}

/// The values of a [`PropertyList`], as the host encodes them; absent ones are empty.
pub(super) struct Values<const N: usize> {
    list: Bytes,
    /// The values one by one, if the list could not be read.
    own: Option<[Bytes; N]>,
    /// For each property of a tag, its value if it is not in the list.
    of_tags: Vec<Option<Bytes>>,
}

/// A CEL expression. The host compiles it before its first use.
struct Expression {
    text: String,
    token: OnceCell<Bytes>,
    /// The host failed to compile it. It is not tried again.
    is_refused: Cell<bool>,
}

/// Tells whether the host compiles a CEL expression. A host without CEL accepts every expression, and
/// none of them has a value.
pub(super) fn compiles(expression: &str) -> bool {
    match host::call_foreign(CREATE, expression.as_bytes()) {
        Ok(token) => {
            let _ = host::call_foreign("expr_delete", &token);
            true
        }
        Err(failure) if failure == Failure::NOT_FOUND => {
            if limits::may_log("cel", "") {
                host::log(LogLevel::Warn, WITHOUT_CEL);
            }
            true
        }
        Err(_) => false,
    }
}

impl<const N: usize> PropertyList<N> {
    pub(super) fn new(own: [&'static str; N], of_tags: &[PropertySource]) -> Self {
        let of_tags: Vec<_> = of_tags.iter().map(TagProperty::new).collect();
        let lists = RefCell::new(Lists::new(&own, &of_tags));
        Self { own, of_tags, lists }
    }

    /// Reads the attributes of the current stream.
    pub(super) fn read(&self) -> Values<N> {
        let list = self.evaluate().or_else(|| self.unlist_failing().and_then(|()| self.evaluate()));
        let is_listed = |property: &TagProperty| list.is_some() && property.is_listed.get();
        let of_tag = |property| if is_listed(property) { None } else { Some(property.read()) };
        let of_tags = self.of_tags.iter().map(of_tag).collect();
        let read_own = |name: &str| host::property(&name.replace('.', "\0")).unwrap_or_default();
        let own = if list.is_some() { None } else { Some(self.own.map(read_own)) };
        Values { list: list.unwrap_or_default(), own, of_tags }
    }

    fn evaluate(&self) -> Option<Bytes> {
        let lists = self.lists.try_borrow().ok()?;
        lists.plain.evaluate().or_else(|| lists.guarded.evaluate())
    }

    /// Makes the lists anew, without what fails in the current stream. Returns `None` if nothing does.
    #[inline(never)]
    fn unlist_failing(&self) -> Option<()> {
        let mut has_failed = false;
        for property in self.of_tags.iter().filter(|property| property.is_listed.get()) {
            if property.alone.evaluate().is_none() {
                property.is_listed.set(false);
                has_failed = true;
            }
        }
        let mut lists = self.lists.try_borrow_mut().ok()?;
        has_failed.then(|| *lists = Lists::new(&self.own, &self.of_tags))
    }
}

impl TagProperty {
    fn new(source: &PropertySource) -> Self {
        let (path, alone) = match source {
            PropertySource::Path(path) => {
                (Some(path.clone()), cel::value_or_empty(path).unwrap_or_default())
            }
            PropertySource::Cel(expression) => (None, expression.clone()),
        };
        let is_listed = Cell::new(!alone.is_empty());
        Self { path, alone: Expression::new(alone), is_listed }
    }

    /// Reads the value alone.
    fn read(&self) -> Bytes {
        let value = match &self.path {
            Some(path) => host::property(path).ok(),
            None => self.alone.evaluate(),
        };
        value.unwrap_or_default()
    }
}

impl Lists {
    fn new(own_names: &[&str], of_tags: &[TagProperty]) -> Self {
        let list = |own: &dyn Fn(&str) -> Option<String>| {
            let own = own_names.iter().map(|name| own(name).unwrap_or_else(|| (*name).to_owned()));
            let of_tags = of_tags.iter().filter(|property| property.is_listed.get());
            let items: Vec<_> = own.chain(of_tags.map(|it| it.alone.text.clone())).collect();
            Expression::new(format!("[{}]", items.join(",")))
        };
        Self {
            plain: list(&|_| None),
            guarded: list(&|name| cel::value_or_empty(&name.replace('.', "\0"))),
        }
    }
}

impl<const N: usize> Values<N> {
    /// Returns the values of the attributes that every span needs, in their order.
    pub(super) fn values(&self) -> [&[u8]; N] {
        let mut values: [&[u8]; N] = [&[]; N];
        match &self.own {
            // Envoy encodes a list as a header map whose names are the values.
            None => {
                for (value, (found, _)) in values.iter_mut().zip(pairs(&self.list)) {
                    *value = found;
                }
            }
            Some(each) => {
                for (value, found) in values.iter_mut().zip(each) {
                    *value = found;
                }
            }
        }
        values
    }

    /// Returns the values of what tags read, in their order.
    pub(super) fn of_tags(&self) -> Vec<&[u8]> {
        let mut listed = pairs(&self.list).into_iter().skip(N).map(|(value, _)| value);
        let value = |single: &'_ Option<Bytes>| match single {
            Some(_) => None,
            None => listed.next(),
        };
        let from_list: Vec<_> = self.of_tags.iter().map(value).collect();
        let singles = self.of_tags.iter().map(|single| single.as_deref());
        singles
            .zip(from_list)
            .map(|(single, listed)| single.or(listed).unwrap_or_default())
            .collect()
    }
}

impl Expression {
    fn new(text: String) -> Self {
        Self { text, token: OnceCell::new(), is_refused: Cell::new(false) }
    }

    /// Returns its value for the current stream; none if it fails, or the host has no CEL.
    fn evaluate(&self) -> Option<Bytes> {
        if self.is_refused.get() {
            return None;
        }
        let compile = || host::call_foreign(CREATE, self.text.as_bytes());
        let token: Result<_, Failure> = self.token.get_or_try_init(compile);
        self.is_refused.set(token.is_err());
        host::call_foreign("expr_evaluate", token.ok()?).ok()
    }
}

const CREATE: &str = "expr_create";
const WITHOUT_CEL: &str = "sidespan: this Envoy is built without CEL: tags with `cel` are left out";
