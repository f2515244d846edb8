//! Loads and stores between strided memory and vectors. Strides, tails and in-place operation are handled
//! here, so that kernels do not see them.
//!
//! A **strip** iterates over positions of a matrix. Each position holds a group of `G` vectors, up to
//! `G * L` lanes:
//!
//! ```text
//! columns: one position per row                row: positions along one row
//!      c .. c + G*L                             [ G*L ][ G*L ][ G*L ][ tail ]
//!    r [ lanes    ]
//!  r+1 [ lanes    ]
//! ```

use core::{hint::black_box, marker::PhantomData, ops::Range};

use super::{Load, Vector, array, broadcast::BroadcastColumns, each, scalar_row::ScalarRow};
use crate::{
    error::Error,
    matrix::{MatrixMut, MatrixRef},
};

/// `positions` positions of `lanes` lanes each, then a position of `tail` lanes; 0 is no tail.
#[derive(Clone, Copy)]
struct Extent {
    positions: usize,
    lanes: usize,
    tail: usize,
}

impl Extent {
    /// `lanes` lanes split into positions of `width`, which is not 0.
    #[inline(always)]
    fn split(lanes: usize, width: usize) -> Self {
        Self { positions: lanes / width, lanes: width, tail: lanes % width }
    }

    /// `positions` positions of `lanes` lanes each.
    #[inline(always)]
    fn uniform(positions: usize, lanes: usize) -> Self {
        Self { positions: if lanes == 0 { 0 } else { positions }, lanes, tail: 0 }
    }

    /// The number of leading positions with exactly `width` lanes.
    #[inline(always)]
    fn full(self, width: usize) -> usize {
        if self.lanes == width { self.positions } else { 0 }
    }

    /// The number of lanes of each position from `first` on.
    #[inline(always)]
    fn lanes_from(self, first: usize) -> impl Iterator<Item = usize> {
        let tails = usize::from(self.tail > 0);
        (first..self.positions + tails).map(
            #[inline(always)]
            move |position| if position < self.positions { self.lanes } else { self.tail },
        )
    }
}

/// A strip to read.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a, E = f32> {
    /// The first lane of the first position.
    first: *const E,
    /// The distance in elements from one position to the next.
    step: usize,
    /// The distance in elements from one lane to the next.
    stride: usize,
    extent: Extent,
    borrow: PhantomData<&'a [E]>,
}

impl<'a> Source<'a> {
    /// One position per `width` floats. `width` is not 0; a tail is left out.
    #[inline(always)]
    pub(crate) fn dense(floats: &'a [f32], width: usize) -> Self {
        Self {
            first: floats.as_ptr(),
            step: width,
            stride: 1,
            extent: Extent::uniform(floats.len() / width, width),
            borrow: PhantomData,
        }
    }
}

impl<'a, E: Load> Source<'a, E> {
    /// Up to `width` columns from `col` on, one position per row.
    #[inline(always)]
    pub(crate) fn columns(view: MatrixRef<'a, E>, col: usize, width: usize) -> Self {
        let lanes = view.cols().saturating_sub(col).min(width);
        Self {
            first: view.at(0, col),
            step: view.row_stride(),
            stride: view.col_stride(),
            extent: Extent::uniform(view.rows(), lanes),
            borrow: PhantomData,
        }
    }

    /// Calls `f` with the vectors of the leading positions that are full and contiguous. Returns the number
    /// of these positions.
    #[inline(always)]
    pub(crate) fn for_each_full<const L: usize, const G: usize, V: Vector<L>>(
        &self,
        token: V::Token,
        f: impl FnMut([V; G]),
    ) -> usize {
        self.for_each_full_as(
            #[inline(always)]
            |lanes: &[[E; L]; G]| array!(|g| E::load(token, &lanes[g])),
            f,
        )
    }

