//! More than half a vector of queries: scores and outputs put queries in the lanes.
//!
//! ```text
//! acc[col][query] += Σ value[key][col] · w[key][query]   values are broadcast from where they are
//! out = acc, transposed once
//! ```

use core::ops::Range;

use super::{
    FlashAttention, Join, KEY_BLOCK, LaneLayout, Tile, are_finite, query_scores::QueryScores,
};
use crate::{
    kernel::tile::accumulate,
    matrix::{MatrixMut, MatrixRef},
    simd::{
        Vector, array,
        broadcast::{AdjacentRows, BroadcastRows},
        prefetch::Prefetcher,
        strip::{self, Source},
    },
};

/// A tile of up to `C` vectors of queries.
pub(super) struct QueryLanes<'a, const L: usize, const R: usize, const C: usize, V: Vector<L>> {
    scores: QueryScores<'a, L, R, C, L, V>,
    /// Value columns × queries.
    acc: &'a mut [f32],
    /// Whether the accumulators are 0; their memory is not yet written then.
    acc_is_zero: bool,
}

impl<'a, const L: usize, const R: usize, const C: usize, V: Vector<L>> QueryLanes<'a, L, R, C, V> {
    /// The lengths of the workspace's parts.
    #[inline(always)]
    pub(super) fn lengths(dim: usize, value_dim: usize, _queries: usize) -> [usize; 3] {
        [dim, KEY_BLOCK, value_dim].map(|rows| rows * C * L)
    }

    #[inline(always)]
    pub(super) fn new(
        token: V::Token,
        attention: &FlashAttention<'_, '_>,
        tile: &Tile<'_>,
        [packed, scores, acc]: [&'a mut [f32]; 3],
    ) -> Self {
        let scores = QueryScores::new(token, attention, tile, [packed, scores]);
        Self { scores, acc, acc_is_zero: true }
    }

    /// A prefetcher of `next` to run while `now` is read. `None` with few lanes: the hardware prefetcher of
    /// the core keeps up with them.
    #[inline(always)]
    fn prefetcher<'b>(now: MatrixRef<'_>, next: MatrixRef<'b>) -> Option<Prefetcher<'b, false>> {
        if const { C * L > 8 } { Prefetcher::beyond_l1(now, next) } else { None }
    }

    /// The stage of the scores.
    #[inline(always)]
    fn products((this, keys, next): (&mut Self, MatrixRef<'_>, MatrixRef<'_>)) {
        this.scores.score(keys, Self::prefetcher(keys, next));
    }

    /// The stage of the weights.
    #[inline(always)]
    fn softmax(this: &mut Self) {
        this.scores.weigh();
    }

    /// The stage of the weighted values.
    #[inline(always)]
    fn values((this, values, next): (&mut Self, MatrixRef<'_>, MatrixRef<'_>)) {
        let Self { scores, acc, acc_is_zero } = this;
        let token = scores.token;
        let before = (scores.factors, core::mem::take(acc_is_zero));
        let right = Source::dense(scores.weights(), C * L);
        let mut prefetcher = Self::prefetcher(values, next);
        let mut col = 0;
        for rows in acc.chunks_mut(R * C * L) {
            if let Some(prefetcher) = &mut prefetcher {
                prefetcher.fetch(R * values.rows());
            }
            col += if const { R == 6 } && rows.len() <= 4 * C * L {
                add_columns::<L, 4, C, V>(token, values, col, right, before, rows)
            } else {
                add_columns::<L, R, C, V>(token, values, col, right, before, rows)
            };
        }
    }

    /// Adds the accumulators in the output to those of the span.
    #[inline(always)]
    fn join(&mut self, attention: &FlashAttention<'_, '_>, tile: &Tile<'_>, join: Join<C, V>) {
        let token = self.scores.token;
        for c in 0..C {
            attention.for_each_square(
                token,
                attention.out.view(),
                tile,
                c,
                self.acc.chunks_mut(L * C * L),
                #[inline(always)]
                |square: [V; L], chunk| {
                    let rows = chunk.as_chunks_mut::<L>().0.chunks_exact_mut(C);
                    for (rows, total) in rows.zip(V::transpose(square)) {
                        if let Some(span) = rows.get_mut(c) {
                            join.apply(c, V::load(token, span), total).store(span);
                        }
                    }
                },
            );
        }
    }

    #[inline(always)]
    fn join_and_write(
        &mut self,
        attention: &mut FlashAttention<'_, '_>,
        tile: &Tile<'_>,
        last: bool,
    ) {
        let token = self.scores.token;
        if core::mem::replace(&mut self.acc_is_zero, true) {
            self.acc.fill(0.0);
        }
        let (state, join) = self.scores.states.end_span(token, last);
        let factors = state.factors(token, last && attention.normalise);
        if let Some(join) = join {
            self.join(attention, tile, join);
        }
        let (acc, queries) = (&*self.acc, tile.visible.len());
        for c in 0..C {
            let chunks = acc.chunks(L * C * L).enumerate();
            if let Some((head, row)) = attention.one_head::<L>(tile, c) {
                let Some(mut out) = attention.out.head_mut(head) else { return };
                for (i, chunk) in chunks {
                    let square = scaled_square::<L, C, V>(token, chunk, c, factors[c]);
                    strip::write::<L, 1, L, V>(&mut out, row, i * L, array!(|i| [square[i]]));
                }
                continue;
            }
            for (i, chunk) in chunks {
                let square = scaled_square::<L, C, V>(token, chunk, c, factors[c]);
                for (lane, vector) in
                    square.into_iter().enumerate().take(queries.saturating_sub(c * L))
                {
                    let (head, row) = attention.locate(tile.first + c * L + lane);
                    let Some(mut out) = attention.out.head_mut(head) else { return };
                    strip::write::<L, 1, 1, V>(&mut out, row, i * L, [[vector]]);
                }
            }
        }
        if last {
            state.write_sums(attention, tile);
        }
    }
}

impl<const L: usize, const R: usize, const C: usize, V: Vector<L>> LaneLayout
    for QueryLanes<'_, L, R, C, V>
{
    #[inline(always)]
    fn score(&mut self, keys: MatrixRef<'_>, next: MatrixRef<'_>) {
        let (token, operands) = (self.scores.token, (self, keys, next));
        if const { C == 1 } {
            V::one_vector_products(
                token,
                operands,
                #[inline(always)]
                |operands| Self::products(operands),
            );
        } else {
            V::two_vectors_products(
                token,
                operands,
                #[inline(always)]
                |operands| Self::products(operands),
            );
        }
    }

    #[inline(always)]
    fn scores_mut(&mut self) -> Option<MatrixMut<'_>> {
        self.scores.scores_mut()
    }

