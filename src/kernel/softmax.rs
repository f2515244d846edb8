//! Softmax of slices, rows and columns: three passes over the same memory.
//!
//! ```text
//! m = max x                            where m = +∞: x = 0 where it is +∞, else −∞
//! w = e^(x − m), sum += w              written to the output
//! w = w · (1 / sum)                    +0 below 2⁻¹²⁶
//! ```
//!
//! 1. The shift by `m` is applied to the exponent ([`exp`](super::exp)) and rounds nothing. The weights do
//!    not wait for it ([`exp::overlap`](super::exp::overlap)), so that the first two passes overlap.
//! 2. The sum is compensated ([`Sum`]). At 1024 elements a plain sum is off by 40 ULP. A compensated one is
//!    off by less than 1 along columns, which add single weights, and by less than 2 along rows, which add
//!    pairs.
//! 3. Weights that would be subnormal are set to +0 *before* the multiplication, because an x86 core takes a
//!    slow path for each subnormal result.
//! 4. A NaN makes the sum NaN, and the sum makes every weight NaN.
//! 5. Where the maximum is −∞ or there is no element, the sum is 0, and so are the weights.
//!
//! With weights within 1 ULP, a sum within 2 ULP and two roundings, a result is within 6 ULP. Hill-climbing
//! searches found 4.8 ULP at worst.

use core::ops::Range;

use super::{
    Kernel, Name,
    exp::{
        Shift, WEIGHT_BIAS,
        overlap::{DeferredShift, LARGE_MAXIMUM},
        poly_scale,
    },
};
use crate::{
    matrix::{MatrixMut, MatrixRef},
    simd::{
        Vector, array, each,
        scalar::F32x1,
        scalar_row::ScalarRow,
        strip::{InOut, Source, Strip},
    },
};

mod one_lane;
mod rows;

pub(crate) use rows::Rows;

/// A compensated sum of weights in each lane.
///
/// `a` starts at [`SUM_BIAS`] and stays above every weight, so that the rounding error of `t = a + w` is
/// exactly `w − (t − a)`. `e` is the sum of these errors.
#[derive(Clone, Copy)]
struct Sum<V> {
    a: V,
    e: V,
}

/// The start of [`Sum::a`]: 2⁶⁹. No weight is above 2⁶⁵.
///
/// With a larger start more of each weight would go to `e`, a plain sum: with 2⁷⁶, a column of one large
/// weight and 1023 equal ones is off by 93 ULP. With a smaller start the partial sums of a group have more
/// bits than their fold keeps: 5.3 ULP with 2⁶⁵. With 2⁶⁹ the same searches find 4.2 ULP for a column.
const SUM_BIAS: f32 = WEIGHT_BIAS * 64.0;

impl<V> Sum<V> {
    #[inline(always)]
    fn new<const L: usize>(token: V::Token) -> Self
    where
        V: Vector<L>,
    {
        Self::from(token, V::splat(token, SUM_BIAS))
    }

    /// An empty sum whose `a` starts at `bias`.
    #[inline(always)]
    fn from<const L: usize>(token: V::Token, bias: V) -> Self
    where
        V: Vector<L>,
    {
        Self { a: bias, e: V::splat(token, 0.0) }
    }

    #[inline(always)]
    fn add<const L: usize>(&mut self, w: V)
    where
        V: Vector<L>,
    {
        let t = self.a + w;
        self.e = self.e + (w - (t - self.a));
        self.a = t;
    }

    /// Adds four weights as two pairs. The rounding errors of the two additions to `a` are added to each
    /// other first, which halves the chain of additions to `e`.
    #[inline(always)]
    fn add_four<const L: usize>(&mut self, w0: V, w1: V, w2: V, w3: V)
    where
        V: Vector<L>,
    {
        let (first, second) = (w0 + w1, w2 + w3);
        let t = self.a + first;
        let lost = first - (t - self.a);
        let a = t + second;
        self.e = self.e + (lost + (second - (a - t)));
        self.a = a;
    }

