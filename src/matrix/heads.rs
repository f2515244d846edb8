//! Views of many heads: matrices of one shape, a stride apart.

use super::{Layout, MatrixMut, MatrixRef};
use crate::error::Error;

/// Heads for reading: head `h` is a matrix of rows (tokens) and columns (dim), and
/// begins `h * head_stride` floats behind head 0.
///
/// A matrix is one head: `HeadsRef::from(matrix)`.
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
pub struct HeadsRef<'a> {
    first: MatrixRef<'a>,
    heads: usize,
    stride: usize,
}

/// Heads for writing, whose elements lie outlined: see [`HeadsRef`].
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct HeadsMut<'a> {
    first: MatrixMut<'a>,
    heads: usize,
    stride: usize,
}

/// A shape and its strides: heads, rows, columns.
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
        match (self.sizes[0].checked_sub(1), self.head().required_len()?) {
            (None, _) | (_, 0) => Ok(0),
            (Some(others), span) => others
                .checked_mul(self.strides[0])
                .and_then(|before| before.checked_add(span))
                .filter(|&len| len <= isize::MAX as usize / size_of::<f32>())
                .ok_or(Error::Stride),
        }
    }

    /// The layout of one head, if all heads lie inside `len` floats.
    fn head_in(self, len: usize) -> Result<Layout, Error> {
        if self.required_len()? > len { Err(Error::Stride) } else { Ok(self.head()) }
    }

    /// Whether the strides nest: each reaches over all that the smaller ones span, so
    /// that no two elements lie at one place.
    fn nests(self) -> bool {
        if self.sizes.contains(&0) {
            return true;
        }
        let mut axes = [0, 1, 2].map(|i| match (self.sizes.get(i), self.strides.get(i)) {
            (Some(&size), Some(&stride)) => (stride, size),
            _ => (0, 1),
        });
        axes.sort_unstable();
        let mut span = 1; // cannot overflow: all of it lies in one buffer
        axes.into_iter().filter(|&(_, size)| size > 1).all(|(stride, size)| {
            let is_disjoint = stride >= span;
            span += (size - 1) * stride;
            is_disjoint
        })
    }
}

/// What both views can say of their shape.
macro_rules! heads_getters {
    () => {
        /// How many heads.
        #[inline]
        pub const fn heads(&self) -> usize {
            self.heads
        }

        /// How many rows a head has: tokens.
        #[inline]
        pub const fn rows(&self) -> usize {
            self.first.rows()
        }

        /// How many columns a head has: dim, or the width of the values.
        #[inline]
        pub const fn cols(&self) -> usize {
            self.first.cols()
        }

        /// How many floats lie from one head to the next.
        #[inline]
        pub const fn head_stride(&self) -> usize {
            self.stride
        }
    };
}

impl<'a> HeadsRef<'a> {
    /// `[tokens][heads][dim]`: the heads of a token lie side by side.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] when `data` is shorter than that.
    pub fn interleaved(
        data: &'a [f32],
        heads: usize,
        tokens: usize,
        dim: usize,
    ) -> Result<Self, Error> {
        Self::checked(data, HeadsLayout::interleaved(heads, tokens, dim)?).map_err(|_| Error::Shape)
    }

    /// `[heads][tokens][dim]`: one head behind the other.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] when `data` is shorter than that.
    pub fn stacked(
        data: &'a [f32],
        heads: usize,
        tokens: usize,
        dim: usize,
    ) -> Result<Self, Error> {
        Self::checked(data, HeadsLayout::stacked(heads, tokens, dim)?).map_err(|_| Error::Shape)
    }

    /// Element `(h, r, c)` is `data[h * strides[0] + r * strides[1] + c * strides[2]]`, of
    /// `sizes[0]` heads, `sizes[1]` rows and `sizes[2]` columns.
    ///
    /// # Errors
    ///
    /// [`Error::Stride`] when an element would lie outside `data`.
    pub fn with_strides(
        data: &'a [f32],
        sizes: [usize; 3],
        strides: [usize; 3],
    ) -> Result<Self, Error> {
        Self::checked(data, HeadsLayout { sizes, strides })
    }

