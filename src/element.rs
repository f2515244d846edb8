//! The elements of keys, values and weights: `f32`, and types of 16 and 8 bits. Public API.
//!
//! Elements are widened to `f32`, exactly, and all arithmetic is that of `f32`: only the rounding when elements are
//! made is new. `docs/numerics.md` says what it costs.

use core::ops::Range;

use crate::{
    dispatch::Backend,
    error::Error,
    kernel::widen::{ProjectElements, ScaleRows, Widen},
    matrix::{HeadsRef, MatrixMut, MatrixRef},
};

/// An IEEE 754 binary16 number: 11 bits of precision, finite up to 65504.
///
/// ```
/// use sdpa::F16;
///
/// assert_eq!(F16::from_f32(1.0 / 3.0).to_f32(), 0.33325195);
/// assert_eq!(F16::from_f32(1e-8).to_f32(), 0.0); // half of the least subnormal is 3e-8
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(transparent)]
pub struct F16(u16);

/// A bfloat16 number: the upper half of an `f32`, with 8 bits of precision and its range.
///
/// ```
/// use sdpa::Bf16;
///
/// assert_eq!(Bf16::from_f32(1.0 / 3.0).to_f32(), 0.33398438);
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(transparent)]
pub struct Bf16(u16);

/// A whole number from −127 to 127, to be multiplied by a scale: one for each token and head of a cache, and for
/// each output of a projection. −128 is a valid element too, which [`narrow`] never writes.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(transparent)]
pub struct I8(i8);

/// The sign bit of a number of 16 bits.
const SIGN: u16 = 0x8000;

impl F16 {
    /// The number with these bits.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The bits: sign, 5 bits of exponent, 10 bits of mantissa.
    pub const fn to_bits(self) -> u16 {
        self.0
    }

    /// Rounds to nearest, ties to even: numbers of at least 65520 become ∞, and a NaN stays one.
    pub const fn from_f32(x: f32) -> Self {
        /// The exponent field of `f32` is larger by this, for the same exponent.
        const REBIAS: u32 = 112 << 23;
        const LEAST_NORMAL: u32 = 113 << 23;
        const INFINITE: u32 = 0x477f_f000; // 65520
        let magnitude = x.to_bits() & 0x7fff_ffff;
        let rounded = if x.is_nan() {
            0x7e00
        } else if magnitude >= INFINITE {
            0x7c00
        } else if magnitude >= LEAST_NORMAL {
            // Half of the last place kept, less one unless it is odd: a carry rounds up.
            (magnitude - REBIAS + 0xfff + (magnitude >> 13 & 1)) >> 13
        } else {
            // A unit in the last place of 0.5 is the least subnormal: the sum rounds.
            (f32::from_bits(magnitude) + 0.5).to_bits() - 0.5_f32.to_bits()
        };
        Self(rounded as u16 | (x.to_bits() >> 16) as u16 & SIGN)
    }

    /// The same number as an `f32`: exact.
    #[inline(always)]
    pub const fn to_f32(self) -> f32 {
        const EXPONENT: u32 = 31 << 23;
        const REBIAS: u32 = 112 << 23;
        let magnitude = ((self.0 & !SIGN) as u32) << 13;
        let sign = ((self.0 & SIGN) as u32) << 16;
        let is_subnormal = magnitude < 1 << 23;
        // A subnormal gets the exponent of the least normal number, which is then subtracted; ∞ and NaN get 255.
        let rebias = if magnitude >= EXPONENT { 2 * REBIAS } else { REBIAS };
        let magnitude = magnitude + rebias + if is_subnormal { 1 << 23 } else { 0 };
        let excess = if is_subnormal { f32::from_bits(113 << 23) } else { 0.0 };
        f32::from_bits((f32::from_bits(magnitude) - excess).to_bits() | sign)
    }
}

impl Bf16 {
    /// The number with these bits.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The bits: the upper half of those of the `f32`.
    pub const fn to_bits(self) -> u16 {
        self.0
    }

    /// Rounds to nearest, ties to even: numbers from 2¹²⁸ − 2¹¹⁹ on become ∞, and a NaN stays one.
    pub const fn from_f32(x: f32) -> Self {
        let bits = x.to_bits();
        let upper = (bits >> 16) as u16;
        if x.is_nan() {
            return Self(upper | 0x40); // quiet, whatever the upper half holds
        }
        Self(((bits + 0x7fff + (upper & 1) as u32) >> 16) as u16)
    }

    /// The same number as an `f32`: exact.
    #[inline(always)]
    pub const fn to_f32(self) -> f32 {
        f32::from_bits((self.0 as u32) << 16)
    }
}

