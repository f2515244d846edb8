//! The operations that are measured: each a symbol of its own, which calls the plain
//! function of the crate, and one call of it.
//!
//! A new operation is a new entry of the list.

use sdpa::{Error, MatrixMut, MatrixRef};

/// What one call costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub instructions: u32,
    /// Bytes of stack.
    pub stack: usize,
}

/// An operation, the shape that it is measured at, and how.
pub struct Operation {
    pub name: &'static str,
    pub shape: &'static str,
    #[cfg(target_os = "none")]
    pub measure: fn(&mut crate::Arena) -> Cost,
}

macro_rules! operations {
    ($($name:ident($($arg:ident: $type:ty),+) -> $result:ty, $shape:literal,
        |$a:pat_param, $b:pat_param, $out:pat_param| ($($value:expr),+);)+) => {
        /// The symbols: what is measured, and all that it calls.
        pub mod symbols {
            use super::*;
            $(
                #[cfg_attr(target_os = "none", unsafe(no_mangle))]
                #[inline(never)]
                pub fn $name($($arg: $type),+) -> $result {
                    sdpa::$name($($arg),+)
                }
            )+
        }

        pub const OPERATIONS: &[Operation] = &[$(Operation {
            name: stringify!($name),
            shape: $shape,
            #[cfg(target_os = "none")]
            measure: {
                #[inline(never)]
                fn measure(arena: &mut crate::Arena) -> Cost {
                    crate::machine::cost(
                        arena,
                        #[inline(always)]
                        |arena| {
                            let crate::Arena { inputs: [$a, $b, _], output: $out } = arena;
                            symbols::$name($($value),+)
                        },
                    )
                }
                measure
            },
        }),+];
    };
}

operations! {
    dot(a: &[f32], b: &[f32]) -> Result<f32, Error>, "n = 1024",
        |a, b, _| (&a[..1024], &b[..1024]);
    softmax(x: &[f32], out: &mut [f32]) -> Result<(), Error>, "n = 1024",
        |a, _, out| (&a[..1024], &mut out[..1024]);
    softmax_rows(x: MatrixRef<'_>, out: MatrixMut<'_>) -> Result<(), Error>, "8 × 128",
        |a, _, out| (matrix::<8, 128>(a), matrix_mut::<8, 128>(out));
    softmax_columns(x: MatrixRef<'_>, out: MatrixMut<'_>) -> Result<(), Error>, "128 × 8",
        |a, _, out| (matrix::<128, 8>(a), matrix_mut::<128, 8>(out));
    project(x: MatrixRef<'_>, w: MatrixRef<'_>, bias: Option<&[f32]>, out: MatrixMut<'_>)
        -> Result<(), Error>, "8 × 64 × 32",
        |a, b, out| (matrix::<8, 64>(a), matrix::<64, 32>(b), Some(&a[..32]), matrix_mut::<8, 32>(out));
    scores(keys: MatrixRef<'_>, queries: MatrixRef<'_>, scale: Option<f32>, out: MatrixMut<'_>)
        -> Result<(), Error>, "8 × 8 × 64",
        |a, b, out| (matrix::<8, 64>(a), matrix::<8, 64>(b), None, matrix_mut::<8, 8>(out));
    weighted_sum(pattern: MatrixRef<'_>, values: MatrixRef<'_>, out: MatrixMut<'_>)
        -> Result<(), Error>, "8 × 8 × 64",
        |a, b, out| (matrix::<8, 8>(a), matrix::<8, 64>(b), matrix_mut::<8, 64>(out));
}

/// The first floats of a buffer, as a dense matrix.
#[cfg(target_os = "none")]
#[inline(always)]
fn matrix<const R: usize, const C: usize>(buffer: &[f32; crate::FLOATS]) -> MatrixRef<'_> {
    MatrixRef::from(&buffer.as_chunks::<C>().0[..R])
}

/// Likewise, for writing.
#[cfg(target_os = "none")]
#[inline(always)]
fn matrix_mut<const R: usize, const C: usize>(buffer: &mut [f32; crate::FLOATS]) -> MatrixMut<'_> {
    MatrixMut::from(&mut buffer.as_chunks_mut::<C>().0[..R])
}
