//! LaneLayout are keys for the scores and columns for the values: one query, or as many as
//! a tile has rows.
//!
//! ```text
//! s[query][key] = Σ (scale · queries[query][i]) · keys[key][i]   keys side by side in a cache,
//!                                                                else squares transposed on the way
//! acc[query][col] += Σ w[query][key] · value[key][col]
//! ```
//!
//! The state of a query is still one lane, so that it is the state of [`QueryLanes`](super::QueryLanes).

use core::ops::Range;

use heapless::Vec;

use super::{
    FlashAttention, KEY_BLOCK, LaneLayout, PARTIAL_SUMS, State, Tile, are_finite, fold, masked,
    outputs::Outputs,
};
use crate::{
    kernel::{softmax::share_at_infinity, tile::accumulate_with},
    matrix::{MatrixMut, MatrixRef},
    simd::{
        Vector, array,
        broadcast::BroadcastRows,
        each,
        prefetch::{Prefetcher, fit_in_l1},
        strip::{self, Source},
    },
};

/// Up to `R` queries, no more than a vector has lanes.
pub(super) struct KeyLanes<'a, const L: usize, const R: usize, V: Vector<L>> {
    token: V::Token,
    /// Queries × dim, scaled.
    queries: MatrixRef<'a>,
    /// Queries × [`KEY_BLOCK`].
    scores: &'a mut [f32],
    /// How many keys this block has.
    keys: usize,
    outputs: Outputs<'a, L, V>,
    state: State<1, V>,
    factors: [f32; L],
}

impl<'a, const L: usize, const R: usize, V: Vector<L>> KeyLanes<'a, L, R, V> {
    /// How long the parts of the workspace are.
    #[inline(always)]
    pub(super) fn lengths(dim: usize, value_dim: usize, queries: usize) -> [usize; 3] {
        [dim, KEY_BLOCK, value_dim].map(|width| width * queries)
    }

