//! Views of many heads: matrices of the same shape and strides, at a constant stride.

use core::ops::Range;

use super::{Layout, MatrixMut, MatrixRef};
use crate::error::Error;

/// A read-only view of many heads (multi-head layout): head `h` is a matrix of rows (tokens) and columns
/// (dim) that begins `h * head_stride` floats after head 0.
///
/// `HeadsRef::from(matrix)` is a single head.
///
/// ```
/// use sdpa::HeadsRef;
///
/// let floats = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
/// let by_token = HeadsRef::interleaved(&floats, 2, 2, 2)?; // [tokens][heads][dim]
/// let by_head = HeadsRef::stacked(&floats, 2, 2, 2)?; // [heads][tokens][dim]
/// assert_eq!(by_token.head(1).unwrap().row(0), Some(&[2.0, 3.0][..]));
/// assert_eq!(by_head.head(1).unwrap().row(0), Some(&[4.0, 5.0][..]));
/// # Ok::<(), sdpa::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct HeadsRef<'a, T = f32> {
    first: MatrixRef<'a, T>,
    heads: usize,
    stride: usize,
}

/// A mutable view of many heads: [`HeadsRef`] with strides that nest, so that no two elements have the same
/// address.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct HeadsMut<'a> {
    first: MatrixMut<'a>,
    heads: usize,
    stride: usize,
}

/// Sizes and strides in the order heads, rows, columns.
#[derive(Clone, Copy)]
struct HeadsLayout {
    sizes: [usize; 3],
    strides: [usize; 3],
}

impl HeadsLayout {
    fn interleaved(heads: usize, tokens: usize, dim: usize) -> Result<Self, Error> {
        let token = heads.checked_mul(dim).ok_or(Error::Shape)?;
        Ok(Self { sizes: [heads, tokens, dim], strides: [dim, token, 1] })
    }

    fn stacked(heads: usize, tokens: usize, dim: usize) -> Result<Self, Error> {
        let head = tokens.checked_mul(dim).ok_or(Error::Shape)?;
        Ok(Self { sizes: [heads, tokens, dim], strides: [head, dim, 1] })
    }

    /// The layout of one head.
    fn head(self) -> Layout {
        let Self { sizes: [_, rows, cols], strides: [_, row_stride, col_stride] } = self;
        Layout { rows, cols, row_stride, col_stride }
    }

    /// [`Layout::required_len`] of all heads.
    fn required_len(self) -> Result<usize, Error> {
        let Some(others) = self.sizes[0].checked_sub(1) else { return Ok(0) };
        match self.head().required_len()? {
            0 => Ok(0),
            span => others
                .checked_mul(self.strides[0])
                .and_then(|before| before.checked_add(span))
                .filter(|&len| len <= isize::MAX as usize / size_of::<f32>())
                .ok_or(Error::Stride),
        }
    }

    /// The layout of one head, if all heads fit into `len` floats.
    fn head_in(self, len: usize) -> Result<Layout, Error> {
        if self.required_len()? > len { Err(Error::Stride) } else { Ok(self.head()) }
    }

    /// Whether the strides nest: each is at least the span of the axes with smaller strides, so
    /// that no two elements have the same address.
    fn nests(self) -> bool {
        if self.sizes.contains(&0) {
            return true;
        }
        let mut axes = [0, 1, 2].map(|i| match (self.sizes.get(i), self.strides.get(i)) {
            (Some(&size), Some(&stride)) => (stride, size),
            _ => (0, 1),
        });
        axes.sort_unstable();
        let mut span = 1; // cannot overflow: at most `required_len`
        axes.into_iter().filter(|&(_, size)| size > 1).all(|(stride, size)| {
            let is_disjoint = stride >= span;
            span += (size - 1) * stride;
            is_disjoint
        })
    }
}

