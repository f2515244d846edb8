//! The structures of the header, and the views that they become.

use sdpa::{HeadsMut, HeadsRef, MatrixMut, MatrixRef};

use crate::{region::Region, status::Checked};

/// A matrix that is read. Element (r, c) is data[r * row_stride + c * col_stride]: strides
/// count floats. Both strides 0 means dense, row after row (row_stride = cols, col_stride =
/// 1); one stride of 0 shows one row or column again and again. What lies between the
/// elements is not touched. Without elements data may be NULL.
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
/// [rows][heads][cols] they are cols, heads * cols, 1. A stride of 0 beside others repeats.
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
pub(crate) const fn strides(cols: usize, row_stride: usize, col_stride: usize) -> [usize; 2] {
    if row_stride == 0 && col_stride == 0 { [cols, 1] } else { [row_stride, col_stride] }
}

/// What both matrices have.
macro_rules! matrix {
    ($matrix:ident, $view:ident) => {
        impl $matrix {
            fn strides(&self) -> [usize; 2] {
                strides(self.cols, self.row_stride, self.col_stride)
            }

            /// Where it lies.
            pub(crate) fn region(&self) -> Checked<Region> {
                let [row, col] = self.strides();
                let data: *const f32 = self.data;
                Region::new(data, [1, self.rows, self.cols], [0, row, col])
            }

            /// As a view of the crate.
            ///
            /// # Safety
            ///
            /// As `from_raw_parts` of the view.
            pub(crate) unsafe fn view<'a>(&self) -> Checked<$view<'a>> {
                let Self { data, rows, cols, .. } = *self;
                let [row, col] = self.strides();
                // SAFETY: as the caller promises.
                Ok(unsafe { $view::from_raw_parts(data, rows, cols, row, col) }?)
            }
        }
    };
}

matrix!(sdpa_matrix, MatrixRef);
matrix!(sdpa_matrix_mut, MatrixMut);

/// What both kinds of heads have.
macro_rules! heads {
    ($heads:ident, $view:ident) => {
        impl $heads {
            fn sizes(&self) -> [usize; 3] {
                [self.heads, self.rows, self.cols]
            }

            fn strides(&self) -> [usize; 3] {
                match [self.head_stride, self.row_stride, self.col_stride] {
                    // Where the product is too large the rows are already.
                    [0, 0, 0] => [self.rows.saturating_mul(self.cols), self.cols, 1],
                    strides => strides,
                }
            }

            /// Where they lie.
            pub(crate) fn region(&self) -> Checked<Region> {
                let data: *const f32 = self.data;
                Region::new(data, self.sizes(), self.strides())
            }

            /// As a view of the crate.
            ///
            /// # Safety
            ///
            /// As `from_raw_parts` of the view.
            pub(crate) unsafe fn view<'a>(&self) -> Checked<$view<'a>> {
                // SAFETY: as the caller promises.
                Ok(unsafe { $view::from_raw_parts(self.data, self.sizes(), self.strides()) }?)
            }
        }
    };
}

heads!(sdpa_heads, HeadsRef);
heads!(sdpa_heads_mut, HeadsMut);

/// `len` floats from `first` on, which may be NULL where there are none.
///
/// # Safety
///
/// They lie in one allocation, and for `'a` may be read and are written by nobody.
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
pub(crate) unsafe fn slice_mut<'a>(first: *mut f32, len: usize) -> &'a mut [f32] {
    if len == 0 || first.is_null() {
        return &mut [];
    }
    // SAFETY: not NULL; the rest is as the caller promises.
    unsafe { core::slice::from_raw_parts_mut(first, len) }
}
