//! oneDNN through `onednn/calls.cpp`: primitives made once, one thread.

use std::ffi::c_int;

use super::{Library, Multiply, Product};
use crate::jobs::Along;

#[repr(C)]
struct Primitive {
    _private: [u8; 0],
}

unsafe extern "C" {
    fn peer_onednn_version() -> c_int;
    fn peer_onednn_product(m: i64, n: i64, k: i64, b_row: i64, b_col: i64) -> *mut Primitive;
    fn peer_onednn_run_product(call: *mut Primitive, a: *const f32, b: *const f32, out: *mut f32);
    fn peer_onednn_softmax(rows: i64, cols: i64, axis: c_int) -> *mut Primitive;
    fn peer_onednn_run_softmax(call: *mut Primitive, x: *const f32, out: *mut f32);
    fn peer_onednn_drop(call: *mut Primitive);
}

/// Drops its primitive.
struct Owned(*mut Primitive);

impl Owned {
    fn new(made: *mut Primitive) -> Option<Self> {
        (!made.is_null()).then_some(Self(made))
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: made by oneDNN, and dropped once.
        unsafe { peer_onednn_drop(self.0) }
    }
}

pub(super) struct OneDnn;

impl Library for OneDnn {
    fn name() -> String {
        // SAFETY: it only returns a number.
        let version = unsafe { peer_onednn_version() };
        format!("oneDNN {}.{}", version / 100, version % 100)
    }

    fn product(of: Product) -> Option<impl Multiply> {
        let Product { m, n, k, strides: [row, col] } = of;
        let [m, n, k, row, col] = [m, n, k, row, col].map(|size| size as i64);
        // SAFETY: it only takes numbers.
        let primitive = Owned::new(unsafe { peer_onednn_product(m, n, k, row, col) })?;
        Some(move |a: &[f32], b: &[f32], out: &mut [f32]| {
            let primitive = &primitive;
            of.check(a, b, out);
            // SAFETY: checked above.
            unsafe {
                peer_onednn_run_product(primitive.0, a.as_ptr(), b.as_ptr(), out.as_mut_ptr());
            }
        })
    }

    fn softmax(
        [rows, cols]: [usize; 2],
        along: Along,
    ) -> Option<impl FnMut(&[f32], &mut [f32]) + 'static> {
        let axis = match along {
            Along::Rows => 1,
            Along::Columns => 0,
        };
        // SAFETY: it only takes numbers.
        let primitive = Owned::new(unsafe { peer_onednn_softmax(rows as i64, cols as i64, axis) })?;
        Some(move |x: &[f32], out: &mut [f32]| {
            let primitive = &primitive;
            assert!(x.len() == rows * cols && out.len() == rows * cols);
            // SAFETY: both have as many floats as the primitive reads and writes.
            unsafe { peer_onednn_run_softmax(primitive.0, x.as_ptr(), out.as_mut_ptr()) }
        })
    }
}
