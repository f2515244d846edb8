//! Matrix product: the kernel of projections, scores and weighted sums.
//!
//! ```text
//! out[r][c] = Σ left[r][k] · right[k][c]       k = 0, 1, …, one chain, or a chain per block
//! ```
//!
//! A **tile** is `R` rows by `C` vectors of the output, held in registers. For each `k` it loads `C` vectors
//! of `right`, broadcasts `R` elements of `left` and computes `R * C` multiply-adds. `R` and `C` are as large
//! as the registers allow, which makes the fewest loads per multiply-add.
//!
//! ```text
//! for each C vectors of columns
//!   for each PANEL of k
//!     pack scale * right[k][columns] into a panel      (a single tile of rows needs none)
//!     for each R rows
//!       tile = k is the first ? 0 : out
//!       for k in the panel: tile += broadcast(left[rows][k]) * panel[k]
//!       out = tile
//! ```
//!
//! 1. Packing transposes a `right` whose columns are contiguous (the queries of a score), and keeps in the
//!    first-level cache what many tiles read. It is skipped if there is one tile of rows, the rows of `right`
//!    are contiguous and there is no scale.
//! 2. Between panels a tile is stored in `out`. This loses nothing, because its elements are floats; so
//!    `PANEL`, `R` and `C` do not change any bit, except where sums are [`blocked`](Product::blocked): there a
//!    panel is at most a block.
//! 3. If `out` is transposed (row stride 1) or one column, the operands are exchanged, so that lanes are contiguous in
//!    `out`. A scale then applies to `left`: its scaled rows are written to a buffer before they are
//!    broadcast.
//! 4. The rows of a tile past the last row of the matrix are computed as copies of the last row and not
//!    stored.
//! 5. One row of `out` with contiguous columns of `right` (the scores of one query, the weights of PyTorch) needs neither
//!    panel nor tile: `right` is read four `k` of `L` columns at a time and transposed in registers.

use core::ops::Range;

use heapless::Vec;

use super::{Kernel, Name, mask::KEY_BLOCK};
use crate::{
    matrix::{MatrixMut, MatrixRef},
    simd::{
        Load, Vector, array,
        broadcast::{BroadcastColumns, BroadcastRows},
        each,
        prefetch::{Prefetcher, rows_ahead},
        strip::{self, Source},
    },
};

/// The number of `k` in a panel. With `C * L` of 8 to 32 floats a panel takes 4 to 16 KiB of stack, at most half of
/// a first-level cache: the sums of a head of 128 are loaded and stored once. 1 KiB on a microcontroller.
pub(super) const PANEL: usize = if cfg!(microcontroller) { KEY_BLOCK } else { 128 };

/// Rows of a tile that is one vector wide: 8 chains hide the latency of a multiply-add (4
/// cycles) on two ports.
pub(super) const ONE_VECTOR_ROWS: usize = 8;

/// `out = (left_scale * left) · (right_scale * right) + bias`. All shapes agree.
pub(crate) struct Product<'a> {
    pub(crate) left: MatrixRef<'a>,
    pub(crate) right: MatrixRef<'a>,
    /// Multiplies each element of `left` first; the product is rounded.
    pub(crate) left_scale: f32,
    /// Multiplies each element of `right` first; the product is rounded.
    pub(crate) right_scale: f32,
    /// Whether each block of [`KEY_BLOCK`] `k` has a chain of its own, which is then added to `out`.
    pub(crate) blocked: bool,
    /// Added last; has the shape of `out`.
    pub(crate) bias: Option<MatrixRef<'a>>,
    pub(crate) out: MatrixMut<'a>,
}

impl Kernel for &mut Product<'_> {
    type Output = ();

    const NAME: Name = Name::Product;

    #[inline(always)]
    fn fits_8_lanes(&self) -> bool {
        // A back end with more lanes than 8 asks. One row of rows is bound by its shuffles: Intel cores have two ports for
        // those of 256 bits, and one for those of 512.
        let (rows, cols) = (self.out.rows(), self.out.cols());
        let are_of_rows = self.left.col_stride() == 1 && self.right.row_stride() == 1;
        (rows.min(cols) == 1 && are_of_rows)
            || (if self.is_transposed::<16>() { rows } else { cols }) <= 8
    }

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        if self.is_transposed::<L>() {
            self.transpose();
        }
        let cols = if self.out.is_empty() { 0 } else { self.out.cols() };
        let mut col = 0;
        if const { L > 1 } && self.is_row_of_rows() {
            while col < cols {
                col += self.columns_of_row::<L, V>(token, col);
            }
            return;
        }
        if cols > L {
            let mut panel = Panel::new();
            while cols > col + L {
                self.columns::<L, R, C, V>(token, col, &mut panel);
                col += C * L;
            }
        }
        if col < cols && const { L > 1 } {
            self.columns::<L, ONE_VECTOR_ROWS, 1, V>(token, col, &mut Panel::new());
        } else if col < cols {
            self.columns::<L, R, 1, V>(token, col, &mut Panel::new());
        }
    }
}

