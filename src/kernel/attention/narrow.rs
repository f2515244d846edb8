//! One lane: queries by four or alone, the state of one after the other.
//!
//! The steps and the bits of [`Many`](super::many::Many), for machines without vectors: tiles of
//! four keys by four queries, of which a Cortex-M4F holds all sums in registers, and one text for the
//! state of a query, however many there are.

use core::ops::Range;

use heapless::Vec;

use super::{Fused, KEY_BLOCK, Lanes, PARTS, State, Tile, fold, parts};
use crate::{
    MatrixMut, MatrixRef,
    kernel::softmax::share,
    simd::{
        Vector, array,
        line::Line,
        scalar::{F32x1, Scalar},
        taps::fold_four_rows,
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
    states: Vec<State<1, F32x1>, SIDE>,
    factors: [f32; SIDE],
}

impl<'a> Narrow<'a> {
    #[inline(always)]
    pub(super) fn new(
        _: Scalar,
        fused: &Fused<'_>,
        tile: &Tile,
        workspace: &'a mut [f32],
    ) -> Option<Self> {
        let (dim, value_dim) = (fused.queries.cols(), fused.out.cols());
        let width = width(tile.sights.len());
        let lengths = [dim, KEY_BLOCK, value_dim].map(|rows| rows * width);
        let [packed, scores, acc] = parts(workspace, lengths)?;
        packed.fill(0.0);
        let mut states = Vec::new();
        for i in 0..width {
            // Cannot fail: at most SIDE.
            let _ = states.push(State::new(Scalar, [F32x1(fused.sink_of(tile.first + i))]));
        }
        for i in 0..tile.sights.len() {
            let (head, row) = fused.locate(tile.first + i);
            let mut packed = MatrixMut::new(packed, dim, width).ok()?.t();
            Line::between(fused.queries.head(head)?, row, &mut packed, i)
                .map_one_by_one::<false>(|x| x * fused.scale);
        }
        let factors = [0.0; SIDE];
        Some(Self { width, packed, scores, keys: 0, acc, is_empty: true, states, factors })
    }

    /// Writes the outputs and hands over what log-sum-exps are made of.
    #[inline(always)]
    pub(super) fn finish(self, fused: &mut Fused<'_>, tile: &Tile) {
        let Self { acc, states, width, .. } = self;
        if self.is_empty {
            acc.fill(0.0);
        }
        let columns = acc.len().checked_div(width).unwrap_or(0);
        let Ok(acc) = MatrixRef::new(acc, columns, width) else { return };
        for (i, state) in states.iter().enumerate().take(tile.sights.len()) {
            let (head, row) = fused.locate(tile.first + i);
            let Some(mut out) = fused.out.head_mut(head) else { return };
            let [F32x1(factor)] = state.normalisers(Scalar);
            Line::between(acc.t(), i, &mut out, row)
                .map_one_by_one::<false>(|sum| sum * factor + 0.0);
            if let Some(take) = &mut fused.log_sum_exp {
                state.give_logits(Scalar, tile.first + i, 1, take);
            }
        }
    }
}

/// `to = to · factors + left · right`, with no factors without the first term. `right` and `to` have
/// rows of `width` floats.
#[inline(never)]
fn product(
    left: MatrixRef<'_>,
    right: &[f32],
    to: &mut [f32],
    factors: Option<&[f32; SIDE]>,
    width: usize,
) {
    if width == SIDE {
        tiles::<SIDE>(left, right, to, factors);
    } else {
        tiles::<1>(left, right, to, factors);
    }
}

#[inline(always)]
fn tiles<const C: usize>(
    left: MatrixRef<'_>,
    right: &[f32],
    to: &mut [f32],
    factors: Option<&[f32; SIDE]>,
) {
    let right = right.as_chunks::<C>().0;
    for (i, rows) in to.as_chunks_mut::<C>().0.chunks_mut(SIDE).enumerate() {
        let zeros: [[f32; C]; SIDE] = array!(|_r| array!(|_c| 0.0));
        let sums = fold_four_rows(
            left,
            i * SIDE,
            right,
            zeros,
            #[inline(always)]
            |sums, left, right| array!(|r| array!(|c| left[r] * right[c] + sums[r][c])),
        );
        for (row, sums) in rows.iter_mut().zip(sums) {
            *row = match factors {
                Some(factors) => array!(|c| row[c] * factors[c] + sums[c]),
                None => sums,
            };
        }
    }
}

impl Lanes for Narrow<'_> {
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

    #[inline(always)]
    fn mark(&mut self, first: usize, sights: &[Range<usize>], mark: f32) {
        for (i, sight) in sights.iter().enumerate() {
            for key in 0..self.keys {
                if !sight.contains(&(first + key))
                    && let Some(score) = self.scores.get_mut(key * self.width + i)
                {
                    *score = mark;
                }
            }
        }
    }

    #[inline(always)]
    fn weigh(&mut self) {
        let scores = self.scores.get_mut(..self.keys * self.width).unwrap_or_default();
        for (i, state) in self.states.iter_mut().enumerate() {
            let mut line = Line::strided(scores, i, self.width);
            let [mut m] = state.m;
            line.visit(
                #[inline(always)]
                |x| m = F32x1(x).max(m),
            );
            if State::is_infinite([m]) {
                line.map_one_by_one::<false>(|x| share(Scalar, m, F32x1(x)).0);
            }
            let [F32x1(factor)] = state.raise(Scalar, [m]);
            let [shift] = state.shift;
            // The next partial sum is the first one, and then all move up by one: where the
            // last move leaves them changes nothing in their fold.
            let mut parts = [0.0; PARTS];
            line.map_one_by_one::<false>(
                #[inline(always)]
                |x| {
                    let F32x1(w) = shift.weight(Scalar, F32x1(x));
                    let [first, second, third, fourth] = parts;
                    parts = [second, third, fourth, first + w];
                    w
                },
            );
            let [F32x1(sum)] = state.sum;
            state.sum = [F32x1(sum * factor + fold(parts))];
            self.factors[i % SIDE] = factor;
        }
    }

    #[inline(always)]
    fn add(&mut self, values: MatrixRef<'_>, _next: MatrixRef<'_>) {
        let weights = self.scores.get(..self.keys * self.width).unwrap_or_default();
        let factors = (!core::mem::take(&mut self.is_empty)).then_some(&self.factors);
        product(values.t(), weights, self.acc, factors, self.width);
    }

    #[inline(always)]
    fn add_visible(&mut self, values: MatrixRef<'_>) {
        if core::mem::take(&mut self.is_empty) {
            self.acc.fill(0.0);
        }
        for (i, acc) in self.acc.iter_mut().enumerate() {
            let (col, query) = (i / self.width.max(1), i % self.width.max(1));
            let mut sum = 0.0;
            for key in 0..self.keys {
                let w = self.scores.get(key * self.width + query).copied().unwrap_or(-1.0);
                if w >= 0.0 || w.is_nan() {
                    sum += w * values.get(key, col).unwrap_or(0.0);
                }
            }
            *acc = *acc * self.factors[query % SIDE] + sum;
        }
    }

    #[inline(always)]
    fn are_finite(&self, values: MatrixRef<'_>) -> bool {
        super::are_finite::<1, F32x1>(Scalar, values)
    }
}
