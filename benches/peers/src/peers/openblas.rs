//! OpenBLAS, which chooses its kernels by the core; one thread.

use std::ffi::{CStr, c_char, c_int};

use cblas_sys::{CblasNoTrans, CblasRowMajor, CblasTrans, cblas_sdot, cblas_sgemm, cblas_sgemv};

use super::{Library, Multiply, Product};

unsafe extern "C" {
    fn openblas_set_num_threads(count: c_int);
    fn openblas_get_config() -> *const c_char;
}

pub(super) struct OpenBlas;

impl Library for OpenBlas {
    /// With its version, such as "OpenBLAS 0.3.21".
    fn name() -> String {
        // SAFETY: OpenBLAS returns a text that is never freed.
        let config = unsafe { CStr::from_ptr(openblas_get_config()) }.to_string_lossy();
        config.split(' ').take(2).collect::<Vec<_>>().join(" ")
    }

    fn dot() -> Option<impl FnMut(&[f32], &[f32]) -> f32 + 'static> {
        Some(|a: &[f32], b: &[f32]| {
            assert_eq!(a.len(), b.len());
            // SAFETY: both have so many floats.
            unsafe { cblas_sdot(a.len() as c_int, a.as_ptr(), 1, b.as_ptr(), 1) }
        })
    }

    /// One row is a product with a vector, for which BLAS has a function of its own.
    fn product(of: Product) -> Option<impl Multiply> {
        // SAFETY: nothing else runs.
        unsafe { openblas_set_num_threads(1) };
        let Product { m, n, k, strides: [row, col] } = of;
        let [m_int, n_int, k_int] = [m, n, k].map(|size| size as c_int);
        // Columns that are contiguous are the rows of the transposed matrix.
        let (as_stored, leading) = if col == 1 { (CblasNoTrans, row) } else { (CblasTrans, col) };
        let leading = leading as c_int;
        Some(move |a: &[f32], b: &[f32], out: &mut [f32]| {
            of.check(a, b, out);
            let (a, b, out) = (a.as_ptr(), b.as_ptr(), out.as_mut_ptr());
            // SAFETY: checked above.
            unsafe {
                if m == 1 {
                    let (stored, rows, cols) = match col {
                        1 => (CblasTrans, k_int, n_int),
                        _ => (CblasNoTrans, n_int, k_int),
                    };
                    cblas_sgemv(
                        CblasRowMajor,
                        stored,
                        rows,
                        cols,
                        1.0,
                        b,
                        leading,
                        a,
                        1,
                        0.0,
                        out,
                        1,
                    );
                } else {
                    cblas_sgemm(
                        CblasRowMajor,
                        CblasNoTrans,
                        as_stored,
                        m_int,
                        n_int,
                        k_int,
                        1.0,
                        a,
                        k_int,
                        b,
                        leading,
                        0.0,
                        out,
                        n_int,
                    );
                }
            }
        })
    }
}
