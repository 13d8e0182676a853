//! The module's memory: blocks of some sizes, over the linear memory that the host gives.

use std::alloc::{GlobalAlloc, Layout};
use std::arch::wasm32::{memory_grow, memory_size};
use std::cell::{Cell, UnsafeCell};
use std::ops::Range;
use std::ptr::{copy_nonoverlapping, null_mut};

use crate::size_classes::{ALIGNMENT, SizeClasses};

#[global_allocator]
static ALLOCATOR: Allocator =
    Allocator { classes: UnsafeCell::new(SizeClasses::new()), grown: Cell::new(false) };

struct Allocator {
    classes: UnsafeCell<SizeClasses>,
    /// The host was asked for memory before.
    grown: Cell<bool>,
}

/// A VM has one thread, and no call of the allocator is made within another.
unsafe impl Sync for Allocator {}

impl Allocator {
    fn allocate(&self, size: usize) -> *mut u8 {
        unsafe { (*self.classes.get()).allocate(size, |bytes| self.grow(bytes)) }
    }

    /// Asks the host for memory, which comes behind all that there is; the first time with what the
    /// linker left free before that.
    fn grow(&self, bytes: usize) -> Option<Range<usize>> {
        unsafe extern "C" {
            static __heap_base: u8;
        }
        let end = memory_size(0) * PAGE_BYTES;
        let pages = bytes.div_ceil(PAGE_BYTES);
        if memory_grow(0, pages) == usize::MAX {
            return None;
        }
        let heap = (&raw const __heap_base) as usize;
        let start = if self.grown.replace(true) { end } else { heap };
        Some(start..end + pages * PAGE_BYTES)
    }
}

unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > ALIGNMENT { null_mut() } else { self.allocate(layout.size()) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { (*self.classes.get()).free(block, layout.size()) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if SizeClasses::are_alike(layout.size(), size) {
            return block;
        }
        let other = self.allocate(size);
        if !other.is_null() {
            unsafe {
                copy_nonoverlapping(block, other, layout.size().min(size));
                self.dealloc(block, layout);
            }
        }
        other
    }
}

const PAGE_BYTES: usize = 65_536;
