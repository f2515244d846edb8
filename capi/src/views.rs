//! The structures of the header, and the views that they become.

use core::mem::ManuallyDrop;

use sdpa::{HeadsMut, HeadsRef, MatrixMut, MatrixRef};

use crate::{
    region::{Place, Strided},
    status::{Checked, Failure, SDPA_ERROR_ALIAS, SDPA_ERROR_STRIDE},
};

/// A matrix that is read. Element (r, c) is data[r * row_stride + c * col_stride]: strides
/// count floats. Both strides 0 means dense, row after row (row_stride = cols, col_stride =
/// 1). A row_stride of 0 beside a col_stride repeats one row. A col_stride of 0 beside a row_stride
/// repeats one column in a bias; elsewhere it is SDPA_ERROR_STRIDE, where there are several columns.
/// What lies between the elements is not touched. Without elements data may be NULL.
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

/// A matrix that is written: as sdpa_matrix, but no two elements may lie at one place.
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

/// Matrices of one shape that are read. Element (h, r, c) is data[h * head_stride + r *
/// row_stride + c * col_stride]. All three strides 0 means dense, [heads][rows][cols]; for
/// [rows][heads][cols] they are cols, heads * cols, 1. A head_stride or row_stride of 0 beside
/// others repeats one head or row; a col_stride of 0 is SDPA_ERROR_STRIDE, where there are several
/// columns.
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

/// Matrices that are written: as sdpa_heads, but the strides must nest: in some order of the
/// three, each reaches over all that the ones before it span.
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

/// The strides of a matrix of `cols` columns: dense where both are 0.
#[inline]
pub(crate) const fn strides(cols: usize, row_stride: usize, col_stride: usize) -> [usize; 2] {
    if row_stride == 0 && col_stride == 0 { [cols, 1] } else { [row_stride, col_stride] }
}

/// What both matrices have.
macro_rules! matrix {
    ($matrix:ident, $heads:ident) => {
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
            /// Rows and columns.
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

matrix!(sdpa_matrix, sdpa_heads);
matrix!(sdpa_matrix_mut, sdpa_heads_mut);

/// What both kinds of heads have.
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
                    // Where the product is too large the rows are already.
                    [0, 0, 0] => [self.rows.saturating_mul(self.cols), self.cols, 1],
                    strides => strides,
                }
            }
        }
    };
}

heads!(sdpa_heads);
heads!(sdpa_heads_mut);

// The views: what `operand` and `output` have seen makes no error, and otherwise there is no element.

impl sdpa_matrix {
    /// # Safety
    ///
    /// It has been checked as an [`operand`](Operand::operand), and its elements may be read for `'a` and are
    /// written by nobody.
    #[inline]
    pub(crate) unsafe fn view<'a>(&self) -> MatrixRef<'a> {
        let ([_, rows, cols], [_, row, col]) = (self.counts(), self.strides());
        // SAFETY: as the caller promises.
        let view = unsafe { MatrixRef::from_raw_parts(self.data, rows, cols, row, col) };
        view.unwrap_or_else(|_| MatrixRef::from_row(&[]))
    }
}

impl sdpa_matrix_mut {
    /// # Safety
    ///
    /// It has been checked as an [`output`](Output::output), and its elements are used by nobody else for `'a`.
    #[inline]
    pub(crate) unsafe fn view<'a>(&self) -> MatrixMut<'a> {
        let ([_, rows, cols], [_, row, col]) = (self.counts(), self.strides());
        // SAFETY: as the caller promises.
        let view = unsafe { MatrixMut::from_raw_parts(self.data, rows, cols, row, col) };
        view.unwrap_or_else(|_| MatrixMut::from_row(&mut []))
    }

    /// Whether it is `x` itself: the same elements in the same order.
    #[inline]
    pub(crate) fn is(&self, x: &sdpa_matrix) -> bool {
        let ([_, row, col], [_, row_of_x, col_of_x]) = (self.strides(), x.strides());
        self.data.cast_const() == x.data
            && self.shape() == x.shape()
            && (row == row_of_x || self.rows < 2)
            && (col == col_of_x || self.cols < 2)
    }
}

