//! One lane: queries by four or alone, the state of one after the other.
//!
//! The steps and the bits of [`Many`](super::many::Many), for machines without vectors: tiles of
//! four keys by four queries, of which a Cortex-M4F holds all sums in registers, and one text for the
//! state of a query, however many there are.

use core::{ops::Range, slice};

use super::{Fused, KEY_BLOCK, Lanes, Logits, PARTS, Tile, fold, normaliser};
use crate::{
    MatrixMut, MatrixRef,
    kernel::{
        exp::Shift,
        mask::{Adjust, Queries},
        softmax::share,
    },
    simd::{
        Vector, array,
        line::Line,
        scalar::{F32x1, Scalar},
        taps::Fours,
    },
};

/// How many queries go together, or 1, and how many keys or columns of values.
const SIDE: usize = 4;

/// How many of `queries` go together: a tile that is half empty costs more than queries alone.
#[inline(always)]
pub(super) fn width(queries: usize) -> usize {
    if queries < SIDE - 1 { 1 } else { SIDE }
}

/// Up to [`width`] queries.
pub(super) struct Narrow<'a> {
    width: usize,
    /// dim × width, scaled.
    packed: &'a mut [f32],
    /// Keys × width.
    scores: &'a mut [f32],
    /// How many keys this block has.
    keys: usize,
    /// Columns of the values × width.
    acc: &'a mut [f32],
    /// Whether that stands for zeros, whatever it holds.
    is_empty: bool,
    /// The largest score and the sum of each query.
    states: [[f32; 2]; SIDE],
    factors: [f32; SIDE],
}

impl<'a> Narrow<'a> {
    /// How long the parts of the workspace are.
    #[inline(always)]
    pub(super) fn lengths(dim: usize, value_dim: usize, queries: usize) -> [usize; 3] {
        let width = width(queries);
        [dim * width, KEY_BLOCK * width, value_dim * width]
    }

