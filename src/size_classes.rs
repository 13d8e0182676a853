//! Memory in blocks of some sizes, each size with a list of those that are free.
//!
//! A block is found and given back in a few instructions. Blocks are never joined nor given back to the
//! host: memory grows to the greatest need there was of each size, and no further. So that nobody makes
//! it grow by asking for many large blocks of one size after the other, large sizes are few: powers of
//! two, which all together are not twice the largest.

use std::ops::Range;
use std::ptr::null_mut;

/// The free blocks of every size, and memory that no block was made of yet.
#[derive(Debug)]
pub struct SizeClasses {
    /// The first free block of each class; a free block begins with the place of the next.
    free: [*mut u8; CLASSES],
    /// Where the next new block begins; aligned as blocks are.
    next: usize,
    end: usize,
}

impl SizeClasses {
    pub const fn new() -> Self {
        Self { free: [null_mut(); CLASSES], next: 0, end: 0 }
    }

    /// Returns a block of at least so many bytes, aligned to [`ALIGNMENT`], and null where there is no
    /// memory for it. `grow` returns addresses of at least so many bytes more, if it can; where
    /// they follow those that it returned before, nothing is lost between.
    ///
    /// # Safety
    ///
    /// What `grow` returns is memory that may be written, and that nobody else uses.
    pub unsafe fn allocate(
        &mut self,
        size: usize,
        grow: impl FnOnce(usize) -> Option<Range<usize>>,
    ) -> *mut u8 {
        let (class, block) = class(size);
        let Some(first) = self.free.get_mut(class) else {
            return null_mut();
        };
        if !first.is_null() {
            let found = *first;
            // A free block has room for the place of the next, and holds it.
            *first = unsafe { found.cast::<*mut u8>().read() };
            return found;
        }
        if self.end - self.next < block {
            let Some(more) = grow(block + ALIGNMENT) else {
                return null_mut();
            };
            if more.start != self.end {
                self.next = more.start.next_multiple_of(ALIGNMENT);
            }
            self.end = more.end;
        }
        let made = self.next;
        self.next += block;
        made as *mut u8
    }

    /// Takes a block back.
    ///
    /// # Safety
    ///
    /// [`SizeClasses::allocate`] returned it for this size, and nobody uses it any more.
    pub unsafe fn free(&mut self, block: *mut u8, size: usize) {
        if let Some(first) = self.free.get_mut(class(size).0) {
            unsafe { block.cast::<*mut u8>().write(*first) };
            *first = block;
        }
    }

    /// Tells whether a block for one size is one for another too.
    pub fn are_alike(one: usize, other: usize) -> bool {
        class(one).0 == class(other).0
    }
}

impl Default for SizeClasses {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the class of a size, and the size of its blocks: multiples of 16 up to 128, then four sizes
/// until it doubles, and from 1 KiB on powers of two.
fn class(size: usize) -> (usize, usize) {
    let last = size.max(1) - 1;
    if last >= LARGE {
        let exponent = last.ilog2();
        return (SMALL_CLASSES + (exponent - LARGE.ilog2()) as usize, 2 << exponent);
    }
    let step = (last | 64).ilog2() - 2;
    let place = last >> step;
    ((step - ALIGNMENT.ilog2()) as usize * 4 + place, (place + 1) << step)
}

/// Of every block.
pub const ALIGNMENT: usize = 16;
/// Sizes above are powers of two.
const LARGE: usize = 1024;
/// Classes of sizes up to [`LARGE`].
const SMALL_CLASSES: usize = 20;
/// Up to blocks of 1 GiB.
const CLASSES: usize = SMALL_CLASSES + 20;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blocks_are_little_larger_than_what_they_are_for() {
        let powers = (1..30).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1]);
        for size in (0..5000).chain(powers) {
            let (place, block) = class(size);
            assert!(block >= size.max(1) && block % ALIGNMENT == 0, "{size}: {block}");
            let most = if size <= LARGE { (size + 15).max(size * 5 / 4) } else { size * 2 - 1 };
            assert!(block <= most.max(ALIGNMENT), "{size}: {block}");
            assert!(place < CLASSES, "{size}");
            let larger = class(block + 1);
            assert_eq!((class(block), larger.0), ((place, block), place + 1), "{size}");
        }
    }

    /// Memory for the tests, and how much of it was asked for.
    struct Arena {
        memory: Vec<u128>,
        used: usize,
    }

    impl Arena {
        fn new(bytes: usize) -> Self {
            Self { memory: vec![0; bytes / 16], used: 0 }
        }

        /// Grows by pages of 4 KiB.
        fn grow(&mut self, bytes: usize) -> Option<Range<usize>> {
            let start = self.memory.as_ptr() as usize + self.used;
            let bytes = bytes.next_multiple_of(4096);
            self.used += bytes;
            (self.used <= self.memory.len() * 16).then_some(start..start + bytes)
        }
    }

    #[test]
    fn memory_that_is_used_again_and_again_does_not_grow() {
        let (mut arena, mut classes) = (Arena::new(1 << 24), SizeClasses::new());
        let mut round = |count: usize| {
            for place in 0..count {
                let sizes = [place % 700, 1000 + place % 9000, 100_000];
                let blocks =
                    sizes.map(|size| unsafe { classes.allocate(size, |more| arena.grow(more)) });
                for (block, size) in blocks.into_iter().zip(sizes) {
                    assert!(!block.is_null());
                    unsafe { classes.free(block, size) };
                }
            }
            arena.used
        };
        let warm = round(10_000);
        assert_eq!(round(100_000), warm);
        assert!(warm < 400_000, "{warm}");
    }

    #[test]
    fn without_memory_there_is_no_block() {
        let mut classes = SizeClasses::new();
        assert!(unsafe { classes.allocate(1, |_| None) }.is_null());
        assert!(unsafe { classes.allocate(usize::MAX / 2, |_| None) }.is_null());
    }

    proptest! {
        /// Blocks in use do not overlap, whatever is asked for and given back in between.
        #[test]
        fn blocks_in_use_are_apart(steps in prop::collection::vec((0usize..3000, any::<bool>(), 0usize..9), 1..200)) {
            let (mut arena, mut classes) = (Arena::new(1 << 22), SizeClasses::new());
            let mut used: BTreeMap<usize, usize> = BTreeMap::new();
            for (size, give_back, place) in steps {
                if give_back && !used.is_empty() {
                    let (start, size) = used.iter().nth(place % used.len()).map(|(a, b)| (*a, *b)).unwrap();
                    used.remove(&start);
                    unsafe { classes.free(start as *mut u8, size) };
                    continue;
                }
                let block = unsafe { classes.allocate(size, |more| arena.grow(more)) };
                prop_assert!(!block.is_null());
                let start = block as usize;
                prop_assert_eq!(start % ALIGNMENT, 0);
                unsafe { block.write_bytes(0xff, size) };
                let before = used.range(..=start).next_back().map_or(0, |(at, size)| at + size);
                let after = used.range(start + 1..).next().map_or(usize::MAX, |(at, _)| *at);
                prop_assert!(before <= start && start + size <= after);
                used.insert(start, size);
            }
        }
    }
}
