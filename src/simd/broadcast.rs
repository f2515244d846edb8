//! The elements that a tile broadcasts: some rows of a matrix, column by column.

use core::marker::PhantomData;

use super::array;
use crate::matrix::MatrixRef;

/// A walk along some columns of `R` elements.
///
/// # Safety
///
/// [`next_column`](Self::next_column) can be called as often as [`left`](Self::left) says.
pub(crate) unsafe trait BroadcastColumns<const R: usize> {
    /// How many columns there are still.
    fn left(&self) -> usize;

    /// The next column.
    ///
    /// # Safety
    ///
    /// There is one.
    unsafe fn next_column(&mut self) -> [f32; R];

    /// Whether each row lies side by side.
    #[inline(always)]
    fn is_dense(&self) -> bool {
        false
    }

    /// The next four, where they are there and each row of them lies side by side.
    #[inline(always)]
    fn four(&mut self) -> Option<[[f32; R]; 4]> {
        None
    }
}

/// `R` rows of a matrix side by side, walked column by column: what the tile
/// broadcasts.
#[derive(Clone, Copy)]
pub(crate) struct BroadcastRows<'a, const R: usize> {
    rows: [*const f32; R],
    /// How far the column is from the first, in floats: what all rows share goes into the
    /// addresses of loads, where pointers that move are an addition each.
    offset: usize,
    /// How many floats from one column to the next.
    step: usize,
    left: usize,
    borrow: PhantomData<&'a [f32]>,
}

impl<'a, const R: usize> BroadcastRows<'a, R> {
    /// Rows `row .. row + R` from column `col` on; the last row stands for
    /// those behind it.
    #[inline(always)]
    pub(crate) fn new(view: MatrixRef<'a>, row: usize, col: usize) -> Self {
        // Without rows `last` is anything: nothing is left to read.
        let last = view.rows().wrapping_sub(1);
        Self {
            rows: array!(|i| view.at((row + i).min(last), col)),
            offset: 0,
            step: view.col_stride(),
            left: if view.rows() == 0 { 0 } else { view.cols().saturating_sub(col) },
            borrow: PhantomData,
        }
    }

    /// The next `N` columns, if all are there.
    #[inline(always)]
    pub(crate) fn columns<const N: usize>(&self) -> Option<[[f32; R]; N]> {
        // SAFETY: so far from each pointer is in one of the view's rows, `left` columns before
        // its end.
        let tap = |i: usize, offset| unsafe { *self.rows[i].wrapping_add(offset) };
        (self.left >= N).then(|| {
            array!(|k| {
                let offset = self.offset.wrapping_add(self.step.wrapping_mul(k));
                array!(|i| tap(i, offset))
            })
        })
    }
}

// SAFETY: `left` counts the columns.
unsafe impl<const R: usize> BroadcastColumns<R> for BroadcastRows<'_, R> {
    #[inline(always)]
    fn left(&self) -> usize {
        self.left
    }

    #[inline(always)]
    unsafe fn next_column(&mut self) -> [f32; R] {
        self.left -= 1;
        // SAFETY: this far from each pointer is in one of the view's rows, `left` columns
        // before its end.
        let column = array!(|i| unsafe { *self.rows[i].wrapping_add(self.offset) });
        self.offset = self.offset.wrapping_add(self.step);
        column
    }

    #[inline(always)]
    fn is_dense(&self) -> bool {
        self.step == 1
    }

    #[inline(always)]
    fn four(&mut self) -> Option<[[f32; R]; 4]> {
        if self.left < 4 || self.step != 1 {
            return None;
        }
        // SAFETY: so far from each pointer is in one of the view's rows, `left` columns before
        // its end.
        let tap = |i: usize, k| unsafe { *self.rows[i].wrapping_add(self.offset).wrapping_add(k) };
        let four = array!(|k| array!(|i| tap(i, k)));
        self.left -= 4;
        self.rows = array!(|i| self.rows[i].wrapping_add(4));
        Some(four)
    }
}

impl<const R: usize> Iterator for BroadcastRows<'_, R> {
    type Item = [f32; R];

    #[inline(always)]
    fn next(&mut self) -> Option<[f32; R]> {
        // SAFETY: there is one.
        (self.left > 0).then(|| unsafe { self.next_column() })
    }
}

