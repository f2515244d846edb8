//! Matrices and strided views, and every check of a shape.
//!
//! A view is a pointer, a shape and two strides, together with the promise
//! that each of its elements lies inside one borrow. It is not a slice: views
//! made by [`split_columns`](MatrixMut::split_columns) lie interleaved in
//! memory, and no slice may cover what belongs to another view.

#![expect(unsafe_code, reason = "a view is a pointer and a proof of its extent")]

mod heads;

use core::{marker::PhantomData, ops::Range};

pub use heads::{HeadsMut, HeadsRef};

use crate::error::Error;

/// A matrix of `R` rows and `C` columns that owns its elements, row after row.
///
/// A thin front for fixed sizes: every operation takes the views that
/// [`view`](Self::view) and [`view_mut`](Self::view_mut) give.
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

    /// A view of all elements, for reading.
    #[inline]
    pub fn view(&self) -> MatrixRef<'_> {
        MatrixRef::from(self)
    }

    /// A view of all elements, for writing.
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

/// The shape of a view and where its elements lie: element `(r, c)` is
/// `r * row_stride + c * col_stride` floats behind the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
struct Layout {
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl Layout {
    /// Row after row.
    const fn dense(rows: usize, cols: usize) -> Self {
        Self { rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// Likewise, if all elements lie inside `len`.
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

    /// How far behind the first element `(row, col)` lies.
    ///
    /// Does not overflow where `(row, col)` lies inside a checked layout.
    const fn offset(self, row: usize, col: usize) -> usize {
        row.wrapping_mul(self.row_stride).wrapping_add(col.wrapping_mul(self.col_stride))
    }

    const fn is_empty(self) -> bool {
        self.rows == 0 || self.cols == 0
    }

    const fn contains(self, row: usize, col: usize) -> bool {
        row < self.rows && col < self.cols
    }

    /// Whether there is a row `row` whose elements, at least one, lie side by side.
    const fn has_row_slice(self, row: usize) -> bool {
        row < self.rows && (self.cols == 1 || (self.cols > 1 && self.col_stride == 1))
    }

    /// How many floats the elements span, or [`Error::Stride`] when that many
    /// cannot lie in one object (`isize::MAX` bytes).
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

    /// Whether two different elements lie at one place.
    ///
    /// They do when `i * row_stride = j * col_stride` for some steps `i < rows`
    /// and `j < cols` that are not both zero; the smallest such steps are the
    /// strides over their greatest common divisor, crosswise.
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

    /// The layouts of the first `at` rows and of the others.
    fn split_rows(self, at: usize) -> Result<(Self, Self), Error> {
        let rest = self.rows.checked_sub(at).ok_or(Error::Shape)?;
        Ok((Self { rows: at, ..self }, Self { rows: rest, ..self }))
    }
}

/// What both views can say of their layout.
macro_rules! layout_getters {
    () => {
        /// How many rows.
        #[inline]
        pub const fn rows(&self) -> usize {
            self.layout.rows
        }

        /// How many columns.
        #[inline]
        pub const fn cols(&self) -> usize {
            self.layout.cols
        }

        /// How many floats lie from one row to the next.
        #[inline]
        pub const fn row_stride(&self) -> usize {
            self.layout.row_stride
        }

        /// How many floats lie from one column to the next.
        #[inline]
        pub const fn col_stride(&self) -> usize {
            self.layout.col_stride
        }

        /// Whether there is no element.
        #[inline]
        pub const fn is_empty(&self) -> bool {
            self.layout.is_empty()
        }

        /// Rows and columns.
        #[inline]
        pub(crate) const fn shape(&self) -> (usize, usize) {
            (self.layout.rows, self.layout.cols)
        }
    };
}

/// A view of a matrix for reading: any strides, 0 included (one row or column
/// shown many times). Of `f32`, or of `u8` for a mask.
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

// SAFETY: a `MatrixRef` gives what a `&[T]` of its elements gives.
unsafe impl<T: Sync> Send for MatrixRef<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for MatrixRef<'_, T> {}

/// A view of a matrix for writing: any strides that keep all elements apart.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    first: *mut f32,
    layout: Layout,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `MatrixMut` gives what a `&mut [f32]` of its elements gives, and no
// other view shares an element with it.
unsafe impl Send for MatrixMut<'_> {}
// SAFETY: as above; a shared reference to it can only read.
unsafe impl Sync for MatrixMut<'_> {}

impl<'a, T: Copy> MatrixRef<'a, T> {
    /// No rows and no columns.
    pub(crate) const EMPTY: Self =
        Self { first: core::ptr::dangling(), layout: Layout::dense(0, 0), borrow: PhantomData };

    /// The first `rows * cols` floats of `data`, row after row.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] when `data` is shorter.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Result<Self, Error> {
        let layout = Layout::dense_in(rows, cols, data.len())?;
        Ok(Self { first: data.as_ptr(), layout, borrow: PhantomData })
    }

    /// Element `(r, c)` is `data[r * row_stride + c * col_stride]`.
    ///
    /// # Errors
    ///
    /// [`Error::Stride`] when an element would lie outside `data`.
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

    /// Element `(r, c)` lies `r * row_stride + c * col_stride` elements behind `data`. For
    /// matrices that no slice may cover, because others write between their rows.
    ///
    /// # Errors
    ///
    /// [`Error::Stride`] when the elements span more than one object can hold. Whether they lie
    /// in one is for the caller to know.
    ///
    /// # Safety
    ///
    /// Each element lies in one allocation with `data`, and for `'a` is aligned, may be read
    /// and is written by nobody. What lies between elements is never touched. Without elements
    /// `data` may be anything.
    pub unsafe fn from_raw_parts(
        data: *const T,
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Result<Self, Error> {
        let layout = Layout { rows, cols, row_stride, col_stride };
        let first = if layout.required_len()? == 0 { core::ptr::dangling() } else { data };
        Ok(Self { first, layout, borrow: PhantomData })
    }

    /// `row`, as a matrix of one row.
    #[inline]
    pub fn from_row(row: &'a [T]) -> Self {
        Self { first: row.as_ptr(), layout: Layout::dense(1, row.len()), borrow: PhantomData }
    }

    layout_getters!();

    /// Element `(row, col)`, or `None` outside the matrix.
    #[inline]
    pub fn get(&self, row: usize, col: usize) -> Option<T> {
        // SAFETY: the element lies inside the borrow that the view was made from.
        self.layout.contains(row, col).then(|| unsafe { *self.at(row, col) })
    }

    /// Row `row` as a slice: `None` outside the matrix, in a matrix without
    /// columns, and where the elements of a row do not lie side by side.
    #[inline]
    pub fn row(&self, row: usize) -> Option<&'a [T]> {
        if !self.layout.has_row_slice(row) {
            return None;
        }
        // SAFETY: the row's `cols` elements lie side by side inside the borrow.
        Some(unsafe { core::slice::from_raw_parts(self.at(row, 0), self.layout.cols) })
    }

    /// The transpose: the same elements, rows and columns exchanged.
    #[inline]
    #[must_use]
    pub fn t(self) -> Self {
        Self { layout: self.layout.t(), ..self }
    }

    /// The first `at` rows, and the others.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] when there are fewer than `at` rows.
    pub fn split_rows(self, at: usize) -> Result<(Self, Self), Error> {
        let (above, below) = self.layout.split_rows(at)?;
        let second = self.first.wrapping_add(self.layout.offset(at, 0));
        Ok((Self { layout: above, ..self }, Self { first: second, layout: below, ..self }))
    }

    /// The first `at` columns, and the others.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] when there are fewer than `at` columns.
    pub fn split_columns(self, at: usize) -> Result<(Self, Self), Error> {
        let (left, right) = self.t().split_rows(at)?;
        Ok((left.t(), right.t()))
    }

    /// These rows and columns, if all are there.
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

    /// Where element `(row, col)` lies.
    #[inline]
    pub(crate) fn at(&self, row: usize, col: usize) -> *const T {
        self.first.wrapping_add(self.layout.offset(row, col))
    }
}

impl<'a> MatrixMut<'a> {
    /// The first `rows * cols` floats of `data`, row after row.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] when `data` is shorter.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Result<Self, Error> {
        let layout = Layout::dense_in(rows, cols, data.len())?;
        Ok(Self { first: data.as_mut_ptr(), layout, borrow: PhantomData })
    }

    /// Element `(r, c)` is `data[r * row_stride + c * col_stride]`.
    ///
    /// # Errors
    ///
    /// [`Error::Stride`] when an element would lie outside `data`,
    /// [`Error::Alias`] when two would lie at the same place.
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

    /// Element `(r, c)` lies `r * row_stride + c * col_stride` floats behind `data`. For
    /// matrices that no slice may cover, because others use what lies between their rows.
    ///
    /// # Errors
    ///
    /// [`Error::Stride`] when the elements span more than one object can hold,
    /// [`Error::Alias`] when two would lie at the same place.
    ///
    /// # Safety
    ///
    /// Each element lies in one allocation with `data`, and for `'a` is aligned, may be read
    /// and written, and is used by nobody else. What lies between elements is never touched.
    /// Without elements `data` may be anything.
    pub unsafe fn from_raw_parts(
        data: *mut f32,
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Result<Self, Error> {
        let layout = Layout { rows, cols, row_stride, col_stride };
        let first = if layout.required_len()? == 0 { core::ptr::dangling_mut() } else { data };
        if layout.overlaps_itself() {
            return Err(Error::Alias);
        }
        Ok(Self { first, layout, borrow: PhantomData })
    }

    /// `row`, as a matrix of one row.
    #[inline]
    pub fn from_row(row: &'a mut [f32]) -> Self {
        Self { first: row.as_mut_ptr(), layout: Layout::dense(1, row.len()), borrow: PhantomData }
    }

    layout_getters!();

    /// The same elements, for reading.
    #[inline]
    pub fn view(&self) -> MatrixRef<'_> {
        MatrixRef { first: self.first, layout: self.layout, borrow: PhantomData }
    }

    /// The same elements, borrowed from this view for a while.
    #[inline]
    pub fn view_mut(&mut self) -> MatrixMut<'_> {
        MatrixMut { first: self.first, layout: self.layout, borrow: PhantomData }
    }

