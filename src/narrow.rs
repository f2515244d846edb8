//! The elements of keys, values and weights, and how floats are rounded to them. Public API.
//!
//! Elements are widened to `f32`, exactly, and all arithmetic is that of `f32`: only the rounding when elements are
//! made is new. `docs/numerics.md` says what it costs.

use crate::{
    dispatch::Backend,
    error::Error,
    kernel::{
        blocks::AnyRows,
        widen::{ProjectElements, ScaleRows, Widen},
    },
    matrix::{HeadsRef, MatrixMut, MatrixRef},
    number::{Bf16, F16, I8},
    simd::{Vector, scalar::F32x1},
};

/// An element of keys, values or weights: [`f32`], [`F16`], [`Bf16`] or [`I8`].
pub trait Element: sealed::Sealed + Copy + core::fmt::Debug + Send + Sync + 'static {
    /// What each row of elements has besides: `f32` for [`I8`], and `()` for the others.
    type Scale: Copy + core::fmt::Debug + Send + Sync + 'static;

    // What caches and kernels need of an element. Not part of the API.

    #[doc(hidden)]
    const ZERO: Self;

    /// The scale of a row of zeros.
    #[doc(hidden)]
    const NO_SCALE: Self::Scale;

    /// The scale of a row of floats; `None` if they have no representation.
    #[doc(hidden)]
    fn scale_of(floats: MatrixRef<'_>, row: usize) -> Option<Self::Scale>;

    /// Rounds `x`, of a row with this scale.
    #[doc(hidden)]
    fn round(x: f32, scale: Self::Scale) -> Self;

    /// Scales as floats; none if elements have no scale.
    #[doc(hidden)]
    fn scales(scales: &[Self::Scale]) -> &[f32];

    /// Whether the element is neither NaN nor infinite.
    #[doc(hidden)]
    fn is_finite(self) -> bool;

    /// The same view, if elements are floats.
    #[doc(hidden)]
    #[inline(always)]
    fn as_floats(_: HeadsRef<'_, Self>) -> Option<HeadsRef<'_>> {
        None
    }

    /// The view with its type as a value.
    #[doc(hidden)]
    fn any(of: MatrixRef<'_, Self>) -> AnyRows<'_>;

    /// Widens a matrix to `to`, in row-major order.
    #[doc(hidden)]
    fn widen(backend: Backend, from: MatrixRef<'_, Self>, to: &mut [f32]);

    /// Multiplies the rows of `to` by `scales`, if elements have a scale.
    #[doc(hidden)]
    #[inline(always)]
    fn scale_rows(_: Backend, _scales: MatrixRef<'_>, _to: MatrixMut<'_>) {}

    /// Computes a projection whose shapes agree. Without elements that have a scale, `scales` is empty.
    #[doc(hidden)]
    fn project(
        backend: Backend,
        x: MatrixRef<'_>,
        w: MatrixRef<'_, Self>,
        scales: &[f32],
        bias: Option<MatrixRef<'_>>,
        out: MatrixMut<'_>,
    );
}

mod sealed {
    pub trait Sealed {}
}

impl sealed::Sealed for f32 {}

impl Element for f32 {
    type Scale = ();

    const ZERO: Self = 0.0;
    const NO_SCALE: () = ();

    #[inline(always)]
    fn scale_of(_: MatrixRef<'_>, _: usize) -> Option<()> {
        Some(())
    }

    #[inline(always)]
    fn round(x: f32, (): ()) -> Self {
        x
    }

    #[inline(always)]
    fn scales(_: &[()]) -> &[f32] {
        &[]
    }

    #[inline(always)]
    fn is_finite(self) -> bool {
        Self::is_finite(self)
    }

    #[inline(always)]
    fn as_floats(floats: HeadsRef<'_, Self>) -> Option<HeadsRef<'_>> {
        Some(floats)
    }

    #[inline(always)]
    fn any(of: MatrixRef<'_, Self>) -> AnyRows<'_> {
        AnyRows::F32(of)
    }

    /// Never called: [`as_floats`](Element::as_floats) is taken first.
    #[inline(always)]
    fn widen(_: Backend, _: MatrixRef<'_, Self>, _: &mut [f32]) {}

    #[inline(always)]
    fn project(
        backend: Backend,
        x: MatrixRef<'_>,
        w: MatrixRef<'_, Self>,
        _: &[f32],
        bias: Option<MatrixRef<'_>>,
        out: MatrixMut<'_>,
    ) {
        backend.run_project(x, w, bias, out);
    }
}

/// The methods of an element that kernels widen.
macro_rules! widened {
    ($name:ident) => {
        #[inline(always)]
        fn any(of: MatrixRef<'_, Self>) -> AnyRows<'_> {
            AnyRows::$name(of)
        }

        fn widen(backend: Backend, from: MatrixRef<'_, Self>, to: &mut [f32]) {
            backend.run(Widen { from, to });
        }

        fn project(
            backend: Backend,
            x: MatrixRef<'_>,
            w: MatrixRef<'_, Self>,
            scales: &[f32],
            bias: Option<MatrixRef<'_>>,
            out: MatrixMut<'_>,
        ) {
            #[cfg(not(microcontroller))]
            let w = Self::any(w);
            backend.run(ProjectElements { x, w, scales, bias, out });
        }
    };
}

/// [`Element`] for a float type of 16 bits.
macro_rules! half_width {
    ($element:ident, $infinite:expr) => {
        impl sealed::Sealed for $element {}

        impl Element for $element {
            type Scale = ();

            const ZERO: Self = Self::from_bits(0);
            const NO_SCALE: () = ();

            fn scale_of(floats: MatrixRef<'_>, row: usize) -> Option<()> {
                let becomes_infinite = |x: f32| ($infinite..f32::INFINITY).contains(&x.abs());
                (0..floats.cols())
                    .all(|col| floats.get(row, col).is_some_and(|x| !becomes_infinite(x)))
                    .then_some(())
            }

            fn round(x: f32, (): ()) -> Self {
                Self::from_f32(x)
            }

            #[inline(always)]
            fn scales(_: &[()]) -> &[f32] {
                &[]
            }

            fn is_finite(self) -> bool {
                self.to_f32().is_finite()
            }

            widened!($element);
        }
    };
}

half_width!(F16, F16::INFINITE);
half_width!(Bf16, Bf16::INFINITE);

impl sealed::Sealed for I8 {}

impl Element for I8 {
    type Scale = f32;

    const ZERO: Self = Self::new(0);
    const NO_SCALE: f32 = 0.0;

    fn scale_of(floats: MatrixRef<'_>, row: usize) -> Option<f32> {
        let mut largest = 0.0_f32;
        for col in 0..floats.cols() {
            match floats.get(row, col) {
                // Not `f32::max`, which calls a C library on wasm32.
                Some(x) if x.is_finite() => largest = F32x1(x.abs()).max(F32x1(largest)).0,
                _ => return None,
            }
        }
        let scale = (F32x1(largest) / F32x1(127.0)).0;
        // Below, a scale would have fewer bits, and some machines would set it to 0.
        Some(if scale < f32::MIN_POSITIVE { 0.0 } else { scale })
    }

    fn round(x: f32, scale: f32) -> Self {
        if scale == 0.0 {
            return Self::ZERO;
        }
        // The sum with 1.5 · 2²³ rounds to a whole number, ties to even. The cast saturates and keeps 127 · scale,
        // which may be a little less than the largest element, at 127.
        const WHOLE: F32x1 = F32x1(12_582_912.0);
        Self::new((F32x1(x) / F32x1(scale) + WHOLE - WHOLE).0 as i8)
    }

    fn scales(scales: &[f32]) -> &[f32] {
        scales
    }

    fn is_finite(self) -> bool {
        true
    }

    fn scale_rows(backend: Backend, scales: MatrixRef<'_>, to: MatrixMut<'_>) {
        backend.run(ScaleRows { scales, to });
    }

    widened!(I8);
}

/// Rounds a matrix to elements of another type: a scale for each row, in row-major order without gaps.
///
/// | argument | shape |
/// | --- | --- |
/// | `floats` | rows × columns |
/// | `to` | rows · columns |
/// | `scales` | rows for [`I8`]; none for the others: `&mut []` |
///
/// Floats are rounded to nearest, ties to even; a NaN stays one and ∞ stays ∞. The scale of a row of [`I8`] is its
/// largest magnitude divided by 127, and 0 if that is less than 2⁻¹²⁶: all of the row is 0 then.
///
/// A number that has no representation is refused, because a cache or a layer that saturates is wrong without a word.
///
/// ```
/// use sdpa::{I8, Matrix, narrow};
///
/// let floats = Matrix::from([[1.0, -0.5, 0.25]]);
/// let (mut to, mut scales) = ([I8::default(); 3], [0.0]);
/// narrow(floats.view(), &mut to, &mut scales)?;
/// assert_eq!(to.map(I8::get), [127, -64, 32]); // 63.5 and 31.75
/// assert_eq!(scales, [1.0 / 127.0]);
/// # Ok::<(), sdpa::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Shape`] if sizes disagree; [`Error::Range`] if a finite number would become ∞, or an element of [`I8`] is
/// NaN or ∞. Nothing is written then.
pub fn narrow<E: Element>(
    floats: MatrixRef<'_>,
    to: &mut [E],
    scales: &mut [E::Scale],
) -> Result<(), Error> {
    let (rows, cols) = floats.shape();
    let scaled = if size_of::<E::Scale>() == 0 { 0 } else { rows };
    if rows.checked_mul(cols) != Some(to.len()) || scales.len() != scaled {
        return Err(Error::Shape);
    }
    if !(0..rows).all(|row| E::scale_of(floats, row).is_some()) {
        return Err(Error::Range);
    }
    let mut to = to.iter_mut();
    for row in 0..rows {
        let Some(scale) = E::scale_of(floats, row) else { break };
        if let Some(to) = scales.get_mut(row) {
            *to = scale;
        }
        for (col, to) in to.by_ref().take(cols).enumerate() {
            *to = E::round(floats.get(row, col).unwrap_or(0.0), scale);
        }
    }
    Ok(())
}
