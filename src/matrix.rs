//! Matrices, strided views and their bounds checks.
//!
//! A view is a pointer, a shape and two strides, with the guarantee
//! that each of its elements is inside one borrow. It is not a slice: the views
//! that [`split_columns`](MatrixMut::split_columns) returns are interleaved in
//! memory, and a slice must not cover elements of another view.

#![expect(unsafe_code, reason = "a view is a pointer and a proof of its extent")]

mod heads;

use core::{marker::PhantomData, ops::Range};

pub use heads::{HeadsMut, HeadsRef};

use crate::error::Error;

/// A matrix of `R` rows and `C` columns that owns its elements, in row-major order.
///
/// A convenience for fixed sizes: operations take views, which
/// [`view`](Self::view) and [`view_mut`](Self::view_mut) return.
///
/// ```
/// use sdpa::Matrix;
///
/// let m = Matrix::from([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
/// assert_eq!(m.view().get(1, 0), Some(4.0));
/// assert_eq!(m.view().t().get(0, 1), Some(4.0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(transparent)]
pub struct Matrix<const R: usize, const C: usize>(pub [[f32; C]; R]);

impl<const R: usize, const C: usize> Matrix<R, C> {
    /// A matrix of zeros.
    pub const ZERO: Self = Self([[0.0; C]; R]);

    /// Returns a read-only view of all elements.
    #[inline]
    pub fn view(&self) -> MatrixRef<'_> {
        MatrixRef::from(self)
    }

    /// Returns a mutable view of all elements.
    #[inline]
    pub fn view_mut(&mut self) -> MatrixMut<'_> {
        MatrixMut::from(self)
    }
}

impl<const R: usize, const C: usize> Default for Matrix<R, C> {
    fn default() -> Self {
        Self::ZERO
    }
}

impl<const R: usize, const C: usize> From<[[f32; C]; R]> for Matrix<R, C> {
    fn from(rows: [[f32; C]; R]) -> Self {
        Self(rows)
    }
}

/// The shape and strides of a view: element `(r, c)` is
/// `r * row_stride + c * col_stride` floats after the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
struct Layout {
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl Layout {
    /// A contiguous layout in row-major order.
    const fn dense(rows: usize, cols: usize) -> Self {
        Self { rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The [`dense`](Self::dense) layout, if it fits into `len` floats.
    #[cfg_attr(not(microcontroller), inline)]
    fn dense_in(rows: usize, cols: usize, len: usize) -> Result<Self, Error> {
        let elements = rows.checked_mul(cols).filter(|elements| *elements <= len);
        elements.map(|_| Self::dense(rows, cols)).ok_or(Error::Shape)
    }

    const fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    /// The offset of element `(row, col)` from the first, in floats.
    ///
    /// Does not overflow for an element of a checked layout.
    const fn offset(self, row: usize, col: usize) -> usize {
        row.wrapping_mul(self.row_stride).wrapping_add(col.wrapping_mul(self.col_stride))
    }

    const fn is_empty(self) -> bool {
        self.rows == 0 || self.cols == 0
    }

    const fn contains(self, row: usize, col: usize) -> bool {
        row < self.rows && col < self.cols
    }

    /// Whether row `row` is in range, not empty and contiguous.
    const fn has_row_slice(self, row: usize) -> bool {
        row < self.rows && (self.cols == 1 || (self.cols > 1 && self.col_stride == 1))
    }

    /// The length of the shortest buffer that contains all elements, in floats; [`Error::Stride`] if
    /// it exceeds `isize::MAX` bytes, the size limit of an allocation.
    fn required_len(self) -> Result<usize, Error> {
        if self.is_empty() {
            return Ok(0);
        }
        let down = (self.rows - 1).checked_mul(self.row_stride);
        let across = (self.cols - 1).checked_mul(self.col_stride);
        down.zip(across)
            .and_then(|(down, across)| down.checked_add(across)?.checked_add(1))
            .filter(|&len| len <= isize::MAX as usize / size_of::<f32>())
            .ok_or(Error::Stride)
    }

    /// Whether two different elements have the same address.
    ///
    /// They do if `i * row_stride = j * col_stride` for some `i < rows`
    /// and `j < cols` that are not both 0. The smallest such `i` is `col_stride / gcd`, the smallest `j` is
    /// `row_stride / gcd`.
    fn overlaps_itself(self) -> bool {
        let Self { rows, cols, row_stride, col_stride } = self;
        if self.is_empty() || (rows == 1 && cols == 1) {
            return false;
        }
        if rows == 1 {
            return col_stride == 0;
        }
        if cols == 1 {
            return row_stride == 0;
        }
        let (mut divisor, mut rest) = (row_stride, col_stride);
        while rest != 0 {
            (divisor, rest) = (rest, divisor.checked_rem(rest).unwrap_or(0));
        }
        match (col_stride.checked_div(divisor), row_stride.checked_div(divisor)) {
            (Some(i), Some(j)) => i < rows && j < cols,
            _ => true, // both strides are 0
        }
    }

    /// The layouts of the first `at` rows and of the remaining rows.
    fn split_rows(self, at: usize) -> Result<(Self, Self), Error> {
        let rest = self.rows.checked_sub(at).ok_or(Error::Shape)?;
        Ok((Self { rows: at, ..self }, Self { rows: rest, ..self }))
    }
}

/// The getters that both views share.
macro_rules! layout_getters {
    () => {
        /// The number of rows.
        #[inline]
        pub const fn rows(&self) -> usize {
            self.layout.rows
        }

        /// The number of columns.
        #[inline]
        pub const fn cols(&self) -> usize {
            self.layout.cols
        }

        /// The row stride: the number of elements from one row to the next.
        #[inline]
        pub const fn row_stride(&self) -> usize {
            self.layout.row_stride
        }

        /// The column stride: the number of elements from one column to the next.
        #[inline]
        pub const fn col_stride(&self) -> usize {
            self.layout.col_stride
        }

        /// Whether the matrix has no elements.
        #[inline]
        pub const fn is_empty(&self) -> bool {
            self.layout.is_empty()
        }

        /// The number of rows and of columns.
        #[inline]
        pub(crate) const fn shape(&self) -> (usize, usize) {
            (self.layout.rows, self.layout.cols)
        }
    };
}

/// A read-only strided view of a matrix. Strides may be 0, which repeats one row or column.
/// Elements are `f32`, or `u8` for a boolean mask.
#[derive(Clone, Copy, Debug)]
pub struct MatrixRef<'a, T = f32> {
    first: *const T,
    layout: Layout,
    borrow: PhantomData<&'a [T]>,
}

#[cfg(feature = "defmt")]
impl<T> defmt::Format for MatrixRef<'_, T> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "MatrixRef({})", self.layout);
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for MatrixMut<'_> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "MatrixMut({})", self.layout);
    }
}

