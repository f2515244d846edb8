//! Outputs with value columns in the lanes: rows are written without a transposition.

use super::{FlashAttention, Join, States, Tile};
use crate::{
    kernel::tile::accumulate_with,
    matrix::{MatrixMut, MatrixRef},
    simd::{
        Load, Vector, array,
        broadcast::BroadcastColumns,
        strip::{self, InOut, Source},
    },
};

/// The accumulators of up to a vector of queries.
pub(super) struct Outputs<'a, const L: usize, V: Vector<L>> {
    token: V::Token,
    /// Queries × value columns.
    acc: MatrixMut<'a>,
    /// Whether the accumulators are 0; their memory is not yet written then.
    acc_is_zero: bool,
}

impl<'a, const L: usize, V: Vector<L>> Outputs<'a, L, V> {
    #[inline(always)]
    pub(super) fn new(token: V::Token, acc: &'a mut [f32], queries: usize, columns: usize) -> Self {
        let empty = MatrixMut::from_row(&mut []);
        let acc = MatrixMut::new(acc, queries, columns).unwrap_or(empty);
        Self { token, acc, acc_is_zero: true }
    }

    /// Rescales the accumulators and adds the weighted values for up to `R` queries. `weights` returns the
    /// weights, one key per column; `prefetch` is called with the number of floats of values just read.
    ///
    /// A step takes two vectors of columns, as a tile does. With one query it takes up to 8, so that
    /// whole rows are read in sequence and the latency of a multiply-add is hidden; what is left, or not contiguous,
    /// goes one vector at a time: code for it at each width would be most of the kernel.
    #[inline(always)]
    pub(super) fn add_values<const R: usize, W: BroadcastColumns<R>, E: Load>(
        &mut self,
        weights: impl Fn() -> W,
        values: MatrixRef<'_, E>,
        factors: &[f32; L],
        mut prefetch: impl FnMut(usize),
    ) {
        let mut col = 0;
        while col < values.cols() {
            let (left, rest) = (weights(), values.cols() - col);
            let whole = Source::columns(values, col, rest).whole_vectors::<L>();
            col += if const { R == 1 } && whole >= 8 {
                self.add_vectors::<R, 8, true, E>(col, left, values, factors, &mut prefetch)
            } else if const { R == 1 } && whole >= 4 {
                self.add_vectors::<R, 4, true, E>(col, left, values, factors, &mut prefetch)
            } else if const { R == 1 } && whole >= 2 {
                self.add_vectors::<R, 2, true, E>(col, left, values, factors, &mut prefetch)
            } else if const { R > 1 } && rest > L {
                self.add_vectors::<R, 2, false, E>(col, left, values, factors, &mut prefetch)
            } else {
                self.add_vectors::<R, 1, false, E>(col, left, values, factors, &mut prefetch)
            };
        }
        self.acc_is_zero = false;
    }

    /// [`add_values`](Self::add_values) for `N` vectors of columns from `col` on. Returns the number of
    /// columns.
    #[inline(always)]
    fn add_vectors<const R: usize, const N: usize, const WHOLE: bool, E: Load>(
        &mut self,
        col: usize,
        weights: impl BroadcastColumns<R>,
        values: MatrixRef<'_, E>,
        factors: &[f32; L],
        prefetch: &mut impl FnMut(usize),
    ) -> usize {
        let token = self.token;
        let right = Source::columns(values, col, N * L);
        let zeros = [[V::splat(token, 0.0); N]; R];
        let sums = accumulate_with::<L, R, N, WHOLE, V, E>(
            token,
            weights,
            right,
            zeros,
            #[inline(always)]
            || prefetch(N * L),
        );
        let acc: [[V; N]; R] = if self.acc_is_zero {
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

    /// [`add_values`](Self::add_values) without the products whose weight is negative: masked.
    /// `weight` returns the weight of a query and a key.
    #[inline(always)]
    pub(super) fn add_visible_values(
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

    /// Writes zeros to accumulators that are not yet written.
    #[inline(always)]
    fn clear(&mut self) {
        if self.acc_is_zero {
            for row in 0..self.acc.rows() {
                if let Some(row) = self.acc.row_mut(row) {
                    row.fill(0.0);
                }
            }
        }
        self.acc_is_zero = false;
    }

    /// See [`LaneLayout::end_span`](super::LaneLayout::end_span).
    #[inline(always)]
    pub(super) fn end_span(
        &mut self,
        states: &mut States<1, V>,
        attention: &mut FlashAttention<'_, '_>,
        tile: &Tile<'_>,
        last: bool,
    ) {
        self.clear();
        let (state, join) = states.end_span(self.token, last);
        let [factors] = state.factors(self.token, last && attention.normalise);
        if let Some(join) = join {
            self.join(attention, tile, join);
        }
        self.write(attention, tile, factors.to_array());
        if last {
            state.write_sums(attention, tile);
        }
        self.acc_is_zero = true;
    }

    /// Adds the accumulators in the output to those of the span.
    #[inline(always)]
    fn join(&mut self, attention: &FlashAttention<'_, '_>, tile: &Tile<'_>, join: Join<1, V>) {
        let token = self.token;
        for (lane, (head, row)) in
            attention.locations_from(tile.first).enumerate().take(tile.visible.len())
        {
            let out = attention.out.view().head(head).unwrap_or(MatrixRef::EMPTY);
            let join = join.lane(token, lane);
            for col in (0..self.acc.cols()).step_by(L) {
                let [span]: [V; 1] = strip::read(token, self.acc.view(), lane, col);
                let [total]: [V; 1] = strip::read(token, out, row, col);
                let joined = join.apply(0, span, total);
                strip::write::<L, 1, 1, V>(&mut self.acc, lane, col, [[joined]]);
            }
        }
    }

    /// Writes the accumulators to the output, times one factor per query.
    #[inline(always)]
    fn write(&self, attention: &mut FlashAttention<'_, '_>, tile: &Tile<'_>, factors: [f32; L]) {
        for (head, first, tokens) in attention.queries_of(tile).heads() {
            let of_head = factors.get(first..).unwrap_or_default();
            let sums = self.acc.view().rows_from(first, tokens.len());
            let out = attention.out.head_mut(head).and_then(|out| {
                let (_, out) = out.split_rows(tokens.start).ok()?;
                Some(out.split_rows(tokens.len()).ok()?.0)
            });
            let (Some(sums), Some(out)) = (sums, out) else { return };
            let Ok(mut matrix) = InOut::new(sums, out) else { return };
            let mut col = 0;
            while col < self.acc.cols() {
                col += if self.acc.cols() - col >= 4 * L {
                    scale_columns::<L, 4, V>(self.token, &mut matrix, col, of_head)
                } else {
                    scale_columns::<L, 1, V>(self.token, &mut matrix, col, of_head)
                };
            }
        }
    }
}

/// Multiplies `N` vectors of columns from `col` on by the factor of each row. Returns the number of columns.
#[inline(always)]
fn scale_columns<const L: usize, const N: usize, V: Vector<L>>(
    token: V::Token,
    matrix: &mut InOut<'_>,
    col: usize,
    factors: &[f32],
) -> usize {
    let zero = V::splat(token, 0.0);
    let mut factors = factors.iter();
    let rows = matrix.shape().0;
    matrix.block(0..rows, col, N * L).map(
        token,
        0.0,
        #[inline(always)]
        |sums: [V; N]| {
            let factor = V::splat(token, factors.next().copied().unwrap_or(0.0));
            array!(|n| sums[n].mul_add(factor, zero))
        },
    );
    N * L
}