/// `C` vectors of columns for each of up to [`PANEL`] consecutive `k`; see [`pack`].
pub(super) type Panel<const L: usize, const C: usize> = Vec<[[f32; L]; C], PANEL>;

impl Product<'_> {
    /// Whether the lanes of a tile are rows of `out`: those are contiguous, and columns are not, or there is one column, which
    /// would leave all lanes but one empty.
    #[inline(always)]
    fn is_transposed<const L: usize>(&self) -> bool {
        let Self { out, .. } = self;
        out.row_stride() == 1 && (out.col_stride() != 1 || const { L > 1 } && out.cols() == 1)
    }

    /// Transposes the product and exchanges its operands. Every sum keeps its bits.
    #[inline(always)]
    fn transpose(&mut self) {
        (self.left, self.right) = (self.right.t(), self.left.t());
        (self.left_scale, self.right_scale) = (self.right_scale, self.left_scale);
        self.bias = self.bias.map(MatrixRef::t);
        self.out.transpose();
    }

    /// Whether `out` is one row, and each of its elements the product of two contiguous rows.
    #[inline(always)]
    fn is_row_of_rows(&self) -> bool {
        self.out.rows() == 1
            && self.left.col_stride() == 1
            && self.right.row_stride() == 1
            && self.right.col_stride() != 1
            && self.right_scale == 1.0
            && !self.blocked
    }

    /// Computes up to [`KEY_BLOCK`] columns of the only row from `col` on. Returns the number of columns.
    #[cfg_attr(not(unoptimised), inline(always))]
    fn columns_of_row<const L: usize, V: Vector<L>>(
        &mut self,
        token: V::Token,
        col: usize,
    ) -> usize {
        let (left, scale) = (self.left.row(0).unwrap_or_default(), self.left_scale);
        let rows = self.right.t();
        let rest = rows.rows().saturating_sub(col);
        let block = rows.rows_from(col, KEY_BLOCK.min(rest)).unwrap_or(MatrixRef::EMPTY);
        let count = rows_ahead(block).next_multiple_of(L);
        let next = rows.rows_from(col + count, 1).unwrap_or(block);
        let mut prefetcher = Prefetcher::<true>::new(next);
        let mut products = [0.0; KEY_BLOCK];
        let vectors = count.min(rest).div_ceil(L);
        let products = products.as_chunks_mut::<L>().0.get_mut(..vectors).unwrap_or_default();
        multiply_rows(
            token,
            left,
            #[inline(always)]
            |x| V::splat(token, scale * x),
            rows,
            col,
            products,
            #[inline(always)]
            || prefetcher.fetch(4 * L),
        );
        for (col, product) in (col..).step_by(L).zip(products) {
            let mut product = V::load(token, product);
            if let Some(bias) = self.bias {
                let [bias]: [V; 1] = strip::read(token, bias, 0, col);
                product = product + bias;
            }
            strip::write(&mut self.out, 0, col, [[product]]);
        }
        count
    }

    /// Computes `C` vectors of columns from `col` on.
    #[inline(always)]
    fn columns<const L: usize, const R: usize, const C: usize, V: Vector<L>>(
        &mut self,
        token: V::Token,
        col: usize,
        panel: &mut Panel<L, C>,
    ) {
        let Self { right, left_scale, right_scale, .. } = *self;
        let depth = right.rows();
        let is_one_tile = self.out.rows() <= R;
        if is_one_tile && right.col_stride() == 1 && left_scale == 1.0 && right_scale == 1.0 {
            let step = if self.blocked { KEY_BLOCK } else { depth };
            let mut begin = 0;
            loop {
                let end = depth.min(begin + step);
                let rows = right.rows_from(begin, end - begin).unwrap_or(MatrixRef::EMPTY);
                let columns = Source::columns(rows, col, C * L);
                self.tiles::<L, R, C, V>(token, col, begin..end, columns);
                begin = end;
                if begin == depth {
                    break;
                }
            }
        } else if const { C == 1 && L > 1 }
            && is_one_tile
            && right.row_stride() == 1
            && left_scale == 1.0
            && !self.blocked
        {
            if self.out.rows() <= 4 {
                self.squares::<L, 4, V>(token, col);
            } else {
                self.squares::<L, R, V>(token, col);
            }
        } else {
            self.panels::<L, R, C, V>(token, col, panel);
        }
        if let Some(bias) = self.bias {
            for row in 0..self.out.rows() {
                let bias: [V; C] = strip::read(token, bias, row, col);
                let sums: [V; C] = strip::read(token, self.out.view(), row, col);
                let sums: [V; C] = array!(|c| sums[c] + bias[c]);
                strip::write(&mut self.out, row, col, [sums]);
            }
        }
    }

    /// Computes one vector of columns from `col` on of a single tile, without the bias. Squares of `right` are
    /// transposed and consumed in registers: packed, they would be read once.
    #[cfg_attr(not(unoptimised), inline(always))]
    fn squares<const L: usize, const R: usize, V: Vector<L>>(
        &mut self,
        token: V::Token,
        col: usize,
    ) {
        let scale = V::splat(token, self.right_scale);
        let mut sums = [[V::splat(token, 0.0)]; R];
        for k in (0..self.right.rows()).step_by(L) {
            let square = V::transpose(strip::read_rows(token, self.right.t(), col, k));
            let left = BroadcastRows::<R>::new(self.left, 0, k);
            if let Some(left) = left.columns::<L>() {
                each::<L>(
                    #[inline(always)]
                    |i| sums = step(token, left[i], [square[i] * scale], sums),
                );
            } else {
                for (left, right) in left.zip(square) {
                    sums = step(token, left, [right * scale], sums);
                }
            }
        }
        strip::write(&mut self.out, 0, col, sums);
    }

    /// Computes `C` vectors of columns from `col` on, without the bias, panel by panel.
    #[cfg_attr(not(unoptimised), inline(always))]
    fn panels<const L: usize, const R: usize, const C: usize, V: Vector<L>>(
        &mut self,
        token: V::Token,
        col: usize,
        panel: &mut Panel<L, C>,
    ) {
        let Self { right, right_scale, .. } = *self;
        let depth = right.rows();
        let step = if self.blocked { KEY_BLOCK } else { PANEL };
        let mut begin = 0;
        loop {
            let end = depth.min(begin + step);
            pack::<L, C, V>(token, right, right_scale, begin..end, col, panel);
            let columns = Source::dense(panel.as_flattened().as_flattened(), C * L);
            self.tiles::<L, R, C, V>(token, col, begin..end, columns);
            begin = end;
            if begin == depth {
                break;
            }
        }
    }

    /// Adds the products of the `k` in `panel` to all tiles of these columns. `right` has the vectors of
    /// these `k`.
    #[cfg_attr(not(unoptimised), inline(always))]
    pub(super) fn tiles<const L: usize, const R: usize, const C: usize, V: Vector<L>>(
        &mut self,
        token: V::Token,
        col: usize,
        panel: Range<usize>,
        right: Source<'_>,
    ) {
        let mut scaled = (self.left_scale != 1.0).then_some([[0.0; PANEL]; R]);
        let rows = self.out.rows();
        let mut row = 0;
        while row < rows {
            let rest = rows - row;
            // A last tile of 6 or 8 rows would leave half of them empty; 8 rows are two tiles of 4.
            row += if const { R > 4 } && (rest <= 4 || (R == 6 && rest == 8)) {
                self.tile::<L, 4, C, V>(token, row, col, panel.clone(), right, &mut scaled)
            } else {
                self.tile::<L, R, C, V>(token, row, col, panel.clone(), right, &mut scaled)
            };
        }
    }

    /// Adds the products of the `k` in `panel` to one tile. Returns its number of rows, `R`.
    #[cfg_attr(not(unoptimised), inline(always))]
    fn tile<const L: usize, const R: usize, const C: usize, V: Vector<L>>(
        &mut self,
        token: V::Token,
        row: usize,
        col: usize,
        panel: Range<usize>,
        right: Source<'_>,
        scaled: &mut Option<impl AsMut<[[f32; PANEL]]>>,
    ) -> usize {
        let zeros = [[V::splat(token, 0.0); C]; R];
        let before: [[V; C]; R] = if panel.start == 0 {
            zeros
        } else {
            array!(|r| strip::read(token, self.out.view(), row + r, col))
        };
        let mut sums = if self.blocked { zeros } else { before };
        let (left, first, begin) = if let Some(scaled) = scaled {
            let scaled = scaled.as_mut();
            self.scale_left::<L, V>(token, row, panel, scaled);
            (MatrixRef::from(&*scaled), 0, 0)
        } else {
            (self.left, row, panel.start)
        };
        let left = BroadcastRows::<R>::new(left, first, begin);
        sums = accumulate::<L, R, C, V>(token, left, right, sums);
        if self.blocked {
            sums = array!(|r| array!(|c| before[r][c] + sums[r][c]));
        }
        strip::write(&mut self.out, row, col, sums);
        R
    }

    /// Writes the rows of `left` from `row` on, times their scale, to `scaled`, for the `k` in `panel`.
    #[inline(always)]
    fn scale_left<const L: usize, V: Vector<L>>(
        &self,
        token: V::Token,
        row: usize,
        panel: Range<usize>,
        scaled: &mut [[f32; PANEL]],
    ) {
        let scale = V::splat(token, self.left_scale);
        for (r, to) in scaled.iter_mut().enumerate() {
            let whole = self.left.row(row + r).and_then(|row| row.get(panel.clone()));
            if let Some((from, [])) = whole.map(<[f32]>::as_chunks::<L>) {
                for (to, from) in to.as_chunks_mut::<L>().0.iter_mut().zip(from) {
                    (V::load(token, from) * scale).store(to);
                }
                continue;
            }
            for (to, k) in to.as_chunks_mut::<L>().0.iter_mut().zip(panel.clone().step_by(L)) {
                let [vector]: [V; 1] = strip::read(token, self.left, row + r, k);
                (vector * scale).store(to);
            }
        }
    }
}

