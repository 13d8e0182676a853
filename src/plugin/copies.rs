//! The module's `memcpy`: a request makes a hundred copies, nearly all of them of a few words.
//!
//! In V8 a `memory.copy` is a call out of compiled code, which costs a hundred instructions whatever its
//! length. So the module is compiled without it (Makefile), and long copies alone are left to the C
//! library's `memmove`, which has it.

use std::ptr::{read_unaligned, write_unaligned};

unsafe extern "C" {
    fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8;
}

/// Copies what the compiler does not copy in place.
///
/// # Safety
///
/// As C's `memcpy`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    unsafe {
        match len {
            0 => {}
            1..4 => {
                copy::<u8>(to, from, 0);
                copy::<u8>(to, from, len / 2);
                copy::<u8>(to, from, len - 1);
            }
            4..8 => {
                copy::<u32>(to, from, 0);
                copy::<u32>(to, from, len - 4);
            }
            8..=LONGEST => {
                // The last word overlaps the one before.
                let last = len - 8;
                let mut place = 0;
                while place < last {
                    copy::<u64>(to, from, place);
                    place += 8;
                }
                copy::<u64>(to, from, last);
            }
            _ => {
                memmove(to, from, len);
            }
        }
    }
    to
}

/// Copies one word.
///
/// # Safety
///
/// Both have a word at that place.
#[inline(always)]
unsafe fn copy<T>(to: *mut u8, from: *const u8, place: usize) {
    unsafe { write_unaligned(to.add(place).cast(), read_unaligned(from.add(place).cast::<T>())) };
}

/// What is longer is copied faster by the host.
const LONGEST: usize = 256;
