//! Decoding: up to `R` queries. Scores put keys in the lanes, outputs put value columns in the lanes.
//!
//! ```text
//! s[query][key] = Σ (scale · queries[query][i]) · keys[key][i]   a cache stores the keys transposed,
//!                                                                other keys are transposed in registers
//! acc[query][col] += Σ w[query][key] · value[key][col]
//! ```
//!
//! The online-softmax state of a query is still one lane: the same state as in
//! [`QueryLanes`](super::QueryLanes).

use core::ops::Range;

use heapless::Vec;

use super::{
    FlashAttention, KEY_BLOCK, LaneLayout, PARTIAL_SUMS, States, Tile, are_finite, fold,
    masked_fill, outputs::Outputs,
};
use crate::{
    kernel::{
        blocks::{AnyRows, Block, Elements, Widened},
        softmax::share_at_infinity,
        tile::{accumulate_with, multiply_rows},
    },
    matrix::{MatrixMut, MatrixRef},
    simd::{
        Load, Vector, array,
        broadcast::BroadcastRows,
        each,
        prefetch::{Prefetcher, fit_in_l1, rows_ahead},
        strip::{self, Source},
    },
};

/// A tile of up to `R` queries, and at most `L`.
pub(super) struct KeyLanes<'a, const L: usize, const R: usize, V: Vector<L>> {
    token: V::Token,
    /// Queries × dim, scaled.
    queries: MatrixRef<'a>,
    /// Queries × [`KEY_BLOCK`].
    scores: &'a mut [f32],
    /// The number of keys in this block.
    keys: usize,
    outputs: Outputs<'a, L, V>,
    states: States<1, V>,
    factors: [f32; L],
}

impl<'a, const L: usize, const R: usize, V: Vector<L>> KeyLanes<'a, L, R, V> {
    /// The lengths of the workspace's parts.
    #[inline(always)]
    pub(super) fn lengths(dim: usize, value_dim: usize, queries: usize) -> [usize; 3] {
        [dim, KEY_BLOCK, value_dim].map(|width| width * queries)
    }