/// The getters that both views share.
macro_rules! heads_getters {
    () => {
        /// The number of heads.
        #[inline]
        pub const fn heads(&self) -> usize {
            self.heads
        }

        /// The number of rows per head: tokens.
        #[inline]
        pub const fn rows(&self) -> usize {
            self.first.rows()
        }

        /// The number of columns per head: dim, or the width of the values.
        #[inline]
        pub const fn cols(&self) -> usize {
            self.first.cols()
        }

        /// The head stride: the number of floats from one head to the next.
        #[inline]
        pub const fn head_stride(&self) -> usize {
            self.stride
        }
    };
}

/// Constructors and splits of both views, over `$data` and `$matrix`.
macro_rules! heads_methods {
    ($data:ty, $pointer:ty, $matrix:ident) => {
        /// [`from_raw_parts`](Self::from_raw_parts) without its checks, for the C library, which has made
        /// them. Not part of the API.
        ///
        /// # Safety
        ///
        /// That of [`from_raw_parts`](Self::from_raw_parts), which returns `Ok` for these arguments.
        #[doc(hidden)]
        #[inline]
        pub unsafe fn from_checked_parts(
            data: $pointer,
            sizes: [usize; 3],
            strides: [usize; 3],
        ) -> Self {
            let first: $pointer = if sizes.contains(&0) { core::ptr::dangling_mut() } else { data };
            let (layout, borrow) =
                (HeadsLayout { sizes, strides }.head(), core::marker::PhantomData);
            let first = $matrix { first, layout, borrow };
            Self { first, heads: sizes[0], stride: strides[0] }
        }

        /// Views `[tokens][heads][dim]`: the heads of a token are contiguous.
        ///
        /// # Errors
        ///
        /// [`Error::Shape`] if `data` is shorter.
        pub fn interleaved(
            data: $data,
            heads: usize,
            tokens: usize,
            dim: usize,
        ) -> Result<Self, Error> {
            Self::checked(data, HeadsLayout::interleaved(heads, tokens, dim)?)
                .map_err(|_| Error::Shape)
        }

        /// Views `[heads][tokens][dim]`: each head is contiguous.
        ///
        /// # Errors
        ///
        /// [`Error::Shape`] if `data` is shorter.
        pub fn stacked(
            data: $data,
            heads: usize,
            tokens: usize,
            dim: usize,
        ) -> Result<Self, Error> {
            Self::checked(data, HeadsLayout::stacked(heads, tokens, dim)?).map_err(|_| Error::Shape)
        }

        /// Splits the view into the first `at` heads and the remaining heads; the two can go to two threads.
        ///
        /// # Errors
        ///
        /// [`Error::Shape`] if there are fewer than `at` heads.
        pub fn split_heads(self, at: usize) -> Result<(Self, Self), Error> {
            let rest = self.heads.checked_sub(at).ok_or(Error::Shape)?;
            let second = self.first.first.wrapping_add(at.wrapping_mul(self.stride));
            let other = $matrix { first: second, ..self.first };
            Ok((Self { heads: at, ..self }, Self { heads: rest, first: other, ..self }))
        }

        /// Splits every head into its first `at` rows and the remaining rows; the two views can go to two
        /// threads.
        ///
        /// # Errors
        ///
        /// [`Error::Shape`] if there are fewer than `at` rows.
        pub fn split_rows(self, at: usize) -> Result<(Self, Self), Error> {
            let (above, below) = self.first.split_rows(at)?;
            let Self { heads, stride, .. } = self;
            Ok((Self { first: above, heads, stride }, Self { first: below, heads, stride }))
        }
    };
}

impl<'a, T: Copy> HeadsRef<'a, T> {
    /// The rows of a range, of every head.
    pub(crate) fn rows_of(self, rows: Range<usize>) -> Result<Self, Error> {
        self.part(rows, 0..self.cols())
    }

    /// The rows and columns of these ranges, of every head.
    pub(crate) fn part(self, rows: Range<usize>, cols: Range<usize>) -> Result<Self, Error> {
        let first = self.first.submatrix(rows, cols).ok_or(Error::Shape)?;
        Ok(Self { first, ..self })
    }

