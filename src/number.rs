//! Number types of 16 and 8 bits: conversions to and from `f32`. Public API.

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
/// each output of a projection. −128 is a valid element too, which [`narrow`](crate::narrow()) never writes.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(transparent)]
pub struct I8(i8);

/// The sign bit of a number of 16 bits.
const SIGN: u16 = 0x8000;

impl F16 {
    /// The least finite float that becomes ∞.
    pub(crate) const INFINITE: f32 = 65520.0;

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
        let magnitude = x.to_bits() & 0x7fff_ffff;
        let rounded = if x.is_nan() {
            0x7e00
        } else if magnitude >= Self::INFINITE.to_bits() {
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
    /// The least finite float that becomes ∞: 2¹²⁸ − 2¹¹⁹.
    pub(crate) const INFINITE: f32 = f32::from_bits(0x7f7f_8000);

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
