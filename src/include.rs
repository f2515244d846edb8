//! Constants from files.

/// Includes a file of little-endian `f32` as a constant: `[f32; N]`, or with rows and columns a
/// [`Matrix`](crate::Matrix), row after row. No `unsafe`, no copy at run time, and aligned as floats are.
///
/// Put it into a `static`: as a value it is an array like any other, which is copied. The path is relative to the
/// file of the call, as that of [`include_bytes`]. A file of another size does not compile. From NumPy:
/// `weights.astype("<f4").tofile("weights.bin")`.
///
/// ```
/// use sdpa::{Matrix, include_f32};
///
/// static BIAS: [f32; 6] = include_f32!("../examples/data/floats.bin");
/// static WEIGHTS: Matrix<2, 3> = include_f32!("../examples/data/floats.bin", 2, 3);
/// assert_eq!(WEIGHTS.0[0], BIAS[..3]);
/// ```
///
/// ```compile_fail,E0308
/// static BIAS: [f32; 5] = sdpa::include_f32!("../examples/data/floats.bin");
/// ```
///
/// ```compile_fail,E0080
/// static WEIGHTS: sdpa::Matrix<2, 2> = sdpa::include_f32!("../examples/data/floats.bin", 2, 2);
/// ```
#[macro_export]
macro_rules! include_f32 {
    ($file:expr $(,)?) => {{
        const BYTES: &[u8] = ::core::include_bytes!($file);
        #[allow(long_running_const_eval, reason = "a large file takes a while")]
        const FLOATS: [[f32; BYTES.len() / 4]; 1] = $crate::rows_of_f32(BYTES);
        FLOATS[0]
    }};
    ($file:expr, $rows:expr, $cols:expr $(,)?) => {{
        #[allow(long_running_const_eval, reason = "a large file takes a while")]
        const FLOATS: [[f32; $cols]; $rows] = $crate::rows_of_f32(::core::include_bytes!($file));
        $crate::Matrix(FLOATS)
    }};
}

/// The rows of [`include_f32`].
///
/// # Panics
///
/// If there are more or fewer bytes: at compile time. Not part of the API.
#[doc(hidden)]
pub const fn rows_of_f32<const R: usize, const C: usize>(bytes: &[u8]) -> [[f32; C]; R] {
    let (floats, rest) = bytes.as_chunks::<4>();
    assert!(floats.len() == R * C && rest.is_empty(), "the file has another number of floats");
    let mut rows = [[0.0; C]; R];
    let mut at = 0;
    while at < floats.len() {
        rows[at / C][at % C] = f32::from_le_bytes(floats[at]);
        at += 1;
    }
    rows
}