    #[inline(always)]
    pub(super) fn new(
        token: V::Token,
        attention: &FlashAttention<'_, '_>,
        tile: &Tile<'_>,
        [queries, scores, acc]: [&'a mut [f32]; 3],
    ) -> Self {
        let (count, dim) = (tile.visible.len(), attention.queries.cols());
        let scale = V::splat(token, attention.scale);
        for ((head, row), to) in
            attention.locations_from(tile.first).zip(queries.chunks_mut(dim.max(1)))
        {
            let head = attention.queries.head(head).unwrap_or(MatrixRef::EMPTY);
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
            outputs: Outputs::new(token, acc, count, attention.out.cols()),
            states: States::new(token, attention.sinks_from(token, tile.first)),
            factors: [0.0; L],
        }
    }

    /// Prefetches during a stage that reads `now`, before the one that reads `next`.
    #[inline(always)]
    fn prefetcher<'b, const L1: bool>(
        now: MatrixRef<'b>,
        next: MatrixRef<'b>,
    ) -> Prefetcher<'b, L1> {
        if const { L1 || R > 1 } { Prefetcher::new(next) } else { Prefetcher::ahead(now, next) }
    }

    /// The stage of the scores.
    #[inline(always)]
    fn products<const L1: bool>((this, keys, next): (&mut Self, MatrixRef<'_>, MatrixRef<'_>)) {
        let mut prefetcher = Self::prefetcher::<L1>(keys, next);
        this.keys = keys.rows();
        if keys.row_stride() != 1 {
            return if const { R == 1 } && keys.col_stride() == 1 {
                this.score_rows(keys, &mut prefetcher);
            } else {
                this.score_squares(keys, &mut prefetcher);
            };
        }
        this.score_columns(
            keys,
            #[inline(always)]
            |floats| prefetcher.fetch(floats),
        );
    }

    /// Computes the scores of keys whose row stride is 1: those of a cache. `prefetch` is called with the number of
    /// elements just read.
    #[inline(always)]
    fn score_columns<E: Load>(&mut self, keys: MatrixRef<'_, E>, mut prefetch: impl FnMut(usize)) {
        let mut first = 0;
        while first < self.keys {
            // The same widths as in `Outputs::add_values`, and for the same reasons.
            let whole = Source::columns(keys.t(), first, KEY_BLOCK).whole_vectors::<L>();
            first += if const { R == 1 && 8 * L <= KEY_BLOCK } && whole >= 8 {
                self.score_vectors::<8, true, E>(keys, first, &mut prefetch)
            } else if const { R == 1 } && whole >= 4 {
                self.score_vectors::<4, true, E>(keys, first, &mut prefetch)
            } else if const { R == 1 } && whole >= 2 {
                self.score_vectors::<2, true, E>(keys, first, &mut prefetch)
            } else if const { R > 1 } && self.keys - first > L {
                self.score_vectors::<2, false, E>(keys, first, &mut prefetch)
            } else {
                self.score_vectors::<1, false, E>(keys, first, &mut prefetch)
            };
        }
    }

    /// Computes the scores of `N` vectors of keys from `first` on, whose row stride is 1. Returns the number
    /// of keys.
    #[cfg_attr(not(unoptimised), inline(always))]
    fn score_vectors<const N: usize, const WHOLE: bool, E: Load>(
        &mut self,
        keys: MatrixRef<'_, E>,
        first: usize,
        prefetch: &mut impl FnMut(usize),
    ) -> usize {
        let token = self.token;
        let sums = accumulate_with::<L, R, N, WHOLE, V, E>(
            token,
            BroadcastRows::new(self.queries, 0, 0),
            Source::columns(keys.t(), first, N * L),
            [[V::splat(token, 0.0); N]; R],
            #[inline(always)]
            || prefetch(N * L),
        );
        self.write_scores(first, sums);
        N * L
    }

    /// Computes the scores of one query and keys with contiguous rows, four columns at a time.
    #[cfg_attr(not(unoptimised), inline(always))]
    fn score_rows<const L1: bool>(
        &mut self,
        keys: MatrixRef<'_>,
        prefetcher: &mut Prefetcher<'_, L1>,
    ) {
        if const { L1 } {
            return self.score_rows_of(keys, 0, self.keys, prefetcher);
        }
        // `max` changes nothing, and shows the compiler that the step is not 0, at which `step_by` panics.
        let count = rows_ahead(keys).next_multiple_of(L).max(L);
        for first in (0..self.keys).step_by(count) {
            self.score_rows_of(keys, first, count.min(self.keys - first), prefetcher);
        }
    }

    /// [`score_rows`](Self::score_rows) of `count` keys from `first` on, which is a multiple of `L`.
    #[cfg_attr(not(unoptimised), inline(always))]
    fn score_rows_of<const L1: bool>(
        &mut self,
        keys: MatrixRef<'_>,
        first: usize,
        count: usize,
        prefetcher: &mut Prefetcher<'_, L1>,
    ) {
        let token = self.token;
        let scores = self.scores.get_mut(first..).unwrap_or_default().as_chunks_mut::<L>().0;
        let scores = scores.get_mut(..count.div_ceil(L)).unwrap_or_default();
        scores.fill([0.0; L]);
        multiply_rows(
            token,
            self.queries.row(0).unwrap_or_default(),
            #[inline(always)]
            |query| V::splat(token, query),
            keys,
            first,
            scores,
            #[inline(always)]
            || prefetcher.fetch(4 * L),
        );
    }

    /// Computes the scores of keys with contiguous rows: squares of `L` keys × `L` elements are transposed
    /// and consumed in registers. The partial scores of the other keys wait in memory.
    #[cfg_attr(not(unoptimised), inline(always))]
    fn score_squares<const L1: bool>(
        &mut self,
        keys: MatrixRef<'_>,
        prefetcher: &mut Prefetcher<'_, L1>,
    ) {
        let token = self.token;
        let mut stored_sums = Vec::<[[f32; L]; R], { KEY_BLOCK / 4 }>::new();
        // Cannot fail: every vector has at least 4 lanes.
        let _ = stored_sums.resize(self.keys.div_ceil(L), [[0.0; L]; R]);
        for i in (0..self.queries.cols()).step_by(L) {
            let queries = BroadcastRows::<R>::new(self.queries, 0, i);
            for (n, stored_sums) in stored_sums.iter_mut().enumerate() {
                let square: [V; L] = V::transpose(strip::read_rows(token, keys, n * L, i));
                prefetcher.fetch(L * L);
                let mut sums: [V; R] = array!(|r| V::load(token, &stored_sums[r]));
                if let Some(columns) = queries.columns::<L>() {
                    each::<L>(
                        #[inline(always)]
                        |j| sums = multiply_add(token, columns[j], square[j], sums),
                    );
                } else {
                    for (queries, keys) in queries.zip(square) {
                        sums = multiply_add(token, queries, keys, sums);
                    }
                }
                for r in 0..R {
                    sums[r].store(&mut stored_sums[r]);
                }
            }
        }
        for (n, sums) in stored_sums.iter().enumerate() {
            self.write_scores(n * L, array!(|r| [V::load(token, &sums[r])]));
        }
    }

    /// The stage of the weights.
    #[inline(always)]
    fn softmax(this: &mut Self) {
        let (token, keys) = (this.token, this.keys);
        // Whole vectors: scores of −∞ fill up the last one. They change no maximum, and their weights no sum.
        let end = keys.next_multiple_of(L);
        // One query has the same state in all lanes: as a vector from memory it would wait for the store of its lane.
        let of_lanes = |lanes: [f32; L]| match R {
            1 => V::splat(token, lanes[0]),
            _ => V::load(token, &lanes),
        };
        let [m] = this.states.span.m;
        let before = m.to_array();
        let mut largest = before;
        let rows = this.scores.as_chunks_mut::<KEY_BLOCK>().0;
        for (scores, largest) in rows.iter_mut().zip(&mut largest).take(R) {
            scores.get_mut(keys..end).unwrap_or_default().fill(f32::NEG_INFINITY);
            let vectors = scores.get(..end).unwrap_or_default().as_chunks::<L>().0;
            let mut maxima = [V::splat(token, *largest); 2];
            for (i, x) in vectors.iter().enumerate() {
                maxima[i % 2] = V::load(token, x).max(maxima[i % 2]);
            }
            *largest = maxima[0].max(maxima[1]).largest(token);
        }
        let has_infinity = largest.iter().take(R).any(|m| *m == f32::INFINITY);
        let factors = if const { R == 1 } && largest[0].to_bits() == before[0].to_bits() {
            // What `raise_maximum` would return. Most blocks do not raise the maximum of one query.
            V::splat(token, 1.0)
        } else {
            let [factors] = this.states.span.raise_maximum(token, [of_lanes(largest)]);
            factors
        };
        this.factors = factors.to_array();
        let [shift] = this.states.span.shift;
        let mut sums = [0.0; L];
        let queries = rows.iter_mut().zip(largest).zip(&mut sums).take(R);
        for (i, ((scores, m), sum)) in queries.enumerate() {
            let shift = shift.lane(token, i);
            let m = V::splat(token, m);
            let vectors = scores.get_mut(..end).unwrap_or_default().as_chunks_mut::<L>().0;
            let mut partial_sums = [0.0; PARTIAL_SUMS];
            for x in vectors {
                let mut s = V::load(token, x);
                if has_infinity {
                    s = share_at_infinity(token, m, s);
                }
                let w = shift.weight(token, s);
                w.store(x);
                // Here, beside the exponentials of the next weights: one after another, these additions are a long chain.
                for row in w.to_array().as_chunks::<PARTIAL_SUMS>().0 {
                    for part in 0..PARTIAL_SUMS {
                        partial_sums[part] += row[part];
                    }
                }
            }
            *sum = fold(partial_sums);
        }
        let [sum] = this.states.span.sum;
        this.states.span.sum = [sum.mul_add(factors, of_lanes(sums))];
    }

    /// The stage of the scores, for keys of a cache that are not floats.
    #[inline(always)]
    fn element_products<E: Load>(
        (this, keys, mut prefetcher): (&mut Self, MatrixRef<'_, E>, Prefetcher<'_, true>),
    ) {
        this.keys = keys.rows();
        this.score_columns(
            keys,
            #[inline(always)]
            |elements| prefetcher.fetch_bytes(elements * size_of::<E>()),
        );
    }

    /// The stage of the weighted values.
    #[inline(always)]
    fn values<const L1: bool>((this, values, next): (&mut Self, MatrixRef<'_>, MatrixRef<'_>)) {
        let mut prefetcher = Self::prefetcher::<L1>(values, next);
        this.add_weighted(
            values,
            #[inline(always)]
            |floats| prefetcher.fetch(floats),
        );
    }

    /// The stage of the weighted values that are not floats.
    #[inline(always)]
    fn element_values<E: Load>(
        (this, values, mut prefetcher): (&mut Self, MatrixRef<'_, E>, Prefetcher<'_, true>),
    ) {
        this.add_weighted(
            values,
            #[inline(always)]
            |elements| prefetcher.fetch_bytes(elements * size_of::<E>()),
        );
    }

    #[cfg_attr(not(unoptimised), inline(always))]
    fn add_weighted<E: Load>(&mut self, values: MatrixRef<'_, E>, prefetch: impl FnMut(usize)) {
        let queries = self.queries.rows();
        let weights = MatrixRef::with_strides(self.scores, queries, self.keys, KEY_BLOCK, 1);
        let weights = weights.unwrap_or(MatrixRef::EMPTY);
        self.outputs.add_values(
            #[inline(always)]
            || BroadcastRows::<R>::new(weights, 0, 0),
            values,
            &self.factors,
            prefetch,
        );
    }

    /// Stores sums as scores of the keys from `first` on. A row of scores has room for [`KEY_BLOCK`] keys, so
    /// all stores are of whole vectors.
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

