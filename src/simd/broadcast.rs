//! Broadcast operands: the elements of `R` rows that a tile broadcasts, column by column.

use core::marker::PhantomData;

use super::{Load, array};
use crate::matrix::MatrixRef;

/// An iterator over columns of `R` elements.
///
/// # Safety
///
/// [`next_column`](Self::next_column) can be called [`remaining`](Self::remaining) times.
pub(crate) unsafe trait BroadcastColumns<const R: usize> {
    /// The number of remaining columns.
    fn remaining(&self) -> usize;

    /// The next column.
    ///
    /// # Safety
    ///
    /// [`remaining`](Self::remaining) is not 0.
    unsafe fn next_column(&mut self) -> [f32; R];

    /// Whether each row is contiguous.
    #[inline(always)]
    fn is_dense(&self) -> bool {
        false
    }

    /// The next four columns, if four are left and each row is contiguous.
    #[inline(always)]
    fn next_four(&mut self) -> Option<[[f32; R]; 4]> {
        None
    }
}

/// `R` rows of a matrix with any strides, column by column.
#[derive(Clone, Copy)]
pub(crate) struct BroadcastRows<'a, const R: usize> {
    rows: [*const f32; R],
    /// The distance in floats from the first column. One offset for all rows becomes part of the load
    /// addresses; `R` moving pointers would take an addition each.
    offset: usize,
    /// The distance in floats from one column to the next.
    step: usize,
    remaining: usize,
    borrow: PhantomData<&'a [f32]>,
}

impl<'a, const R: usize> BroadcastRows<'a, R> {
    /// Rows `row .. row + R` from column `col` on. Rows out of range repeat the last row of `view`.
    #[inline(always)]
    pub(crate) fn new(view: MatrixRef<'a>, row: usize, col: usize) -> Self {
        // Without rows `last` wraps, and `remaining` is 0.
        let last = view.rows().wrapping_sub(1);
        Self {
            rows: array!(|i| view.at((row + i).min(last), col)),
            offset: 0,
            step: view.col_stride(),
            remaining: if view.rows() == 0 { 0 } else { view.cols().saturating_sub(col) },
            borrow: PhantomData,
        }
    }

    /// The next `N` columns, if `N` are left. They stay in the iterator.
    #[inline(always)]
    pub(crate) fn columns<const N: usize>(&self) -> Option<[[f32; R]; N]> {
        // SAFETY: the offset is that of one of the `remaining` columns of the row.
        let element = |i: usize, offset| unsafe { *self.rows[i].wrapping_add(offset) };
        (self.remaining >= N).then(|| {
            array!(|k| {
                let offset = self.offset.wrapping_add(self.step.wrapping_mul(k));
                array!(|i| element(i, offset))
            })
        })
    }
}

// SAFETY: `remaining` counts the columns.
unsafe impl<const R: usize> BroadcastColumns<R> for BroadcastRows<'_, R> {
    #[inline(always)]
    fn remaining(&self) -> usize {
        self.remaining
    }

    #[inline(always)]
    unsafe fn next_column(&mut self) -> [f32; R] {
        self.remaining -= 1;
        // SAFETY: the offset is that of a column of the row: one was left.
        let column = array!(|i| unsafe { *self.rows[i].wrapping_add(self.offset) });
        self.offset = self.offset.wrapping_add(self.step);
        column
    }

    #[inline(always)]
    fn is_dense(&self) -> bool {
        self.step == 1
    }

    #[inline(always)]
    fn next_four(&mut self) -> Option<[[f32; R]; 4]> {
        if self.remaining < 4 || self.step != 1 {
            return None;
        }
        // SAFETY: four columns are left, and the row is contiguous.
        let element =
            |i: usize, k| unsafe { *self.rows[i].wrapping_add(self.offset).wrapping_add(k) };
        let four = array!(|k| array!(|i| element(i, k)));
        self.remaining -= 4;
        self.rows = array!(|i| self.rows[i].wrapping_add(4));
        Some(four)
    }
}

impl<const R: usize> Iterator for BroadcastRows<'_, R> {
    type Item = [f32; R];

    #[inline(always)]
    fn next(&mut self) -> Option<[f32; R]> {
        // SAFETY: one is left.
        (self.remaining > 0).then(|| unsafe { self.next_column() })
    }
}

/// [`BroadcastRows`] of a matrix whose row stride is 1: one pointer for all rows.
#[derive(Clone, Copy)]
pub(crate) struct AdjacentRows<'a, const R: usize> {
    at: *const [f32; R],
    /// The distance in floats from one column to the next.
    step: usize,
    remaining: usize,
    borrow: PhantomData<&'a [f32]>,
}

impl<'a, const R: usize> AdjacentRows<'a, R> {
    /// Rows `row .. row + R`, if all exist and the row stride is 1.
    #[inline(always)]
    pub(crate) fn new(view: MatrixRef<'a>, row: usize) -> Option<Self> {
        let exist = row.checked_add(R).is_some_and(|end| end <= view.rows());
        (exist && view.row_stride() == 1).then(|| Self {
            at: view.at(row, 0).cast(),
            step: view.col_stride(),
            remaining: view.cols(),
            borrow: PhantomData,
        })
    }
}

