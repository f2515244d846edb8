//! Elements of 16 and 8 bits: widened to `f32`, exactly, before anything is computed with them.
//!
//! * [`Widen`]: the keys or values of a block, before attention reads them;
//! * [`ScaleRows`]: the scores of `I8` keys times the scales of the keys, or weights times the scales of values;
//! * [`ProjectElements`]: a [`Product`] whose `right` is widened panel by panel, then times the scale of each column.

use core::ops::Range;

use super::{
    Kernel, Name,
    blocks::AnyRows,
    tile::{ONE_VECTOR_ROWS, PANEL, Panel, Product, store_square},
};
use crate::{
    matrix::{MatrixMut, MatrixRef},
    simd::{
        Load, Vector, array,
        strip::{self, InOut, Source},
    },
};

/// Widens `from` to `to`, in row-major order.
pub(crate) struct Widen<'a, E> {
    pub(crate) from: MatrixRef<'a, E>,
    pub(crate) to: &'a mut [f32],
}

impl<E: Load> Kernel for Widen<'_, E> {
    type Output = ();

    const NAME: Name = Name::Widen;

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        let Self { from, to } = self;
        if let Some(all) = from.as_slice() {
            return widen_row::<L, V, E>(token, all, to);
        }
        for (row, to) in to.chunks_mut(from.cols().max(1)).enumerate() {
            if let Some(from) = from.row(row) {
                widen_row::<L, V, E>(token, from, to);
                continue;
            }
            for (col, to) in (0..).step_by(L).zip(to.chunks_mut(L)) {
                let [vector]: [V; 1] = strip::read(token, from, row, col);
                vector.store_partial(to);
            }
        }
    }
}

/// Widens as many elements as `to` has.
#[inline(always)]
fn widen_row<const L: usize, V: Vector<L>, E: Load>(token: V::Token, from: &[E], to: &mut [f32]) {
    let ((from, from_tail), (to, to_tail)) = (from.as_chunks::<L>(), to.as_chunks_mut::<L>());
    for (from, to) in from.iter().zip(to) {
        E::load::<L, V>(token, from).store(to);
    }
    E::load_partial::<L, V>(token, from_tail, 0.0).store_partial(to_tail);
}

/// Multiplies each row of `to` by its scale: `scales` has a row for each and one column.
pub(crate) struct ScaleRows<'a> {
    pub(crate) scales: MatrixRef<'a>,
    pub(crate) to: MatrixMut<'a>,
}

impl Kernel for ScaleRows<'_> {
    type Output = ();

    const NAME: Name = Name::ScaleRows;

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        self,
        token: V::Token,
    ) {
        let Self { scales, mut to } = self;
        if const { L == 1 } {
            for row in 0..to.rows() {
                let scale = scales.get(row, 0).unwrap_or(0.0);
                for col in 0..to.cols() {
                    if let Some(x) = to.get_mut(row, col) {
                        *x *= scale;
                    }
                }
            }
            return;
        }
        // Where the queries are in rows, one vector has the scales of as many keys.
        let is_transposed = to.row_stride() == 1;
        if is_transposed {
            to.transpose();
        }
        let cols = to.cols();
        let mut to = InOut::in_place(to);
        let mut col = 0;
        while col < cols {
            col += match (is_transposed, cols - col > L) {
                (true, true) => scale_by_column::<L, C, V>(token, scales, col, &mut to),
                (true, false) => scale_by_column::<L, 1, V>(token, scales, col, &mut to),
                (false, true) => scale_by_row::<L, C, V>(token, scales, col, &mut to),
                (false, false) => scale_by_row::<L, 1, V>(token, scales, col, &mut to),
            };
        }
    }
}

/// Multiplies `N` vectors of columns from `col` on by the scale of each column. Returns the number of columns.
#[inline(always)]
fn scale_by_column<const L: usize, const N: usize, V: Vector<L>>(
    token: V::Token,
    scales: MatrixRef<'_>,
    col: usize,
    to: &mut InOut<'_>,
) -> usize {
    let scales: [V; N] = strip::read(token, scales.t(), 0, col);
    let rows = to.shape().0;
    to.block(0..rows, col, N * L).map(
        token,
        0.0,
        #[inline(always)]
        |x: [V; N]| array!(|n| x[n] * scales[n]),
    );
    N * L
}

/// Multiplies `N` vectors of columns from `col` on by the scale of each row. Returns the number of columns.
#[inline(always)]
fn scale_by_row<const L: usize, const N: usize, V: Vector<L>>(
    token: V::Token,
    scales: MatrixRef<'_>,
    col: usize,
    to: &mut InOut<'_>,
) -> usize {
    let rows = to.shape().0;
    let mut row = 0;
    to.block(0..rows, col, N * L).map(
        token,
        0.0,
        #[inline(always)]
        |x: [V; N]| {
            let scale = V::splat(token, scales.get(row, 0).unwrap_or(0.0));
            row += 1;
            array!(|n| x[n] * scale)
        },
    );
    N * L
}

