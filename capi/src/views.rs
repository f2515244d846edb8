//! The matrix structures of the header, and their conversion to views of the crate.

use core::{hint, mem::ManuallyDrop, ptr};

use sdpa::{HeadsMut, HeadsRef, MatrixMut, MatrixRef};

use crate::{
    region::{Region, Span, Strided},
    status::{Checked, Failure, SDPA_ERROR_ALIAS, SDPA_ERROR_STRIDE},
};

/// A matrix that is read. Element (r, c) is data[r * row_stride + c * col_stride]; strides count
/// floats. Both strides 0 means contiguous rows (row_stride = cols, col_stride = 1). If only
/// row_stride is 0, one row is repeated (broadcast). If only col_stride is 0 and there are several
/// columns, a bias repeats one column, and any other matrix is SDPA_ERROR_STRIDE. Memory between
/// the elements is not touched. data may be NULL if rows or cols is 0.
#[repr(C)]
#[derive(Clone, Copy)]
#[expect(missing_docs, reason = "the text of the header explains them")]
pub struct sdpa_matrix {
    pub data: *const f32,
    pub rows: usize,
    pub cols: usize,
    pub row_stride: usize,
    pub col_stride: usize,
}

/// A matrix that is written: as sdpa_matrix, but no two elements may have the same address.
#[repr(C)]
#[derive(Clone, Copy)]
#[expect(missing_docs, reason = "the text of the header explains them")]
pub struct sdpa_matrix_mut {
    pub data: *mut f32,
    pub rows: usize,
    pub cols: usize,
    pub row_stride: usize,
    pub col_stride: usize,
}

/// Heads that are read: matrices of one shape. Element (h, r, c) is data[h * head_stride + r *
/// row_stride + c * col_stride]. All three strides 0 means contiguous [heads][rows][cols]; for
/// contiguous [rows][heads][cols] set them to cols, heads * cols, 1. If another stride is not 0, a
/// head_stride or row_stride of 0 repeats one head or row (broadcast), and a col_stride of 0 is
/// SDPA_ERROR_STRIDE if there are several columns.
#[repr(C)]
#[derive(Clone, Copy)]
#[expect(missing_docs, reason = "the text of the header explains them")]
pub struct sdpa_heads {
    pub data: *const f32,
    pub heads: usize,
    pub rows: usize,
    pub cols: usize,
    pub head_stride: usize,
    pub row_stride: usize,
    pub col_stride: usize,
}

/// Heads that are written: as sdpa_heads, but the strides must nest: in some order of the three
/// axes, each stride is at least the number of floats that the axes before it span.
#[repr(C)]
#[derive(Clone, Copy)]
#[expect(missing_docs, reason = "the text of the header explains them")]
pub struct sdpa_heads_mut {
    pub data: *mut f32,
    pub heads: usize,
    pub rows: usize,
    pub cols: usize,
    pub head_stride: usize,
    pub row_stride: usize,
    pub col_stride: usize,
}

/// Returns the strides of a matrix with `cols` columns: those of contiguous rows if both are 0.
#[inline]
pub(crate) const fn strides(cols: usize, row_stride: usize, col_stride: usize) -> [usize; 2] {
    if row_stride == 0 && col_stride == 0 { [cols, 1] } else { [row_stride, col_stride] }
}

/// Implements what `sdpa_matrix` and `sdpa_matrix_mut` share.
macro_rules! matrix {
    ($matrix:ident, $heads:ident, $view:ident) => {
        impl Strided for $matrix {
            type Element = f32;

            #[inline]
            fn first(&self) -> *const f32 {
                self.data
            }

            #[inline]
            fn counts(&self) -> [usize; 3] {
                [1, self.rows, self.cols]
            }

            #[inline]
            fn strides(&self) -> [usize; 3] {
                let [row, col] = strides(self.cols, self.row_stride, self.col_stride);
                [0, row, col]
            }
        }

        impl $matrix {
            /// Returns the [plain](Span::plain) span and the view of a matrix whose rows are contiguous and follow one
            /// another. The span ends where a further row would begin.
            ///
            /// # Safety
            ///
            /// As [`view`](Self::view), unless the view is dropped unused.
            #[inline(always)]
            pub(crate) unsafe fn plain<'a>(&self) -> Option<(Span, $view<'a>)> {
                let Self { data, rows, cols, row_stride, col_stride } = *self;
                let row = match (row_stride, col_stride) {
                    (0, 0) => cols,
                    (row, 1) if (1..=row).contains(&cols) => row,
                    _ => return None,
                };
                let span = Span::plain(data, rows, row)?;
                // SAFETY: a plain span has floats; as the caller promises; the rows do not overlap.
                let view = unsafe {
                    hint::assert_unchecked(rows > 0 && cols > 0);
                    $view::from_checked_parts(data, rows, cols, row, 1)
                };
                Some((span, view))
            }

            /// Returns the rows and columns.
            pub(crate) fn shape(&self) -> [usize; 2] {
                [self.rows, self.cols]
            }
        }

        impl From<$matrix> for $heads {
            #[inline]
            fn from(matrix: $matrix) -> Self {
                let $matrix { data, rows, cols, row_stride, col_stride } = matrix;
                Self { data, heads: 1, rows, cols, head_stride: 0, row_stride, col_stride }
            }
        }
    };
}