    heads_methods!(&'a [T], *const T, MatrixRef);

    /// Views `sizes[0]` heads of `sizes[1]` rows and `sizes[2]` columns with any strides: element `(h, r, c)`
    /// is `data[h * strides[0] + r * strides[1] + c * strides[2]]`.
    ///
    /// # Errors
    ///
    /// [`Error::Stride`] if an element would be outside `data`.
    pub fn with_strides(
        data: &'a [T],
        sizes: [usize; 3],
        strides: [usize; 3],
    ) -> Result<Self, Error> {
        Self::checked(data, HeadsLayout { sizes, strides })
    }

    /// [`with_strides`](Self::with_strides) by pointer, for heads that no slice may cover: element
    /// `(h, r, c)` is `h * strides[0] + r * strides[1] + c * strides[2]` floats after `data`.
    ///
    /// # Errors
    ///
    /// [`Error::Stride`] if the elements span more than `isize::MAX` bytes. The caller ensures that they are
    /// in one allocation.
    ///
    /// # Safety
    ///
    /// That of [`MatrixRef::from_raw_parts`].
    pub unsafe fn from_raw_parts(
        data: *const T,
        sizes: [usize; 3],
        strides: [usize; 3],
    ) -> Result<Self, Error> {
        HeadsLayout { sizes, strides }.required_len()?;
        // SAFETY: as the caller promises.
        Ok(unsafe { Self::from_checked_parts(data, sizes, strides) })
    }

    fn checked(data: &'a [T], heads_layout: HeadsLayout) -> Result<Self, Error> {
        let layout = heads_layout.head_in(data.len())?;
        let [heads, stride] = [heads_layout.sizes[0], heads_layout.strides[0]];
        let first = MatrixRef { first: data.as_ptr(), layout, borrow: core::marker::PhantomData };
        Ok(Self { first, heads, stride })
    }

    heads_getters!();

    /// Returns head `head`, or `None` if it is out of range.
    #[inline]
    pub fn head(&self, head: usize) -> Option<MatrixRef<'a, T>> {
        let offset = head.wrapping_mul(self.stride);
        let first = self.first.first.wrapping_add(offset);
        (head < self.heads).then_some(MatrixRef { first, ..self.first })
    }
}

impl<'a> HeadsMut<'a> {
    heads_methods!(&'a mut [f32], *mut f32, MatrixMut);

    /// Views `sizes[0]` heads of `sizes[1]` rows and `sizes[2]` columns with any strides: element `(h, r, c)`
    /// is `data[h * strides[0] + r * strides[1] + c * strides[2]]`.
    ///
    /// # Errors
    ///
    /// [`Error::Stride`] if an element would be outside `data`; [`Error::Alias`] if the
    /// strides do not nest: in ascending order, each stride must be at least the number of floats that the
    /// axes before it span.
    pub fn with_strides(
        data: &'a mut [f32],
        sizes: [usize; 3],
        strides: [usize; 3],
    ) -> Result<Self, Error> {
        Self::checked(data, HeadsLayout { sizes, strides })
    }

    /// [`with_strides`](Self::with_strides) by pointer, for heads that no slice may cover: element
    /// `(h, r, c)` is `h * strides[0] + r * strides[1] + c * strides[2]` floats after `data`.
    ///
    /// # Errors
    ///
    /// [`Error::Stride`] if the elements span more than `isize::MAX` bytes; [`Error::Alias`]
    /// if the strides do not nest, as in [`with_strides`](Self::with_strides).
    ///
    /// # Safety
    ///
    /// That of [`MatrixMut::from_raw_parts`].
    pub unsafe fn from_raw_parts(
        data: *mut f32,
        sizes: [usize; 3],
        strides: [usize; 3],
    ) -> Result<Self, Error> {
        let heads_layout = HeadsLayout { sizes, strides };
        heads_layout.required_len()?;
        if !heads_layout.nests() {
            return Err(Error::Alias);
        }
        // SAFETY: as the caller promises.
        Ok(unsafe { Self::from_checked_parts(data, sizes, strides) })
    }

    fn checked(data: &'a mut [f32], heads_layout: HeadsLayout) -> Result<Self, Error> {
        let layout = heads_layout.head_in(data.len())?;
        if !heads_layout.nests() {
            return Err(Error::Alias);
        }
        let [heads, stride] = [heads_layout.sizes[0], heads_layout.strides[0]];
        let first =
            MatrixMut { first: data.as_mut_ptr(), layout, borrow: core::marker::PhantomData };
        Ok(Self { first, heads, stride })
    }

    heads_getters!();

    /// Splits every head into its first `at` columns and the remaining columns.
    pub(crate) fn split_columns(self, at: usize) -> Result<(Self, Self), Error> {
        let (left, right) = self.first.split_columns(at)?;
        let Self { heads, stride, .. } = self;
        Ok((Self { first: left, heads, stride }, Self { first: right, heads, stride }))
    }

    /// Returns head `head` for writing, or `None` if it is out of range.
    #[inline]
    pub fn head_mut(&mut self, head: usize) -> Option<MatrixMut<'_>> {
        let first = self.first.first.wrapping_add(head.wrapping_mul(self.stride));
        (head < self.heads).then_some(MatrixMut { first, ..self.first })
    }

