//! Outputs whose lanes are columns of the values: written as they lie, and nothing is
//! transposed.

use super::{Fused, Tile};
use crate::{
    MatrixMut, MatrixRef,
    kernel::tile::accumulate_and,
    simd::{
        Vector, array,
        strip::{self, Ahead, Source},
    },
};

/// The accumulators of up to a vector of queries.
pub(super) struct Outputs<'a, const L: usize, V: Vector<L>> {
    token: V::Token,
    /// Queries × columns of the values.
    acc: MatrixMut<'a>,
    /// Whether they stand for zeros, whatever they hold.
    is_empty: bool,
}

impl<'a, const L: usize, V: Vector<L>> Outputs<'a, L, V> {
    #[inline(always)]
    pub(super) fn new(token: V::Token, acc: &'a mut [f32], queries: usize, columns: usize) -> Self {
        let empty = MatrixMut::from_row(&mut []);
        let acc = MatrixMut::new(acc, queries, columns).unwrap_or(empty);
        Self { token, acc, is_empty: true }
    }

    /// Adds the weighted values of all queries, up to `R`; `weights` gives theirs key for key.
    ///
    /// Two vectors of columns go together, as in a tile, and with one query up to 8, so that whole
    /// rows are read one after another and the latency of a multiply-add is hidden.
    #[inline(always)]
    pub(super) fn add<const R: usize, W: Iterator<Item = [f32; R]>>(
        &mut self,
        weights: impl Fn() -> W,
        values: MatrixRef<'_>,
        factors: &[f32; L],
        ahead: &mut Ahead<'_>,
    ) {
        let mut col = 0;
        while col < values.cols() {
            let (left, vectors) = (weights(), (values.cols() - col).div_ceil(L));
            col += if const { R == 1 } && vectors >= 8 {
                self.add_vectors::<R, 8>(col, left, values, factors, ahead)
            } else if const { R == 1 } && vectors >= 4 {
                self.add_vectors::<R, 4>(col, left, values, factors, ahead)
            } else if vectors >= 2 {
                self.add_vectors::<R, 2>(col, left, values, factors, ahead)
            } else {
                self.add_vectors::<R, 1>(col, left, values, factors, ahead)
            };
        }
        self.is_empty = false;
    }

    /// `N` vectors of columns of that; gives how many columns.
    #[inline(always)]
    fn add_vectors<const R: usize, const N: usize>(
        &mut self,
        col: usize,
        weights: impl Iterator<Item = [f32; R]>,
        values: MatrixRef<'_>,
        factors: &[f32; L],
        ahead: &mut Ahead<'_>,
    ) -> usize {
        let token = self.token;
        let right = Source::columns(values, col, N * L);
        let zeros = [[V::splat(token, 0.0); N]; R];
        let sums = accumulate_and::<L, R, N, V>(
            token,
            weights,
            right,
            zeros,
            #[inline(always)]
            || ahead.fetch(N * L),
        );
        let acc: [[V; N]; R] = if self.is_empty {
            sums
        } else {
            array!(|r| {
                let factor = factors.get(r).copied().unwrap_or(0.0);
                let factor = V::splat(token, factor);
                let acc: [V; N] = strip::read(token, self.acc.view(), r, col);
                array!(|n| acc[n].mul_add(factor, sums[r][n]))
            })
        };
        strip::write(&mut self.acc, 0, col, acc);
        N * L
    }

    /// As [`add`](Self::add), without the products whose weight is marked by a
    /// negative number; `weight` is that of a query and a key.
    #[inline(always)]
    pub(super) fn add_visible(
        &mut self,
        weight: impl Fn(usize, usize) -> f32,
        values: MatrixRef<'_>,
        factors: &[f32; L],
    ) {
        self.clear();
        let (token, zero) = (self.token, V::splat(self.token, 0.0));
        for (i, factor) in factors.iter().enumerate().take(self.acc.rows()) {
            let factor = V::splat(token, *factor);
            for col in (0..values.cols()).step_by(L) {
                let mut sum = zero;
                for key in 0..values.rows() {
                    let [value]: [V; 1] = strip::read(token, values, key, col);
                    let w = V::splat(token, weight(i, key));
                    sum = zero.select_gt(w, sum, w.mul_add(value, sum));
                }
                let [acc]: [V; 1] = strip::read(token, self.acc.view(), i, col);
                strip::write(&mut self.acc, i, col, [[acc.mul_add(factor, sum)]]);
            }
        }
    }

    /// Lays down the zeros that they stand for.
    #[inline(always)]
    fn clear(&mut self) {
        if self.is_empty {
            for row in 0..self.acc.rows() {
                if let Some(row) = self.acc.row_mut(row) {
                    row.fill(0.0);
                }
            }
        }
        self.is_empty = false;
    }

    /// Writes the outputs, times a factor each.
    #[inline(always)]
    pub(super) fn finish(&mut self, fused: &mut Fused<'_>, tile: &Tile, factors: [f32; L]) {
        self.clear();
        let token = self.token;
        let places = fused.places(tile.first).zip(factors);
        for (i, ((head, row), factor)) in places.enumerate().take(self.acc.rows()) {
            let Some(mut head) = fused.out.head_mut(head) else { return };
            let (factor, zero) = (V::splat(token, factor), V::splat(token, 0.0));
            if let (Some(sums), Some(out)) = (self.acc.view().row(i), head.row_mut(row)) {
                // Side by side: nothing is worked out of strides.
                let (sums, sums_rest) = sums.as_chunks::<L>();
                let (out, out_rest) = out.as_chunks_mut::<L>();
                for (sums, out) in sums.iter().zip(out) {
                    V::load(token, sums).mul_add(factor, zero).store(out);
                }
                if !out_rest.is_empty() {
                    let sums = V::load_partial(token, sums_rest, 0.0);
                    sums.mul_add(factor, zero).store_partial(out_rest);
                }
                continue;
            }
            for col in (0..self.acc.cols()).step_by(L) {
                let [sums]: [V; 1] = strip::read(token, self.acc.view(), i, col);
                strip::write(&mut head, row, col, [[sums.mul_add(factor, zero)]]);
            }
        }
    }
}
