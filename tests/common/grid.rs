//! Matrices of the tests' own: dense ones, and ones that lie anywhere in a
//! buffer whose other floats are guarded.

use sdpa::{MatrixMut, MatrixRef};

use super::cases::{Kind, Layout, Rng};

/// A dense matrix, row after row.
#[derive(Clone, Debug)]
pub(crate) struct Grid<T = f32> {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) data: Vec<T>,
}

impl<T: Copy> Grid<T> {
    pub(crate) fn from_fn(rows: usize, cols: usize, mut f: impl FnMut(usize, usize) -> T) -> Self {
        let data = (0..rows * cols).map(|i| f(i / cols, i % cols)).collect();
        Self { rows, cols, data }
    }

    pub(crate) fn at(&self, row: usize, col: usize) -> T {
        self.data[row * self.cols + col]
    }

    pub(crate) fn row(&self, row: usize) -> &[T] {
        &self.data[row * self.cols..][..self.cols]
    }

    pub(crate) fn column(&self, col: usize) -> Vec<T> {
        (0..self.rows).map(|row| self.at(row, col)).collect()
    }

    pub(crate) fn t(&self) -> Self {
        Self::from_fn(self.cols, self.rows, |row, col| self.at(col, row))
    }

    /// The first `cols` columns.
    pub(crate) fn first_columns(&self, cols: usize) -> Self {
        Self::from_fn(self.rows, cols, |row, col| self.at(row, col))
    }
}

impl Grid {
    pub(crate) fn zeros(rows: usize, cols: usize) -> Self {
        Self::from_fn(rows, cols, |_, _| 0.0)
    }

    pub(crate) fn random(rng: &mut Rng, kind: Kind, rows: usize, cols: usize) -> Self {
        let mut grid = Self::zeros(rows, cols);
        kind.fill(rng, &mut grid.data);
        grid
    }

    pub(crate) fn view(&self) -> MatrixRef<'_> {
        MatrixRef::new(&self.data, self.rows, self.cols).expect("dense")
    }

    pub(crate) fn view_mut(&mut self) -> MatrixMut<'_> {
        MatrixMut::new(&mut self.data, self.rows, self.cols).expect("dense")
    }
}

/// What lies where no element does: a NaN, so that reading it shows, of bits
/// that no operation makes, so that writing to it shows.
pub(crate) const CANARY: f32 = f32::from_bits(0x7fc5_a5a5);

/// A matrix that lies in a buffer as its layout says, among canaries.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    layout: Layout,
    buffer: Vec<f32>,
}

impl Held {
    /// An output: nothing but canaries.
    pub(crate) fn empty(layout: Layout) -> Self {
        Self { layout, buffer: vec![CANARY; layout.len] }
    }

    /// The elements of `grid`; those that share a place keep the last one's.
    pub(crate) fn of(grid: &Grid, layout: Layout) -> Self {
        let mut held = Self::empty(layout);
        for row in 0..layout.rows {
            for col in 0..layout.cols {
                held.buffer[layout.index(row, col)] = grid.at(row, col);
            }
        }
        held
    }

    /// An input that lies anyhow.
    pub(crate) fn random(rng: &mut Rng, kind: Kind, rows: usize, cols: usize) -> Self {
        let grid = Grid::random(rng, kind, rows, cols);
        Self::of(&grid, Layout::of_input(rng, rows, cols))
    }

    /// An output that lies anyhow, its elements apart.
    pub(crate) fn output(rng: &mut Rng, rows: usize, cols: usize) -> Self {
        Self::empty(Layout::of_output(rng, rows, cols))
    }

    pub(crate) fn grid(&self) -> Grid {
        let Layout { rows, cols, .. } = self.layout;
        Grid::from_fn(rows, cols, |row, col| self.buffer[self.layout.index(row, col)])
    }

    pub(crate) fn view(&self) -> MatrixRef<'_> {
        let Layout { rows, cols, start, row_stride, col_stride, .. } = self.layout;
        MatrixRef::with_strides(&self.buffer[start..], rows, cols, row_stride, col_stride)
            .expect("a layout that fits")
    }

    pub(crate) fn view_mut(&mut self) -> MatrixMut<'_> {
        let Layout { rows, cols, start, row_stride, col_stride, .. } = self.layout;
        MatrixMut::with_strides(&mut self.buffer[start..], rows, cols, row_stride, col_stride)
            .expect("a layout that fits and keeps elements apart")
    }

    /// The elements, after a look at every float that is none.
    #[track_caller]
    pub(crate) fn checked(&self, what: &str) -> Grid {
        let mut rest = self.buffer.clone();
        for row in 0..self.layout.rows {
            for col in 0..self.layout.cols {
                rest[self.layout.index(row, col)] = CANARY;
            }
        }
        assert!(is_untouched(&rest), "{what}: wrote outside its elements: {:?}", self.layout);
        self.grid()
    }
}

/// Whether nobody wrote here.
pub(crate) fn is_untouched(floats: &[f32]) -> bool {
    floats.iter().all(|x| x.to_bits() == CANARY.to_bits())
}