/// Adds the products of one row and contiguous rows from `first` on, each one chain of multiply-adds: a vector of
/// `products` is `L` of them. `lanes` makes a vector of an element of `left`; `per_four` is called for every four columns of
/// `L` rows, to interleave other work.
///
/// The sums are in memory: with those of several vectors in registers, LLVM loads all their rows first and spills them.
#[cfg_attr(not(unoptimised), inline(always))]
pub(super) fn multiply_rows<const L: usize, V: Vector<L>>(
    token: V::Token,
    left: &[f32],
    lanes: impl Fn(f32) -> V + Copy,
    rows: MatrixRef<'_>,
    first: usize,
    products: &mut [[f32; L]],
    mut per_four: impl FnMut(),
) {
    let (fours, rest) = left.as_chunks::<4>();
    strip::for_each_four_columns::<L, V, _>(
        token,
        rows,
        first,
        products.len(),
        #[inline(always)]
        |i| {
            let left = fours.get(i).copied().unwrap_or_default();
            array!(|i| lanes(left[i]))
        },
        #[inline(always)]
        |left: [V; 4], n, columns: [V; 4]| {
            per_four();
            if let Some(product) = products.get_mut(n) {
                let mut sum = V::load(token, product);
                each::<4>(
                    #[inline(always)]
                    |i| sum = left[i].mul_add(columns[i], sum),
                );
                sum.store(product);
            }
        },
    );
    for (col, left) in (4 * fours.len()..).zip(rest) {
        for (n, product) in products.iter_mut().enumerate() {
            let [column]: [V; 1] = strip::read(token, rows.t(), col, first + n * L);
            lanes(*left).mul_add(column, V::load(token, product)).store(product);
        }
    }
}

