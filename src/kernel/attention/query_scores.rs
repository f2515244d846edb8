//! Scores with queries in the lanes: no horizontal sums, and the state of a query is one lane.
//!
//! ```text
//! Qt[i][query] = scale · queries[query][i]    transposed once
//! s[key][query] = Σ key[i] · Qt[i][query]     keys are broadcast from where they are
//! ```

use core::ops::Range;

use super::{FlashAttention, KEY_BLOCK, PARTIAL_SUMS, State, States, Tile, fold, masked_fill};
use crate::{
    kernel::{
        exp::Shift,
        softmax::share_at_infinity,
        tile::{accumulate, store_square},
    },
    matrix::{MatrixMut, MatrixRef},
    simd::{Vector, array, broadcast::BroadcastRows, prefetch::Prefetcher, strip::Source},
};

/// The scores of `C` vectors of queries, computed for `R` keys at a time. At most `Q` lanes of a vector
/// hold a query; the transposition skips the work for the other lanes.
pub(super) struct QueryScores<
    'a,
    const L: usize,
    const R: usize,
    const C: usize,
    const Q: usize,
    V: Vector<L>,
> {
    pub(super) token: V::Token,
    /// The scaled queries: dim × queries.
    packed: &'a [f32],
    /// Keys × queries.
    scores: &'a mut [f32],
    /// The length of the part of `scores` that this block uses.
    len: usize,
    pub(super) states: States<C, V>,
    pub(super) factors: [V; C],
}

impl<'a, const L: usize, const R: usize, const C: usize, const Q: usize, V: Vector<L>>
    QueryScores<'a, L, R, C, Q, V>
{
    /// Packs the queries. `packed` has room for dim × queries, `scores` for a block of keys × queries.
    #[inline(always)]
    pub(super) fn new(
        token: V::Token,
        attention: &FlashAttention<'_, '_>,
        tile: &Tile<'_>,
        [packed, scores]: [&'a mut [f32]; 2],
    ) -> Self {
        pack::<L, C, Q, V>(token, attention, tile, packed);
        let states = States::new(token, attention.sinks_from(token, tile.first));
        Self { token, packed, scores, len: 0, states, factors: [V::splat(token, 0.0); C] }
    }

    /// The weights of this block: keys × queries.
    #[inline(always)]
    pub(super) fn weights(&self) -> &[f32] {
        self.scores.get(..self.len).unwrap_or_default()
    }

    /// Computes the scores of `keys`; with each key `prefetcher` advances by the length of a key.
    #[inline(always)]
    pub(super) fn score(
        &mut self,
        keys: MatrixRef<'_>,
        mut prefetcher: Option<Prefetcher<'_, false>>,
    ) {
        let token = self.token;
        self.len = keys.rows() * C * L;
        let right = Source::dense(self.packed, C * L);
        let Some(scores) = self.scores.get_mut(..self.len) else { return };
        let mut key = 0;
        for rows in scores.chunks_mut(R * C * L) {
            if let Some(prefetcher) = &mut prefetcher {
                prefetcher.fetch(R * keys.cols());
            }
            key += if const { R == 6 } && rows.len() <= 4 * C * L {
                score::<L, 4, C, V>(token, keys, key, right, rows)
            } else {
                score::<L, R, C, V>(token, keys, key, right, rows)
            };
        }
    }

    /// See [`LaneLayout::scores_mut`](super::LaneLayout::scores_mut).
    #[inline(always)]
    pub(super) fn scores_mut(&mut self) -> Option<MatrixMut<'_>> {
        MatrixMut::new(self.scores, self.len / (C * L), C * L).ok()
    }

    /// See [`LaneLayout::mask`](super::LaneLayout::mask).
    #[inline(always)]
    pub(super) fn mask(
        &mut self,
        first: usize,
        visible: &[Range<usize>],
        end_of_kept: usize,
        weights: bool,
    ) {
        let token = self.token;
        // Exact as floats: integers up to KEY_BLOCK.
        let within = |at: usize| at.saturating_sub(first).min(KEY_BLOCK) as f32;
        let fill = V::splat(token, masked_fill(weights));
        let Some(scores) = self.scores.get_mut(..self.len) else { return };
        for c in 0..C {
            let visible = |lane: usize| visible.get(c * L + lane);
            let from: [f32; L] =
                array!(|lane| visible(lane).map_or(0.0, |keys| within(keys.start)));
            let to: [f32; L] = array!(|lane| visible(lane).map_or(0.0, |keys| within(keys.end)));
            let (from, to) = (V::load(token, &from), V::load(token, &to));
            let rows = scores.as_chunks_mut::<L>().0.iter_mut().skip(c).step_by(C);
            for (at, row) in rows.enumerate() {
                let key = V::splat(token, at as f32);
                let mut s = V::load(token, row);
                if first + at >= end_of_kept {
                    s = from.select_gt(key, fill, s);
                }
                to.select_gt(key, s, fill).store(row);
            }
        }
    }

    /// See [`LaneLayout::weigh`](super::LaneLayout::weigh).
    #[inline(always)]
    pub(super) fn weigh(&mut self) {
        let token = self.token;
        let Some(scores) = self.scores.get_mut(..self.len) else { return };
        // PARTIAL_SUMS independent chains: in one chain each step would wait for the maximum before it.
        let state = &mut self.states.span;
        let mut maxima = [state.m; PARTIAL_SUMS];
        let mut rows = scores.as_chunks::<L>().0.chunks_exact(PARTIAL_SUMS * C);
        for rows in rows.by_ref() {
            max_rows::<L, C, V>(token, rows, &mut maxima);
        }
        max_rows::<L, C, V>(token, rows.remainder(), &mut maxima);
        let [first, second, third, fourth] = maxima;
        let m: [V; C] = array!(|c| first[c].max(second[c]).max(third[c].max(fourth[c])));
        if State::has_infinity(m) {
            for row in scores.as_chunks_mut::<L>().0.chunks_exact_mut(C) {
                for (x, m) in row.iter_mut().zip(m) {
                    share_at_infinity(token, m, V::load(token, x)).store(x);
                }
            }
        }
        self.factors = state.raise_maximum(token, m);
        for c in 0..C {
            let mut partial_sums = [V::splat(token, 0.0); PARTIAL_SUMS];
            let mut rows = scores.as_chunks_mut::<L>().0.chunks_exact_mut(PARTIAL_SUMS * C);
            for rows in rows.by_ref() {
                weigh_rows::<L, C, V>(token, state.shift[c], c, rows, &mut partial_sums);
            }
            let rest = rows.into_remainder();
            weigh_rows::<L, C, V>(token, state.shift[c], c, rest, &mut partial_sums);
            state.sum[c] = state.sum[c].mul_add(self.factors[c], fold(partial_sums));
        }
    }
}