    /// [`for_each_full`](Self::for_each_full) with the vectors that `load` makes of the lanes of a position.
    #[inline(always)]
    fn for_each_full_as<const L: usize, const G: usize, V>(
        &self,
        load: impl Fn(&[[E; L]; G]) -> [V; G],
        mut f: impl FnMut([V; G]),
    ) -> usize {
        if self.stride != 1 {
            return 0;
        }
        let full = self.extent.full(G * L);
        let mut at = self.first;
        for _ in 0..full {
            // SAFETY: this position has `G * L` contiguous lanes inside the borrow.
            f(load(unsafe { &*at.cast() }));
            at = at.wrapping_add(self.step);
        }
        full
    }

    /// Calls `f` with the vectors of each position; missing lanes are `fill`.
    #[inline(always)]
    #[expect(
        clippy::redundant_closure,
        reason = "core calls `&mut f` by a function that may not be inlined"
    )]
    pub(crate) fn for_each<const L: usize, const G: usize, V: Vector<L>>(
        &self,
        token: V::Token,
        fill: f32,
        mut f: impl FnMut([V; G]),
    ) {
        let full = self.for_each_full(
            token,
            #[inline(always)]
            |x| f(x),
        );
        let mut at = self.first.wrapping_add(self.step.wrapping_mul(full));
        for lanes in self.extent.lanes_from(full) {
            // SAFETY: this position has `lanes` lanes, `stride` apart, inside the borrow.
            f(unsafe { gather::<L, G, V, E>(token, at, self.stride, lanes, fill) });
            at = at.wrapping_add(self.step);
        }
    }
}

/// A strip as the right operand of a tile.
impl<E: Load> Source<'_, E> {
    /// Joins every four positions into one, if positions have `L` lanes and are contiguous. A tail is left
    /// out.
    #[inline(always)]
    pub(crate) fn by_four<const L: usize>(self) -> Option<Self> {
        let positions = self.extent.full(L) / 4;
        let are_dense = self.stride == 1 && self.step == L;
        let extent = Extent::uniform(positions, 4 * L);
        are_dense.then_some(Self { step: 4 * L, extent, ..self })
    }

    /// The number of vectors of `L` lanes side by side, where all are full and contiguous; 0 elsewhere.
    #[inline(always)]
    pub(crate) fn whole_vectors<const L: usize>(self) -> usize {
        if self.stride == 1 { self.extent.lanes / L } else { 0 }
    }

    /// Skips the first `positions` positions.
    #[inline(always)]
    pub(crate) fn skip(mut self, positions: usize) -> Self {
        let positions = positions.min(self.extent.positions);
        self.first = self.first.wrapping_add(self.step.wrapping_mul(positions));
        self.extent.positions -= positions;
        self
    }

    /// Calls `f` with the vectors of each position and the matching column of `left`, up to the shorter of
    /// both; missing lanes are 0. If `WHOLE`, positions that are not full and contiguous are left out, and the lanes of
    /// the vectors are in an order that [`in_order`] restores.
    #[inline(always)]
    pub(crate) fn for_each_with<
        const L: usize,
        const G: usize,
        const R: usize,
        const WHOLE: bool,
        V: Vector<L>,
    >(
        mut self,
        token: V::Token,
        mut left: impl BroadcastColumns<R>,
        mut f: impl FnMut([V; G], [f32; R]),
    ) {
        self.extent.positions = self.extent.positions.min(left.remaining());
        self.extent.tail = 0;
        // SAFETY: called once per position, of which there are at most `left.remaining()`.
        let mut next = || unsafe { left.next_column() };
        if WHOLE {
            self.for_each_full_as(
                #[inline(always)]
                |lanes| load_pairs(token, lanes),
                #[inline(always)]
                |x| f(x, next()),
            );
        } else {
            self.for_each(
                token,
                0.0,
                #[inline(always)]
                |x| f(x, next()),
            );
        }
    }
}

/// A strip to read and write, position by position: from one matrix into another, or in place.
pub(crate) struct Strip<'a> {
    from: Source<'a>,
    /// Has the extent of `from`.
    to: Destination<'a>,
}

