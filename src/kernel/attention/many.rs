//! Lanes are queries: nothing is folded, and the state of a query is one lane.
//!
//! ```text
//! Qt[i][query] = scale · queries[query][i]          transposed once
//! s[key][query] = Σ key[i] · Qt[i][query]           broadcasts of the keys as they lie
//! acc[col][query] += Σ value[key][col] · w[key][query]   and of the values
//! out = acc, transposed once
//! ```

use core::ops::Range;

use super::{Fused, KEY_BLOCK, Lanes, PARTS, State, Tile, are_finite, fold, parts};
use crate::{
    MatrixMut, MatrixRef,
    kernel::{exp::Shift, softmax::share, tile::accumulate},
    simd::{
        Vector, array,
        strip::{self, Source, Taps},
    },
};

/// `C` vectors of queries.
pub(super) struct Many<'a, const L: usize, const R: usize, const C: usize, V: Vector<L>> {
    token: V::Token,
    /// dim × queries.
    packed: &'a [f32],
    /// Keys × queries.
    scores: &'a mut [f32],
    /// How many floats of them the keys of this block have.
    here: usize,
    /// Width of the values × queries.
    acc: &'a mut [f32],
    /// Whether they stand for zeros, whatever they hold.
    is_empty: bool,
    state: State<C, V>,
    factors: [V; C],
}

impl<'a, const L: usize, const R: usize, const C: usize, V: Vector<L>> Many<'a, L, R, C, V> {
    #[inline(always)]
    pub(super) fn new(
        token: V::Token,
        fused: &Fused<'_>,
        tile: &Tile,
        workspace: &'a mut [f32],
    ) -> Option<Self> {
        let (dim, value_dim) = (fused.queries.cols(), fused.out.cols());
        let lengths = [dim, KEY_BLOCK, value_dim].map(|rows| rows * C * L);
        let [packed, scores, acc] = parts(workspace, lengths)?;
        pack::<L, C, V>(token, fused, tile.first, packed);
        let state = State::new(token, fused.sinks_from(token, tile.first));
        let factors = [V::splat(token, 0.0); C];
        Some(Self { token, packed, scores, here: 0, acc, is_empty: true, state, factors })
    }

    /// Writes the outputs and hands over what log-sum-exps are made of.
    #[inline(always)]
    pub(super) fn finish(self, fused: &mut Fused<'_>, tile: &Tile) {
        let Self { token, acc, state, .. } = self;
        if self.is_empty {
            acc.fill(0.0);
        }
        let (zero, factors) = (V::splat(token, 0.0), state.normalisers(token));
        for c in 0..C {
            let first = tile.first + c * L;
            let (head, row) = fused.locate(first);
            // Lanes without a query lie behind the last row, and are not written.
            let is_one_head =
                row + L.min(tile.sights.len().saturating_sub(c * L)) <= fused.queries.rows();
            for (i, chunk) in acc.chunks(L * C * L).enumerate() {
                let rows = chunk.as_chunks::<L>().0;
                let square = array!(|k| match rows.get(k * C + c) {
                    Some(row) => V::load(token, row).mul_add(factors[c], zero),
                    None => zero,
                });
                let square = V::transpose(square);
                if is_one_head {
                    let Some(mut out) = fused.out.head_mut(head) else { break };
                    strip::write::<L, 1, L, V>(&mut out, row, i * L, array!(|i| [square[i]]));
                    continue;
                }
                for lane in 0..L.min(tile.sights.len().saturating_sub(c * L)) {
                    let (head, row) = fused.locate(first + lane);
                    let Some(mut out) = fused.out.head_mut(head) else { break };
                    strip::write::<L, 1, 1, V>(&mut out, row, i * L, [[square[lane]]]);
                }
            }
        }
        if let Some(take) = &mut fused.log_sum_exp {
            state.give_logits(token, tile.first, tile.sights.len(), take);
        }
    }
}

/// Lays `C` vectors of queries from `first` on side by side, times the scale; what is
/// behind the last is 0.
#[inline(always)]
fn pack<const L: usize, const C: usize, V: Vector<L>>(
    token: V::Token,
    fused: &Fused<'_>,
    first: usize,
    packed: &mut [f32],
) {
    let scale = V::splat(token, fused.scale);
    for c in 0..C {
        let lane = first + c * L;
        let (head, row) = fused.locate(lane);
        let is_one_head = row + L <= fused.queries.rows() || head + 1 == fused.queries.heads();
        let of_head = |head| fused.queries.head(head).unwrap_or(MatrixRef::EMPTY);
        let queries = of_head(head);
        for (i, to) in packed.chunks_mut(L * C * L).enumerate() {
            let square = if is_one_head {
                strip::read_square(token, queries, row, i * L)
            } else {
                array!(|i_lane| {
                    let (head, row) = fused.locate(lane + i_lane);
                    let [vector] = strip::read(token, of_head(head), row, i * L);
                    vector
                })
            };
            let to = to.as_chunks_mut::<L>().0.iter_mut().skip(c).step_by(C);
            for (to, vector) in to.zip(V::transpose(square)) {
                (vector * scale).store(to);
            }
        }
    }
}