    #[inline(always)]
    pub(super) fn new(
        _: Scalar,
        _fused: &Fused<'_>,
        tile: &Tile,
        [packed, scores, acc]: [&'a mut [f32]; 3],
    ) -> Self {
        let width = width(tile.sights.len());
        let states = array!(|_i| [f32::NEG_INFINITY, 0.0]);
        let factors = [0.0; SIDE];
        Self { width, packed, scores, keys: 0, acc, is_empty: true, states, factors }
    }

    /// Writes the outputs and hands over what log-sum-exps are made of.
    #[inline(always)]
    pub(super) fn finish(&mut self, fused: &mut Fused<'_>, tile: &Tile) {
        let columns = self.acc.len().checked_div(self.width).unwrap_or(0);
        let zero = [0.0];
        let acc = if self.is_empty {
            MatrixRef::with_strides(&zero, columns, self.width, 0, 0)
        } else {
            MatrixRef::new(self.acc, columns, self.width)
        };
        let Ok(acc) = acc else { return };
        // Where the end is not known to be near, a loop is not unrolled.
        for i in 0..tile.sights.len() {
            let [m, sum] = self.states[i % SIDE];
            let (head, row) = fused.locate(tile.first + i);
            let Some(mut out) = fused.out.head_mut(head) else { return };
            let F32x1(factor) = normaliser(Scalar, F32x1(sum));
            scale(Line::between(acc.t(), i, &mut out, row), factor, false);
            if let Some(take) = &mut fused.log_sum_exp {
                take(tile.first + i, Logits { m: &[m], sum: &[sum] });
            }
        }
    }
}

/// Multiplies by `factor`, and makes +0 of every zero; not where queries are `packed`: a chain of
/// products begins at +0, and the sign of a zero is lost there.
// One copy of three loops, for both ends of a call.
#[inline(never)]
fn scale(mut line: Line<'_>, factor: f32, packed: bool) {
    if packed && let Some(mut line) = line.known::<1, SIDE>() {
        line.map_one_by_one::<false>(|x| x * factor);
    } else if let Some(mut line) = line.known::<SIDE, 1>() {
        line.map_one_by_one::<false>(|x| x * factor + 0.0);
    } else {
        line.map_one_by_one::<false>(|x| x * factor + 0.0);
    }
}

/// The shift of a largest score; infinities are as 0.
#[inline(always)]
fn shift_of(m: f32) -> Shift<F32x1, true> {
    let m = if m.abs() < f32::INFINITY { m } else { 0.0 };
    Shift::new(Scalar, F32x1(m))
}

/// [`share`] beside +∞.
// Seldom called: a loop with a call is not unrolled, nor any where size counts.
#[cfg_attr(not(small), inline(never))]
#[cfg_attr(small, inline(always))]
fn share_of_infinity(x: f32) -> f32 {
    share(Scalar, F32x1(f32::INFINITY), F32x1(x)).0
}

/// Makes weights of the scores of as many queries as there are states, keys × queries, adds them to
/// their sums, and gives the factors of their accumulators.
///
/// Those of [`State::raise`](super::State::raise) are weights too: they go through the loop of the others, before them, and
/// not in the first block, where they are 0.
#[inline(never)]
fn weigh(scores: &mut [f32], states: &mut [[f32; 2]], factors: &mut [f32]) {
    let keys = scores.len().checked_div(states.len()).unwrap_or(0);
    let Ok(mut scores) = MatrixMut::new(scores, keys, states.len()) else { return };
    for (i, (state, factor)) in states.iter_mut().zip(factors).enumerate() {
        *factor = weigh_one(Line::column(&mut scores, i), state);
    }
}

#[inline(always)]
fn weigh_one(mut scores: Line<'_>, m_and_sum: &mut [f32; 2]) -> f32 {
    let [before, sum] = *m_and_sum;
    let mut m = F32x1(before);
    scores.visit(
        #[inline(always)]
        |x| m = F32x1(x).max(m),
    );
    let mut factor = [0.0];
    let mut is_factor = before > f32::NEG_INFINITY;
    if m.0 == f32::INFINITY {
        scores.map_one_by_one::<false>(share_of_infinity);
        // What counts for nothing beside +∞ is 0.
        is_factor = false;
        if before == f32::INFINITY {
            factor = [1.0];
        }
    }
    let shift = shift_of(m.0);
    let (mut line, mut now) = (scores, shift);
    if is_factor {
        let (of_factor, F32x1(x)) = shift_of(before).to(Scalar, shift);
        factor = [x];
        (line, now) = (scores.only(&mut factor), of_factor);
    }
    let mut parts;
    loop {
        // The next partial sum is the first one, and then all move up by one: where the
        // last move leaves them changes nothing in their fold.
        parts = [0.0; PARTS];
        line.map_one_by_one::<false>(
            #[inline(always)]
            |x| {
                let F32x1(w) = now.weight(Scalar, F32x1(x));
                let [first, second, third, fourth] = parts;
                parts = [second, third, fourth, first + w];
                w
            },
        );
        if !core::mem::take(&mut is_factor) {
            break;
        }
        (line, now) = (scores, shift);
    }
    let [factor] = factor;
    *m_and_sum = [m.0, sum * factor + fold(parts)];
    factor
}

/// `to = to · factors + left · right`, with no factors without the first term. `right` and `to` have
/// rows of `width` floats, `right` any number of them that are not read.
#[inline(never)]
fn product(
    left: MatrixRef<'_>,
    right: &[f32],
    to: &mut [f32],
    factors: Option<&[f32; SIDE]>,
    width: usize,
) {
    let rest = if width == SIDE {
        tiles::<SIDE>(left, right, to, factors)
    } else {
        tiles::<1>(left, right, to, factors)
    };
    if !rest.is_empty() {
        let (_, left) = left.split_rows(left.rows() / SIDE * SIDE).unwrap_or((left, left));
        add_visible(left, right, rest, factors, width, f32::NEG_INFINITY);
    }
}

/// Likewise of whole tiles. Gives the rows behind them.
#[inline(always)]
fn tiles<'a, const C: usize>(
    left: MatrixRef<'_>,
    right: &[f32],
    to: &'a mut [f32],
    factors: Option<&[f32; SIDE]>,
) -> &'a mut [f32] {
    let mut left = Fours::new(left);
    let right = right.as_chunks::<C>().0;
    let (tiles, rest) = to.as_chunks_mut::<C>().0.as_chunks_mut::<SIDE>();
    for to in tiles {
        // Written out, so that sums stay in registers, and on a Cortex-M55 lie in a vector.
        let zeros: [[f32; C]; SIDE] = array!(|_r| array!(|_c| 0.0));
        let sums = left.fold(
            right,
            zeros,
            #[inline(always)]
            |sums, left, right| array!(|r| array!(|c| left[r] * right[c] + sums[r][c])),
        );
        let Some(sums) = sums else { break };
        *to = match factors {
            Some(factors) => array!(|r| array!(|c| to[r][c] * factors[c] + sums[r][c])),
            None => sums,
        };
    }
    rest.as_flattened_mut()
}