    /// Returns a read-only view of the same elements.
    #[inline]
    pub fn view(&self) -> HeadsRef<'_> {
        HeadsRef { first: self.first.view(), heads: self.heads, stride: self.stride }
    }

    /// Reborrows the view: returns a mutable view of the same elements.
    #[inline]
    pub fn view_mut(&mut self) -> HeadsMut<'_> {
        let Self { heads, stride, .. } = *self;
        HeadsMut { first: self.first.view_mut(), heads, stride }
    }
}

impl<'a, T: Copy> MatrixRef<'a, T> {
    /// Views the columns as `heads` heads: `[tokens][heads · dim]`, the layout of a projection to
    /// all heads.
    ///
    /// ```
    /// use sdpa::MatrixRef;
    ///
    /// let queries = MatrixRef::from(&[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]);
    /// assert_eq!(queries.heads(2)?.head(1).unwrap().row(0), Some(&[3.0, 4.0][..]));
    /// # Ok::<(), sdpa::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if the number of columns is not a multiple of `heads`.
    pub fn heads(self, heads: usize) -> Result<HeadsRef<'a, T>, Error> {
        let (layout, stride) = self.layout.head_of(heads)?;
        Ok(HeadsRef { first: Self { layout, ..self }, heads, stride })
    }
}

impl<'a> MatrixMut<'a> {
    /// Views the columns as `heads` heads: see [`MatrixRef::heads`].
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if the number of columns is not a multiple of `heads`.
    pub fn heads(self, heads: usize) -> Result<HeadsMut<'a>, Error> {
        let (layout, stride) = self.layout.head_of(heads)?;
        Ok(HeadsMut { first: Self { layout, ..self }, heads, stride })
    }
}

impl Layout {
    /// The layout of one of `heads` heads in the columns, and the head stride.
    fn head_of(self, heads: usize) -> Result<(Self, usize), Error> {
        match (self.cols.checked_rem(heads), self.cols.checked_div(heads)) {
            // Does not overflow if there are elements.
            (Some(0), Some(cols)) => {
                Ok((Self { cols, ..self }, cols.wrapping_mul(self.col_stride)))
            }
            _ => Err(Error::Shape),
        }
    }
}

impl<'a, T> From<MatrixRef<'a, T>> for HeadsRef<'a, T> {
    fn from(matrix: MatrixRef<'a, T>) -> Self {
        Self { first: matrix, heads: 1, stride: 0 }
    }
}

impl<'a> From<MatrixMut<'a>> for HeadsMut<'a> {
    fn from(matrix: MatrixMut<'a>) -> Self {
        Self { first: matrix, heads: 1, stride: 0 }
    }
}