// SAFETY: a `MatrixRef` allows what a `&[T]` of its elements allows.
unsafe impl<T: Sync> Send for MatrixRef<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for MatrixRef<'_, T> {}

/// A mutable strided view of a matrix. No two elements may have the same address.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    first: *mut f32,
    layout: Layout,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `MatrixMut` allows what a `&mut [f32]` of its elements allows, and no
// other view shares an element with it.
unsafe impl Send for MatrixMut<'_> {}
// SAFETY: as above; a shared reference to it can only read.
unsafe impl Sync for MatrixMut<'_> {}

impl<'a, T: Copy> MatrixRef<'a, T> {
    /// A view without rows and columns.
    pub(crate) const EMPTY: Self =
        Self { first: core::ptr::dangling(), layout: Layout::dense(0, 0), borrow: PhantomData };

    /// Views the first `rows * cols` elements of `data` in row-major order.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if `data` is shorter.
    // Inlined, a view stays in registers. Built in memory, float by float, its parts wait for the stores before
    // they are read together: 10 ns a view.
    #[cfg_attr(not(microcontroller), inline)]
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Result<Self, Error> {
        let layout = Layout::dense_in(rows, cols, data.len())?;
        Ok(Self { first: data.as_ptr(), layout, borrow: PhantomData })
    }