    /// Element `(h, r, c)` lies `h * strides[0] + r * strides[1] + c * strides[2]` floats behind
    /// `data`: [`with_strides`](Self::with_strides) for heads that no slice may cover.
    ///
    /// # Errors
    ///
    /// [`Error::Stride`] when the elements span more than one object can hold. Whether they lie
    /// in one is for the caller to know.
    ///
    /// # Safety
    ///
    /// As [`MatrixRef::from_raw_parts`].
    pub unsafe fn from_raw_parts(
        data: *const f32,
        sizes: [usize; 3],
        strides: [usize; 3],
    ) -> Result<Self, Error> {
        let heads_layout = HeadsLayout { sizes, strides };
        let first = if heads_layout.required_len()? == 0 { core::ptr::dangling() } else { data };
        let [heads, stride] = [sizes[0], strides[0]];
        let (layout, borrow) = (heads_layout.head(), core::marker::PhantomData);
        Ok(Self { first: MatrixRef { first, layout, borrow }, heads, stride })
    }

    fn checked(data: &'a [f32], heads_layout: HeadsLayout) -> Result<Self, Error> {
        let layout = heads_layout.head_in(data.len())?;
        let [heads, stride] = [heads_layout.sizes[0], heads_layout.strides[0]];
        let first = MatrixRef { first: data.as_ptr(), layout, borrow: core::marker::PhantomData };
        Ok(Self { first, heads, stride })
    }

    heads_getters!();

    /// Head `head`, or `None` behind the last.
    #[inline]
    pub fn head(&self, head: usize) -> Option<MatrixRef<'a>> {
        let offset = head.wrapping_mul(self.stride);
        let first = self.first.first.wrapping_add(offset);
        (head < self.heads).then_some(MatrixRef { first, ..self.first })
    }

    /// The first `at` heads, and the others.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] when there are fewer than `at` heads.
    pub fn split_heads(self, at: usize) -> Result<(Self, Self), Error> {
        let rest = self.heads.checked_sub(at).ok_or(Error::Shape)?;
        let second = self.first.first.wrapping_add(at.wrapping_mul(self.stride));
        let other = MatrixRef { first: second, ..self.first };
        Ok((Self { heads: at, ..self }, Self { heads: rest, first: other, ..self }))
    }

    /// The first `at` rows of every head, and the others.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] when there are fewer than `at` rows.
    pub fn split_rows(self, at: usize) -> Result<(Self, Self), Error> {
        let (above, below) = self.first.split_rows(at)?;
        Ok((Self { first: above, ..self }, Self { first: below, ..self }))
    }
}

impl<'a> HeadsMut<'a> {
    /// `[tokens][heads][dim]`: the heads of a token lie side by side.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] when `data` is shorter than that.
    pub fn interleaved(
        data: &'a mut [f32],
        heads: usize,
        tokens: usize,
        dim: usize,
    ) -> Result<Self, Error> {
        Self::checked(data, HeadsLayout::interleaved(heads, tokens, dim)?).map_err(|_| Error::Shape)
    }

    /// `[heads][tokens][dim]`: one head behind the other.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] when `data` is shorter than that.
    pub fn stacked(
        data: &'a mut [f32],
        heads: usize,
        tokens: usize,
        dim: usize,
    ) -> Result<Self, Error> {
        Self::checked(data, HeadsLayout::stacked(heads, tokens, dim)?).map_err(|_| Error::Shape)
    }

    /// Element `(h, r, c)` is `data[h * strides[0] + r * strides[1] + c * strides[2]]`, of
    /// `sizes[0]` heads, `sizes[1]` rows and `sizes[2]` columns.
    ///
    /// # Errors
    ///
    /// [`Error::Stride`] when an element would lie outside `data`; [`Error::Alias`] when the
    /// strides do not nest: in some order of the three, each must reach over all
    /// that the ones before it span.
    pub fn with_strides(
        data: &'a mut [f32],
        sizes: [usize; 3],
        strides: [usize; 3],
    ) -> Result<Self, Error> {
        Self::checked(data, HeadsLayout { sizes, strides })
    }