    #[inline(always)]
    pub(super) fn new(
        token: V::Token,
        call: &FlashAttention<'_>,
        tile: &Tile<'_>,
        [queries, scores, acc]: [&'a mut [f32]; 3],
    ) -> Self {
        let (count, dim) = (tile.visible.len(), call.queries.cols());
        let scale = V::splat(token, call.scale);
        for ((head, row), to) in call.locations_from(tile.first).zip(queries.chunks_mut(dim.max(1)))
        {
            let head = call.queries.head(head).unwrap_or(MatrixRef::EMPTY);
            for (col, to) in (0..dim).step_by(L).zip(to.chunks_mut(L)) {
                let [x]: [V; 1] = strip::read(token, head, row, col);
                (x * scale).store_partial(to);
            }
        }
        Self {
            token,
            queries: MatrixRef::new(queries, count, dim).unwrap_or(MatrixRef::EMPTY),
            scores,
            keys: 0,
            outputs: Outputs::new(token, acc, count, call.out.cols()),
            state: State::new(token, call.sinks_from(token, tile.first)),
            factors: [0.0; L],
        }
    }

    /// Writes the outputs and hands over what log-sum-exps are made of.
    #[inline(always)]
    pub(super) fn finish(self, call: &mut FlashAttention<'_>, tile: &Tile<'_>) {
        let Self { token, mut outputs, state, .. } = self;
        let [factors] = state.normalisers(token).map(V::to_array);
        outputs.finish(call, tile, factors);
        if let Some(take) = &mut call.log_sum_exp {
            state.give_log_sum_exp(token, tile.first, tile.visible.len(), take);
        }
    }

    /// The scores of a block.
    #[inline(always)]
    fn score_block<const L1: bool>(&mut self, keys: MatrixRef<'_>, next: MatrixRef<'_>) {
        let mut ahead = Prefetcher::<L1>::new(next);
        self.keys = keys.rows();
        if keys.row_stride() != 1 {
            return self.score_squares(keys, &mut ahead);
        }
        let mut first = 0;
        while first < self.keys {
            // As many as of columns: see `Outputs::add`.
            let vectors = (self.keys - first).div_ceil(L);
            first += if const { R == 1 && 8 * L <= KEY_BLOCK } && vectors >= 8 {
                self.score_vectors::<8, L1>(keys, first, &mut ahead)
            } else if const { R == 1 } && vectors >= 4 {
                self.score_vectors::<4, L1>(keys, first, &mut ahead)
            } else if vectors >= 2 {
                self.score_vectors::<2, L1>(keys, first, &mut ahead)
            } else {
                self.score_vectors::<1, L1>(keys, first, &mut ahead)
            };
        }
    }

    /// The scores of `N` vectors of keys from `first` on, which lie side by side; gives how many keys.
    #[inline(always)]
    fn score_vectors<const N: usize, const L1: bool>(
        &mut self,
        keys: MatrixRef<'_>,
        first: usize,
        ahead: &mut Prefetcher<'_, L1>,
    ) -> usize {
        let token = self.token;
        let sums = accumulate_with::<L, R, N, V>(
            token,
            BroadcastRows::new(self.queries, 0, 0),
            Source::columns(keys.t(), first, N * L),
            [[V::splat(token, 0.0); N]; R],
            #[inline(always)]
            || ahead.fetch(N * L),
        );
        self.write_scores(first, sums);
        N * L
    }

    /// The scores of a block, by a function of its own, for it needs all registers.
    #[inline(always)]
    fn score_block_outlined<const L1: bool>(&mut self, keys: MatrixRef<'_>, next: MatrixRef<'_>) {
        V::outlined(
            self.token,
            (self, keys, next),
            #[inline(always)]
            |(this, keys, next)| this.score_block::<L1>(keys, next),
        );
    }

    /// The scores of keys whose elements lie side by side: squares are transposed and used up in
    /// registers, while the sums of the others wait.
    #[inline(always)]
    fn score_squares<const L1: bool>(
        &mut self,
        keys: MatrixRef<'_>,
        ahead: &mut Prefetcher<'_, L1>,
    ) {
        let token = self.token;
        let mut waiting = Vec::<[[f32; L]; R], { KEY_BLOCK / 4 }>::new();
        // Cannot fail: no vector has less than 4 lanes.
        let _ = waiting.resize(self.keys.div_ceil(L), [[0.0; L]; R]);
        for i in (0..self.queries.cols()).step_by(L) {
            let taps = BroadcastRows::<R>::new(self.queries, 0, i);
            for (n, waiting) in waiting.iter_mut().enumerate() {
                let square: [V; L] = V::transpose(strip::read_rows(token, keys, n * L, i));
                ahead.fetch(L * L);
                let mut sums: [V; R] = array!(|r| V::load(token, &waiting[r]));
                if let Some(columns) = taps.columns::<L>() {
                    each::<L>(
                        #[inline(always)]
                        |j| sums = multiply_add(token, columns[j], square[j], sums),
                    );
                } else {
                    for (queries, keys) in taps.zip(square) {
                        sums = multiply_add(token, queries, keys, sums);
                    }
                }
                for r in 0..R {
                    sums[r].store(&mut waiting[r]);
                }
            }
        }
        for (n, sums) in waiting.iter().enumerate() {
            self.write_scores(n * L, array!(|r| [V::load(token, &sums[r])]));
        }
    }

    /// The weighted values of a block.
    #[inline(always)]
    fn add_block<const L1: bool>(&mut self, values: MatrixRef<'_>, next: MatrixRef<'_>) {
        let queries = self.queries.rows();
        let weights = MatrixRef::with_strides(self.scores, queries, self.keys, KEY_BLOCK, 1);
        let weights = weights.unwrap_or(MatrixRef::EMPTY);
        let mut ahead = Prefetcher::<L1>::new(next);
        self.outputs.add(
            #[inline(always)]
            || BroadcastRows::<R>::new(weights, 0, 0),
            values,
            &self.factors,
            #[inline(always)]
            |floats| ahead.fetch(floats),
        );
    }

    /// A row of scores is whole vectors, whatever the number of keys.
    #[inline(always)]
    fn write_scores<const N: usize>(&mut self, first: usize, sums: [[V; N]; R]) {
        let rows = self.scores.as_chunks_mut::<KEY_BLOCK>().0;
        for r in 0..R {
            let Some(row) = rows.get_mut(r) else { return };
            let vectors = row.get_mut(first..).unwrap_or_default().as_chunks_mut::<L>().0;
            for n in 0..N {
                if let Some(vector) = vectors.get_mut(n) {
                    sums[r][n].store(vector);
                }
            }
        }
    }
}

/// One step of `R` chains.
#[inline(always)]
fn multiply_add<const L: usize, const R: usize, V: Vector<L>>(
    token: V::Token,
    queries: [f32; R],
    keys: V,
    sums: [V; R],
) -> [V; R] {
    array!(|r| V::splat(token, queries[r]).mul_add(keys, sums[r]))
}

impl<const L: usize, const R: usize, V: Vector<L>> LaneLayout for KeyLanes<'_, L, R, V> {
    #[inline(always)]
    fn score(&mut self, keys: MatrixRef<'_>, next: MatrixRef<'_>) {
        // For several queries of few lanes the second cache is near enough, and both would be twice the code.
        if const { R == 1 || L > 4 } && fit_in_l1(keys, next) {
            self.score_block_outlined::<true>(keys, next);
        } else {
            self.score_block_outlined::<false>(keys, next);
        }
    }