/// The micro-kernel: returns the tile `sums[r][c] + Σ left[k][r] · right[k][c]` over all `k`.
#[inline(always)]
pub(super) fn accumulate<const L: usize, const R: usize, const C: usize, V: Vector<L>>(
    token: V::Token,
    left: impl BroadcastColumns<R>,
    right: Source<'_>,
    sums: [[V; C]; R],
) -> [[V; C]; R] {
    accumulate_with::<L, R, C, false, V, f32>(
        token,
        left,
        right,
        sums,
        #[inline(always)]
        || (),
    )
}

/// [`accumulate`] that calls `per_k` after each `k`, to interleave other work such as a prefetch. `WHOLE`: `right` has
/// full, contiguous vectors, and each of `sums` has equal lanes; there is no code for others.
#[cfg_attr(not(unoptimised), inline(always))]
pub(super) fn accumulate_with<
    const L: usize,
    const R: usize,
    const C: usize,
    const WHOLE: bool,
    V: Vector<L>,
    E: Load,
>(
    token: V::Token,
    mut left: impl BroadcastColumns<R>,
    mut right: Source<'_, E>,
    mut sums: [[V; C]; R],
    mut per_k: impl FnMut(),
) -> [[V; C]; R] {
    // One vector per step has as much loop overhead as several vectors: four steps per iteration. Each
    // iteration checks the number of columns, so that the compiler keeps a pointer per row: with one index
    // for all rows, a multiply-add becomes two micro-operations on an Intel core.
    if const { C == 1 && L > 1 }
        && left.is_dense()
        && let Some(fours) = right.by_four::<L>()
    {
        let mut done = 0;
        fours.for_each_full(
            token,
            #[inline(always)]
            |right: [V; 4]| {
                let Some(left) = left.next_four() else { return };
                each::<4>(
                    #[inline(always)]
                    |k| {
                        sums = step(token, left[k], [right[k]; C], sums);
                        per_k();
                    },
                );
                done += 4;
            },
        );
        right = right.skip(done);
    }
    right.for_each_with::<L, C, R, WHOLE, V>(
        token,
        left,
        #[inline(always)]
        |right, left| {
            sums = step(token, left, right, sums);
            per_k();
        },
    );
    if const { WHOLE } { array!(|r| strip::in_order::<L, C, V, E>(sums[r])) } else { sums }
}