    /// Element `(row, col)`, or `None` outside the matrix.
    #[inline]
    pub fn get_mut(&mut self, row: usize, col: usize) -> Option<&mut f32> {
        // SAFETY: the element lies inside the mutable borrow that the view was
        // made from, and belongs to no other view.
        self.layout.contains(row, col).then(|| unsafe { &mut *self.at(row, col) })
    }

    /// Row `row` as a slice: `None` outside the matrix, in a matrix without
    /// columns, and where the elements of a row do not lie side by side.
    #[inline]
    pub fn row_mut(&mut self, row: usize) -> Option<&mut [f32]> {
        if !self.layout.has_row_slice(row) {
            return None;
        }
        // SAFETY: the row's `cols` elements lie side by side inside the mutable
        // borrow, and belong to no other view.
        Some(unsafe { core::slice::from_raw_parts_mut(self.at(row, 0), self.layout.cols) })
    }

    /// The transpose: the same elements, rows and columns exchanged.
    #[inline]
    #[must_use]
    pub fn t(self) -> Self {
        Self { layout: self.layout.t(), ..self }
    }

    /// The first `at` rows, and the others: two views that can go to two threads.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] when there are fewer than `at` rows.
    pub fn split_rows(self, at: usize) -> Result<(Self, Self), Error> {
        let (above, below) = self.layout.split_rows(at)?;
        let second = self.at(at, 0);
        Ok((Self { layout: above, ..self }, Self { first: second, layout: below, ..self }))
    }

    /// The first `at` columns, and the others: two views that lie interleaved
    /// and can still go to two threads.
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
    /// [`Error::Shape`] when there are fewer than `at` columns.
    pub fn split_columns(self, at: usize) -> Result<(Self, Self), Error> {
        let (left, right) = self.t().split_rows(at)?;
        Ok((left.t(), right.t()))
    }

    /// Where element `(row, col)` lies.
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