impl I8 {
    /// The element with this value.
    pub const fn new(value: i8) -> Self {
        Self(value)
    }

    /// The value.
    pub const fn get(self) -> i8 {
        self.0
    }

    /// The same number as an `f32`, without a scale: exact.
    #[inline(always)]
    pub const fn to_f32(self) -> f32 {
        self.0 as f32
    }
}

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
    () => {
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
            backend.run(ProjectElements { x, w, scales, bias, out });
        }
    };
}

/// [`Element`] for a float type of 16 bits.
macro_rules! half_width {
    ($element:ident) => {
        impl sealed::Sealed for $element {}

        impl Element for $element {
            type Scale = ();

            const ZERO: Self = Self(0);
            const NO_SCALE: () = ();

            fn scale_of(floats: MatrixRef<'_>, row: usize) -> Option<()> {
                let fits = |x: f32| !x.is_finite() || Self::from_f32(x).to_f32().is_finite();
                (0..floats.cols()).all(|col| floats.get(row, col).is_some_and(fits)).then_some(())
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

            widened!();
        }
    };
}

half_width!(F16);
half_width!(Bf16);

impl sealed::Sealed for I8 {}

impl Element for I8 {
    type Scale = f32;

    const ZERO: Self = Self(0);
    const NO_SCALE: f32 = 0.0;

    fn scale_of(floats: MatrixRef<'_>, row: usize) -> Option<f32> {
        let mut largest = 0.0_f32;
        for col in 0..floats.cols() {
            match floats.get(row, col) {
                Some(x) if x.is_finite() => largest = largest.max(x.abs()),
                _ => return None,
            }
        }
        let scale = largest / 127.0;
        // Below, a scale would have fewer bits, and some machines would set it to 0.
        Some(if scale < f32::MIN_POSITIVE { 0.0 } else { scale })
    }

    fn round(x: f32, scale: f32) -> Self {
        if scale == 0.0 {
            return Self(0);
        }
        // The sum with 1.5 · 2²³ rounds to a whole number, ties to even. The cast saturates and keeps 127 · scale,
        // which may be a little less than the largest element, at 127.
        const WHOLE: f32 = 12_582_912.0;
        Self((x / scale + WHOLE - WHOLE) as i8)
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

    widened!();
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

/// Keys or values of any [`Element`], in many heads or one, with their scales: see [`Attention::run_elements`].
///
/// Elements without a scale are viewed by `From`, from a [`MatrixRef`] or [`HeadsRef`].
///
/// [`Attention::run_elements`]: crate::Attention::run_elements
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ElementsRef<'a, E> {
    pub(crate) elements: HeadsRef<'a, E>,
    /// Heads × rows × 1, or nothing.
    pub(crate) scales: HeadsRef<'a>,
}

impl<E: Element> ElementsRef<'_, E> {
    /// The rows (tokens) of a range, in every head: for [`Attention::run_elements_spans`] over a part of the keys.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if the range is not within the rows.
    ///
    /// [`Attention::run_elements_spans`]: crate::Attention::run_elements_spans
    pub fn rows(self, rows: Range<usize>) -> Result<Self, Error> {
        let elements = self.elements.rows_of(rows.clone())?;
        let scales =
            if self.scales.heads() == 0 { self.scales } else { self.scales.rows_of(rows)? };
        Ok(Self { elements, scales })
    }
}

impl<'a, E: Element<Scale = ()>> From<HeadsRef<'a, E>> for ElementsRef<'a, E> {
    fn from(elements: HeadsRef<'a, E>) -> Self {
        Self { elements, scales: HeadsRef::EMPTY }
    }
}

impl<'a, E: Element<Scale = ()>> From<MatrixRef<'a, E>> for ElementsRef<'a, E> {
    fn from(elements: MatrixRef<'a, E>) -> Self {
        Self::from(HeadsRef::from(elements))
    }
}

impl<'a> ElementsRef<'a, I8> {
    /// Elements with a scale per row: heads × rows.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if the shape of `scales` is not heads × rows; [`Error::Range`] if a scale is NaN or ∞.
    pub fn with_scales(
        elements: impl Into<HeadsRef<'a, I8>>,
        scales: MatrixRef<'a>,
    ) -> Result<Self, Error> {
        let elements = elements.into();
        if scales.shape() != (elements.heads(), elements.rows()) {
            return Err(Error::Shape);
        }
        for head in 0..scales.rows() {
            let are_finite =
                (0..scales.cols()).all(|row| scales.get(head, row).is_some_and(f32::is_finite));
            if !are_finite {
                return Err(Error::Range);
            }
        }
        Ok(Self { elements, scales: HeadsRef::of_rows(scales) })
    }
}