// SAFETY: `remaining` counts the columns.
unsafe impl<const R: usize> BroadcastColumns<R> for AdjacentRows<'_, R> {
    #[inline(always)]
    fn remaining(&self) -> usize {
        self.remaining
    }

    #[inline(always)]
    unsafe fn next_column(&mut self) -> [f32; R] {
        self.remaining -= 1;
        // SAFETY: one column is left, of `R` contiguous floats.
        let column = unsafe { *self.at };
        self.at = self.at.cast::<f32>().wrapping_add(self.step).cast();
        column
    }
}

/// The rows of a matrix in groups of four, each folded along its columns: the micro-kernel of one lane.
pub(crate) struct RowQuads<'a, E> {
    at: *const E,
    row_stride: usize,
    /// The distance in elements from one column to the next.
    step: usize,
    /// The number of remaining rows.
    remaining: usize,
    columns: usize,
    borrow: PhantomData<&'a [E]>,
}

impl<'a, E: Load> RowQuads<'a, E> {
    #[inline(always)]
    pub(crate) fn new(view: MatrixRef<'a, E>) -> Self {
        Self {
            at: view.at(0, 0),
            row_stride: view.row_stride(),
            step: view.col_stride(),
            remaining: view.rows(),
            columns: view.cols(),
            borrow: PhantomData,
        }
    }

    /// Folds `f` over the columns of the next four rows, each with the matching row of `right`. Returns
    /// `None` without four rows or without columns.
    ///
    /// A row stride of 1 takes one pointer, any other four; when compiled for size (`small`, see `build.rs`)
    /// one loop serves all. The loops run at least once, so that the initial sums are materialised once.
    #[inline(always)]
    pub(crate) fn fold<const C: usize, S>(
        &mut self,
        right: &[[f32; C]],
        mut sums: S,
        f: impl Fn(S, [f32; 4], [f32; C]) -> S,
    ) -> Option<S> {
        let Self { at, row_stride, step, .. } = *self;
        let mut columns = self.columns.min(right.len());
        if columns == 0 {
            return None;
        }
        self.remaining = self.remaining.checked_sub(4)?;
        self.at = at.wrapping_add(4 * row_stride);
        let mut right_row = right.as_ptr();
        // Elements of fewer than four bytes are read by words, if they are aligned.
        let is_narrow = const { size_of::<E>() < size_of::<u32>() };
        if is_narrow
            && row_stride == 1
            && (at.addr() | step.wrapping_mul(size_of::<E>())).is_multiple_of(size_of::<u32>())
        {
            let mut at = at;
            loop {
                // SAFETY: `columns` columns are left, of four contiguous rows, each at a multiple of four bytes, and
                // as many rows of `right`.
                sums = unsafe { f(sums, E::widen_words(at), *right_row) };
                at = at.wrapping_add(step);
                right_row = right_row.wrapping_add(1);
                columns -= 1;
                if columns == 0 {
                    return Some(sums);
                }
            }
        }
        if !cfg!(small) && !is_narrow && row_stride == 1 {
            let mut at = at;
            loop {
                // SAFETY: `columns` columns are left, of four contiguous rows, and as many rows of `right`.
                sums = unsafe { f(sums, E::widen_four(*at.cast()), *right_row) };
                at = at.wrapping_add(step);
                right_row = right_row.wrapping_add(1);
                columns -= 1;
                if columns == 0 {
                    return Some(sums);
                }
            }
        }
        let mut rows: [*const E; 4] = array!(|i| {
            let row = at.wrapping_add(i * row_stride);
            // `black_box` hides the stride from the compiler on hosts: with one pointer and multiples of the stride, the
            // loop over single floats has an instruction more.
            if cfg!(microcontroller) { row } else { core::hint::black_box(row) }
        });
        // A constant step becomes part of the load addresses. On a microcontroller the loop over single
        // floats is too short to gain by that.
        let is_short = const { C == 1 && cfg!(microcontroller) };
        if cfg!(small) || is_narrow || (step == 1 && !is_short) {
            let step = if cfg!(small) || is_narrow { step } else { 1 };
            loop {
                // SAFETY: `columns` columns are left, and as many rows of `right`.
                sums = unsafe { f(sums, array!(|i| (*rows[i]).widen()), *right_row) };
                rows = array!(|i| rows[i].wrapping_add(step));
                right_row = right_row.wrapping_add(1);
                columns -= 1;
                if columns == 0 {
                    return Some(sums);
                }
            }
        }
        // Rare: a loop with two exits, which the compiler does not unroll.
        for right_row in right {
            // SAFETY: `columns` columns are left.
            sums = f(sums, array!(|i| unsafe { *rows[i] }.widen()), *right_row);
            rows = array!(|i| rows[i].wrapping_add(step));
            columns -= 1;
            if columns == 0 {
                break;
            }
        }
        Some(sums)
    }
}