    /// Element `(h, r, c)` lies `h * strides[0] + r * strides[1] + c * strides[2]` floats behind
    /// `data`: [`with_strides`](Self::with_strides) for heads that no slice may cover.
    ///
    /// # Errors
    ///
    /// [`Error::Stride`] when the elements span more than one object can hold; [`Error::Alias`]
    /// when the strides do not nest, as in [`with_strides`](Self::with_strides).
    ///
    /// # Safety
    ///
    /// As [`MatrixMut::from_raw_parts`].
    pub unsafe fn from_raw_parts(
        data: *mut f32,
        sizes: [usize; 3],
        strides: [usize; 3],
    ) -> Result<Self, Error> {
        let heads_layout = HeadsLayout { sizes, strides };
        let first =
            if heads_layout.required_len()? == 0 { core::ptr::dangling_mut() } else { data };
        if !heads_layout.nests() {
            return Err(Error::Alias);
        }
        let [heads, stride] = [sizes[0], strides[0]];
        let (layout, borrow) = (heads_layout.head(), core::marker::PhantomData);
        Ok(Self { first: MatrixMut { first, layout, borrow }, heads, stride })
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

    /// Head `head`, borrowed for a while, or `None` behind the last.
    #[inline]
    pub fn head_mut(&mut self, head: usize) -> Option<MatrixMut<'_>> {
        let first = self.first.first.wrapping_add(head.wrapping_mul(self.stride));
        (head < self.heads).then_some(MatrixMut { first, ..self.first })
    }

    /// The same elements, for reading.
    #[inline]
    pub fn view(&self) -> HeadsRef<'_> {
        HeadsRef { first: self.first.view(), heads: self.heads, stride: self.stride }
    }

    /// The same elements, borrowed from this view for a while.
    #[inline]
    pub fn view_mut(&mut self) -> HeadsMut<'_> {
        let Self { heads, stride, .. } = *self;
        HeadsMut { first: self.first.view_mut(), heads, stride }
    }

    /// The first `at` heads, and the others: two views that can go to two threads.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] when there are fewer than `at` heads.
    pub fn split_heads(self, at: usize) -> Result<(Self, Self), Error> {
        let rest = self.heads.checked_sub(at).ok_or(Error::Shape)?;
        let second = self.first.first.wrapping_add(at.wrapping_mul(self.stride));
        let other = MatrixMut { first: second, ..self.first };
        Ok((Self { heads: at, ..self }, Self { heads: rest, first: other, ..self }))
    }

    /// The first `at` rows of every head, and the others: two views that can go to two threads.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] when there are fewer than `at` rows.
    pub fn split_rows(self, at: usize) -> Result<(Self, Self), Error> {
        let (above, below) = self.first.split_rows(at)?;
        let Self { heads, stride, .. } = self;
        Ok((Self { first: above, heads, stride }, Self { first: below, heads, stride }))
    }
}

impl<'a> MatrixRef<'a> {
    /// The columns as `heads` heads side by side, as a projection of all heads gives them:
    /// `[tokens][heads · dim]`.
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
    /// [`Error::Shape`] when the columns are no multiple of `heads`.
    pub fn heads(self, heads: usize) -> Result<HeadsRef<'a>, Error> {
        let (layout, stride) = self.layout.head_of(heads)?;
        Ok(HeadsRef { first: Self { layout, ..self }, heads, stride })
    }
}

impl<'a> MatrixMut<'a> {
    /// The columns as `heads` heads side by side: see [`MatrixRef::heads`].
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] when the columns are no multiple of `heads`.
    pub fn heads(self, heads: usize) -> Result<HeadsMut<'a>, Error> {
        let (layout, stride) = self.layout.head_of(heads)?;
        Ok(HeadsMut { first: Self { layout, ..self }, heads, stride })
    }
}

impl Layout {
    /// One of `heads` heads that lie side by side in the columns, and the stride to the next.
    fn head_of(self, heads: usize) -> Result<(Self, usize), Error> {
        match (self.cols.checked_rem(heads), self.cols.checked_div(heads)) {
            // Does not overflow where there is an element.
            (Some(0), Some(cols)) => {
                Ok((Self { cols, ..self }, cols.wrapping_mul(self.col_stride)))
            }
            _ => Err(Error::Shape),
        }
    }
}

impl<'a> From<MatrixRef<'a>> for HeadsRef<'a> {
    fn from(matrix: MatrixRef<'a>) -> Self {
        Self { first: matrix, heads: 1, stride: 0 }
    }
}

impl<'a> From<MatrixMut<'a>> for HeadsMut<'a> {
    fn from(matrix: MatrixMut<'a>) -> Self {
        Self { first: matrix, heads: 1, stride: 0 }
    }
}
