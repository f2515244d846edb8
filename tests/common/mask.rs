//! The masks of the tests: one grid (keys × queries) for all heads, or one per head.

use sdpa::HeadsRef;

use super::grid::Grid;

#[derive(Clone, Debug)]
pub(crate) struct Mask<T = f32> {
    heads: usize,
    keys: usize,
    tokens: usize,
    /// Head after head.
    data: Vec<T>,
}

impl<T: Copy> From<Grid<T>> for Mask<T> {
    fn from(Grid { rows: keys, cols: tokens, data }: Grid<T>) -> Self {
        Self { heads: 1, keys, tokens, data }
    }
}

impl<T: Copy> Mask<T> {
    pub(crate) fn from_fn(heads: usize, mut f: impl FnMut(usize) -> Grid<T>) -> Self {
        let grids: Vec<Grid<T>> = (0..heads).map(&mut f).collect();
        let Grid { rows: keys, cols: tokens, .. } = grids[0];
        Self { heads, keys, tokens, data: grids.into_iter().flat_map(|grid| grid.data).collect() }
    }

    pub(crate) fn head(&self, head: usize) -> Grid<T> {
        let Self { heads, keys: rows, tokens: cols, ref data } = *self;
        let head = if heads == 1 { 0 } else { head };
        Grid { rows, cols, data: data[head * rows * cols..][..rows * cols].to_vec() }
    }

    /// An element of head 0.
    pub(crate) fn at(&self, key: usize, token: usize) -> T {
        self.data[..self.keys * self.tokens][key * self.tokens + token]
    }

    pub(crate) fn map<U: Copy>(&self, mut f: impl FnMut(Grid<T>) -> Grid<U>) -> Mask<U> {
        Mask::from_fn(self.heads, |head| f(self.head(head)))
    }

    /// The masks of a range of heads.
    pub(crate) fn heads(&self, heads: std::ops::Range<usize>) -> Self {
        Self::from_fn(heads.len(), |head| self.head(heads.start + head))
    }

    pub(crate) fn view(&self) -> HeadsRef<'_, T> {
        HeadsRef::stacked(&self.data, self.heads, self.keys, self.tokens).expect("dense")
    }
}