matrix!(sdpa_matrix, sdpa_heads, MatrixRef);
matrix!(sdpa_matrix_mut, sdpa_heads_mut, MatrixMut);

/// Implements what `sdpa_heads` and `sdpa_heads_mut` share.
macro_rules! heads {
    ($heads:ident) => {
        impl Strided for $heads {
            type Element = f32;

            #[inline]
            fn first(&self) -> *const f32 {
                self.data
            }

            #[inline]
            fn counts(&self) -> [usize; 3] {
                [self.heads, self.rows, self.cols]
            }

            #[inline]
            fn strides(&self) -> [usize; 3] {
                match [self.head_stride, self.row_stride, self.col_stride] {
                    // If the product saturates, the rows alone exceed the address space, and
                    // `Strided::region` fails.
                    [0, 0, 0] => [self.rows.saturating_mul(self.cols), self.cols, 1],
                    strides => strides,
                }
            }
        }
    };
}

heads!(sdpa_heads);
heads!(sdpa_heads_mut);

// After `operand`, `output` or `region` has returned `Ok` a view is made without another check.

impl sdpa_matrix {
    /// # Safety
    ///
    /// [`operand`](Operand::operand) has returned `Ok`; for `'a` the elements may be read and nobody writes
    /// them.
    #[inline]
    pub(crate) unsafe fn view<'a>(&self) -> MatrixRef<'a> {
        let ([_, rows, cols], [_, row, col]) = (self.counts(), self.strides());
        // SAFETY: as the caller promises.
        unsafe { MatrixRef::from_checked_parts(self.data, rows, cols, row, col) }
    }
}

impl sdpa_matrix_mut {
    /// # Safety
    ///
    /// [`output`](Output::output) has returned `Ok`; for `'a` nobody else uses the elements.
    #[inline]
    pub(crate) unsafe fn view<'a>(&self) -> MatrixMut<'a> {
        let ([_, rows, cols], [_, row, col]) = (self.counts(), self.strides());
        // SAFETY: as the caller promises.
        unsafe { MatrixMut::from_checked_parts(self.data, rows, cols, row, col) }
    }

    /// Whether `self` and `x` have the same elements in the same order.
    #[inline]
    pub(crate) fn is_same_view(&self, x: &sdpa_matrix) -> bool {
        let ([_, row, col], [_, row_of_x, col_of_x]) = (self.strides(), x.strides());
        self.data.cast_const() == x.data
            && self.shape() == x.shape()
            && (row == row_of_x || self.rows < 2)
            && (col == col_of_x || self.cols < 2)
    }
}

impl sdpa_heads_mut {
    /// Whether `self` and `x` have the same elements in the same order.
    #[inline]
    pub(crate) fn is_same_view(&self, x: &sdpa_heads) -> bool {
        let mut strides =
            self.counts().into_iter().zip(self.strides().into_iter().zip(x.strides()));
        self.data.cast_const() == x.data
            && self.counts() == x.counts()
            && strides.all(|(count, (stride, of_x))| stride == of_x || count < 2)
    }
}