    /// The sum without `e`.
    #[inline(always)]
    fn unbiased<const L: usize>(self, token: V::Token) -> V
    where
        V: Vector<L>,
    {
        self.a - V::splat(token, SUM_BIAS)
    }
}

/// Divides weights by their sum.
#[derive(Clone, Copy)]
struct Normaliser<V> {
    /// Weights up to this one become +0: their quotients would be subnormal.
    cutoff: V,
    factor: V,
}

/// A little more than 2⁻¹²⁶: the 4 ULP cover the three roundings between
/// `w > cutoff` and `w · factor >= 2⁻¹²⁶`.
const SMALLEST: f32 = f32::from_bits(0x0080_0004);

impl Normaliser<F32x1> {
    /// Broadcasts to every lane. The division of one float takes 7 cycles less than that of a vector of
    /// AVX-512.
    #[inline(always)]
    fn splat<const L: usize, V>(self, token: V::Token) -> Normaliser<V>
    where
        V: Vector<L>,
    {
        let Self { cutoff: F32x1(cutoff), factor: F32x1(factor) } = self;
        Normaliser { cutoff: V::splat(token, cutoff), factor: V::splat(token, factor) }
    }
}

impl<V> Normaliser<V> {
    /// For weights with the sum `a + e`, where `e` affects only the lowest bits.
    #[inline(always)]
    fn new<const L: usize>(token: V::Token, a: V, e: V) -> Self
    where
        V: Vector<L>,
    {
        // The smallest normal number keeps the factor finite where all weights are 0; otherwise `a` is far
        // above it. A NaN in `a` or `e` stays NaN.
        let sum = V::splat(token, f32::MIN_POSITIVE).max(a) + e;
        // The factor is 1 / sum. Columns use a constant that the polynomial already has in a register,
        // because registers are scarce there. A row, one lane here, waits for this quotient: 1 needs no
        // multiplication.
        let scale = V::splat(token, const { if L == 1 { 1.0 } else { poly_scale(V::FMA) } });
        Self { cutoff: sum * V::splat(token, SMALLEST), factor: scale / (scale * sum) }
    }

    #[inline(always)]
    fn apply<const L: usize>(self, w: V) -> V
    where
        V: Vector<L>,
    {
        w.times_above(self.factor, self.cutoff)
    }
}

/// The largest of `m` and the elements in each lane. Where an element is NaN the result is
/// unspecified: the sum is NaN under any shift.
///
/// This order of the operands of `max` lets x86 read the element from memory as part of the instruction.
#[inline(always)]
fn maximum<const L: usize, const G: usize, V: Vector<L>>(
    token: V::Token,
    strip: Source<'_>,
    mut m: [V; G],
) -> [V; G] {
    strip.for_each(
        token,
        f32::NEG_INFINITY,
        #[inline(always)]
        |x: [V; G]| m = array!(|g| m[g].max(x[g])),
    );
    m
}

/// The shift of a column whose maximum is not large.
///
/// [`DeferredShift`] has fewer steps. One lane uses [`Shift`], which returns the same bits: rustc 1.95
/// compares the lanes of a Cortex-M55 with a constant as if NaN were less than it, and so would lose a NaN.
#[derive(Clone, Copy)]
struct ColumnShift<V> {
    deferred: DeferredShift<V>,
    plain: Shift<V>,
}

impl<V> ColumnShift<V> {
    #[inline(always)]
    fn new<const L: usize>(token: V::Token, m: V) -> Self
    where
        V: Vector<L>,
    {
        Self { deferred: DeferredShift::new(token, m), plain: Shift::without_base(token, m) }
    }

    #[inline(always)]
    fn weight<const L: usize>(self, token: V::Token, x: V) -> V
    where
        V: Vector<L>,
    {
        if L == 1 {
            return self.plain.weight(token, x);
        }
        self.deferred.weight(token, x)
    }
}