    /// Views a matrix with strides: element `(r, c)` is `data[r * row_stride + c * col_stride]`.
    ///
    /// # Errors
    ///
    /// [`Error::Stride`] if an element would be outside `data`.
    pub fn with_strides(
        data: &'a [T],
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Result<Self, Error> {
        Self::checked(data, Layout { rows, cols, row_stride, col_stride })
    }

    fn checked(data: &'a [T], layout: Layout) -> Result<Self, Error> {
        if layout.required_len()? > data.len() {
            return Err(Error::Stride);
        }
        Ok(Self { first: data.as_ptr(), layout, borrow: PhantomData })
    }

    /// Views a matrix by pointer: element `(r, c)` is `r * row_stride + c * col_stride` elements after
    /// `data`. For matrices that no slice may cover, because other code writes between their rows.
    ///
    /// # Errors
    ///
    /// [`Error::Stride`] if the elements span more than `isize::MAX / 4`. The caller ensures that they are
    /// in one allocation.
    ///
    /// # Safety
    ///
    /// Each element is in the same allocation as `data`, and for `'a` it is aligned and readable, and
    /// nothing writes it. Memory between the elements is never accessed. If there are no elements,
    /// `data` may be any pointer.
    pub unsafe fn from_raw_parts(
        data: *const T,
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Result<Self, Error> {
        Layout { rows, cols, row_stride, col_stride }.required_len()?;
        // SAFETY: as the caller promises.
        Ok(unsafe { Self::from_checked_parts(data, rows, cols, row_stride, col_stride) })
    }

    /// [`from_raw_parts`](Self::from_raw_parts) without its checks, for the C library, which has made them.
    /// Not part of the API.
    ///
    /// # Safety
    ///
    /// That of [`from_raw_parts`](Self::from_raw_parts), which returns `Ok` for these arguments.
    #[doc(hidden)]
    #[inline]
    pub unsafe fn from_checked_parts(
        data: *const T,
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Self {
        let layout = Layout { rows, cols, row_stride, col_stride };
        let first = if layout.is_empty() { core::ptr::dangling() } else { data };
        Self { first, layout, borrow: PhantomData }
    }

    /// Views a slice as a matrix of one row.
    #[inline]
    pub fn from_row(row: &'a [T]) -> Self {
        Self { first: row.as_ptr(), layout: Layout::dense(1, row.len()), borrow: PhantomData }
    }

    layout_getters!();

    /// Returns element `(row, col)`, or `None` if it is out of range.
    #[inline]
    pub fn get(&self, row: usize, col: usize) -> Option<T> {
        // SAFETY: the element is inside the borrow that the view was made from.
        self.layout.contains(row, col).then(|| unsafe { *self.at(row, col) })
    }

    /// Returns row `row` as a slice, or `None` if it is out of range, has no columns, or is not
    /// contiguous.
    #[inline]
    pub fn row(&self, row: usize) -> Option<&'a [T]> {
        if !self.layout.has_row_slice(row) {
            return None;
        }
        // SAFETY: the row's `cols` elements are contiguous inside the borrow.
        Some(unsafe { core::slice::from_raw_parts(self.at(row, 0), self.layout.cols) })
    }

    /// All elements as a slice, if they are contiguous in row-major order.
    #[inline]
    pub(crate) fn as_slice(&self) -> Option<&'a [T]> {
        let Layout { rows, cols, row_stride, col_stride } = self.layout;
        if self.is_empty() || row_stride != cols || col_stride != 1 {
            return None;
        }
        // SAFETY: these elements are contiguous inside the borrow.
        Some(unsafe { core::slice::from_raw_parts(self.at(0, 0), rows * cols) })
    }

    /// Returns the transpose: a view of the same elements with rows and columns exchanged.
    #[inline]
    #[must_use]
    pub fn t(self) -> Self {
        Self { layout: self.layout.t(), ..self }
    }

    /// Splits the view into the first `at` rows and the remaining rows.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if there are fewer than `at` rows.
    pub fn split_rows(self, at: usize) -> Result<(Self, Self), Error> {
        let (above, below) = self.layout.split_rows(at)?;
        let second = self.first.wrapping_add(self.layout.offset(at, 0));
        Ok((Self { layout: above, ..self }, Self { first: second, layout: below, ..self }))
    }

    /// Splits the view into the first `at` columns and the remaining columns.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if there are fewer than `at` columns.
    pub fn split_columns(self, at: usize) -> Result<(Self, Self), Error> {
        let (left, right) = self.t().split_rows(at)?;
        Ok((left.t(), right.t()))
    }

    /// The view of these rows and columns, or `None` if one is out of range.
    #[inline]
    pub(crate) fn submatrix(self, rows: Range<usize>, cols: Range<usize>) -> Option<Self> {
        let (end, right) = self.shape();
        let is_inside = rows.start <= rows.end && cols.start <= cols.end;
        (is_inside && rows.end <= end && cols.end <= right).then(|| Self {
            first: self.first.wrapping_add(self.layout.offset(rows.start, cols.start)),
            layout: Layout { rows: rows.len(), cols: cols.len(), ..self.layout },
            ..self
        })
    }

    /// The `count` rows from `first` on, or `None` if one is out of range.
    pub(crate) fn rows_from(self, first: usize, count: usize) -> Option<Self> {
        self.submatrix(first..first + count, 0..self.cols())
    }

    /// A pointer to element `(row, col)`.
    #[inline]
    pub(crate) fn at(&self, row: usize, col: usize) -> *const T {
        self.first.wrapping_add(self.layout.offset(row, col))
    }
}

impl<'a> MatrixMut<'a> {
    /// Views the first `rows * cols` elements of `data` in row-major order.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if `data` is shorter.
    #[cfg_attr(not(microcontroller), inline)]
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Result<Self, Error> {
        let layout = Layout::dense_in(rows, cols, data.len())?;
        Ok(Self { first: data.as_mut_ptr(), layout, borrow: PhantomData })
    }