/// Heads in one place: as they are given, while they are checked, then as the crate has them. A frame that
/// held both would be too large for small machines.
pub(crate) union Slot<G: Copy, V> {
    given: G,
    view: ManuallyDrop<V>,
}

pub(crate) type In<'a> = Slot<sdpa_heads, HeadsRef<'a>>;
pub(crate) type Out<'a> = Slot<sdpa_heads_mut, HeadsMut<'a>>;

impl<G: Copy, V> Slot<G, V> {
    #[inline]
    pub(crate) fn new(given: G) -> Self {
        Self { given }
    }

    /// # Safety
    ///
    /// Nobody has made the view.
    #[inline]
    pub(crate) unsafe fn given(&self) -> &G {
        // SAFETY: as the caller promises.
        unsafe { &self.given }
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
    /// Of heads that are given, as `sdpa_matrix::view`.
    #[inline(never)]
    pub(crate) unsafe fn make_view(&mut self) {
        // SAFETY: as the caller promises.
        let view = unsafe {
            HeadsRef::from_raw_parts(self.given.data, self.given.counts(), self.given.strides())
        };
        self.view = ManuallyDrop::new(view.unwrap_or_else(|_| MatrixRef::from_row(&[]).into()));
    }
}

impl<'a> Out<'a> {
    /// # Safety
    ///
    /// Of heads that are given, as `sdpa_matrix_mut::view`.
    #[inline(never)]
    pub(crate) unsafe fn make_view(&mut self) {
        // SAFETY: as the caller promises.
        let view = unsafe {
            HeadsMut::from_raw_parts(self.given.data, self.given.counts(), self.given.strides())
        };
        self.view = ManuallyDrop::new(view.unwrap_or_else(|_| MatrixMut::from_row(&mut []).into()));
    }
}

/// What is computed with, unlike a mask: a column stride of 0 beside others is a mistake there, and no broadcast.
pub(crate) trait Operand: Strided + Sized {
    /// Where it lies.
    #[inline]
    fn operand(&self) -> Checked<Place<'_>> {
        let place = self.place()?;
        let ([.., cols], [.., col]) = (self.counts(), self.strides());
        if col == 0 && cols > 1 && !place.is_empty() {
            return Err(Failure(SDPA_ERROR_STRIDE));
        }
        Ok(place)
    }
}

impl Operand for sdpa_matrix {}
impl Operand for sdpa_heads {}

/// What is written: no two elements lie at one place.
pub(crate) trait Output: Strided + Sized {
    /// Where it lies.
    #[inline]
    fn output(&self) -> Checked<Place<'_>> {
        let place = self.place()?;
        let ([heads, rows, cols], [head, row, col]) = (self.counts(), self.strides());
        // Rows behind rows, and heads behind heads: nothing overflows, as the span does not.
        let is_plain = col == 1
            && (row >= cols || rows == 1)
            && (heads == 1 || head >= rows.wrapping_mul(row));
        if !is_plain && !place.is_empty() && self.overlaps_itself() {
            return Err(Failure(SDPA_ERROR_ALIAS));
        }
        Ok(place)
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

/// `len` floats from `first` on, which may be NULL where there are none.
///
/// # Safety
///
/// They lie in one allocation, and for `'a` may be read and are written by nobody.
#[inline]
pub(crate) unsafe fn slice<'a>(first: *const f32, len: usize) -> &'a [f32] {
    if len == 0 || first.is_null() {
        return &[];
    }
    // SAFETY: not NULL; the rest is as the caller promises.
    unsafe { core::slice::from_raw_parts(first, len) }
}

/// `len` floats from `first` on, which may be NULL where there are none.
///
/// # Safety
///
/// They lie in one allocation, and for `'a` may be read and written and are used by nobody else.
#[inline]
pub(crate) unsafe fn slice_mut<'a>(first: *mut f32, len: usize) -> &'a mut [f32] {
    if len == 0 || first.is_null() {
        return &mut [];
    }
    // SAFETY: not NULL; the rest is as the caller promises.
    unsafe { core::slice::from_raw_parts_mut(first, len) }
}
