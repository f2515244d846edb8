//! Half a vector of queries. Scores put queries in the lanes. Outputs put value columns in the lanes, so
//! that all lanes are in use and the result needs no transposition.

use core::ops::Range;

use super::{
    FlashAttention, KEY_BLOCK, LaneLayout, Tile, are_finite, outputs::Outputs,
    query_scores::QueryScores,
};
use crate::{
    matrix::{MatrixMut, MatrixRef},
    simd::{Vector, broadcast::AdjacentRows},
};

/// A tile of up to half a vector of queries, at most `Q`; scores are computed for `R` keys at a time.
pub(super) struct HalfVector<'a, const L: usize, const R: usize, const Q: usize, V: Vector<L>> {
    scores: QueryScores<'a, L, R, 1, Q, V>,
    outputs: Outputs<'a, L, V>,
}

impl<'a, const L: usize, const R: usize, const Q: usize, V: Vector<L>> HalfVector<'a, L, R, Q, V> {
    /// The lengths of the workspace's parts.
    #[inline(always)]
    pub(super) fn lengths(dim: usize, value_dim: usize, queries: usize) -> [usize; 3] {
        [dim * L, KEY_BLOCK * L, value_dim * queries]
    }

    #[inline(always)]
    pub(super) fn new(
        token: V::Token,
        attention: &FlashAttention<'_, '_>,
        tile: &Tile<'_>,
        [packed, scores, acc]: [&'a mut [f32]; 3],
    ) -> Self {
        let scores = QueryScores::new(token, attention, tile, [packed, scores]);
        let outputs = Outputs::new(token, acc, tile.visible.len(), attention.out.cols());
        Self { scores, outputs }
    }

    /// The stage of the scores.
    #[inline(always)]
    fn products((this, keys): (&mut Self, MatrixRef<'_>)) {
        this.scores.score(keys, None);
    }

    /// The stage of the weights.
    #[inline(always)]
    fn softmax(this: &mut Self) {
        this.scores.weigh();
    }

    /// The stage of the weighted values.
    #[inline(always)]
    fn values((this, values): (&mut Self, MatrixRef<'_>)) {
        let Ok(weights) = MatrixRef::new(this.scores.weights(), values.rows(), L) else { return };
        let [factors] = this.scores.factors.map(V::to_array);
        // Cannot fail: a row of weights has L lanes, and Q is at most L.
        let Some(weights) = AdjacentRows::<Q>::new(weights.t(), 0) else { return };
        this.outputs.add_values(
            #[inline(always)]
            || weights,
            values,
            &factors,
            #[inline(always)]
            |_| (),
        );
    }
}

impl<const L: usize, const R: usize, const Q: usize, V: Vector<L>> LaneLayout
    for HalfVector<'_, L, R, Q, V>
{
    #[inline(always)]
    fn score(&mut self, keys: MatrixRef<'_>, _next: MatrixRef<'_>) {
        V::one_vector_products(
            self.scores.token,
            (self, keys),
            #[inline(always)]
            |operands| Self::products(operands),
        );
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
        V::one_vector_softmax(
            self.scores.token,
            self,
            #[inline(always)]
            |operands| Self::softmax(operands),
        );
    }

    #[inline(always)]
    fn add_values(&mut self, values: MatrixRef<'_>, _next: MatrixRef<'_>) {
        V::half_vector_values(
            self.scores.token,
            (self, values),
            #[inline(always)]
            |operands| Self::values(operands),
        );
    }

    #[inline(always)]
    fn add_visible_values(&mut self, values: MatrixRef<'_>) {
        let weights = self.scores.weights();
        let weight = |query, key| weights.get(key * L + query).copied().unwrap_or(-1.0);
        let [factors] = self.scores.factors.map(V::to_array);
        self.outputs.add_visible_values(weight, values, &factors);
    }

    #[inline(always)]
    fn are_finite(&self, values: MatrixRef<'_>) -> bool {
        are_finite::<L, V>(self.scores.token, values)
    }

    #[inline(always)]
    fn end_span(&mut self, attention: &mut FlashAttention<'_, '_>, tile: &Tile<'_>, last: bool) {
        let Self { scores, outputs } = self;
        V::outputs_end_of_span(
            scores.token,
            (outputs, &mut scores.states, attention, tile, last),
            #[inline(always)]
            |(outputs, states, attention, tile, last)| {
                outputs.end_span(states, attention, tile, last)
            },
        );
    }
}
