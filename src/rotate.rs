//! Rotary position embedding.

use core::ops::Range;

use crate::{
    dispatch::Backend,
    error::Error,
    kernel::rotate::Rotate,
    matrix::{HeadsMut, HeadsRef, MatrixRef},
    simd::double,
};

pub use crate::kernel::rotate::Pairs;

/// The cosines and sines of a rotary position embedding, for a range of positions, in memory of the caller's.
///
/// Pair `i` of a token at position `p` turns by the angle `p · θ(i)`. [`new`](Self::new) takes the frequencies `θ(i)` of
/// the paper; [`with_frequencies`](Self::with_frequencies) takes any, for scaled variants (Llama 3, YaRN). The two are
/// computed in `f64` and rounded once, by the same code on every machine. One table serves queries and keys, all heads
/// and all layers.
///
/// ```
/// use sdpa::RotaryTable;
///
/// let mut memory = [0.0; RotaryTable::floats(100, 32)];
/// let table = RotaryTable::new(10_000.0, 32, 0..100, &mut memory)?;
/// assert_eq!(table.cosines().get(0, 5), Some(1.0)); // position 0 does not turn
/// assert_eq!(table.sines().get(3, 0), Some(3.0_f64.sin() as f32)); // θ(0) is 1
/// # Ok::<(), sdpa::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RotaryTable<'a> {
    /// Positions × pairs, both.
    cosines: MatrixRef<'a>,
    sines: MatrixRef<'a>,
    /// The position of the first row.
    first: u64,
}

/// The positions of a table end here: all below are whole numbers that `f64` represents.
const END: u64 = 1 << 53;

impl<'a> RotaryTable<'a> {
    /// The floats that a table takes: `2 · positions · pairs`, or `usize::MAX` if that is no `usize`.
    pub const fn floats(positions: usize, pairs: usize) -> usize {
        positions.saturating_mul(pairs).saturating_mul(2)
    }

    /// Computes the table with the frequencies `θ(i) = base^(−i / pairs)`: those of Su et al., *RoFormer* (2021), which
    /// has the base 10000.
    ///
    /// `pairs` is half the number of columns that turn: `dim / 2`, or less for a partial rotation. Up to position 2²⁴
    /// the angle adds at most 0.06 · 2⁻²³ to the error of [`rotate()`]. It grows with the position: at most
    /// `3.4 · 2⁻⁵³ · position`.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the base is not finite or below 1; [`Error::Position`] if the range ends before it
    /// begins or beyond 2⁵³; [`Error::Shape`] if there are no pairs or `memory` is shorter than
    /// [`floats`](Self::floats). Nothing is written then.
    pub fn new(
        base: f64,
        pairs: usize,
        positions: Range<u64>,
        memory: &'a mut [f32],
    ) -> Result<Self, Error> {
        if !base.is_finite() || base < 1.0 {
            return Err(Error::Option);
        }
        Self::filled(pairs, positions, memory, |i| libm::pow(base, -(i as f64) / pairs as f64))
    }

    /// Computes the table with given frequencies, one a pair, in radians per position. A pair whose frequency is 0 does
    /// not turn; negated frequencies turn back.
    ///
    /// A factor on cosines and sines, as YaRN has, goes into the [scale](crate::Attention::scale) of attention: it is
    /// squared there, if the whole row turns.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new), with [`Error::Option`] for a frequency that is not finite.
    pub fn with_frequencies(
        frequencies: &[f32],
        positions: Range<u64>,
        memory: &'a mut [f32],
    ) -> Result<Self, Error> {
        if !frequencies.iter().all(|frequency| frequency.is_finite()) {
            return Err(Error::Option);
        }
        let frequency = |i: usize| frequencies.get(i).copied().unwrap_or(0.0).into();
        Self::filled(frequencies.len(), positions, memory, frequency)
    }

    /// Views a table that was computed elsewhere: cosines and sines of positions × pairs, from position `first` on.
    /// Of a checkpoint's cache of cosines, `split_columns` takes the half that is not repeated.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if the shapes differ or there are no pairs; [`Error::Position`] if the last position is beyond
    /// `u64`.
    pub fn from_parts(
        cosines: MatrixRef<'a>,
        sines: MatrixRef<'a>,
        first: u64,
    ) -> Result<Self, Error> {
        if cosines.shape() != sines.shape() || cosines.cols() == 0 {
            return Err(Error::Shape);
        }
        first.checked_add(cosines.rows() as u64).ok_or(Error::Position)?;
        Ok(Self { cosines, sines, first })
    }

    /// Fills `memory` with a row for each position: its cosines, then its sines.
    fn filled(
        pairs: usize,
        positions: Range<u64>,
        memory: &'a mut [f32],
        frequency: impl Fn(usize) -> f64,
    ) -> Result<Self, Error> {
        let Range { start: first, end } = positions;
        let count = end.checked_sub(first).filter(|_| end <= END).ok_or(Error::Position)?;
        let count = usize::try_from(count).map_err(|_| Error::Shape)?;
        let width = pairs.checked_mul(2).filter(|&width| width > 0).ok_or(Error::Shape)?;
        MatrixRef::new(&*memory, count, width)?;
        double::rounded(|| {
            for pair in 0..pairs {
                let frequency = frequency(pair);
                for (row, position) in memory.chunks_exact_mut(width).zip(first..end) {
                    let (sine, cosine) = libm::sincos(position as f64 * frequency);
                    let (cosines, sines) = row.split_at_mut_checked(pairs).unwrap_or_default();
                    cosines.get_mut(pair).into_iter().for_each(|to| *to = cosine as f32);
                    sines.get_mut(pair).into_iter().for_each(|to| *to = sine as f32);
                }
            }
        });
        let (cosines, sines) = MatrixRef::new(memory, count, width)?.split_columns(pairs)?;
        Ok(Self { cosines, sines, first })
    }

