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
        Load, Vector,
        strip::{self, Source},
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

/// Widens as many elements as both slices have.
#[inline(always)]
fn widen_row<const L: usize, V: Vector<L>, E: Load>(token: V::Token, from: &[E], to: &mut [f32]) {
    for (from, to) in from.chunks(L).zip(to.chunks_mut(L)) {
        match (from.first_chunk::<L>(), to.first_chunk_mut::<L>()) {
            (Some(from), Some(to)) => E::load::<L, V>(token, from).store(to),
            _ => E::load_partial::<L, V>(token, from, 0.0).store_partial(to),
        }
    }
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
        // Where the queries are in rows, one vector has the scales of as many keys.
        let is_transposed = to.row_stride() == 1;
        if is_transposed {
            to.transpose();
        }
        for row in 0..to.rows() {
            let scale = V::splat(token, scales.get(row, 0).unwrap_or(0.0));
            for col in (0..to.cols()).step_by(L) {
                let scale = if is_transposed {
                    let [scales] = strip::read(token, scales.t(), 0, col);
                    scales
                } else {
                    scale
                };
                let [x]: [V; 1] = strip::read(token, to.view(), row, col);
                strip::write::<L, 1, 1, V>(&mut to, row, col, [[x * scale]]);
            }
        }
    }
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