/// The output of a strip.
#[derive(Clone, Copy)]
struct Destination<'a> {
    first: *mut f32,
    step: usize,
    stride: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

impl Strip<'_> {
    /// The input of the strip.
    #[inline(always)]
    pub(crate) fn source(&self) -> Source<'_> {
        self.from
    }

    /// Makes the output the input, so that later passes run in place.
    #[inline(always)]
    pub(crate) fn read_from_output(&mut self) {
        let Destination { first, step, stride, .. } = self.to;
        self.from = Source { first, step, stride, ..self.from };
    }

    /// Writes `f` of the vectors of the leading positions that are full and contiguous. Returns the number of
    /// these positions.
    #[inline(always)]
    pub(crate) fn map_full<const L: usize, const G: usize, V: Vector<L>>(
        &mut self,
        token: V::Token,
        mut f: impl FnMut([V; G]) -> [V; G],
    ) -> usize {
        let Self { from: Source { first, step, stride, extent, .. }, ref to } = *self;
        if stride != 1 || to.stride != 1 {
            return 0;
        }
        let full = extent.full(G * L);
        let (mut at, mut into) = (first, to.first);
        for _ in 0..full {
            // SAFETY: this position has `G * L` contiguous lanes inside the
            // borrow, in input and output; the vectors are read before anything
            // is written, so that both may be the same.
            unsafe { store(into, f(load::<L, G, V, f32>(token, at))) };
            at = at.wrapping_add(step);
            into = into.wrapping_add(to.step);
        }
        full
    }

    /// Writes `f` of the vectors of each position; missing lanes are read as `fill` and not written.
    #[inline(always)]
    #[expect(
        clippy::redundant_closure,
        reason = "core calls `&mut f` by a function that may not be inlined"
    )]
    pub(crate) fn map<const L: usize, const G: usize, V: Vector<L>>(
        &mut self,
        token: V::Token,
        fill: f32,
        mut f: impl FnMut([V; G]) -> [V; G],
    ) {
        let full = self.map_full(
            token,
            #[inline(always)]
            |x| f(x),
        );
        let Self { from: Source { first, step, stride, extent, .. }, ref to } = *self;
        let mut at = first.wrapping_add(step.wrapping_mul(full));
        let mut into = to.first.wrapping_add(to.step.wrapping_mul(full));
        for lanes in extent.lanes_from(full) {
            // SAFETY: this position has `lanes` lanes inside the borrow, `stride` apart in the
            // input and `to.stride` in the output; the vectors are read before anything is written.
            unsafe {
                let group = f(gather::<L, G, V, f32>(token, at, stride, lanes, fill));
                scatter(into, to.stride, lanes, group);
            }
            at = at.wrapping_add(step);
            into = into.wrapping_add(to.step);
        }
    }
}

/// An input and an output matrix of one shape, which may be the same matrix.
pub(crate) struct InOut<'a> {
    /// The first element of the input, and its strides; the shape is that of `to`.
    from: *const f32,
    from_row_stride: usize,
    from_col_stride: usize,
    to: MatrixMut<'a>,
    borrow: PhantomData<&'a [f32]>,
}

impl<'a> InOut<'a> {
    /// From one matrix into another.
    #[inline]
    pub(crate) fn new(from: MatrixRef<'a>, to: MatrixMut<'a>) -> Result<Self, Error> {
        if from.shape() != to.shape() {
            return Err(Error::Shape);
        }
        Ok(Self {
            from: from.at(0, 0),
            from_row_stride: from.row_stride(),
            from_col_stride: from.col_stride(),
            to,
            borrow: PhantomData,
        })
    }

    /// From a matrix into itself.
    #[inline]
    pub(crate) fn in_place(to: MatrixMut<'a>) -> Self {
        Self {
            from: to.at(0, 0),
            from_row_stride: to.row_stride(),
            from_col_stride: to.col_stride(),
            to,
            borrow: PhantomData,
        }
    }