    /// The positions that the table covers.
    pub fn positions(&self) -> Range<u64> {
        self.first..self.first + self.cosines.rows() as u64
    }

    /// The cosines: positions × pairs.
    pub fn cosines(&self) -> MatrixRef<'a> {
        self.cosines
    }

    /// The sines: positions × pairs.
    pub fn sines(&self) -> MatrixRef<'a> {
        self.sines
    }

    /// The cosines and the sines of `tokens` positions from `first` on.
    fn rows(&self, first: u64, tokens: usize) -> Result<[MatrixRef<'a>; 2], Error> {
        let before = first.checked_sub(self.first).and_then(|rows| usize::try_from(rows).ok());
        let rows = before.and_then(|before| Some(before..before.checked_add(tokens)?));
        let rows = rows.ok_or(Error::Position)?;
        let of = |x: MatrixRef<'a>| x.submatrix(rows.clone(), 0..x.cols()).ok_or(Error::Position);
        Ok([of(self.cosines)?, of(self.sines)?])
    }
}

/// Applies a rotary position embedding (RoPE): turns each pair of columns of queries or keys by the angle of its token's
/// position.
///
/// ```text
/// out[a] = x[a] · cos − x[b] · sin          (a, b): the columns of a pair
/// out[b] = x[b] · cos + x[a] · sin
/// ```
///
/// | argument | shape | |
/// | --- | --- | --- |
/// | `x` | heads × tokens × dim | queries, or keys before they are appended to a cache |
/// | `table` | | the cosines and sines of a range of positions |
/// | `position` | | that of the first token; each token has the next one |
/// | `pairs` | | which columns are a pair |
/// | `out` | heads × tokens × dim | |
///
/// A [`MatrixRef`] is a single head. Where the table has fewer pairs than half of dim, only the first columns turn, two a
/// pair; the rest is copied. Each element is within `1.5 · 2⁻²³` of the length of its pair ([how
/// exact](crate::docs::numerics#how-exact)). Without tokens nothing is written. No extra memory is needed. The formula is
/// that of section 3.2.2 of Su et al., *RoFormer* (2021).
///
/// ```
/// use sdpa::{Matrix, Pairs, RotaryTable, rotate};
///
/// let mut memory = [0.0; RotaryTable::floats(8, 1)];
/// let table = RotaryTable::with_frequencies(&[core::f32::consts::FRAC_PI_2], 0..8, &mut memory)?;
///
/// let queries = Matrix::from([[1.0, 0.0, 5.0], [1.0, 0.0, 5.0]]);
/// let mut out = Matrix::<2, 3>::ZERO;
/// rotate(queries.view(), &table, 4, Pairs::Halves, out.view_mut())?;
/// for (row, expected) in out.0.iter().zip([[1.0, 0.0, 5.0], [0.0, 1.0, 5.0]]) {
///     assert!(row.iter().zip(expected).all(|(x, expected)| (x - expected).abs() < 1e-6));
/// }
/// # Ok::<(), sdpa::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Shape`] if the shapes differ or dim is less than two columns a pair; [`Error::Position`] if the table does
/// not cover a token. Nothing is written then.
pub fn rotate<'b>(
    x: impl Into<HeadsRef<'b>>,
    table: &RotaryTable<'_>,
    position: u64,
    pairs: Pairs,
    out: impl Into<HeadsMut<'b>>,
) -> Result<(), Error> {
    Backend::best().rotate(x, table, position, pairs, out)
}

/// [`rotate()`] in place: columns that do not turn are not touched.
///
/// # Errors
///
/// Those of [`rotate()`].
pub fn rotate_in_place<'b>(
    x: impl Into<HeadsMut<'b>>,
    table: &RotaryTable<'_>,
    position: u64,
    pairs: Pairs,
) -> Result<(), Error> {
    Backend::best().rotate_in_place(x, table, position, pairs)
}

impl Backend {
    /// [`rotate()`] on this back end.
    ///
    /// # Errors
    ///
    /// Those of [`rotate()`].
    pub fn rotate<'b>(
        self,
        x: impl Into<HeadsRef<'b>>,
        table: &RotaryTable<'_>,
        position: u64,
        pairs: Pairs,
        out: impl Into<HeadsMut<'b>>,
    ) -> Result<(), Error> {
        self.rotate_views(Some(&x.into()), table, position, pairs, &mut out.into())
    }

    /// [`rotate_in_place`] on this back end.
    ///
    /// # Errors
    ///
    /// Those of [`rotate()`].
    pub fn rotate_in_place<'b>(
        self,
        x: impl Into<HeadsMut<'b>>,
        table: &RotaryTable<'_>,
        position: u64,
        pairs: Pairs,
    ) -> Result<(), Error> {
        self.rotate_views(None, table, position, pairs, &mut x.into())
    }

    /// [`rotate()`], or in place without `x`. Takes views by reference, for the C library. Not part of the API.
    #[doc(hidden)]
    pub fn rotate_views(
        self,
        x: Option<&HeadsRef<'_>>,
        table: &RotaryTable<'_>,
        position: u64,
        pairs: Pairs,
        out: &mut HeadsMut<'_>,
    ) -> Result<(), Error> {
        let sizes = [out.heads(), out.rows(), out.cols()];
        let agree = x.is_none_or(|x| [x.heads(), x.rows(), x.cols()] == sizes);
        if !agree || out.cols() / 2 < table.cosines.cols() {
            return Err(Error::Shape);
        }
        let factors = table.rows(position, out.rows())?;
        self.run(Rotate { from: x.copied(), to: out.view_mut(), factors, pairs });
        Ok(())
    }
}
