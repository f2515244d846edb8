//! A row of single floats: the loads and stores of the one-lane kernels.
//!
//! Loops over single floats are unrolled by four, so that a Cortex-M55 runs them in its vectors. When compiled
//! for size (`small`, see `build.rs`) the compiler does not unroll a group but keeps it in memory, and the tail
//! needs a second loop. There a loop reads one float per iteration, in less code and less time.

use core::marker::PhantomData;

use super::{
    array, each,
    scalar::{F32x1, mul_add},
};
use crate::matrix::{MatrixMut, MatrixRef};

/// An input row and an output row of `len` floats, which may be the same row.
///
/// `DENSE` in the functions below means that both are contiguous.
#[derive(Clone, Copy)]
pub(crate) struct ScalarRow<'a> {
    pub(super) from: *const f32,
    pub(super) from_step: usize,
    pub(super) to: *mut f32,
    pub(super) to_step: usize,
    pub(super) len: usize,
    pub(super) borrow: PhantomData<&'a mut [f32]>,
}

/// Floats per unrolled group. With 1 there is no tail.
pub(crate) const GROUP: usize = if cfg!(small) { 1 } else { 4 };

/// Groups per iteration.
const GROUPS: usize = if cfg!(small) { 1 } else { 2 };

/// Floats per round: four groups of four.
const ROUND: usize = 16;

impl<'a> ScalarRow<'a> {
    /// From one slice to another of the same length, or in place if `from` is `None`.
    #[inline(always)]
    pub(crate) fn new(from: Option<&'a [f32]>, to: &'a mut [f32]) -> Self {
        let len = from.map_or(to.len(), |from| from.len().min(to.len()));
        let to = to.as_mut_ptr();
        let from = from.map_or(to.cast_const(), <[f32]>::as_ptr);
        Self { from, from_step: 1, to, to_step: 1, len, borrow: PhantomData }
    }

    /// Each column of a row-major matrix with rows of `width` floats, in place. No columns if there is no
    /// row.
    #[inline(always)]
    pub(crate) fn columns(of: &'a mut [f32], width: usize) -> impl Iterator<Item = Self> {
        let len = of.len().checked_div(width).unwrap_or(0);
        let first = of.as_mut_ptr();
        (0..if len == 0 { 0 } else { width }).map(
            #[inline(always)]
            move |col| {
                let to = first.wrapping_add(col);
                Self { from: to, from_step: width, to, to_step: width, len, borrow: PhantomData }
            },
        )
    }

    /// Row `row` of `from` into column `col` of rows of `width` floats, up to the shorter of both.
    #[inline(always)]
    pub(crate) fn into_column(
        from: MatrixRef<'a>,
        row: usize,
        to: &'a mut [f32],
        col: usize,
        width: usize,
    ) -> Self {
        let rows = to.len().checked_div(width).unwrap_or(0);
        let exist = row < from.rows() && col < width;
        Self {
            from: from.at(row, 0),
            from_step: from.col_stride(),
            to: to.as_mut_ptr().wrapping_add(col),
            to_step: width,
            len: if exist { from.cols().min(rows) } else { 0 },
            borrow: PhantomData,
        }
    }

    /// Column `col` of rows of `width` floats into row `row` of `to`, up to the shorter of both.
    #[inline(always)]
    pub(crate) fn from_column(
        from: &'a [f32],
        col: usize,
        width: usize,
        to: &'a mut MatrixMut<'_>,
        row: usize,
    ) -> Self {
        let rows = from.len().checked_div(width).unwrap_or(0);
        let exist = row < to.rows() && col < width;
        Self {
            from: from.as_ptr().wrapping_add(col),
            from_step: width,
            to: to.at(row, 0),
            to_step: to.col_stride(),
            len: if exist { to.cols().min(rows) } else { 0 },
            borrow: PhantomData,
        }
    }

    /// A row of one float, `x`, in place, with the steps of this row: one loop can then process both rows.
    #[inline(always)]
    pub(crate) fn with_single(self, [x]: &'a mut [f32; 1]) -> Self {
        let to: *mut f32 = x;
        Self { from: to, to, len: 1, ..self }
    }

    /// Whether input and output are contiguous.
    #[inline(always)]
    pub(crate) fn is_dense(&self) -> bool {
        self.from_step == 1 && self.to_step == 1
    }

    /// Makes the output the input, so that later passes run in place.
    #[inline(always)]
    pub(crate) fn read_from_output(&mut self) {
        (self.from, self.from_step) = (self.to, self.to_step);
    }

    /// The distances in floats between neighbours, in the input and in the output.
    #[inline(always)]
    fn steps<const DENSE: bool>(&self) -> (usize, usize) {
        if DENSE { (1, 1) } else { (self.from_step, self.to_step) }
    }

    /// This row with the constant steps `FROM` and `TO`, if these are its steps and its length is a multiple
    /// of 4. The compiler then needs no address arithmetic and no tail. `None` when compiled for size, where
    /// all rows use one loop.
    #[inline(always)]
    pub(crate) fn with_steps<const FROM: usize, const TO: usize>(self) -> Option<Self> {
        let agrees = (self.from_step, self.to_step) == (FROM, TO)
            && self.len.is_multiple_of(4)
            && !cfg!(small);
        agrees.then_some(Self { from_step: FROM, to_step: TO, ..self })
    }