/// The weights of a projection. Hosts have one kernel for all elements; a microcontroller has one for each that is used.
pub(crate) trait Weights {
    /// Widens a vector of columns from `col` on into `panel`, one entry for each row in `range`. Columns out of range
    /// are 0.
    fn pack<const L: usize, V: Vector<L>>(
        &self,
        token: V::Token,
        range: Range<usize>,
        col: usize,
        panel: &mut Panel<L, 1>,
    );
}

impl<E: Load> Weights for MatrixRef<'_, E> {
    #[inline(always)]
    fn pack<const L: usize, V: Vector<L>>(
        &self,
        token: V::Token,
        range: Range<usize>,
        col: usize,
        panel: &mut Panel<L, 1>,
    ) {
        pack::<L, V, E>(token, *self, range, col, panel);
    }
}

impl Weights for AnyRows<'_> {
    #[inline(always)]
    fn pack<const L: usize, V: Vector<L>>(
        &self,
        token: V::Token,
        range: Range<usize>,
        col: usize,
        panel: &mut Panel<L, 1>,
    ) {
        match self {
            AnyRows::F32(_) => (), // is a `Product`
            AnyRows::F16(w) => w.pack::<L, V>(token, range, col, panel),
            AnyRows::Bf16(w) => w.pack::<L, V>(token, range, col, panel),
            AnyRows::I8(w) => w.pack::<L, V>(token, range, col, panel),
        }
    }
}

/// `out = (x · w) · scales + bias`, with a scale for each column, or none. All shapes agree.
pub(crate) struct ProjectElements<'a, W> {
    pub(crate) x: MatrixRef<'a>,
    pub(crate) w: W,
    pub(crate) scales: &'a [f32],
    pub(crate) bias: Option<MatrixRef<'a>>,
    pub(crate) out: MatrixMut<'a>,
}

impl<W: Weights> Kernel for ProjectElements<'_, W> {
    type Output = ();

    const NAME: Name = Name::ProjectElements;

    #[inline(always)]
    fn fits_8_lanes(&self) -> bool {
        self.out.cols() <= 8
    }

    #[inline(always)]
    fn run<const L: usize, const G: usize, const R: usize, const C: usize, V: Vector<L>>(
        mut self,
        token: V::Token,
    ) {
        // One vector of columns at a time: the tiles of two vectors would double the code, and widening is most of the
        // work for a few tokens.
        let cols = if self.out.is_empty() { 0 } else { self.out.cols() };
        let mut panel = Panel::new();
        for col in (0..cols).step_by(L) {
            if const { L > 1 } {
                self.columns::<L, ONE_VECTOR_ROWS, V>(token, col, &mut panel);
            } else {
                self.columns::<L, R, V>(token, col, &mut panel);
            }
        }
    }
}

impl<W: Weights> ProjectElements<'_, W> {
    /// Computes a vector of columns from `col` on.
    #[inline(always)]
    fn columns<const L: usize, const R: usize, V: Vector<L>>(
        &mut self,
        token: V::Token,
        col: usize,
        panel: &mut Panel<L, 1>,
    ) {
        let depth = self.x.cols();
        let mut product = Product {
            left: self.x,
            right: MatrixRef::EMPTY, // is in the panel
            left_scale: 1.0,
            right_scale: 1.0,
            blocked: false,
            bias: None,
            out: self.out.view_mut(),
        };
        let mut begin = 0;
        loop {
            let end = depth.min(begin + PANEL);
            self.w.pack::<L, V>(token, begin..end, col, panel);
            let columns = Source::dense(panel.as_flattened().as_flattened(), L);
            product.tiles::<L, R, 1, V>(token, col, begin..end, columns);
            begin = end;
            if begin == depth {
                break;
            }
        }
        if self.scales.is_empty() && self.bias.is_none() {
            return;
        }
        let scales = MatrixRef::from_row(self.scales);
        let [scales] = strip::read(token, scales, 0, col);
        for row in 0..self.out.rows() {
            let [mut sum]: [V; 1] = strip::read(token, self.out.view(), row, col);
            if !self.scales.is_empty() {
                sum = sum * scales;
            }
            if let Some(bias) = self.bias {
                let [bias] = strip::read(token, bias, row, col);
                sum = sum + bias;
            }
            strip::write(&mut self.out, row, col, [[sum]]);
        }
    }
}

/// See [`Weights::pack`].
#[inline(always)]
fn pack<const L: usize, V: Vector<L>, E: Load>(
    token: V::Token,
    w: MatrixRef<'_, E>,
    range: Range<usize>,
    col: usize,
    panel: &mut Panel<L, 1>,
) {
    // Cannot fail: `range` is at most PANEL long.
    let _ = panel.resize(range.len(), [[0.0; L]]);
    if w.row_stride() == 1 && L > 1 {
        // Columns are contiguous: transpose `L` × `L` squares.
        for (rows, k) in panel.chunks_mut(L).zip(range.step_by(L)) {
            let square = V::transpose(strip::read_rows(token, w.t(), col, k));
            store_square::<L, 1, V>(square, V::splat(token, 1.0), rows, 0);
        }
    } else {
        for ([to], k) in panel.iter_mut().zip(range) {
            let [vector]: [V; 1] = strip::read(token, w, k, col);
            vector.store(to);
        }
    }
}