    /// Reborrows both matrices.
    #[inline(always)]
    pub(crate) fn view_mut(&mut self) -> InOut<'_> {
        let Self { from, from_row_stride, from_col_stride, .. } = *self;
        let to = self.to.view_mut();
        InOut { from, from_row_stride, from_col_stride, to, borrow: PhantomData }
    }

    /// The first `at` columns and the remaining columns.
    #[inline(always)]
    pub(crate) fn split_columns(self, at: usize) -> Result<(Self, Self), Error> {
        let (left, right) = self.to.split_columns(at)?;
        let from = self.from.wrapping_add(self.from_col_stride.wrapping_mul(at));
        Ok((Self { to: left, ..self }, Self { from, to: right, ..self }))
    }

    /// The columns 0, 2, …, and the columns 1, 3, ….
    #[inline(always)]
    pub(crate) fn alternate_columns(self) -> (Self, Self) {
        let (even, odd) = self.to.alternate_columns();
        let stride = self.from_col_stride;
        let from_col_stride = stride.wrapping_mul(2);
        let from = self.from.wrapping_add(stride);
        (
            Self { from_col_stride, to: even, ..self },
            Self { from, from_col_stride, to: odd, ..self },
        )
    }

    /// Rows and columns.
    #[inline(always)]
    pub(crate) fn shape(&self) -> (usize, usize) {
        self.to.shape()
    }

    /// The input.
    #[inline(always)]
    pub(crate) fn input(&self) -> MatrixRef<'_> {
        let (rows, cols) = self.to.shape();
        let strides = (self.from_row_stride, self.from_col_stride);
        // SAFETY: the shape and strides of the input that was checked; nothing writes it during this borrow.
        unsafe { MatrixRef::from_checked_parts(self.from, rows, cols, strides.0, strides.1) }
    }

    /// The output.
    #[inline(always)]
    pub(crate) fn output(&mut self) -> &mut MatrixMut<'a> {
        &mut self.to
    }

    /// Row `row` as single floats; empty if out of range.
    #[inline(always)]
    pub(crate) fn scalar_row(&mut self, row: usize) -> ScalarRow<'_> {
        ScalarRow {
            from: self.from.wrapping_add(row.wrapping_mul(self.from_row_stride)),
            from_step: self.from_col_stride,
            to: self.to.at(row, 0),
            to_step: self.to.col_stride(),
            len: if row < self.to.rows() { self.to.cols() } else { 0 },
            borrow: PhantomData,
        }
    }

    /// Up to `width` columns from `col` on of these rows, one position per row.
    #[inline(always)]
    pub(crate) fn block(&mut self, rows: Range<usize>, col: usize, width: usize) -> Strip<'_> {
        let lanes = self.to.cols().saturating_sub(col).min(width);
        let from = self.from.wrapping_add(self.from_row_stride.wrapping_mul(rows.start));
        let end = rows.end.min(self.to.rows());
        Strip {
            from: Source {
                first: from.wrapping_add(self.from_col_stride.wrapping_mul(col)),
                step: self.from_row_stride,
                stride: self.from_col_stride,
                extent: Extent::uniform(end.saturating_sub(rows.start), lanes),
                borrow: PhantomData,
            },
            to: Destination {
                first: self.to.at(rows.start, col),
                step: self.to.row_stride(),
                stride: self.to.col_stride(),
                borrow: PhantomData,
            },
        }
    }

    /// Whether the rows of either matrix are a multiple of 2 KiB apart, so that a strip of columns lies in a
    /// few sets of each cache.
    #[inline(always)]
    pub(crate) fn rows_share_sets(&self) -> bool {
        let share = |stride: usize| stride.is_multiple_of(512);
        share(self.from_row_stride) || share(self.to.row_stride())
    }

    /// Whether the rows of both matrices are contiguous.
    #[inline(always)]
    pub(crate) fn rows_are_dense(&self) -> bool {
        self.from_col_stride == 1 && self.to.col_stride() == 1
    }

    /// Row `row`; empty if out of range. `DENSE` requires [`rows_are_dense`](Self::rows_are_dense).
    #[inline(always)]
    pub(crate) fn row<const DENSE: bool>(&mut self, row: usize) -> Row<'_, DENSE> {
        let (rows, cols) = self.to.shape();
        Row {
            from: self.from.wrapping_add(self.from_row_stride.wrapping_mul(row)),
            from_stride: self.from_col_stride,
            to: self.to.at(row, 0),
            to_stride: self.to.col_stride(),
            cols: if row < rows { cols } else { 0 },
            borrow: PhantomData,
        }
    }
}