    /// Calls `f` with each float and its index in its group of [`GROUP`] floats; in the tail the index is 0.
    #[inline(always)]
    pub(crate) fn for_each<const DENSE: bool>(&self, mut f: impl FnMut(usize, f32)) {
        let (step, _) = self.steps::<DENSE>();
        let mut from = self.from;
        for _ in 0..self.len / GROUP {
            each::<GROUP>(
                #[inline(always)]
                |i| {
                    // SAFETY: the group's `GROUP` floats, `step` apart, may be read.
                    f(i, unsafe { *from.wrapping_add(i * step) });
                },
            );
            from = from.wrapping_add(GROUP * step);
        }
        for _ in 0..self.len % GROUP {
            // SAFETY: at least one float is left.
            f(0, unsafe { *from });
            from = from.wrapping_add(step);
        }
    }

    /// Writes `f` of each float and its index in its group of [`GROUP`] floats; in the tail the index is 0.
    #[inline(always)]
    pub(crate) fn map<const DENSE: bool>(&mut self, f: impl Fn(usize, f32) -> f32) {
        let (step, to_step) = self.steps::<DENSE>();
        let (mut from, mut to) = (self.from, self.to);
        for _ in 0..self.len / (GROUP * GROUPS) {
            for _ in 0..GROUPS {
                // SAFETY: the group's floats may be read, and then written.
                let mut group: [f32; GROUP] = array!(|i| unsafe { *from.wrapping_add(i * step) });
                for i in 0..GROUP {
                    group[i] = f(i, group[i]);
                }
                each::<GROUP>(
                    #[inline(always)]
                    |i| {
                        // SAFETY: the group's floats may be written.
                        unsafe { *to.wrapping_add(i * to_step) = group[i] };
                    },
                );
                from = from.wrapping_add(GROUP * step);
                to = to.wrapping_add(GROUP * to_step);
            }
        }
        for _ in 0..self.len % (GROUP * GROUPS) {
            // SAFETY: at least one float is left.
            unsafe { *to = f(0, *from) };
            (from, to) = (from.wrapping_add(step), to.wrapping_add(to_step));
        }
    }

    /// Replaces each float of the output by `f` of it.
    ///
    /// There is no second pointer that may alias, so that the compiler vectorises this loop over single
    /// floats.
    #[inline(always)]
    pub(crate) fn map_in_place<const DENSE: bool>(&mut self, f: impl Fn(f32) -> f32) {
        let (_, step) = self.steps::<DENSE>();
        let mut to = self.to;
        for _ in 0..self.len / (GROUP * GROUPS) {
            for _ in 0..GROUP * GROUPS {
                // SAFETY: the group's floats have been written.
                unsafe { *to = f(*to) };
                to = to.wrapping_add(step);
            }
        }
        for _ in 0..self.len % (GROUP * GROUPS) {
            // SAFETY: at least one float is left, and has been written.
            unsafe { *to = f(*to) };
            to = to.wrapping_add(step);
        }
    }

    /// Calls `f` with each float.
    #[inline(always)]
    pub(crate) fn visit(&self, mut f: impl FnMut(f32)) {
        let mut from = self.from;
        for _ in 0..self.len {
            // SAFETY: `len` floats may be read.
            f(unsafe { *from });
            from = from.wrapping_add(self.from_step);
        }
    }

    /// Writes `f` of each float, in the least code.
    #[inline(always)]
    pub(crate) fn map_one_by_one<const DENSE: bool>(&mut self, mut f: impl FnMut(f32) -> f32) {
        let (step, to_step) = self.steps::<DENSE>();
        let (mut from, mut to) = (self.from, self.to);
        for _ in 0..self.len {
            // SAFETY: `len` floats may be read, and then written.
            unsafe { *to = f(*from) };
            (from, to) = (from.wrapping_add(step), to.wrapping_add(to_step));
        }
    }

    /// Writes `input · factors[0] + output · factors[1]`, and makes the output the input. Returns the same sum of
    /// `input` and `output`.
    #[inline(always)]
    pub(crate) fn join(&mut self, input: f32, output: f32, [factor, other]: [f32; 2]) -> f32 {
        let join = |a: f32, b: f32| mul_add(a, factor, (F32x1(b) * F32x1(other)).0);
        let mut to = self.to;
        for _ in 0..self.len {
            // SAFETY: `len` floats of the input may be read, and as many of the output read and written.
            unsafe { *to = join(*self.from, *to) };
            (self.from, to) =
                (self.from.wrapping_add(self.from_step), to.wrapping_add(self.to_step));
            // A loop with two exits is not unrolled; compiled for size none is.
            if !cfg!(small) && to.is_null() {
                break;
            }
        }
        self.read_from_output();
        join(input, output)
    }

    /// For each round of 16 floats and each `j` from 0 to 3, calls `quarter` with `j` and the floats at `j`,
    /// `j + 4`, `j + 8` and `j + 12` of the round. Missing floats of the last round are 0.
    #[inline(always)]
    pub(crate) fn rounds<const DENSE: bool>(&self, mut quarter: impl FnMut(usize, [f32; 4])) {
        let (step, _) = self.steps::<DENSE>();
        let (mut from, mut left) = (self.from, self.len);
        if !cfg!(small) {
            for _ in 0..left / ROUND {
                for j in 0..4 {
                    // SAFETY: a whole round may be read.
                    let floats = array!(|k| unsafe { *from.wrapping_add((4 * k + j) * step) });
                    quarter(j, floats);
                }
                from = from.wrapping_add(ROUND.wrapping_mul(step));
            }
            left %= ROUND;
        }
        while left > 0 {
            for j in 0..4 {
                let floats = array!(|k| if 4 * k + j < left {
                    // SAFETY: more than `4 * k + j` floats are left.
                    unsafe { *from.wrapping_add((4 * k + j) * step) }
                } else {
                    0.0
                });
                quarter(j, floats);
            }
            from = from.wrapping_add(ROUND.wrapping_mul(step));
            left = left.saturating_sub(ROUND);
        }
    }
}