/// Returns the views of inputs and an output that are [plain](sdpa_matrix::plain), if the output overlaps no input.
///
/// # Safety
///
/// As [`sdpa_matrix::view`] and [`sdpa_matrix_mut::view`].
#[inline(always)]
pub(crate) unsafe fn plain<'a, const N: usize>(
    inputs: [&sdpa_matrix; N],
    out: &sdpa_matrix_mut,
) -> Option<([MatrixRef<'a>; N], MatrixMut<'a>)> {
    // SAFETY: as the caller promises; dropped unused if it overlaps an input.
    let (out_span, out) = unsafe { out.plain()? };
    let mut views = [MatrixRef::from_row(&[]); N];
    for (view, input) in views.iter_mut().zip(inputs) {
        // SAFETY: as the caller promises.
        let (span, plain) = unsafe { input.plain()? };
        if span.intersects(out_span) {
            return None;
        }
        *view = plain;
    }
    Some((views, out))
}

/// Heads: first the structure of the caller, while it is checked, then the view made of it. They share
/// memory, as a stack frame with both would be too large for small machines.
pub(crate) union Slot<G: Copy, V> {
    raw: G,
    view: ManuallyDrop<V>,
}

pub(crate) type In<'a> = Slot<sdpa_heads, HeadsRef<'a>>;
pub(crate) type Out<'a> = Slot<sdpa_heads_mut, HeadsMut<'a>>;

impl<G: Copy, V> Slot<G, V> {
    #[inline]
    pub(crate) fn new(raw: G) -> Self {
        Self { raw }
    }

    /// # Safety
    ///
    /// The view has not been made.
    #[inline]
    pub(crate) unsafe fn raw(&self) -> &G {
        // SAFETY: as the caller promises.
        unsafe { &self.raw }
    }

    /// Puts the view in the place of the structure.
    #[inline]
    pub(crate) fn set_view(&mut self, view: V) {
        self.view = ManuallyDrop::new(view);
    }

    /// # Safety
    ///
    /// The view has been made.
    #[inline]
    pub(crate) unsafe fn view(&self) -> &V {
        // SAFETY: as the caller promises.
        unsafe { &self.view }
    }

    /// # Safety
    ///
    /// The view has been made.
    #[inline]
    pub(crate) unsafe fn view_mut(&mut self) -> &mut V {
        // SAFETY: as the caller promises.
        unsafe { &mut self.view }
    }
}

impl<'a> In<'a> {
    /// # Safety
    ///
    /// The view has not been made; as [`sdpa_matrix::view`].
    #[inline(never)]
    pub(crate) unsafe fn make_view(&mut self) {
        // SAFETY: as the caller promises.
        let view = unsafe {
            HeadsRef::from_checked_parts(self.raw.data, self.raw.counts(), self.raw.strides())
        };
        self.view = ManuallyDrop::new(view);
    }
}

impl<'a> Out<'a> {
    /// # Safety
    ///
    /// The view has not been made; as [`sdpa_matrix_mut::view`].
    #[inline(never)]
    pub(crate) unsafe fn make_view(&mut self) {
        // SAFETY: as the caller promises.
        let view = unsafe {
            HeadsMut::from_checked_parts(self.raw.data, self.raw.counts(), self.raw.strides())
        };
        self.view = ManuallyDrop::new(view);
    }
}

/// An input that is no mask. If only its column stride is 0, that is an error, not a broadcast.
pub(crate) trait Operand: Strided + Sized {
    /// Checks the pointer and the strides, and returns the region.
    #[inline]
    fn operand(&self) -> Checked<Region<'_>> {
        let region = self.region()?;
        let ([.., cols], [.., col]) = (self.counts(), self.strides());
        if col == 0 && cols > 1 && !region.is_empty() {
            return Err(Failure(SDPA_ERROR_STRIDE));
        }
        Ok(region)
    }
}

impl Operand for sdpa_matrix {}
impl Operand for sdpa_heads {}

/// An output: no two elements have the same address.
pub(crate) trait Output: Strided + Sized {
    /// Checks the pointer and the strides, and returns the region.
    #[inline(always)]
    fn output(&self) -> Checked<Region<'_>> {
        let region = self.region()?;
        let ([heads, rows, cols], [head, row, col]) = (self.counts(), self.strides());
        // Usual layout: heads one after another, rows one after another. No overflow, as the span has none.
        let is_plain = col == 1
            && (row >= cols || rows == 1)
            && (heads == 1 || head >= rows.wrapping_mul(row));
        if !is_plain && !region.is_empty() && self.overlaps_itself() {
            return Err(Failure(SDPA_ERROR_ALIAS));
        }
        Ok(region)
    }

    fn overlaps_itself(&self) -> bool;
}

impl Output for sdpa_matrix_mut {
    #[cold]
    fn overlaps_itself(&self) -> bool {
        let ([_, rows, cols], [_, row, col]) = (self.counts(), self.strides());
        // SAFETY: the view is dropped unused.
        unsafe { MatrixMut::from_raw_parts(self.data, rows, cols, row, col) }.is_err()
    }
}

impl Output for sdpa_heads_mut {
    #[cold]
    fn overlaps_itself(&self) -> bool {
        // SAFETY: the view is dropped unused.
        unsafe { HeadsMut::from_raw_parts(self.data, self.counts(), self.strides()) }.is_err()
    }
}

/// Returns `len` elements from `first` on.
///
/// # Safety
///
/// [`array`](crate::region::array) has returned `Ok` for the same arguments. The elements are in one allocation;
/// for `'a` they may be read and nobody writes them.
#[inline]
pub(crate) unsafe fn slice<'a, T>(first: *const T, len: usize) -> &'a [T] {
    let first = if first.is_null() { ptr::dangling() } else { first };
    // SAFETY: aligned; not NULL, as a NULL pointer has no elements; the rest is as the caller promises.
    unsafe { core::slice::from_raw_parts(first, len) }
}

/// Returns `len` elements from `first` on.
///
/// # Safety
///
/// As [`slice`], and for `'a` nobody else uses the elements.
#[inline]
pub(crate) unsafe fn slice_mut<'a, T>(first: *mut T, len: usize) -> &'a mut [T] {
    let first = if first.is_null() { ptr::dangling_mut() } else { first };
    // SAFETY: aligned; not NULL, as a NULL pointer has no elements; the rest is as the caller promises.
    unsafe { core::slice::from_raw_parts_mut(first, len) }
}