/// A row of the input and of the output.
///
/// With a constant stride of 1 (`DENSE`) the offsets are immediates. Otherwise the compiler computes a
/// hundred multiples of the stride before the first load.
pub(crate) struct Row<'a, const DENSE: bool> {
    pub(super) from: *const f32,
    pub(super) from_stride: usize,
    pub(super) to: *mut f32,
    pub(super) to_stride: usize,
    pub(super) cols: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

impl<const DENSE: bool> Row<'_, DENSE> {
    /// The number of columns.
    #[inline(always)]
    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// Makes the output the input, so that later passes run in place.
    #[inline(always)]
    pub(crate) fn read_from_output(&mut self) {
        (self.from, self.from_stride) = (self.to, self.to_stride);
    }

    /// The input columns from `begin` on, one position per `width`, which is not 0.
    #[inline(always)]
    pub(crate) fn source(&self, begin: usize, width: usize) -> Source<'_> {
        let stride = if DENSE { 1 } else { self.from_stride };
        let lanes = self.cols.saturating_sub(begin);
        Source {
            first: self.from.wrapping_add(stride.wrapping_mul(begin)),
            step: stride.wrapping_mul(width),
            stride,
            extent: Extent::split(lanes, width),
            borrow: PhantomData,
        }
    }

    /// [`source`](Self::source), with the same columns of the output.
    #[inline(always)]
    pub(crate) fn strip(&mut self, begin: usize, width: usize) -> Strip<'_> {
        let stride = if DENSE { 1 } else { self.to_stride };
        Strip {
            from: self.source(begin, width),
            to: Destination {
                first: self.to.wrapping_add(stride.wrapping_mul(begin)),
                step: stride.wrapping_mul(width),
                stride,
                borrow: PhantomData,
            },
        }
    }
}

/// Reads `G * L` lanes of row `row` from `col` on; lanes out of range are 0.
#[cfg_attr(not(unoptimised), inline(always))]
pub(crate) fn read<const L: usize, const G: usize, V: Vector<L>, E: Load>(
    token: V::Token,
    view: MatrixRef<'_, E>,
    row: usize,
    col: usize,
) -> [V; G] {
    let lanes = if row < view.rows() { view.cols().saturating_sub(col).min(G * L) } else { 0 };
    let (at, stride) = (view.at(row, col), view.col_stride());
    // SAFETY: the row has `lanes` lanes from `col` on, `stride` apart.
    unsafe {
        if stride == 1 && lanes == G * L {
            load(token, at)
        } else {
            gather(token, at, stride, lanes, 0.0)
        }
    }
}