    #[inline(always)]
    fn mask(&mut self, first: usize, visible: &[Range<usize>], end_of_kept: usize, weights: bool) {
        self.scores.mask(first, visible, end_of_kept, weights);
    }

    #[inline(always)]
    fn weigh(&mut self) {
        let token = self.scores.token;
        if const { C == 1 } {
            V::one_vector_softmax(
                token,
                self,
                #[inline(always)]
                |operands| Self::softmax(operands),
            );
        } else {
            V::two_vectors_softmax(
                token,
                self,
                #[inline(always)]
                |operands| Self::softmax(operands),
            );
        }
    }

    #[inline(always)]
    fn add_values(&mut self, values: MatrixRef<'_>, next: MatrixRef<'_>) {
        let (token, operands) = (self.scores.token, (self, values, next));
        if const { C == 1 } {
            V::one_vector_values(
                token,
                operands,
                #[inline(always)]
                |operands| Self::values(operands),
            );
        } else {
            V::two_vectors_values(
                token,
                operands,
                #[inline(always)]
                |operands| Self::values(operands),
            );
        }
    }

    #[inline(always)]
    fn add_visible_values(&mut self, values: MatrixRef<'_>) {
        let token = self.scores.token;
        let zero = V::splat(token, 0.0);
        if core::mem::take(&mut self.acc_is_zero) {
            self.acc.fill(0.0);
        }
        let weights = self.scores.weights();
        for (col, row) in self.acc.as_chunks_mut::<L>().0.chunks_exact_mut(C).enumerate() {
            for (c, to) in row.iter_mut().enumerate() {
                let mut sum = zero;
                for (key, w) in weights.as_chunks::<L>().0.iter().skip(c).step_by(C).enumerate() {
                    let w = V::load(token, w);
                    let value = V::splat(token, values.get(key, col).unwrap_or(0.0));
                    sum = zero.select_gt(w, sum, w.mul_add(value, sum));
                }
                if let Some(&factor) = self.scores.factors.get(c) {
                    V::load(token, to).mul_add(factor, sum).store(to);
                }
            }
        }
    }

    #[inline(always)]
    fn are_finite(&self, values: MatrixRef<'_>) -> bool {
        are_finite::<L, V>(self.scores.token, values)
    }

    #[inline(always)]
    fn end_span(&mut self, attention: &mut FlashAttention<'_, '_>, tile: &Tile<'_>, last: bool) {
        V::vectors_end_of_span(
            self.scores.token,
            (self, attention, tile, last),
            #[inline(always)]
            |(this, attention, tile, last)| this.join_and_write(attention, tile, last),
        );
    }
}

/// `L` value columns of vector `c` of the queries, times the factor of each query; a query per vector.
#[inline(always)]
fn scaled_square<const L: usize, const C: usize, V: Vector<L>>(
    token: V::Token,
    columns: &[f32],
    c: usize,
    factors: V,
) -> [V; L] {
    let (columns, zero) = (columns.as_chunks::<L>().0.as_chunks::<C>().0, V::splat(token, 0.0));
    V::transpose(if let Some(columns) = columns.first_chunk::<L>() {
        array!(|k| V::load(token, &columns[k][c]).mul_add(factors, zero))
    } else {
        array!(|k| match columns.get(k) {
            Some(column) => V::load(token, &column[c]).mul_add(factors, zero),
            None => zero,
        })
    })
}

/// Rescales the accumulators of `R` value columns from `col` on, unless they are still zero, and adds the
/// weighted values. Returns `R`.
#[inline(always)]
fn add_columns<const L: usize, const R: usize, const C: usize, V: Vector<L>>(
    token: V::Token,
    values: MatrixRef<'_>,
    col: usize,
    right: Source<'_>,
    (factors, acc_is_zero): ([V; C], bool),
    rows: &mut [f32],
) -> usize {
    let zeros = [[V::splat(token, 0.0); C]; R];
    let sums = match AdjacentRows::<R>::new(values.t(), col) {
        Some(left) => accumulate::<L, R, C, V>(token, left, right, zeros),
        None => {
            let left = BroadcastRows::<R>::new(values.t(), col, 0);
            accumulate::<L, R, C, V>(token, left, right, zeros)
        }
    };
    for (row, sums) in rows.as_chunks_mut::<L>().0.chunks_exact_mut(C).zip(sums) {
        for c in 0..C {
            if let Some(to) = row.get_mut(c) {
                let sum = V::load(token, to).mul_add(factors[c], sums[c]);
                if acc_is_zero { sums[c] } else { sum }.store(to);
            }
        }
    }
    R
}