/// Computes the scores of `R` keys from `key` on. Returns `R`.
#[inline(always)]
fn score<const L: usize, const R: usize, const C: usize, V: Vector<L>>(
    token: V::Token,
    keys: MatrixRef<'_>,
    key: usize,
    right: Source<'_>,
    rows: &mut [f32],
) -> usize {
    let left = BroadcastRows::<R>::new(keys, key, 0);
    let sums = accumulate::<L, R, C, V>(token, left, right, [[V::splat(token, 0.0); C]; R]);
    for (row, sums) in rows.as_chunks_mut::<L>().0.chunks_exact_mut(C).zip(sums) {
        for (to, sum) in row.iter_mut().zip(sums) {
            sum.store(to);
        }
    }
    R
}

/// Writes the queries of a tile to `packed`: scaled and transposed, one query per lane. Lanes after the last
/// query hold unspecified values.
#[inline(always)]
fn pack<const L: usize, const C: usize, const Q: usize, V: Vector<L>>(
    token: V::Token,
    attention: &FlashAttention<'_, '_>,
    tile: &Tile<'_>,
    packed: &mut [f32],
) {
    let scale = V::splat(token, attention.scale);
    for c in 0..C {
        attention.for_each_square(
            token,
            *attention.queries,
            tile,
            c,
            packed.chunks_mut(L * C * L),
            #[inline(always)]
            |square: [V; Q], to| {
                // Fill the vector with copies: the transposition then needs fewer moves than with zeros.
                let square = V::transpose(array!(|lane| square[lane % Q]));
                let rows = to.as_chunks_mut::<L>().0.as_chunks_mut::<C>().0;
                store_square::<L, C, V>(square, scale, rows, c);
            },
        );
    }
}

/// Raises each of the maxima to its row; there are up to [`PARTIAL_SUMS`] rows.
#[inline(always)]
fn max_rows<const L: usize, const C: usize, V: Vector<L>>(
    token: V::Token,
    rows: &[[f32; L]],
    maxima: &mut [[V; C]; PARTIAL_SUMS],
) {
    for (row, m) in rows.chunks_exact(C).zip(maxima) {
        for c in 0..C {
            if let Some(x) = row.get(c) {
                m[c] = V::load(token, x).max(m[c]);
            }
        }
    }
}

/// Turns vector `c` of up to [`PARTIAL_SUMS`] rows into weights and adds each row to its own partial sum.
#[inline(always)]
fn weigh_rows<const L: usize, const C: usize, V: Vector<L>>(
    token: V::Token,
    shift: Shift<V, true>,
    c: usize,
    rows: &mut [[f32; L]],
    partial_sums: &mut [V; PARTIAL_SUMS],
) {
    for part in 0..PARTIAL_SUMS {
        if let Some(x) = rows.get_mut(part * C + c) {
            let w = shift.weight(token, V::load(token, x));
            w.store(x);
            partial_sums[part] = partial_sums[part] + w;
        }
    }
}