    #[inline(always)]
    fn grid(&mut self) -> Option<MatrixMut<'_>> {
        let (queries, keys) = (self.queries.rows(), self.keys);
        Some(MatrixMut::with_strides(self.scores, queries, keys, KEY_BLOCK, 1).ok()?.t())
    }

    #[inline(always)]
    fn mask(&mut self, first: usize, visible: &[Range<usize>], weights: bool) {
        let within = |at: usize| at.saturating_sub(first).min(self.keys);
        for (scores, visible) in self.scores.chunks_mut(KEY_BLOCK).zip(visible) {
            for hidden in [0..within(visible.start), within(visible.end)..self.keys] {
                scores.get_mut(hidden).unwrap_or_default().fill(masked(weights));
            }
        }
    }

    #[inline(always)]
    fn weigh(&mut self) {
        let (token, keys) = (self.token, self.keys);
        let [m] = self.state.m;
        let mut largest = m.to_array();
        for (scores, largest) in self.scores.chunks(KEY_BLOCK).zip(&mut largest) {
            let mut m = V::splat(token, *largest);
            for x in scores.get(..keys).unwrap_or_default().chunks(L) {
                m = V::load_partial(token, x, f32::NEG_INFINITY).max(m);
            }
            for x in m.to_array() {
                *largest = if x > *largest { x } else { *largest };
            }
        }
        let m = [V::load(token, &largest)];
        let infinite = State::has_infinity(m);
        let [factors] = self.state.raise(token, m);
        self.factors = factors.to_array();
        let [shift] = self.state.shift;
        let mut sums = [0.0; L];
        let queries = self.scores.chunks_mut(KEY_BLOCK).zip(largest).zip(&mut sums);
        for (i, ((scores, m), sum)) in queries.enumerate() {
            let shift = shift.lane(token, i);
            let m = V::splat(token, m);
            let Some(scores) = scores.get_mut(..keys) else { return };
            for x in scores.chunks_mut(L) {
                let mut s = V::load_partial(token, x, f32::NEG_INFINITY);
                if infinite {
                    s = share_at_infinity(token, m, s);
                }
                shift.weight(token, s).store_partial(x);
            }
            let mut parts = [0.0; PARTIAL_SUMS];
            let (rows, rest) = scores.as_chunks::<PARTIAL_SUMS>();
            for row in rows {
                for part in 0..PARTIAL_SUMS {
                    parts[part] += row[part];
                }
            }
            for (part, w) in parts.iter_mut().zip(rest) {
                *part += w;
            }
            *sum = fold(parts);
        }
        let [sum] = self.state.sum;
        self.state.sum = [sum.mul_add(factors, V::load(token, &sums))];
    }

    #[inline(always)]
    fn add(&mut self, values: MatrixRef<'_>, next: MatrixRef<'_>) {
        if const { R == 1 || L > 4 } && fit_in_l1(values, next) {
            self.add_block::<true>(values, next);
        } else {
            self.add_block::<false>(values, next);
        }
    }

    #[inline(always)]
    fn add_visible(&mut self, values: MatrixRef<'_>) {
        let weight = |query, key| self.scores.get(query * KEY_BLOCK + key).copied().unwrap_or(-1.0);
        self.outputs.add_visible(weight, values, &self.factors);
    }

    #[inline(always)]
    fn are_finite(&self, values: MatrixRef<'_>) -> bool {
        are_finite::<L, V>(self.token, values)
    }
}