impl<const L: usize, const R: usize, V: Vector<L>> KeyLanes<'_, L, R, V> {
    #[inline(always)]
    fn score_any<E: Load>(&mut self, keys: MatrixRef<'_, E>, next: AnyRows<'_>) {
        if const { <Self as LaneLayout>::LOADS_ELEMENTS } {
            V::one_query_products(
                self.token,
                (self, keys, next.prefetcher(keys)),
                #[inline(always)]
                |operands| Self::element_products(operands),
            );
        }
    }

    /// Multiplies the scores or weights of one query by the scales of their keys.
    #[inline(always)]
    fn scale(&mut self, scales: MatrixRef<'_>) {
        let vectors = self.scores.as_chunks_mut::<L>().0.iter_mut().take(self.keys.div_ceil(L));
        for (first, x) in (0..).step_by(L).zip(vectors) {
            let [scales]: [V; 1] = strip::read(self.token, scales.t(), 0, first);
            (V::load(self.token, x) * scales).store(x);
        }
    }

    #[inline(always)]
    fn add_any<E: Load>(&mut self, values: MatrixRef<'_, E>, next: AnyRows<'_>) {
        if const { <Self as LaneLayout>::LOADS_ELEMENTS } {
            V::one_query_values(
                self.token,
                (self, values, next.prefetcher(values)),
                #[inline(always)]
                |operands| Self::element_values(operands),
            );
        }
    }
}