    /// Views a matrix with strides: element `(r, c)` is `data[r * row_stride + c * col_stride]`.
    ///
    /// # Errors
    ///
    /// [`Error::Stride`] if an element would be outside `data`,
    /// [`Error::Alias`] if two would have the same address.
    pub fn with_strides(
        data: &'a mut [f32],
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Result<Self, Error> {
        Self::checked(data, Layout { rows, cols, row_stride, col_stride })
    }

    fn checked(data: &'a mut [f32], layout: Layout) -> Result<Self, Error> {
        if layout.required_len()? > data.len() {
            return Err(Error::Stride);
        }
        if layout.overlaps_itself() {
            return Err(Error::Alias);
        }
        Ok(Self { first: data.as_mut_ptr(), layout, borrow: PhantomData })
    }

    /// Views a matrix by pointer: element `(r, c)` is `r * row_stride + c * col_stride` floats after `data`.
    /// For matrices that no slice may cover, because other code uses the memory between their rows.
    ///
    /// # Errors
    ///
    /// [`Error::Stride`] if the elements span more than `isize::MAX` bytes,
    /// [`Error::Alias`] if two would have the same address.
    ///
    /// # Safety
    ///
    /// Each element is in the same allocation as `data`, and for `'a` it is aligned, readable and writable,
    /// and nothing else accesses it. Memory between the elements is never accessed. If there are no elements,
    /// `data` may be any pointer.
    pub unsafe fn from_raw_parts(
        data: *mut f32,
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Result<Self, Error> {
        let layout = Layout { rows, cols, row_stride, col_stride };
        layout.required_len()?;
        if layout.overlaps_itself() {
            return Err(Error::Alias);
        }
        // SAFETY: as the caller promises.
        Ok(unsafe { Self::from_checked_parts(data, rows, cols, row_stride, col_stride) })
    }

    /// [`from_raw_parts`](Self::from_raw_parts) without its checks, for the C library, which has made them.
    /// Not part of the API.
    ///
    /// # Safety
    ///
    /// That of [`from_raw_parts`](Self::from_raw_parts), which returns `Ok` for these arguments.
    #[doc(hidden)]
    #[inline]
    pub unsafe fn from_checked_parts(
        data: *mut f32,
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Self {
        let layout = Layout { rows, cols, row_stride, col_stride };
        let first = if layout.is_empty() { core::ptr::dangling_mut() } else { data };
        Self { first, layout, borrow: PhantomData }
    }

    /// Views a slice as a matrix of one row.
    #[inline]
    pub fn from_row(row: &'a mut [f32]) -> Self {
        Self { first: row.as_mut_ptr(), layout: Layout::dense(1, row.len()), borrow: PhantomData }
    }

    layout_getters!();

    /// Returns a read-only view of the same elements.
    #[inline]
    pub fn view(&self) -> MatrixRef<'_> {
        MatrixRef { first: self.first, layout: self.layout, borrow: PhantomData }
    }

    /// Reborrows the view: returns a mutable view of the same elements.
    #[inline]
    pub fn view_mut(&mut self) -> MatrixMut<'_> {
        MatrixMut { first: self.first, layout: self.layout, borrow: PhantomData }
    }

    /// Returns element `(row, col)`, or `None` if it is out of range.
    #[inline]
    pub fn get_mut(&mut self, row: usize, col: usize) -> Option<&mut f32> {
        // SAFETY: the element is inside the mutable borrow that the view was
        // made from, and belongs to no other view.
        self.layout.contains(row, col).then(|| unsafe { &mut *self.at(row, col) })
    }

    /// Returns row `row` as a slice, or `None` if it is out of range, has no columns, or is not
    /// contiguous.
    #[inline]
    pub fn row_mut(&mut self, row: usize) -> Option<&mut [f32]> {
        if !self.layout.has_row_slice(row) {
            return None;
        }
        // SAFETY: the row's `cols` elements are contiguous inside the mutable
        // borrow, and belong to no other view.
        Some(unsafe { core::slice::from_raw_parts_mut(self.at(row, 0), self.layout.cols) })
    }

    /// Returns the transpose: a view of the same elements with rows and columns exchanged.
    #[inline]
    #[must_use]
    pub fn t(self) -> Self {
        Self { layout: self.layout.t(), ..self }
    }

    /// [`t`](Self::t) in place.
    #[inline]
    pub(crate) fn transpose(&mut self) {
        self.layout = self.layout.t();
    }

    /// Splits the view into the first `at` rows and the remaining rows; the two can go to two threads.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if there are fewer than `at` rows.
    pub fn split_rows(self, at: usize) -> Result<(Self, Self), Error> {
        let (above, below) = self.layout.split_rows(at)?;
        let second = self.at(at, 0);
        Ok((Self { layout: above, ..self }, Self { first: second, layout: below, ..self }))
    }

    /// Splits the view into the first `at` columns and the remaining columns. The two are interleaved in
    /// memory and can still go to two threads.
    ///
    /// ```
    /// use sdpa::Matrix;
    ///
    /// let mut m = Matrix::<2, 4>::ZERO;
    /// let (mut left, mut right) = m.view_mut().split_columns(3)?;
    /// *left.get_mut(1, 2).unwrap() = 1.0;
    /// *right.get_mut(0, 0).unwrap() = 2.0;
    /// assert_eq!(m.0, [[0.0, 0.0, 0.0, 2.0], [0.0, 0.0, 1.0, 0.0]]);
    /// # Ok::<(), sdpa::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if there are fewer than `at` columns.
    pub fn split_columns(self, at: usize) -> Result<(Self, Self), Error> {
        let (left, right) = self.t().split_rows(at)?;
        Ok((left.t(), right.t()))
    }

    /// The columns 0, 2, …, and the columns 1, 3, …, of which there may be one less.
    #[inline]
    pub(crate) fn alternate_columns(self) -> (Self, Self) {
        let Layout { cols, col_stride, .. } = self.layout;
        // Does not overflow where there is another column.
        let col_stride = col_stride.wrapping_mul(2);
        let even = Layout { cols: cols.div_ceil(2), col_stride, ..self.layout };
        let odd = Layout { cols: cols / 2, col_stride, ..self.layout };
        let first = self.at(0, 1);
        (Self { layout: even, ..self }, Self { first, layout: odd, ..self })
    }

    /// A pointer to element `(row, col)`.
    #[inline]
    pub(crate) fn at(&self, row: usize, col: usize) -> *mut f32 {
        self.first.wrapping_add(self.layout.offset(row, col))
    }
}

impl<'a, T: Copy, const C: usize> From<&'a [[T; C]]> for MatrixRef<'a, T> {
    fn from(rows: &'a [[T; C]]) -> Self {
        Self {
            first: rows.as_ptr().cast(),
            layout: Layout::dense(rows.len(), C),
            borrow: PhantomData,
        }
    }
}

impl<'a, const C: usize> From<&'a mut [[f32; C]]> for MatrixMut<'a> {
    fn from(rows: &'a mut [[f32; C]]) -> Self {
        Self {
            first: rows.as_mut_ptr().cast(),
            layout: Layout::dense(rows.len(), C),
            borrow: PhantomData,
        }
    }
}

impl<'a, T: Copy, const R: usize, const C: usize> From<&'a [[T; C]; R]> for MatrixRef<'a, T> {
    fn from(rows: &'a [[T; C]; R]) -> Self {
        Self::from(rows.as_slice())
    }
}

impl<'a, const R: usize, const C: usize> From<&'a mut [[f32; C]; R]> for MatrixMut<'a> {
    fn from(rows: &'a mut [[f32; C]; R]) -> Self {
        Self::from(rows.as_mut_slice())
    }
}

impl<'a, const R: usize, const C: usize> From<&'a Matrix<R, C>> for MatrixRef<'a> {
    fn from(matrix: &'a Matrix<R, C>) -> Self {
        Self::from(&matrix.0)
    }
}

impl<'a, const R: usize, const C: usize> From<&'a mut Matrix<R, C>> for MatrixMut<'a> {
    fn from(matrix: &'a mut Matrix<R, C>) -> Self {
        Self::from(&mut matrix.0)
    }
}