/// Writes the weights of a strip. Returns `sums` with them added.
#[inline(always)]
fn weigh<const L: usize, const G: usize, V: Vector<L>>(
    token: V::Token,
    strip: &mut Strip<'_>,
    shift: [ColumnShift<V>; G],
    mut sums: [Sum<V>; G],
) -> [Sum<V>; G] {
    strip.map(
        token,
        f32::NEG_INFINITY,
        #[inline(always)]
        |mut x: [V; G]| {
            each::<G>(
                #[inline(always)]
                |g| {
                    x[g] = shift[g].weight(token, x[g]);
                    sums[g].add(x[g]);
                },
            );
            x
        },
    );
    sums
}

/// Where the maximum `m` is +∞, the elements that are +∞ share the weight equally: they become 0, the others
/// −∞. A NaN stays NaN. Where `m` is finite, returns `x`.
#[inline(always)]
pub(super) fn share_at_infinity<const L: usize, V: Vector<L>>(token: V::Token, m: V, x: V) -> V {
    // `x − m` makes −∞ of the others. A comparison would turn a NaN into −∞ too: in the lanes of a Cortex-M55
    // rustc 1.95 compares NaN as less.
    let largest = V::splat(token, f32::MAX);
    let share = x.select_gt(largest, V::splat(token, 0.0), x - m);
    m.select_gt(largest, share, x)
}

/// Maxima of which one is beyond ±[`LARGE_MAXIMUM`], and what is subtracted from the elements under each.
#[derive(Clone, Copy)]
struct LargeMaxima<const G: usize, V> {
    m: [V; G],
    base: [V; G],
}

impl<const G: usize, V> LargeMaxima<G, V> {
    /// Subtracts the large maxima from the elements `x` under them. This is exact where the weight is not 0. Where
    /// a maximum is +∞ it is [`share_at_infinity`] instead.
    #[inline(always)]
    fn subtract<const L: usize>(self, token: V::Token, x: [V; G]) -> [V; G]
    where
        V: Vector<L>,
    {
        array!(|g| share_at_infinity(token, self.m[g], x[g]) - self.base[g])
    }
}

/// Bounds the maxima `m` by ±[`LARGE_MAXIMUM`]. Returns the new maxima, the new `sinks`, and if one was larger, what
/// to subtract from the elements.
#[inline(always)]
fn bound_maxima<const L: usize, const G: usize, V: Vector<L>>(
    token: V::Token,
    m: [V; G],
    sinks: [V; G],
) -> ([V; G], [V; G], Option<LargeMaxima<G, V>>) {
    let constant = |c| V::splat(token, c);
    let zero = constant(0.0);
    // For a maximum of −∞ every weight is +0 under any shift.
    let m: [V; G] = array!(|g| m[g].select_gt(constant(f32::NEG_INFINITY), m[g], zero));
    let large: [V; G] = array!(|g| {
        let below = constant(-LARGE_MAXIMUM).select_gt(m[g], m[g], zero);
        m[g].select_gt(constant(LARGE_MAXIMUM), m[g], below)
    });
    let mut any_large = false;
    for large in large {
        any_large |= large.to_array() != [0.0; L];
    }
    if !any_large {
        return (m, sinks, None);
    }
    let base: [V; G] = array!(|g| large[g].select_gt(constant(f32::MAX), zero, large[g]));
    let bounded = array!(|g| large[g].select_gt(constant(f32::MAX), zero, m[g] - base[g]));
    let large = LargeMaxima { m, base };
    (bounded, large.subtract(token, sinks), Some(large))
}

/// Divides the weights of a strip by their sums.
#[inline(always)]
fn normalise<const L: usize, const G: usize, V: Vector<L>>(
    token: V::Token,
    mut strip: Strip<'_>,
    normalisers: [Normaliser<V>; G],
) {
    strip.read_from_output();
    strip.map(
        token,
        0.0,
        #[inline(always)]
        |w: [V; G]| array!(|g| normalisers[g].apply(w[g])),
    );
}