/// Reads `L` columns from `col` on of `N` rows from `row` on; elements out of range are 0.
#[cfg_attr(not(unoptimised), inline(always))]
pub(crate) fn read_rows<const L: usize, const N: usize, V: Vector<L>, E: Load>(
    token: V::Token,
    view: MatrixRef<'_, E>,
    row: usize,
    col: usize,
) -> [V; N] {
    // `black_box` hides the position from the compiler, which otherwise keeps a pointer per row of each
    // square of a loop, dozens of them, in memory.
    let (row, col) = black_box((row, col));
    let rows = view.rows().saturating_sub(row);
    if view.col_stride() == 1 && view.cols().saturating_sub(col) >= L && rows >= N {
        let (mut at, stride) = (view.at(row, col), view.row_stride());
        return array!(|_i| {
            // SAFETY: each of these rows has `L` contiguous lanes from `col` on.
            let [vector] = unsafe { load(token, at) };
            at = at.wrapping_add(stride);
            vector
        });
    }
    // A loop, through memory: unrolled, the ends of rows would be most of the code of a kernel.
    let mut square = [[0.0; L]; N];
    for (i, lanes) in square.iter_mut().enumerate().take(rows) {
        let [vector]: [V; 1] = read(token, view, row + i, col);
        vector.store(lanes);
    }
    array!(|i| V::load(token, &square[i]))
}

/// Calls `f` with every four columns of each of `vectors` vectors of rows, of which vector `n` begins at row `row + n L`:
/// with what `prepare` returns for the index of the four, with `n`, and with the columns. Rows past the last repeat it. A
/// tail of up to three columns is left out, and so are all columns if rows are not contiguous.
#[inline(always)]
#[expect(
    clippy::redundant_closure,
    reason = "core calls `&mut f` by a function that may not be inlined"
)]
pub(crate) fn for_each_four_columns<const L: usize, V: Vector<L>, P: Copy>(
    token: V::Token,
    view: MatrixRef<'_>,
    row: usize,
    vectors: usize,
    prepare: impl Fn(usize) -> P + Copy,
    mut f: impl FnMut(P, usize, [V; 4]),
) {
    let fours = if view.col_stride() == 1 && view.rows() > 0 { view.cols() / 4 } else { 0 };
    let full = vectors.min(view.rows().saturating_sub(row) / L);
    let mut in_turn = 0;
    // Rows a multiple of 1 KiB apart share a few sets of the first-level cache: those of several vectors evict each other
    // before the next four columns are read. There, a vector of rows reads whole cache lines before the next one. It does
    // too where there are few vectors: between its turns `f` keeps sums in memory, which take some cycles to come back.
    if full < 4 || view.row_stride().is_multiple_of(256) {
        in_turn = fours - fours % 4;
        // SAFETY: the vectors have rows, and these columns of contiguous rows.
        unsafe {
            fours_in_turn::<L, 4, true, V, P>(
                token,
                view,
                row,
                0..full,
                0..in_turn,
                prepare,
                #[inline(always)]
                |prepared, n, columns| f(prepared, n, columns),
            );
        }
    }
    // SAFETY: as above.
    unsafe {
        fours_in_turn::<L, 1, true, V, P>(
            token,
            view,
            row,
            0..full,
            in_turn..fours,
            prepare,
            #[inline(always)]
            |prepared, n, columns| f(prepared, n, columns),
        );
    }
    if full < vectors {
        // SAFETY: the view has rows, and these columns of contiguous rows.
        unsafe {
            fours_in_turn::<L, 1, false, V, P>(
                token,
                view,
                row,
                full..vectors,
                0..fours,
                prepare,
                #[inline(always)]
                |prepared, n, columns| f(prepared, n, columns),
            );
        }
    }
}

/// [`for_each_four_columns`], where each vector of rows reads `T` fours in its turn.
///
/// # Safety
///
/// The rows of `view` are contiguous, and it has the columns of `fours`, whose number is a multiple of `T`. If
/// `FULL`, it has the rows of all `vectors`; otherwise it has a row.
#[inline(always)]
unsafe fn fours_in_turn<const L: usize, const T: usize, const FULL: bool, V: Vector<L>, P: Copy>(
    token: V::Token,
    view: MatrixRef<'_>,
    row: usize,
    vectors: Range<usize>,
    fours: Range<usize>,
    prepare: impl Fn(usize) -> P,
    mut f: impl FnMut(P, usize, [V; 4]),
) {
    let (stride, last) = (view.row_stride(), view.rows().saturating_sub(1));
    for first in fours.step_by(T) {
        let prepared: [P; T] = array!(|t| prepare(first + t));
        for n in vectors.clone() {
            let at = view.at(row + n * L, 4 * first);
            each::<T>(
                #[inline(always)]
                |t| {
                    let columns = array!(|i| {
                        let four = if FULL {
                            at.wrapping_add(stride.wrapping_mul(i)).wrapping_add(4 * t)
                        } else {
                            view.at((row + n * L + i).min(last), 4 * (first + t))
                        };
                        // SAFETY: this row and its four contiguous columns exist: the caller's promise.
                        unsafe { &*four.cast() }
                    });
                    f(prepared[t], n, V::load_columns(token, columns));
                },
            );
        }
    }
}