/// Adds the products of one `k` to a tile.
#[inline(always)]
fn step<const L: usize, const R: usize, const C: usize, V: Vector<L>>(
    token: V::Token,
    left: [f32; R],
    right: [V; C],
    sums: [[V; C]; R],
) -> [[V; C]; R] {
    // Unrolled: a loop would keep the sums in memory.
    array!(|r| {
        let left = V::splat(token, left[r]);
        array!(|c| left.mul_add(right[c], sums[r][c]))
    })
}

/// Packs `C` vectors of columns from `col` on, times `scale`, into `panel`, one entry for each `k` in
/// `range`. Columns out of range are 0.
#[inline(always)]
fn pack<const L: usize, const C: usize, V: Vector<L>>(
    token: V::Token,
    right: MatrixRef<'_>,
    scale: f32,
    range: Range<usize>,
    col: usize,
    panel: &mut Panel<L, C>,
) {
    let scale = V::splat(token, scale);
    // Cannot fail: `range` is at most PANEL long.
    let _ = panel.resize(range.len(), [[0.0; L]; C]);
    if right.row_stride() == 1 && L > 1 {
        // Columns are contiguous: transpose `L` × `L` squares.
        for c in 0..C {
            let blocks = panel.chunks_mut(L).zip(range.clone().step_by(L));
            for (block, k) in blocks {
                let square = strip::read_rows(token, right.t(), col + c * L, k);
                store_square::<L, C, V>(V::transpose(square), scale, block, c);
            }
        }
    } else {
        for (to, k) in panel.iter_mut().zip(range) {
            let vectors: [V; C] = strip::read(token, right, k, col);
            for (to, vector) in to.iter_mut().zip(vectors) {
                (vector * scale).store(to);
            }
        }
    }
}

/// Stores `vectors[i] * scale` as vector `c` of row `i`, for up to `L` rows.
#[inline(always)]
pub(super) fn store_square<const L: usize, const C: usize, V: Vector<L>>(
    vectors: [V; L],
    scale: V,
    rows: &mut [[[f32; L]; C]],
    c: usize,
) {
    if let Ok(rows) = <&mut [[[f32; L]; C]; L]>::try_from(&mut *rows) {
        // All `L` rows, by constant indices: the vectors stay in registers.
        each::<L>(
            #[inline(always)]
            |i| (vectors[i] * scale).store(&mut rows[i][c]),
        );
        return;
    }
    for (row, vector) in rows.iter_mut().zip(vectors) {
        (vector * scale).store(&mut row[c]);
    }
}