/// The weights of a row by [`Shift`], with the maximum 0 and without a sum. The benches compare the whole
/// softmax with it.
pub(crate) struct Exp<'a>(pub(crate) InOut<'a>);

impl Kernel for Exp<'_> {
    type Output = ();

    const NAME: Name = Name::Exp;

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        let Self(mut matrix) = self;
        let shift: Shift<V> = Shift::new(token, V::splat(token, 0.0));
        matrix.row::<false>(0).strip(0, G * L).map(
            token,
            0.0,
            #[inline(always)]
            |x: [V; G]| array!(|g| shift.weight(token, x[g])),
        );
    }
}

/// Softmax of every column. Each lane holds one column, so that no vector is folded.
pub(crate) struct Columns<'a> {
    pub(crate) matrix: InOut<'a>,
    /// The attention sink: one more score in the denominator of each column; −∞ is none.
    pub(crate) sink: f32,
}

impl<'a> Columns<'a> {
    #[inline]
    pub(crate) fn new(matrix: InOut<'a>) -> Self {
        Self { matrix, sink: f32::NEG_INFINITY }
    }
}

/// Softmax of a slice.
pub(crate) struct Slice<'a> {
    /// `None`: in place.
    pub(crate) from: Option<&'a [f32]>,
    /// Has the length of `from`.
    pub(crate) to: &'a mut [f32],
}

impl Kernel for Slice<'_> {
    type Output = ();

    const NAME: Name = Name::Softmax;

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        let Self { from, to } = self;
        if L == 1 {
            one_lane::softmax::<true>(ScalarRow::new(from, to));
        } else {
            let to = MatrixMut::from_row(to);
            let row = match from {
                Some(from) => InOut::new(MatrixRef::from_row(from), to),
                None => Ok(InOut::in_place(to)),
            };
            if let Ok(row) = row {
                (&mut Rows(row)).run::<L, G, R, C, V>(token);
            }
        }
    }
}

impl Kernel for &mut Columns<'_> {
    type Output = ();

    const NAME: Name = Name::SoftmaxColumns;

    #[inline(always)]
    fn fits_8_lanes(&self) -> bool {
        self.matrix.shape().1 <= 8
    }

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        let Columns { matrix, sink } = self;
        let sink = V::splat(token, *sink);
        let (rows, cols) = matrix.shape();
        let cols = if rows == 0 { 0 } else { cols };
        // With one lane, four columns at a time take 9 % less time than one, in five times the code.
        let vectors = if cfg!(small) && L == 1 { 1 } else { C };
        for col in (0..cols).step_by(vectors * L) {
            if vectors > 1 && cols - col > L {
                columns::<L, C, V>(token, matrix, col, sink);
            } else {
                columns::<L, 1, V>(token, matrix, col, sink);
            }
        }
    }
}

impl Columns<'_> {
    /// Whether [`Panels`] are faster.
    #[inline(always)]
    pub(crate) fn want_panels(&self) -> bool {
        let (rows, cols) = self.matrix.shape();
        !cfg!(microcontroller)
            && rows > FEW_ROWS
            && cols > FEW_COLUMNS
            && self.matrix.rows_share_sets()
    }
}

/// [`Columns`] whose strips of columns take turns: see [`panel`].
pub(crate) struct Panels<'a, 'b>(pub(crate) &'a mut Columns<'b>);

impl Kernel for Panels<'_, '_> {
    type Output = ();

    const NAME: Name = Name::SoftmaxPanels;

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        let Self(Columns { matrix, sink }) = self;
        let sink = V::splat(token, *sink);
        for col in (0..matrix.shape().1).step_by(PANEL) {
            panel::<L, C, V>(token, matrix, col, sink);
        }
    }
}

/// So many columns are one strip of the widest vectors, which has no turns to take.
const FEW_COLUMNS: usize = 32;

/// The number of columns of a panel: a page of each row. Half as many take 5 to 10 % longer, because a core prefetches
/// within a page.
const PANEL: usize = 1024;