/// Writes `groups` into the rows from `row` on, each from column `col` on. Lanes and rows out of range are
/// not written.
#[cfg_attr(not(unoptimised), inline(always))]
pub(crate) fn write<const L: usize, const G: usize, const R: usize, V: Vector<L>>(
    view: &mut MatrixMut<'_>,
    row: usize,
    col: usize,
    groups: [[V; G]; R],
) {
    let lanes = view.cols().saturating_sub(col).min(G * L);
    let rows = view.rows().saturating_sub(row);
    let stride = view.col_stride();
    let mut into = view.at(row, col);
    if stride == 1 && lanes == G * L {
        for (r, group) in groups.into_iter().enumerate() {
            if r < rows {
                // SAFETY: the row has `G * L` contiguous lanes from `col` on.
                unsafe { store(into, group) };
            }
            into = into.wrapping_add(view.row_stride());
        }
    } else {
        for group in groups.into_iter().take(rows) {
            // SAFETY: the row has `lanes` lanes from `col` on, `stride` apart.
            unsafe { scatter(into, stride, lanes, group) };
            into = into.wrapping_add(view.row_stride());
        }
    }
}

/// Loads `G * L` contiguous lanes.
///
/// # Safety
///
/// All of them may be read.
#[inline(always)]
pub(super) unsafe fn load<const L: usize, const G: usize, V: Vector<L>, E: Load>(
    token: V::Token,
    at: *const E,
) -> [V; G] {
    // SAFETY: the caller's promise, for `G * L` elements.
    let lanes: &[[E; L]; G] = unsafe { &*at.cast() };
    array!(|g| E::load(token, &lanes[g]))
}

/// Loads the vectors of a group by pairs. What is not in a pair is in order.
#[inline(always)]
fn load_pairs<const L: usize, const G: usize, V: Vector<L>, E: Load>(
    token: V::Token,
    lanes: &[[E; L]; G],
) -> [V; G] {
    array!(|g| {
        if const { G.is_multiple_of(2) } {
            E::load_pair(token, &lanes.as_chunks().0[g / 2])[g % 2]
        } else {
            E::load(token, &lanes[g])
        }
    })
}

/// The lanes of a group loaded by pairs, in the order of memory.
#[inline(always)]
pub(crate) fn in_order<const L: usize, const G: usize, V: Vector<L>, E: Load>(
    group: [V; G],
) -> [V; G] {
    array!(|g| {
        if const { G.is_multiple_of(2) } {
            E::in_order([group[g & !1], group[g | 1]])[g % 2]
        } else {
            group[g]
        }
    })
}

/// Stores `G * L` contiguous lanes.
///
/// # Safety
///
/// All of them may be written, and nothing else refers to them.
#[inline(always)]
pub(super) unsafe fn store<const L: usize, const G: usize, V: Vector<L>>(
    into: *mut f32,
    group: [V; G],
) {
    // SAFETY: the caller's promise, for `G * L` floats.
    let lanes: &mut [[f32; L]; G] = unsafe { &mut *into.cast() };
    each::<G>(
        #[inline(always)]
        |g| group[g].store(&mut lanes[g]),
    );
}