/// As [`BroadcastRows`], of rows that lie side by side: one pointer for all.
#[derive(Clone, Copy)]
pub(crate) struct AdjacentRows<'a, const R: usize> {
    at: *const [f32; R],
    /// How many floats from one column to the next.
    step: usize,
    left: usize,
    borrow: PhantomData<&'a [f32]>,
}

impl<'a, const R: usize> AdjacentRows<'a, R> {
    /// Rows `row .. row + R`, if all are there and lie so.
    #[inline(always)]
    pub(crate) fn new(view: MatrixRef<'a>, row: usize) -> Option<Self> {
        let are_there = row.checked_add(R).is_some_and(|end| end <= view.rows());
        (are_there && view.row_stride() == 1).then(|| Self {
            at: view.at(row, 0).cast(),
            step: view.col_stride(),
            left: view.cols(),
            borrow: PhantomData,
        })
    }
}

// SAFETY: `left` counts the columns.
unsafe impl<const R: usize> BroadcastColumns<R> for AdjacentRows<'_, R> {
    #[inline(always)]
    fn left(&self) -> usize {
        self.left
    }

    #[inline(always)]
    unsafe fn next_column(&mut self) -> [f32; R] {
        self.left -= 1;
        // SAFETY: a column that the view has, of `R` floats side by side.
        let column = unsafe { *self.at };
        self.at = self.at.cast::<f32>().wrapping_add(self.step).cast();
        column
    }
}

/// The rows of a matrix, four by four, to be folded column by column.
pub(crate) struct RowQuads<'a> {
    at: *const f32,
    row_stride: usize,
    /// How many floats from one column to the next.
    step: usize,
    /// How many rows are left.
    left: usize,
    columns: usize,
    borrow: PhantomData<&'a [f32]>,
}

impl<'a> RowQuads<'a> {
    #[inline(always)]
    pub(crate) fn new(view: MatrixRef<'a>) -> Self {
        Self {
            at: view.at(0, 0),
            row_stride: view.row_stride(),
            step: view.col_stride(),
            left: view.rows(),
            columns: view.cols(),
            borrow: PhantomData,
        }
    }

    /// Folds the elements of the next four rows with the row of `right` at their side, if there are
    /// both.
    ///
    /// Rows that lie side by side need one pointer, others four; where size counts (`small`, see
    /// `build.rs`) one loop serves all. The loops turn at least once: the sums that they begin with are laid
    /// down once then.
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
        self.left = self.left.checked_sub(4)?;
        self.at = at.wrapping_add(4 * row_stride);
        let mut beside = right.as_ptr();
        if !cfg!(small) && row_stride == 1 {
            let mut at = at;
            loop {
                // SAFETY: so many columns have four rows side by side, and as many rows lie in `right`.
                sums = unsafe { f(sums, *at.cast(), *beside) };
                at = at.wrapping_add(step);
                beside = beside.wrapping_add(1);
                columns -= 1;
                if columns == 0 {
                    return Some(sums);
                }
            }
        }
        let mut rows: [*const f32; 4] = array!(|i| at.wrapping_add(i * row_stride));
        // A step that is known goes into the loads. On a microcontroller the loop of one float each is too
        // short to win by it.
        let is_short = const { C == 1 && cfg!(microcontroller) };
        if cfg!(small) || (step == 1 && !is_short) {
            let step = if cfg!(small) { step } else { 1 };
            loop {
                // SAFETY: the rows have so many columns, and `right` as many rows.
                sums = unsafe { f(sums, array!(|i| *rows[i]), *beside) };
                rows = array!(|i| rows[i].wrapping_add(step));
                beside = beside.wrapping_add(1);
                columns -= 1;
                if columns == 0 {
                    return Some(sums);
                }
            }
        }
        // Seldom: a loop with two ways out, which is never unrolled.
        for beside in right {
            // SAFETY: as above.
            sums = f(sums, array!(|i| unsafe { *rows[i] }), *beside);
            rows = array!(|i| rows[i].wrapping_add(step));
            columns -= 1;
            if columns == 0 {
                break;
            }
        }
        Some(sums)
    }
}
