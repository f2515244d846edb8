//! Random shapes, values and layouts, the same on every machine.
//!
//! Uses only `core` and integer arithmetic, with exact or once-rounded float operations at the
//! end, as microcontrollers and golden digests use these inputs.

use core::hint::black_box;

/// SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An integer below `end`, which must not be 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (((self.bits() >> 32) * end as u64) >> 32) as usize
    }

    /// A float in `low..=high`.
    pub(crate) fn between(&mut self, low: f32, high: f32) -> f32 {
        let unit = (self.bits() >> 40) as f32 * (1.0 / 16_777_216.0);
        // An x87 rounds when it stores.
        let product = black_box(black_box(high - low) * unit);
        black_box(low + product).clamp(low, high)
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// 0, 1, and multiples of lanes (1, 4, 8, 16), tiles (4, 6, 8, 16, 24, 48) and panels (64), each ± 1.
pub(crate) const SIZES: [usize; 30] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 16, 17, 18, 23, 24, 25, 31, 32, 33, 47, 48, 49,
    63, 64, 65, 66,
];

/// A size: one of [`SIZES`], or any up to 140.
pub(crate) fn size(rng: &mut Rng) -> usize {
    if rng.one_in(6) { rng.below(141) } else { rng.pick(&SIZES) }
}

/// The length of a slice: also 0 to 2 above multiples of 64, the number of partial sums in the FMA family.
pub(crate) fn length(rng: &mut Rng) -> usize {
    match rng.below(4) {
        0 => rng.below(1100),
        1 => 64 * rng.below(17) + rng.below(3),
        _ => size(rng),
    }
}

/// A distribution of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// [−1, 1].
    Ordinary,
    /// [−80, 80].
    Wide,
    /// Scores whose weights are above and below the smallest normal float, some far below.
    Deep,
    /// Some products and sums underflow.
    Tiny,
    /// Half of the values −∞.
    Masked,
    /// All −∞.
    AllMasked,
    /// All the same value.
    Equal,
    /// [1000, 1100]: `exp` alone would overflow.
    Overflowing,
    /// [−1100, −1000]: `exp` alone would underflow.
    Underflowing,
    /// Subnormals of either sign.
    Subnormal,
    /// Up to ±3e38.
    Huge,
    /// +0 and −0.
    Zeros,
    /// One NaN among ordinary values.
    OneNan,
    /// Some +∞ and −∞ among ordinary values.
    Infinite,
}

impl Kind {
    pub(crate) const ALL: [Self; 14] = [
        Self::Ordinary,
        Self::Wide,
        Self::Deep,
        Self::Tiny,
        Self::Masked,
        Self::AllMasked,
        Self::Equal,
        Self::Overflowing,
        Self::Underflowing,
        Self::Subnormal,
        Self::Huge,
        Self::Zeros,
        Self::OneNan,
        Self::Infinite,
    ];

    /// Any kind; ordinary with a probability of one half.
    pub(crate) fn any(rng: &mut Rng) -> Self {
        if rng.one_in(2) { Self::Ordinary } else { rng.pick(&Self::ALL) }
    }

    pub(crate) fn fill(self, rng: &mut Rng, to: &mut [f32]) {
        let common = rng.between(-80.0, 80.0);
        to.iter_mut().for_each(|x| *x = self.value(rng, common));
        if self == Self::OneNan && !to.is_empty() {
            to[rng.below(to.len())] = f32::NAN;
        }
    }

    fn value(self, rng: &mut Rng, common: f32) -> f32 {
        match self {
            Self::Ordinary | Self::OneNan => rng.between(-1.0, 1.0),
            Self::Wide => rng.between(-80.0, 80.0),
            Self::Deep => {
                let low = rng.pick(&[-140.0, -95.0, -1.0]);
                rng.between(low, 0.0)
            }
            Self::Tiny => {
                let scale = rng.pick(&[-50, -63, -75, -100]);
                rng.between(-1.0, 1.0) * power_of_two(scale)
            }
            Self::Masked if rng.one_in(2) => f32::NEG_INFINITY,
            Self::Masked => rng.between(-10.0, 10.0),
            Self::AllMasked => f32::NEG_INFINITY,
            Self::Equal => common,
            Self::Overflowing => rng.between(1000.0, 1100.0),
            Self::Underflowing => rng.between(-1100.0, -1000.0),
            Self::Subnormal => f32::from_bits(rng.bits() as u32 & 0x807f_ffff),
            Self::Huge => rng.between(-3.0e38, 3.0e38),
            Self::Zeros => rng.pick(&[0.0, -0.0]),
            Self::Infinite if rng.one_in(16) => f32::INFINITY,
            Self::Infinite if rng.one_in(16) => f32::NEG_INFINITY,
            Self::Infinite => rng.between(-1.0, 1.0),
        }
    }
}

/// 2^`exponent`, for a normal result.
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// The layout of a matrix in a buffer of `len` floats.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) start: usize,
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
    pub(crate) len: usize,
}

impl Layout {
    /// Any layout of an input: one in eight repeats a row, a column or an element.
    pub(crate) fn of_input(rng: &mut Rng, rows: usize, cols: usize) -> Self {
        let distinct = Self::of_output(rng, rows, cols);
        if !rng.one_in(8) {
            return distinct;
        }
        let (row_stride, col_stride) =
            rng.pick(&[(0, distinct.col_stride), (distinct.row_stride, 0), (0, 0)]);
        Self { row_stride, col_stride, ..distinct }
    }

    /// Any layout whose elements are distinct: contiguous, with padded rows, or with gaps within the rows
    /// too; transposed or not; from the start of the buffer or an offset. The buffer extends beyond the
    /// last row and column.
    pub(crate) fn of_output(rng: &mut Rng, rows: usize, cols: usize) -> Self {
        let transposed = rng.one_in(3);
        let (outer, inner) = if transposed { (cols, rows) } else { (rows, cols) };
        let gap = rng.pick(&[1, 1, 1, 2, 3]);
        let pitch = inner * gap + rng.pick(&[0, 0, 1, 5]);
        let (row_stride, col_stride) = if transposed { (gap, pitch) } else { (pitch, gap) };
        let start = rng.pick(&[0, 0, 1, 3]);
        Self { rows, cols, start, row_stride, col_stride, len: start + (outer + 1) * pitch + 3 }
    }

    pub(crate) fn index(self, row: usize, col: usize) -> usize {
        self.start + row * self.row_stride + col * self.col_stride
    }
}