impl<const L: usize, const R: usize, const C: usize, V: Vector<L>> Lanes for Many<'_, L, R, C, V> {
    #[inline(always)]
    fn score(&mut self, keys: MatrixRef<'_>, _next: MatrixRef<'_>) {
        let token = self.token;
        self.here = keys.rows() * C * L;
        let right = Source::dense(self.packed, C * L);
        let Some(scores) = self.scores.get_mut(..self.here) else { return };
        for (i, rows) in scores.chunks_mut(R * C * L).enumerate() {
            let left = Taps::<R>::new(keys, i * R, 0);
            let sums = accumulate::<L, R, C, V>(token, left, right, [[V::splat(token, 0.0); C]; R]);
            for (row, sums) in rows.as_chunks_mut::<L>().0.chunks_exact_mut(C).zip(sums) {
                for (to, sum) in row.iter_mut().zip(sums) {
                    sum.store(to);
                }
            }
        }
    }

    #[inline(always)]
    fn grid(&mut self) -> Option<MatrixMut<'_>> {
        MatrixMut::new(self.scores, self.here / (C * L), C * L).ok()
    }

    #[inline(always)]
    fn mark(&mut self, first: usize, sights: &[Range<usize>], mark: f32) {
        let token = self.token;
        // Whole numbers up to KEY_BLOCK: exact.
        let within = |at: usize| at.saturating_sub(first).min(KEY_BLOCK) as f32;
        let mark = V::splat(token, mark);
        let Some(scores) = self.scores.get_mut(..self.here) else { return };
        for c in 0..C {
            let sight = |lane: usize| sights.get(c * L + lane);
            let from: [f32; L] = array!(|lane| sight(lane).map_or(0.0, |keys| within(keys.start)));
            let to: [f32; L] = array!(|lane| sight(lane).map_or(0.0, |keys| within(keys.end)));
            let (from, to) = (V::load(token, &from), V::load(token, &to));
            let rows = scores.as_chunks_mut::<L>().0.iter_mut().skip(c).step_by(C);
            for (key, row) in rows.enumerate() {
                let key = V::splat(token, key as f32);
                let s = from.select_gt(key, mark, V::load(token, row));
                to.select_gt(key, s, mark).store(row);
            }
        }
    }

    #[inline(always)]
    fn weigh(&mut self) {
        let token = self.token;
        let Some(scores) = self.scores.get_mut(..self.here) else { return };
        let mut m = self.state.m;
        for row in scores.as_chunks::<L>().0.chunks_exact(C) {
            for c in 0..C {
                if let Some(x) = row.get(c) {
                    m[c] = V::load(token, x).max(m[c]);
                }
            }
        }
        if State::is_infinite(m) {
            for row in scores.as_chunks_mut::<L>().0.chunks_exact_mut(C) {
                for (x, m) in row.iter_mut().zip(m) {
                    share(token, m, V::load(token, x)).store(x);
                }
            }
        }
        self.factors = self.state.raise(token, m);
        for c in 0..C {
            let mut parts = [V::splat(token, 0.0); PARTS];
            let mut rows = scores.as_chunks_mut::<L>().0.chunks_exact_mut(PARTS * C);
            for rows in rows.by_ref() {
                weigh_rows::<L, C, V>(token, self.state.shift[c], c, rows, &mut parts);
            }
            let rest = rows.into_remainder();
            weigh_rows::<L, C, V>(token, self.state.shift[c], c, rest, &mut parts);
            self.state.sum[c] = self.state.sum[c].mul_add(self.factors[c], fold(parts));
        }
    }

    #[inline(always)]
    fn add(&mut self, values: MatrixRef<'_>, _next: MatrixRef<'_>) {
        let token = self.token;
        let Some(weights) = self.scores.get(..self.here) else { return };
        let right = Source::dense(weights, C * L);
        let is_empty = core::mem::take(&mut self.is_empty);
        for (i, rows) in self.acc.chunks_mut(R * C * L).enumerate() {
            let left = Taps::<R>::new(values.t(), i * R, 0);
            let sums = accumulate::<L, R, C, V>(token, left, right, [[V::splat(token, 0.0); C]; R]);
            for (row, sums) in rows.as_chunks_mut::<L>().0.chunks_exact_mut(C).zip(sums) {
                for c in 0..C {
                    if let Some(to) = row.get_mut(c) {
                        let before = V::load(token, to);
                        let sum = before.mul_add(self.factors[c], sums[c]);
                        if is_empty { sums[c] } else { sum }.store(to);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn add_visible(&mut self, values: MatrixRef<'_>) {
        let token = self.token;
        let zero = V::splat(token, 0.0);
        if core::mem::take(&mut self.is_empty) {
            self.acc.fill(0.0);
        }
        let Some(weights) = self.scores.get(..self.here) else { return };
        for (col, row) in self.acc.as_chunks_mut::<L>().0.chunks_exact_mut(C).enumerate() {
            for (c, to) in row.iter_mut().enumerate() {
                let mut sum = zero;
                for (key, w) in weights.as_chunks::<L>().0.iter().skip(c).step_by(C).enumerate() {
                    let w = V::load(token, w);
                    let value = V::splat(token, values.get(key, col).unwrap_or(0.0));
                    sum = zero.select_gt(w, sum, w.mul_add(value, sum));
                }
                if let Some(&factor) = self.factors.get(c) {
                    V::load(token, to).mul_add(factor, sum).store(to);
                }
            }
        }
    }

    #[inline(always)]
    fn are_finite(&self, values: MatrixRef<'_>) -> bool {
        are_finite::<L, V>(self.token, values)
    }
}

/// Makes weights of vector `c` of up to [`PARTS`] rows, each added to a partial sum of its own.
#[inline(always)]
fn weigh_rows<const L: usize, const C: usize, V: Vector<L>>(
    token: V::Token,
    shift: Shift<V, true>,
    c: usize,
    rows: &mut [[f32; L]],
    parts: &mut [V; PARTS],
) {
    for part in 0..PARTS {
        if let Some(x) = rows.get_mut(part * C + c) {
            let w = shift.weight(token, V::load(token, x));
            w.store(x);
            parts[part] = parts[part] + w;
        }
    }
}