/// What a strip of a panel keeps from turn to turn: its maxima and sums, then its normalisers.
type State<const L: usize, const C: usize> = [Lanes<L, C>; 3];

/// One float for each column of a strip.
type Lanes<const L: usize, const C: usize> = [[f32; L]; C];

#[inline(always)]
fn load<const L: usize, const C: usize, V: Vector<L>>(
    token: V::Token,
    lanes: &Lanes<L, C>,
) -> [V; C] {
    array!(|c| V::load(token, &lanes[c]))
}

#[inline(always)]
fn store<const L: usize, const C: usize, V: Vector<L>>(lanes: &mut Lanes<L, C>, vectors: [V; C]) {
    each::<C>(
        #[inline(always)]
        |c| vectors[c].store(&mut lanes[c]),
    );
}

#[inline(always)]
fn shifts_of<const L: usize, const C: usize, V: Vector<L>>(
    token: V::Token,
    m: &Lanes<L, C>,
) -> [ColumnShift<V>; C] {
    let m: [V; C] = load(token, m);
    array!(|c| ColumnShift::new(token, m[c]))
}

#[inline(always)]
fn sums_of<const L: usize, const C: usize, V: Vector<L>>(
    token: V::Token,
    a: &Lanes<L, C>,
    e: &Lanes<L, C>,
) -> [Sum<V>; C] {
    let (a, e): ([V; C], [V; C]) = (load(token, a), load(token, e));
    array!(|c| Sum { a: a[c], e: e[c] })
}

/// The number of rows of a turn: the state of a strip is loaded and stored once for them, and their lines
/// fit into the ways of one set of a first-level cache.
const TURN: usize = 8;

/// A strip of so many rows stays in a second-level cache at any distance of the rows: 4 KiB apart they use 32 of 2048
/// sets, of 8 lines or more each.
const FEW_ROWS: usize = 64;

/// Softmax of `C` vectors of columns from `col` on, whose state stays in registers.
#[cfg_attr(not(unoptimised), inline(always))]
fn columns<const L: usize, const C: usize, V: Vector<L>>(
    token: V::Token,
    matrix: &mut InOut<'_>,
    col: usize,
    sink: V,
) {
    let rows = matrix.shape().0;
    let mut strip = matrix.block(0..rows, col, C * L);
    let m: [V; C] = maximum(token, strip.source(), [V::splat(token, f32::NEG_INFINITY); C]);
    let m: [V; C] = array!(|c| sink.max(m[c]));
    let (m, sinks, large) = bound_maxima(token, m, [sink; C]);
    if let Some(large) = large {
        strip.map(
            token,
            f32::NEG_INFINITY,
            #[inline(always)]
            |x: [V; C]| large.subtract(token, x),
        );
        strip.read_from_output();
    }
    let shifts: [ColumnShift<V>; C] = array!(|c| ColumnShift::new(token, m[c]));
    let sums = weigh(token, &mut strip, shifts, [Sum::new(token); C]);
    let normalisers: [Normaliser<V>; C] =
        array!(|c| column_normaliser(token, sums[c], shifts[c], sinks[c]));
    normalise(token, strip, normalisers);
}