/// Gathers `lanes` lanes, `stride` elements apart; the others are `fill`.
///
/// # Safety
///
/// The first `lanes` lanes may be read.
#[inline(always)]
pub(super) unsafe fn gather<const L: usize, const G: usize, V: Vector<L>, E: Load>(
    token: V::Token,
    at: *const E,
    stride: usize,
    lanes: usize,
    fill: f32,
) -> [V; G] {
    array!(|g| {
        let count = lanes.saturating_sub(g * L).min(L);
        // An address inside the caller's lanes even for an empty vector: the compiler may load it under an
        // empty mask, which costs 450 ns where the address is not mapped.
        let at = at.wrapping_add(stride.wrapping_mul((g * L).min(lanes.saturating_sub(1))));
        if count == 0 {
            V::splat(token, fill)
        } else if stride == 1 {
            // SAFETY: `count` of the caller's lanes, contiguous.
            E::load_partial(token, unsafe { core::slice::from_raw_parts(at, count) }, fill)
        } else {
            let mut vector = [fill; L];
            if const { L == 1 || size_of::<E>() == size_of::<f32>() } {
                for (i, lane) in vector.iter_mut().enumerate().take(count) {
                    // SAFETY: one of the caller's lanes.
                    *lane = unsafe { *at.wrapping_add(stride.wrapping_mul(i)) }.widen();
                }
            } else {
                let lanes = vector.get_mut(..count).unwrap_or_default();
                // SAFETY: `count` of the caller's lanes.
                unsafe { gather_strided(at, stride, lanes) };
            }
            V::load(token, &vector)
        }
    })
}

/// Reads one element for each of `lanes`, `stride` elements apart.
///
/// A function of its own: inlined, this path of each vector would be most of the code of a kernel. A call beside a loop
/// over floats costs that loop registers.
///
/// # Safety
///
/// All of them may be read.
#[inline(never)]
unsafe fn gather_strided<E: Load>(at: *const E, stride: usize, lanes: &mut [f32]) {
    for (i, lane) in lanes.iter_mut().enumerate() {
        // SAFETY: one of the caller's elements.
        *lane = unsafe { *at.wrapping_add(stride.wrapping_mul(i)) }.widen();
    }
}

/// Scatters `lanes` lanes, `stride` floats apart.
///
/// # Safety
///
/// The first `lanes` lanes may be written, and nothing else refers to them.
#[inline(always)]
pub(super) unsafe fn scatter<const L: usize, const G: usize, V: Vector<L>>(
    into: *mut f32,
    stride: usize,
    lanes: usize,
    group: [V; G],
) {
    // All indices are constant: a variable index would move the whole array to memory.
    each::<G>(
        #[inline(always)]
        |g| {
            let count = lanes.saturating_sub(g * L).min(L);
            // Inside the caller's lanes, as in `gather`.
            let first = (g * L).min(lanes.saturating_sub(1));
            let into = into.wrapping_add(stride.wrapping_mul(first));
            if count > 0 && stride == 1 {
                // SAFETY: `count` of the caller's lanes, contiguous.
                group[g].store_partial(unsafe { core::slice::from_raw_parts_mut(into, count) });
            } else if count > 0 {
                for (i, lane) in group[g].to_array().into_iter().enumerate().take(count) {
                    // SAFETY: one of the caller's lanes.
                    unsafe { *into.wrapping_add(stride.wrapping_mul(i)) = lane };
                }
            }
        },
    );
}

/// Calls `f` with each element of `a` and the matching element of `b`, up to the shorter of both.
///
/// At `opt-level` `s` the compiler may not inline the methods of a `zip`.
#[inline(always)]
pub(crate) fn for_each_pair<T>(a: &[T], b: &[T], mut f: impl FnMut(&T, &T)) {
    for i in 0..a.len().min(b.len()) {
        // SAFETY: both have an element `i`.
        unsafe { f(a.get_unchecked(i), b.get_unchecked(i)) };
    }
}
