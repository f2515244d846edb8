//! One lane: queries by four or alone, the state of one after the other.
//!
//! The steps and the bits of [`Many`](super::many::Many), for machines without vectors: tiles of
//! four keys by four queries, of which a Cortex-M4F holds all sums in registers, and one text for the
//! state of a query, however many there are.

use core::ops::Range;

use super::{Fused, KEY_BLOCK, Lanes, PARTS, State, Tile, fold};
use crate::{
    MatrixMut, MatrixRef,
    kernel::{
        mask::{Adjust, Queries},
        softmax::share,
    },
    simd::{
        Vector, array, each,
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
    /// The largest score and the sum of each query: its [`State`] is made of them anew.
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
        let is_empty = self.is_empty;
        let columns = self.acc.len().checked_div(self.width).unwrap_or(0);
        let Ok(acc) = MatrixRef::new(self.acc, columns, self.width) else { return };
        let states = self.states.iter().copied().map(state_of);
        for (i, state) in states.enumerate().take(tile.sights.len()) {
            let (head, row) = fused.locate(tile.first + i);
            let Some(mut out) = fused.out.head_mut(head) else { return };
            let [F32x1(factor)] = state.normalisers(Scalar);
            let mut line = Line::between(acc.t(), i, &mut out, row);
            if is_empty {
                line.map_one_by_one::<false>(|_| 0.0);
            } else {
                line.map_steps::<SIDE, 1>(|sum| sum * factor + 0.0);
            }
            if let Some(take) = &mut fused.log_sum_exp {
                state.give_logits(Scalar, tile.first + i, 1, take);
            }
        }
    }
}

#[inline(always)]
fn state_of([m, sum]: [f32; 2]) -> State<1, F32x1> {
    State::of(Scalar, [F32x1(m)], [F32x1(sum)])
}

/// Makes weights of the scores of a query, adds them to its sum, and gives the factor of its
/// accumulators.
#[inline(never)]
fn weigh(mut scores: Line<'_>, m_and_sum: &mut [f32; 2]) -> f32 {
    let mut state = state_of(*m_and_sum);
    let [mut m] = state.m;
    scores.visit(
        #[inline(always)]
        |x| m = F32x1(x).max(m),
    );
    if m.0 == f32::INFINITY {
        scores.map_one_by_one::<false>(|x| share(Scalar, m, F32x1(x)).0);
    }
    let [F32x1(factor)] = state.raise(Scalar, [m]);
    let [shift] = state.shift;
    // The next partial sum is the first one, and then all move up by one: where the
    // last move leaves them changes nothing in their fold.
    let mut parts = [0.0; PARTS];
    scores.map_one_by_one::<false>(
        #[inline(always)]
        |x| {
            let F32x1(w) = shift.weight(Scalar, F32x1(x));
            let [first, second, third, fourth] = parts;
            parts = [second, third, fourth, first + w];
            w
        },
    );
    let [F32x1(sum)] = state.sum;
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
    if left.is_empty() || right.is_empty() {
        return;
    }
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
        // Written out, so that sums stay in registers, and on a Cortex-M55 lie in a vector.
        each::<SIDE>(
            #[inline(always)]
            |r| {
                if let Some(row) = rows.get_mut(r) {
                    *row = match factors {
                        Some(factors) => array!(|c| row[c] * factors[c] + sums[r][c]),
                        None => sums[r],
                    };
                }
            },
        );
    }
}

impl Lanes for Narrow<'_> {
    #[inline(always)]
    fn begin(&mut self, fused: &Fused<'_>, tile: &Tile) {
        let packed = MatrixMut::new(self.packed, fused.queries.cols(), self.width);
        let Ok(mut packed) = packed.map(MatrixMut::t) else { return };
        let scale = fused.scale;
        for (i, state) in self.states.iter_mut().enumerate().take(self.width) {
            // What is not there is a copy of the first.
            let there = if i < tile.sights.len() { i } else { 0 };
            let (head, row) = fused.locate(tile.first + there);
            let mut sink = [fused.sinks.get(head).copied().unwrap_or(fused.sink)];
            if sink > [f32::NEG_INFINITY] {
                weigh(Line::new(None, &mut sink), state);
            }
            let queries = fused.queries.head(head).unwrap_or(MatrixRef::EMPTY);
            Line::between(queries, row, &mut packed, i).map_one_by_one::<false>(|x| x * scale);
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

    // Likewise. Here and below a loop with two ways out is one that is never unrolled.
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

    // Follows a branch, for each side of which there would be a copy.
    #[inline(never)]
    fn weigh(&mut self) {
        let Ok(mut scores) = MatrixMut::new(self.scores, self.keys, self.width) else { return };
        for i in 0..SIDE.min(self.width) {
            self.factors[i] = weigh(Line::column(&mut scores, i), &mut self.states[i]);
        }
    }

    #[inline(always)]
    fn add(&mut self, values: MatrixRef<'_>, _next: MatrixRef<'_>) {
        let factors = (!core::mem::take(&mut self.is_empty)).then_some(&self.factors);
        product(values.t(), self.scores, self.acc, factors, self.width);
    }

    // Seldom called: what it holds is out of the frame of the others.
    #[inline(never)]
    fn add_visible(&mut self, values: MatrixRef<'_>) {
        let is_empty = core::mem::take(&mut self.is_empty);
        for (i, acc) in self.acc.iter_mut().enumerate() {
            let (col, query) = (i / self.width.max(1), i % self.width.max(1));
            let mut sum = 0.0;
            for key in 0..self.keys {
                let w = self.scores.get(key * self.width + query);
                let (Some(w), Some(value)) = (w, values.get(key, col)) else { break };
                if *w >= 0.0 || w.is_nan() {
                    sum += w * value;
                }
            }
            let before = if is_empty { 0.0 } else { *acc };
            *acc = before * self.factors[query % SIDE] + sum;
        }
    }

    // Likewise.
    #[inline(never)]
    fn are_finite(&self, values: MatrixRef<'_>) -> bool {
        super::are_finite::<1, F32x1>(Scalar, values)
    }
}