/// Softmax of [`PANEL`] columns from `col` on, in strips of `C` vectors.
///
/// [`columns`] reads a strip three times, from cache where it fits. Rows a multiple of 2 KiB apart share a few
/// sets, which hold a fraction of them: here the strips of a panel take turns of a few rows, so that each pass
/// reads the rows of the panel in sequence. A pass begins at the rows where the one before it ended, which are still
/// in a cache: the first and the last pass, whose order is free, go upwards.
#[cfg_attr(not(unoptimised), inline(always))]
fn panel<const L: usize, const C: usize, V: Vector<L>>(
    token: V::Token,
    matrix: &mut InOut<'_>,
    col: usize,
    sink: V,
) {
    let (rows, cols) = matrix.shape();
    let mut floats = [0.0; 3 * PANEL];
    let strips: &mut [State<L, C>] = floats.as_chunks_mut().0.as_chunks_mut().0.as_chunks_mut().0;
    let Some(strips) = strips.get_mut(..(cols - col).min(PANEL).div_ceil(C * L)) else { return };

    for [m, ..] in &mut *strips {
        store::<L, C, V>(m, [sink; C]);
    }
    for_each_turn(
        turns(rows).rev(),
        strips,
        #[inline(always)]
        |turn, strip, [m, ..]| {
            let block = matrix.block(turn, col + strip * C * L, C * L);
            store::<L, C, V>(m, maximum(token, block.source(), load::<L, C, V>(token, m)));
        },
    );

    let mut any_large = false;
    for [m, a, e] in &mut *strips {
        let (bounded, _, large) = bound_maxima(token, load::<L, C, V>(token, m), [sink; C]);
        any_large |= large.is_some();
        let sum: Sum<V> = Sum::new(token);
        store::<L, C, V>(m, bounded);
        store::<L, C, V>(a, [sum.a; C]);
        store::<L, C, V>(e, [sum.e; C]);
    }
    if any_large {
        for strip in 0..strips.len() {
            columns::<L, C, V>(token, matrix, col + strip * C * L, sink);
        }
        return;
    }

    for_each_turn(
        turns(rows),
        strips,
        #[inline(always)]
        |turn, strip, [m, a, e]| {
            let mut block = matrix.block(turn, col + strip * C * L, C * L);
            let (shifts, sums) = (shifts_of::<L, C, V>(token, m), sums_of(token, a, e));
            let sums = weigh(token, &mut block, shifts, sums);
            store::<L, C, V>(a, array!(|c| sums[c].a));
            store::<L, C, V>(e, array!(|c| sums[c].e));
        },
    );

    for [m, a, e] in &mut *strips {
        let (shifts, sums) = (shifts_of::<L, C, V>(token, m), sums_of(token, a, e));
        let normalisers: [Normaliser<V>; C] =
            array!(|c| column_normaliser(token, sums[c], shifts[c], sink));
        store::<L, C, V>(a, array!(|c| normalisers[c].cutoff));
        store::<L, C, V>(e, array!(|c| normalisers[c].factor));
    }
    for_each_turn(
        turns(rows).rev(),
        strips,
        #[inline(always)]
        |turn, strip, [_, cutoff, factor]| {
            let (cutoff, factor): ([V; C], [V; C]) = (load(token, cutoff), load(token, factor));
            let normalisers: [Normaliser<V>; C] =
                array!(|c| Normaliser { cutoff: cutoff[c], factor: factor[c] });
            normalise(token, matrix.block(turn, col + strip * C * L, C * L), normalisers);
        },
    );
}

/// The normaliser of columns with these sums and sinks.
#[inline(always)]
fn column_normaliser<const L: usize, V: Vector<L>>(
    token: V::Token,
    mut sum: Sum<V>,
    shift: ColumnShift<V>,
    sink: V,
) -> Normaliser<V> {
    sum.add(shift.weight(token, sink));
    Normaliser::new(token, sum.unbiased(token), sum.e)
}

/// The rows of each turn.
#[inline(always)]
fn turns(rows: usize) -> impl DoubleEndedIterator<Item = Range<usize>> {
    (0..rows.div_ceil(TURN)).map(
        #[inline(always)]
        move |turn| turn * TURN..rows.min((turn + 1) * TURN),
    )
}

/// Calls `f` with the rows of each turn, and with the index and state of each strip.
#[inline(always)]
fn for_each_turn<S>(
    turns: impl Iterator<Item = Range<usize>>,
    strips: &mut [S],
    mut f: impl FnMut(Range<usize>, usize, &mut S),
) {
    for turn in turns {
        for (strip, state) in strips.iter_mut().enumerate() {
            f(turn.clone(), strip, state);
        }
    }
}
