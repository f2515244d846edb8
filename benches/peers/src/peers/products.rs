//! Matrix products from crates.io.

use std::mem::MaybeUninit;

use ndarray::{ArrayView1, ArrayView2, ArrayViewMut2, ShapeBuilder};
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB};
use rten_simd::SimdOp;
use rten_tensor::NdTensorView;

use super::{Library, Multiply, Product};
use crate::jobs::Along;

/// `gemm`, the product of faer and candle.
pub(super) struct Gemm;

impl Library for Gemm {
    fn name() -> String {
        "gemm".into()
    }

    fn product(of: Product) -> Option<impl Multiply> {
        Some(move |a: &[f32], b: &[f32], out: &mut [f32]| {
            let Product { m, n, k, strides: [row, col] } = of;
            of.check(a, b, out);
            // SAFETY: checked above.
            unsafe {
                gemm::gemm(
                    m,
                    n,
                    k,
                    out.as_mut_ptr(),
                    1,
                    n as isize,
                    false,
                    a.as_ptr(),
                    1,
                    k as isize,
                    b.as_ptr(),
                    col as isize,
                    row as isize,
                    0.0,
                    1.0,
                    false,
                    false,
                    false,
                    gemm::Parallelism::None,
                );
            }
        })
    }
}

pub(super) struct MatrixMultiply;

impl Library for MatrixMultiply {
    fn name() -> String {
        "matrixmultiply".into()
    }

    fn product(of: Product) -> Option<impl Multiply> {
        Some(move |a: &[f32], b: &[f32], out: &mut [f32]| {
            let Product { m, n, k, strides } = of;
            let [row, col] = strides.map(|stride| stride as isize);
            of.check(a, b, out);
            let (a, b, out) = (a.as_ptr(), b.as_ptr(), out.as_mut_ptr());
            // SAFETY: checked above.
            unsafe {
                matrixmultiply::sgemm(
                    m, k, n, 1.0, a, k as isize, 1, b, row, col, 0.0, out, n as isize, 1,
                );
            }
        })
    }
}

/// Its products of matrices are those of `matrixmultiply`.
pub(super) struct NdArray;

impl Library for NdArray {
    fn name() -> String {
        "ndarray".into()
    }

    fn dot() -> Option<impl FnMut(&[f32], &[f32]) -> f32 + 'static> {
        Some(|a: &[f32], b: &[f32]| ArrayView1::from(a).dot(&ArrayView1::from(b)))
    }

    fn product(of: Product) -> Option<impl Multiply> {
        Some(move |a: &[f32], b: &[f32], out: &mut [f32]| {
            let Product { m, n, k, strides: [row, col] } = of;
            let a = ArrayView2::from_shape((m, k), a).expect("sizes agree");
            let b = ArrayView2::from_shape((k, n).strides((row, col)), b).expect("sizes agree");
            let mut out = ArrayViewMut2::from_shape((m, n), out).expect("sizes agree");
            ndarray::linalg::general_mat_mul(1.0, &a, &b, 0.0, &mut out);
        })
    }
}

/// The product and the softmax of rten.
pub(super) struct Rten;

impl Library for Rten {
    fn name() -> String {
        "rten".into()
    }

    fn product(of: Product) -> Option<impl Multiply> {
        let gemm: GemmExecutor<f32, f32, f32> = GemmExecutor::new();
        Some(move |a: &[f32], b: &[f32], out: &mut [f32]| {
            let Product { m, n, k, strides } = of;
            let a = NdTensorView::from_data([m, k], a);
            let b = NdTensorView::from_data_with_strides([k, n], b, strides).expect("sizes agree");
            let (a, b) = (GemmInputA::Unpacked(a), GemmInputB::Unpacked(b));
            gemm.gemm_uninit(uninit(out), a, b, Default::default()).expect("sizes agree");
        })
    }

    fn softmax(
        [_, cols]: [usize; 2],
        along: Along,
    ) -> Option<impl FnMut(&[f32], &mut [f32]) + 'static> {
        (along == Along::Rows).then_some(move |x: &[f32], out: &mut [f32]| {
            for (x, out) in x.chunks(cols).zip(out.chunks_mut(cols)) {
                rten_vecmath::Softmax::new(x, uninit(out)).dispatch();
            }
        })
    }
}

/// Outputs that are written whole.
fn uninit(out: &mut [f32]) -> &mut [MaybeUninit<f32>] {
    // SAFETY: the same layout, and rten writes floats alone.
    unsafe { &mut *(std::ptr::from_mut(out) as *mut [MaybeUninit<f32>]) }
}

impl Product {
    /// What libraries with pointers read and write lies within the slices.
    pub(super) fn check(&self, a: &[f32], b: &[f32], out: &[f32]) {
        let Self { m, n, k, strides: [row, col] } = *self;
        assert!(a.len() == m * k && out.len() == m * n);
        assert!(b.len() > (k - 1) * row + (n - 1) * col);
    }
}