/// `to = to · factors + left · right`, one element after the other, without what is below `lowest` in
/// `right`.
// Here and below a loop with two ways out is one that is never unrolled.
#[inline(never)]
fn add_visible(
    left: MatrixRef<'_>,
    right: &[f32],
    to: &mut [f32],
    factors: Option<&[f32; SIDE]>,
    width: usize,
    lowest: f32,
) {
    for (at, to) in to.iter_mut().enumerate() {
        let (row, col) = (at / width.max(1), at % width.max(1));
        let mut sum = 0.0;
        for k in 0..left.cols() {
            let weight = right.get(k * width + col);
            let (Some(left), Some(weight)) = (left.get(row, k), weight) else { return };
            if *weight < lowest {
                continue;
            }
            sum += left * weight;
        }
        if let Some(factors) = factors {
            sum += *to * factors[col % SIDE];
        }
        *to = sum;
    }
}

impl Lanes for Narrow<'_> {
    #[inline(always)]
    fn begin(&mut self, fused: &Fused<'_>, tile: &Tile) {
        let packed = MatrixMut::new(self.packed, fused.queries.cols(), self.width);
        let Ok(mut packed) = packed.map(MatrixMut::t) else { return };
        for i in 0..self.width {
            let state = &mut self.states[i % SIDE];
            // What is not there is a copy of the last: no one reads what nobody wrote.
            let there = i.min(tile.sights.len().saturating_sub(1));
            let (head, row) = fused.locate(tile.first + there);
            let mut sink = [fused.sinks.get(head).copied().unwrap_or(fused.sink)];
            if sink > [f32::NEG_INFINITY] {
                weigh(&mut sink, slice::from_mut(state), &mut [0.0]);
            }
            let queries = fused.queries.head(head).unwrap_or(MatrixRef::EMPTY);
            scale(Line::between(queries, row, &mut packed, i), fused.scale, true);
        }
    }

    #[inline(always)]
    fn score(&mut self, keys: MatrixRef<'_>, _next: MatrixRef<'_>) {
        self.keys = keys.rows();
        let scores = self.scores.get_mut(..self.keys * self.width).unwrap_or_default();
        product(keys, self.packed, scores, None, self.width);
    }

    #[inline(always)]
    fn grid(&mut self) -> Option<MatrixMut<'_>> {
        MatrixMut::new(self.scores, self.keys, self.width).ok()
    }

    // Called twice, and seldom: one copy.
    #[inline(never)]
    fn adjust(&mut self, adjust: &dyn Adjust, key: usize, queries: Queries, mark: Option<f32>) {
        if let Some(scores) = self.grid() {
            adjust.apply(key, queries, mark, scores);
        }
    }

    // Likewise.
    #[inline(never)]
    fn mark(&mut self, first: usize, sights: &[Range<usize>], mark: f32) {
        for (i, sight) in sights.iter().enumerate() {
            for key in 0..self.keys {
                let score = self.scores.get_mut(key * self.width + i);
                let Some(score) = score else { break };
                if !sight.contains(&(first + key)) {
                    *score = mark;
                }
            }
        }
    }

    #[inline(always)]
    fn weigh(&mut self) {
        let scores = self.scores.get_mut(..self.keys * self.width).unwrap_or_default();
        let states = self.states.get_mut(..self.width).unwrap_or_default();
        weigh(scores, states, &mut self.factors);
    }

    #[inline(always)]
    fn add(&mut self, values: MatrixRef<'_>, _next: MatrixRef<'_>) {
        let factors = (!core::mem::take(&mut self.is_empty)).then_some(&self.factors);
        product(values.t(), self.scores, self.acc, factors, self.width);
    }

    #[inline(always)]
    fn add_visible(&mut self, values: MatrixRef<'_>) {
        let factors = (!core::mem::take(&mut self.is_empty)).then_some(&self.factors);
        add_visible(values.t(), self.scores, self.acc, factors, self.width, 0.0);
    }

    // Seldom called: what it holds is out of the frame of the others.
    #[inline(never)]
    fn are_finite(&self, values: MatrixRef<'_>) -> bool {
        (0..values.rows()).all(|row| {
            let mut zeros = 0.0;
            for col in 0..values.cols() {
                zeros += values.get(row, col).unwrap_or(0.0) * 0.0;
            }
            zeros == 0.0
        })
    }
}
