//! A number that all workers of an Envoy share, such as the state of a limit.
//!
//! Envoy's shared data has a version for each value. A write names the version that it replaces, and
//! fails if another worker wrote in between; the number is then read again.

/// Why a number was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteError {
    /// Another worker has changed the number since it was read.
    Changed,
    /// The host does not store it.
    Failed,
}

/// Replaces a number by the result of `next`, and tells whether that succeeded. Nothing is written if `next`
/// returns `None`. `read` returns the number and its version, if it has a value, and `None` if the host
/// fails; `write` replaces the value of this version.
pub(crate) fn update(
    read: impl Fn() -> Option<Option<(Option<u64>, u32)>>,
    write: impl Fn(u64, u32) -> Result<(), WriteError>,
    next: impl Fn(Option<u64>) -> Option<u64>,
) -> bool {
    for _ in 0..MAX_ATTEMPTS {
        let Some(found) = read() else {
            return false;
        };
        let (number, version) = found.unwrap_or((None, NO_VERSION));
        let Some(next) = next(number) else {
            return false;
        };
        match write(next, version) {
            Ok(()) => return true,
            Err(WriteError::Changed) => {}
            Err(WriteError::Failed) => return false,
        }
    }
    false
}

/// Each attempt that fails is a write of another worker that succeeded.
const MAX_ATTEMPTS: u32 = 16;
/// A version that no value has before four thousand million writes. A write of this version creates a
/// value, but does not replace one that another worker created in between. The version 0 would.
const NO_VERSION: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Shared data with one number, which other workers raise by 10 before each of so many writes.
    struct Store {
        value: Cell<Option<(u64, u32)>>,
        other_writes: Cell<u32>,
        can_write: bool,
    }

    #[track_caller]
    fn check(store: &Store, expected: (bool, Option<u64>)) {
        let read = || Some(store.value.get().map(|(number, version)| (Some(number), version)));
        let write = |number, version| {
            if !store.can_write {
                return Err(WriteError::Failed);
            }
            let current = store.value.get();
            if store.other_writes.get() > 0 {
                store.other_writes.set(store.other_writes.get() - 1);
                let (number, version) = current.unwrap_or((0, 0));
                store.value.set(Some((number + 10, version + 1)));
            }
            if store.value.get().is_some_and(|(_, current)| current != version) {
                return Err(WriteError::Changed);
            }
            store.value.set(Some((number, store.value.get().map_or(1, |(_, v)| v + 1))));
            Ok(())
        };
        let add_one = |number: Option<u64>| Some(number.unwrap_or_default() + 1);
        let is_updated = update(read, write, add_one);
        assert_eq!((is_updated, store.value.get().map(|(number, _)| number)), expected);
    }

    fn store(value: Option<u64>, other_writes: u32) -> Store {
        let value = Cell::new(value.map(|number| (number, 7)));
        Store { value, other_writes: Cell::new(other_writes), can_write: true }
    }

    #[test]
    fn writes_of_other_workers_are_not_lost() {
        check(&store(None, 0), (true, Some(1)));
        check(&store(Some(5), 0), (true, Some(6)));
        check(&store(None, 1), (true, Some(11)));
        check(&store(Some(5), 3), (true, Some(36)));
        check(&store(Some(0), 15), (true, Some(151)));
    }

    #[test]
    fn an_update_fails_if_other_workers_keep_writing_or_the_host_fails() {
        check(&store(Some(0), 16), (false, Some(160)));
        check(&Store { can_write: false, ..store(Some(5), 0) }, (false, Some(5)));
        assert!(!update(|| None, |_, _| Ok(()), |_| Some(1)), "the host does not read it");
        assert!(!update(|| Some(None), |_, _| Ok(()), |_| None), "there is no next number");
    }
}