/// One multiply-add in each of `R` chains.
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
        // With several queries and at most 4 lanes, L2 is fast enough: both variants would double the code.
        let (token, operands) = (self.token, (self, keys, next));
        if const { R == 1 } && fit_in_l1(keys, next) {
            V::one_query_products(
                token,
                operands,
                #[inline(always)]
                |operands| Self::products::<true>(operands),
            );
        } else if const { R == 1 } {
            V::one_query_l2_products(
                token,
                operands,
                #[inline(always)]
                |operands| Self::products::<false>(operands),
            );
        } else if const { L > 4 } && fit_in_l1(keys, next) {
            V::few_queries_products(
                token,
                operands,
                #[inline(always)]
                |operands| Self::products::<true>(operands),
            );
        } else {
            V::few_queries_l2_products(
                token,
                operands,
                #[inline(always)]
                |operands| Self::products::<false>(operands),
            );
        }
    }

    #[inline(always)]
    fn scores_mut(&mut self) -> Option<MatrixMut<'_>> {
        let (queries, keys) = (self.queries.rows(), self.keys);
        Some(MatrixMut::with_strides(self.scores, queries, keys, KEY_BLOCK, 1).ok()?.t())
    }

    #[inline(always)]
    fn mask(&mut self, first: usize, visible: &[Range<usize>], end_of_kept: usize, weights: bool) {
        let within = |at: usize| at.saturating_sub(first).min(self.keys);
        let kept = within(end_of_kept);
        for (scores, visible) in self.scores.chunks_mut(KEY_BLOCK).zip(visible) {
            for hidden in [kept..within(visible.start), within(visible.end)..self.keys] {
                scores.get_mut(hidden).unwrap_or_default().fill(masked_fill(weights));
            }
        }
    }

    #[inline(always)]
    fn weigh(&mut self) {
        V::few_queries_softmax(
            self.token,
            self,
            #[inline(always)]
            |operands| Self::softmax(operands),
        );
    }

    #[inline(always)]
    fn add_values(&mut self, values: MatrixRef<'_>, next: MatrixRef<'_>) {
        let (token, operands) = (self.token, (self, values, next));
        if const { R == 1 } && fit_in_l1(values, next) {
            V::one_query_values(
                token,
                operands,
                #[inline(always)]
                |operands| Self::values::<true>(operands),
            );
        } else if const { R == 1 } {
            V::one_query_l2_values(
                token,
                operands,
                #[inline(always)]
                |operands| Self::values::<false>(operands),
            );
        } else if const { L > 4 } && fit_in_l1(values, next) {
            V::few_queries_values(
                token,
                operands,
                #[inline(always)]
                |operands| Self::values::<true>(operands),
            );
        } else {
            V::few_queries_l2_values(
                token,
                operands,
                #[inline(always)]
                |operands| Self::values::<false>(operands),
            );
        }
    }

    #[inline(always)]
    fn add_visible_values(&mut self, values: MatrixRef<'_>) {
        let weight = |query, key| self.scores.get(query * KEY_BLOCK + key).copied().unwrap_or(-1.0);
        self.outputs.add_visible_values(weight, values, &self.factors);
    }

    #[inline(always)]
    fn are_finite(&self, values: MatrixRef<'_>) -> bool {
        are_finite::<L, V>(self.token, values)
    }

    /// One query is bound by the loads; with several a widened copy is as fast and needs no code.
    const LOADS_ELEMENTS: bool = R == 1;

    #[inline(always)]
    fn score_elements(
        &mut self,
        elements: &impl Elements,
        block: Block,
        rows: Option<[AnyRows<'_>; 3]>,
        widened: &mut Widened<'_>,
    ) {
        match rows {
            Some([AnyRows::F16(keys), next, _]) if keys.row_stride() == 1 => {
                self.score_any(keys, next);
            }
            Some([AnyRows::Bf16(keys), next, _]) if keys.row_stride() == 1 => {
                self.score_any(keys, next);
            }
            Some([AnyRows::I8(keys), next, _]) if keys.row_stride() == 1 => {
                self.score_any(keys, next);
            }
            _ => self.score_widened(elements, block, widened),
        }
    }

    #[inline(always)]
    fn scale_scores(&mut self, elements: &impl Elements, block: Block) {
        if const { R > 1 } {
            if let Some(scores) = self.scores_mut() {
                elements.scale_scores(block, scores);
            }
        } else if let Some(scales) = elements.key_scales(block) {
            self.scale(scales);
        }
    }

    #[inline(always)]
    fn scale_weights(&mut self, elements: &impl Elements, block: Block) {
        if const { R > 1 } {
            if let Some(weights) = self.scores_mut() {
                elements.scale_weights(block, weights);
            }
        } else if let Some(scales) = elements.value_scales(block) {
            self.scale(scales);
        }
    }

    #[inline(always)]
    fn add_elements(
        &mut self,
        elements: &impl Elements,
        block: Block,
        rows: Option<[AnyRows<'_>; 3]>,
        all: bool,
        widened: &mut Widened<'_>,
    ) {
        match rows {
            Some([_, AnyRows::F16(values), next]) if all => self.add_any(values, next),
            Some([_, AnyRows::Bf16(values), next]) if all => self.add_any(values, next),
            Some([_, AnyRows::I8(values), next]) if all => self.add_any(values, next),
            _ => self.add_widened(elements, block, all, widened),
        }
    }

    #[inline(always)]
    fn end_span(&mut self, attention: &mut FlashAttention<'_, '_>, tile: &Tile<'_>, last: bool) {
        V::outputs_end_of_span(
            self.token,
            (&mut self.outputs, &mut self.states, attention, tile, last),
            #[inline(always)]
            |(outputs, states, attention, tile, last)| {
                outputs.end_span(states, attention, tile, last)
            },
        );
    }
}
